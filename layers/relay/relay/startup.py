"""Start-up without the garbage collector; a function's first import.

Importing makes tens of thousands of objects and no garbage, which the collector goes through again
and again: a quarter of the start (docs/performance.md).
"""

import gc

gc.disable()


def ready() -> None:
    """Let the collector run from here on, past everything that the start has made."""
    gc.freeze()
    gc.enable()
