"""Broadcasts: one text to all of a bot's subscribers."""
