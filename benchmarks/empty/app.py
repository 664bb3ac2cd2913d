"""A function that does nothing: what the runtime itself takes to start."""


def handler(_event: object, _context: object) -> None:
    """Do nothing."""
