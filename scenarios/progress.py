"""How far a run is, on one line of the terminal."""

import sys


def progress(line: str = "") -> None:
    """Replace the last line of progress, or clear it; print nothing where nobody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
