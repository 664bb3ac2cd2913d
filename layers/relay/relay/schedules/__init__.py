"""Schedules: what may be asked for, and EventBridge Scheduler, which keeps them."""
