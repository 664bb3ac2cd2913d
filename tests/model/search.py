"""Breadth first through all worlds that can come about; each kind of wrong one has its story told.

Two worlds are one if they differ only in which run is which, or in what the attempts are called.
Every world is also left alone: with nothing going wrong any more it comes to rest, and is judged
there. What it comes to first is a world of the same search, so each is judged once.
"""

from array import array
from itertools import pairwise
from time import perf_counter

from tests.model.found import Found, no_garbage_collection
from tests.model.life import Life, Move
from tests.model.promises import left_alone
from tests.model.world import Scope, World

NOTHING = 2**32 - 1
NAMES = "ABCDEFGH"


def search(scope: Scope) -> Found:
    """Search all worlds of a scope; tell the shortest story of each kind of wrong."""
    began = perf_counter()
    life = Life(scope)
    start = life.same(scope.start)
    numbers = {start: 0}
    worlds = [start]
    came_from = array("I", [NOTHING])
    left_to = array("I")
    wrong: dict[str, int] = {}
    moves = 0
    with no_garbage_collection():
        for here, world in enumerate(worlds):
            nexts: list[Move] = []
            goes_on = False
            if not world.wrong:
                try:
                    nexts, goes_on = life.moves(world)
                except ValueError as error:
                    wrong.setdefault(str(error), here)
            moves += len(nexts)
            left_to.append(NOTHING)
            for i, move in enumerate(nexts):
                there = move.world
                if (number := numbers.get(there)) is None:
                    there = life.same(there)
                    number = numbers.setdefault(there, len(worlds))
                if number == len(worlds):
                    worlds.append(there)
                    came_from.append(here)
                    if there.wrong:
                        wrong.setdefault(there.wrong, number)
                if i == 0 and goes_on:
                    left_to[here] = number
            if not goes_on and not world.wrong and (problem := left_alone(life.book, world)):
                wrong.setdefault(problem, here)
    if (endless := _endless(left_to)) is not None:
        wrong["left alone, it never comes to rest"] = endless
    violations = {
        what: tuple(_story(life, worlds, came_from, number)) for what, number in wrong.items()
    }
    return Found(len(worlds), moves, perf_counter() - began, violations)


def _endless(left_to: "array[int]") -> int | None:
    """Return a world that, left alone, comes back to itself; None if there is none."""
    rests = bytearray(len(left_to))
    for start in range(len(left_to)):
        trail = []
        here = start
        while here != NOTHING and not rests[here]:
            rests[here] = 1
            trail.append(here)
            here = left_to[here]
        if here != NOTHING and rests[here] == 1:
            return here
        for passed in trail:
            rests[passed] = 2
    return None


def _story(life: Life, worlds: list[World], came_from: "array[int]", number: int) -> list[str]:
    """Tell how a world came about; a run keeps its letter from its first line to its last."""
    trail = [number]
    while came_from[trail[-1]] != NOTHING:
        trail.append(came_from[trail[-1]])
    trail.reverse()
    lines: list[str] = []
    names: list[str] = []
    used = 0
    for here, there in pairwise(trail):
        move = next(m for m in life.moves(worlds[here])[0] if life.same(m.world) == worlds[there])
        before, after = len(worlds[here].runs), len(move.world.runs)
        words = move.words
        if move.run >= 0:
            words = words.format(run=f"run {names[move.run]}")
        if after > before:
            names.append(NAMES[used % len(NAMES)])
            used += 1
            words = words.format(new=f"run {names[-1]}")
        elif after < before:
            names.pop(move.run)
        names = [names[i] for i in life.order(move.world)[0]]
        lines.append(words.replace("{new}", "a run"))  # it has ended at once
    return lines
