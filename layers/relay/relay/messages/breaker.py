"""The circuit breaker: when a failing provider is left alone, and when it is tried again."""

import threading
import time
from collections.abc import Callable


class Breaker:
    """Stops an environment from hammering a failing provider.

    After `threshold` failures in a row nothing is sent for `pause` seconds, then one message tries.
    Each further failure doubles the pause; the first success ends it. Thread-safe.
    """

    def __init__(
        self,
        *,
        threshold: int = 5,
        pause: float = 5.0,
        longest: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._threshold = threshold
        self._pause = pause
        self._longest = longest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._shut_until = 0.0

    def room(self) -> int | None:
        """Return how many messages are worth claiming now; None for any number."""
        with self._lock:
            if self._failures < self._threshold:
                return None
            return 1 if self._clock() >= self._shut_until else 0

    def admit(self) -> bool:
        """Return whether an exchange may begin; while the provider fails, one at a time may."""
        with self._lock:
            if self._failures < self._threshold:
                return True
            if self._clock() < self._shut_until:
                return False
            self._shut_until = self._clock() + self._pause
            return True

    def shut_until(self) -> float:
        """Return when the next exchange may begin."""
        with self._lock:
            return self._shut_until

    def record(self, *, failed: bool) -> None:
        """Record the outcome of an exchange."""
        with self._lock:
            if not failed:
                self._failures = 0
                return
            self._failures += 1
            if self._failures >= self._threshold:
                doublings = min(self._failures - self._threshold, 16)
                pause = min(self._pause * 2.0**doublings, self._longest)
                self._shut_until = self._clock() + pause
