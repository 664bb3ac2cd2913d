"""The stack on your own machine."""
