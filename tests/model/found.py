"""What a search came to, in numbers and in words."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """What a search came to: each broken promise with its story, a line for each step."""

    worlds: int
    moves: int
    seconds: float
    violations: Mapping[str, tuple[str, ...]]


def told(name: str, found: Found) -> str:
    """Return what a search came to, in words."""
    counts = f"{found.worlds:10,} worlds {found.moves:11,} moves {found.seconds:7.1f} s"
    lines = [f"{name:42} {counts}"]
    for problem, story in found.violations.items():
        lines += ["", f"  BROKEN: {problem}"]
        lines += [f"    {n:2}. {line}" for n, line in enumerate(story, 1)]
    return "\n".join([*lines, ""] if found.violations else lines)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for circles among millions of tuples that form none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
