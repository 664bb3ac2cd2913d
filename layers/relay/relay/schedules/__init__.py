"""Schedules, which EventBridge Scheduler keeps: nothing of them is in the Relay table."""
