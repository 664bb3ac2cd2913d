"""Heavy runs, each on a stack of its own."""
