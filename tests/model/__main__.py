"""Search every interleaving for a broken promise: of a message, a broadcast, the calls at a door.

`make model` or `python -m tests.model [word …]`: a word picks the searches whose names contain it.
What is found is told as a story, a line for each step; then the command fails.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from typing import Any, NamedTuple

from tests.model import broadcasts, intake, lines
from tests.model.configurations import scopes
from tests.model.found import Found, told
from tests.model.search import search


class Search(NamedTuple):
    """A search to be made: `explore(configuration)`."""

    name: str
    explore: Callable[[Any], Found]
    configuration: Any


def searches() -> list[Search]:
    """Return all searches, the longest first, so that no core waits for another at the end."""
    found = [Search(f"message: {s.name}, {s.policy}", search, s) for s in scopes()]
    found += [
        Search(f"intake: {name}", intake.explore, configuration)
        for name, configuration in intake.CONFIGURATIONS.items()
    ]
    found += [
        Search(f"broadcast: {name}", broadcasts.explore, configuration)
        for name, configuration in broadcasts.CONFIGURATIONS.items()
    ]
    found += [
        Search(f"line: {name}", lines.explore, configuration)
        for name, configuration in lines.CONFIGURATIONS.items()
    ]
    return sorted(found, key=lambda s: s.name not in LONGEST)


LONGEST = {
    "message: redriven twice, hold",
    "message: redriven twice, resend",
    "message: redriven too late, hold",
    "message: redriven, late writes, resend",
    "message: letters refused, hold",
    "message: letters refused, resend",
    "message: hours, resend",
    "message: hours, redriven, hold",
    "intake: http, three at once",
    "broadcast: commands",
    "broadcast: counts and recounts",
}
"""The searches that take more than 25 seconds."""


def made(one: Search) -> tuple[str, Found]:
    """Make a search."""
    return one.name, one.explore(one.configuration)


def main(words: Sequence[str]) -> int:
    """Make the searches; 1 if any of them finds something, or there is none."""
    chosen = [s for s in searches() if not words or any(word in s.name for word in words)]
    everything: list[Found] = []
    with Pool(os.cpu_count(), initializer=logging.disable, maxtasksperchild=1) as pool:
        for name, found in pool.imap_unordered(made, chosen, chunksize=1):
            print(told(name, found), flush=True)
            everything.append(found)
    worlds, moves = sum(f.worlds for f in everything), sum(f.moves for f in everything)
    broken = sum(len(f.violations) for f in everything)
    print(f"{len(everything)} searches, {worlds:,} worlds, {moves:,} moves: {broken} violations")
    return 1 if broken or not everything else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
