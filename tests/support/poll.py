"""Waiting for what other processes do: by looking, never by a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T | None], what: str, *, seconds: float = 60.0, every: float = 0.1
) -> T:
    """Return the first truthy thing that `look` sees; fail, naming it, if there is none in time."""
    ends = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > ends:
            raise AssertionError(f"after {seconds:g} s still no {what}")
        time.sleep(every)
    return seen
