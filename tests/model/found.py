"""What a search came to, in numbers and in words."""

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

World = TypeVar("World", bound=Hashable)


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


def breadth_first(
    start: World,
    broken: Callable[[World], str],
    moves: Callable[[World], Iterable[tuple[str, World]]],
) -> Found:
    """Search all worlds that moves, in words, lead to; keep each broken promise's shortest story.

    Nothing follows a world in which a promise is broken.
    """
    began = perf_counter()
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    worlds = [start]
    violations: dict[str, tuple[str, ...]] = {}
    made = 0
    with no_garbage_collection():
        for world in worlds:
            if problem := broken(world):
                if problem not in violations:
                    violations[problem] = tuple(_story(came_from, world))
                continue
            for words, there in moves(world):
                made += 1
                if there not in came_from:
                    came_from[there] = (world, words)
                    worlds.append(there)
    return Found(len(worlds), made, perf_counter() - began, violations)


def _story(came_from: Mapping[World, tuple[World, str] | None], world: World) -> Iterator[str]:
    steps = []
    while step := came_from[world]:
        world, words = step
        steps.append(words)
    return reversed(steps)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for circles among millions of tuples that form none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
