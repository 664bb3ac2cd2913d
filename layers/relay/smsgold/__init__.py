"""Talk to SMS Gold's Telegram-bot interface; see `client.Client`."""

__version__ = "0.1.0"
