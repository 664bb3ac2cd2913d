"""Inbound webhooks: verified, rendered, accepted."""
