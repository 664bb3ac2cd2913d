"""Starts a function without the garbage collector; import this first.

Imports create tens of thousands of objects and no garbage, yet the collector scans them again and
again: a quarter of the start-up time (docs/performance.md).
"""

import gc

gc.disable()


def ready() -> None:
    """Let the collector run from here on, without what start-up has created."""
    gc.freeze()
    gc.enable()
