"""Webhooks of other systems: verified, rendered, accepted."""
