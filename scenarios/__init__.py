"""Heavy runs on a stack of their own: `python -m scenarios NAME`."""
