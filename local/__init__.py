"""The whole stack on your own machine."""
