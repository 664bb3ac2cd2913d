"""A client for SMS Gold's Telegram-bot API; see `client.Client`."""

__version__ = "0.2.0"
