"""Less than a whole processor for a process, as Lambda gives a function by its memory size."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD = 0.02
"""Seconds in which a share is to be kept; what is not used in one is not carried over."""

LOOK = 0.0005
"""Seconds between two looks at what was used."""


@contextmanager
def throttled(pid: int, share: float) -> Iterator[None]:
    """Stop and continue a process so that it uses no more than this share of one processor."""
    ended = threading.Event()
    thread = threading.Thread(target=_throttle, args=(pid, share, ended), daemon=True)
    if share < 1:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if share < 1:
            thread.join()


def _throttle(pid: int, share: float, ended: threading.Event) -> None:
    clock = ~pid << 3 | 2  # Linux's clock of another process's CPU time
    begins, left = time.monotonic(), share * PERIOD
    used = time.clock_gettime(clock)
    while not ended.wait(LOOK):
        now, was = time.clock_gettime(clock), used
        used = now
        left -= now - was
        if left <= 0:
            os.kill(pid, signal.SIGSTOP)
            while left <= 0:
                begins += PERIOD
                left += share * PERIOD
            ended.wait(max(0.0, begins - time.monotonic()))
            os.kill(pid, signal.SIGCONT)
        elif time.monotonic() >= begins + PERIOD:
            begins, left = time.monotonic(), share * PERIOD
