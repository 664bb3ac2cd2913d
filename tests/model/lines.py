"""Every interleaving of the runs that work on one chat's line, over the real `one_by_one`.

The queue below it does what SQS documents of a FIFO queue: a receive takes the first messages of
the line, and none while one of them is hidden. A run delivers what `one_by_one` asks for, a claim
and a POST apart, and takes what is done off the queue, which may fail. Between any two of its steps
another run may go on; it may die at each, and what it has received may become visible meanwhile.

The promise: a message is sent at most once and only when all before it have ended, and what is left
alone comes to its end. `make model` searches everything, tests/unit/test_model_lines.py a part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from relay.messages.lines import one_by_one
from relay.messages.results import Done, Later, Result
from smsgold.responses import Outcome, Verdict
from tests.model.found import Found, breadth_first

SENT = Done(None, Verdict(Outcome.ACCEPTED, "accepted"))
OVER = Done(None)
STAYS = Later(1.0, "busy")

T = TypeVar("T")

WAITING, CLAIMED, ENDED = "waiting", "claimed", "ended"


class Run(NamedTuple):
    """A run with what it received; `done` is what it found out, by message, in this order."""

    batch: tuple[int, ...]
    done: tuple[tuple[int, Result], ...] = ()
    claimed: bool = False
    """It has claimed the message that it delivers now."""


class World(NamedTuple):
    """What there is of each message, and who works on them."""

    records: tuple[str, ...]
    queued: tuple[bool, ...]
    hidden: tuple[bool, ...]
    runs: tuple[Run, ...] = ()
    faults: int = 0
    wrong: str = ""


class Move(NamedTuple):
    """What may happen next, in words."""

    words: str
    world: World


@dataclass(frozen=True)
class Configuration:
    """How much may happen."""

    messages: int = 3
    most: int = 3
    """Messages in a receive."""
    runs: int = 2
    """Runs at work at the same time."""
    faults: int = 1
    """Messages that are not taken off the queue, and POSTs that the provider puts off."""


class Pause(BaseException):
    """The run has to know what comes of this message."""


CONFIGURATIONS: Mapping[str, Configuration] = {
    "three messages": Configuration(faults=3),
    "four messages, two at a time": Configuration(messages=4, most=2, faults=2),
    "three runs": Configuration(runs=3, faults=2),
}


def explore(configuration: Configuration) -> Found:
    """Search breadth first; keep the shortest story of each broken promise."""
    n = configuration.messages
    return breadth_first(
        World((WAITING,) * n, (True,) * n, (False,) * n, faults=configuration.faults),
        lambda world: world.wrong or _stuck(configuration, world),
        partial(_moves, configuration),
    )


def _moves(of: Configuration, world: World) -> Iterator[Move]:
    for i, is_hidden in enumerate(world.hidden):
        if is_hidden:
            yield Move(f"{i} becomes visible", world._replace(hidden=_set(world.hidden, i, False)))
    line = [i for i, queued in enumerate(world.queued) if queued]
    if len(world.runs) < of.runs and line and not any(world.hidden[i] for i in line):
        batch = tuple(line[: of.most])
        hidden = tuple(h or i in batch for i, h in enumerate(world.hidden))
        yield Move(
            f"a run receives {batch}",
            world._replace(hidden=hidden, runs=(*world.runs, Run(batch))),
        )
    for run in world.runs:
        rest = world._replace(runs=tuple(r for r in world.runs if r is not run))
        # What it claimed was sent, for all that anybody knows: the message is held.
        ended = [_next(run)] if run.claimed else []
        yield Move("a run dies", _end(rest, ended))
        yield from _go_on(world, rest, run)


def _go_on(world: World, rest: World, run: Run) -> Iterator[Move]:
    """Yield how a run may go on by one step."""
    match _asked(run):
        case int(i):
            yield from _delivered(world, rest, run, i)
        case results:
            off = [i for i, r in zip(run.batch, results, strict=True) if isinstance(r, Done)]
            queued = tuple(q and i not in off for i, q in enumerate(world.queued))
            shown = tuple(h and i not in off for i, h in enumerate(world.hidden))
            yield Move(f"a run takes off {off}", rest._replace(queued=queued, hidden=shown))
            if off and world.faults:
                yield Move("a run takes nothing off", rest._replace(faults=world.faults - 1))


def _delivered(world: World, rest: World, run: Run, i: int) -> Iterator[Move]:
    """Yield what may come of a message that a run delivers."""

    def known(result: Result, world: World) -> World:
        after = run._replace(done=(*run.done, (i, result)), claimed=False)
        return world._replace(runs=(*world.runs, after))

    if run.claimed:
        wrong = ""
        if any(record != ENDED for record in world.records[:i]):
            wrong = f"{i} is sent before one that was accepted earlier has ended"
        yield Move(f"{i} is sent", known(SENT, _end(rest, [i]))._replace(wrong=wrong))
        if world.faults:
            back = rest._replace(records=_set(world.records, i, WAITING), faults=world.faults - 1)
            yield Move(f"{i} is put off", known(STAYS, back))
    elif world.records[i] == ENDED:
        yield Move(f"{i} has ended already", known(OVER, rest))
    elif world.records[i] == CLAIMED:
        yield Move(f"{i} is another run's", known(STAYS, rest))
    else:
        claimed = rest._replace(records=_set(world.records, i, CLAIMED))
        after = run._replace(claimed=True)
        yield Move(f"{i} is claimed", claimed._replace(runs=(*rest.runs, after)))


def _asked(run: Run) -> int | list[Result]:
    """Return the message that a run has to deliver next, or the results that it comes to."""
    known = dict(run.done)
    asked: list[int] = []

    def deliver(heads: Sequence[int]) -> list[Result]:
        asked[:] = [i for i in heads if i not in known]
        if asked:
            raise Pause
        return [known[i] for i in heads]

    try:
        return one_by_one(run.batch, lambda _: "the line", deliver)
    except Pause:
        return asked[0]


def _next(run: Run) -> int:
    asked = _asked(run)
    assert isinstance(asked, int)
    return asked


def _end(world: World, ended: Sequence[int]) -> World:
    records = world.records
    for i in ended:
        records = _set(records, i, ENDED)
    return world._replace(records=records)


def _stuck(of: Configuration, world: World) -> str:
    """Return what is wrong with a world in which nothing can happen any more."""
    if any(not q and r != ENDED for q, r in zip(world.queued, world.records, strict=True)):
        return "a message leaves the queue that has not ended"
    if next(_moves(of, world), None) is None and any(r != ENDED for r in world.records):
        return "a message stays for ever"
    return ""


def _set(values: tuple[T, ...], i: int, value: T) -> tuple[T, ...]:
    return (*values[:i], value, *values[i + 1 :])
