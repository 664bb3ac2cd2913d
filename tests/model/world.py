"""A world with one message in it: the table, the queues, who is at work, and what is remembered.

Worlds are values: every step makes another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import NamedTuple

from relay.messages.envelope import OnUnknown
from relay.messages.states import State
from tests.model.records import NONE, NOTHING, Copy, Hour


class At(IntEnum):
    """Where a run is: what it does next."""

    LOAD = auto()
    DECIDE = auto()
    SEND = auto()
    SETTLE = auto()
    SETTLE_AGAIN = auto()
    TAKE_BACK = auto()
    BURY = auto()
    MARK = auto()


class Write(NamedTuple):
    """A step with the versions of the records before and after it.

    `after` is 0 until the step may have been made.
    """

    step: int = NOTHING
    before: int = 0
    after: int = 0


NO_WRITE = Write()


class Run(NamedTuple):
    """A run with its copy; `known` is the record as it last knew it, of this `version`."""

    at: At
    copy: Copy
    from_queue: bool = True
    known: int = NONE
    version: int = 0
    answer: int = 0
    """What the provider answered, to be settled."""
    write: Write = NO_WRITE
    """What is to be written again, as nobody knows whether it was."""
    lost: Write = NO_WRITE
    """The claim that is to be taken back, if it was made."""


class World(NamedTuple):
    """Everything there is, and what must be remembered to judge it."""

    record: int = NONE
    version: int = 0
    copies: tuple[Copy, ...] = ()
    letters: tuple[int, ...] = ()
    """The generations of the dead letters."""
    runs: tuple[Run, ...] = ()
    calls: int = 0
    """Calls of a door that have put the message on the queue, and are to write its record."""
    calls_left: int = 0
    late: tuple[Write, ...] = ()
    """Writes under way that nobody waits for any more."""
    status: str = ""
    """How the broadcast stands that the message belongs to."""
    overdue: bool = False
    hour: Hour = Hour.OPEN
    closings: int = 0
    """How often the hours will yet close in which the message may go."""
    accepted: bool = False
    """The queue has it, or had it: somebody may have been told that it is accepted."""
    kept: bool = False
    """The provider may have the message."""
    unnoted: bool = False
    """... by a POST whose doubt is in no record, and that no redrive followed."""
    tried: bool = False
    excused: tuple[int, ...] = ()
    """The claims of which nobody can know how they went: a POST was made, or the run has died."""
    buried: int = 0
    """The highest generation of which there was a letter."""
    by_hand: bool = False
    """A person said what became of it."""
    counts: tuple[tuple[State, int], ...] | None = None
    """What the broadcast counts of it; None if a count may have been lost, or none is kept."""
    wrong: str = ""


@dataclass(frozen=True)
class Scope:
    """What happens in a search, and how much of it."""

    name: str
    policy: OnUnknown
    start: World
    copies: int = 2
    runs: int = 2
    late: int = 0
    losses: bool = True
    """Writes may get lost, or their answers."""
    crashes: bool = True
    duplicates: bool = False
    generations: int = 0
    """How often the message is redriven."""
    twice: bool = False
    """A redrive may leave the letter where it is."""
    refusals: bool = False
    """The DeadLetter queue may refuse a letter, or not answer."""
    cancels: bool = False
    resolves: bool = False
    expires: bool = False
    deadline: bool = True
    moment: bool = False
    """The message has a moment before which it may not go."""
    hours: bool = False
    """The message has hours in which it may go."""
    waits: bool = False
    """A caller asks to wait: its call sends the message itself."""
    wears: bool = False
    """The queue may be about to give a copy up, for its age or its receives."""


def rank(run: Run) -> tuple[int, ...]:
    """Return what runs are sorted by: what they are called comes last."""
    steps = (run.known, run.answer, run.write.step, run.lost.step)
    return (run.at, *run.copy, run.from_queue, *steps, run.version, *run.write, *run.lost)


def held(world: World, runs: Sequence[Run], late: Sequence[Write]) -> list[int]:
    """Return the versions that anybody holds, in order."""
    found = [world.version]
    for run in runs:
        found += (run.version, *run.write[1:], *run.lost[1:])
    for write in late:
        found += write[1:]
    return found


def new_version(world: World) -> int:
    """Return a version that nobody holds."""
    return 1 + max(held(world, world.runs, world.late))


def excuse(world: World, claim: int) -> World:
    """Note that nobody can know how the claim of this version went."""
    if claim in world.excused:
        return world
    return world._replace(excused=(*world.excused, claim))


def with_run_at(world: World, i: int, run: Run) -> World:
    """Let a run go on."""
    return world._replace(runs=(*world.runs[:i], run, *world.runs[i + 1 :]))


def with_run(world: World, run: Run) -> World:
    """Let one more run be at work."""
    return world._replace(runs=(*world.runs, run))


def with_copy(world: World, copy: Copy) -> World:
    """Put a copy on the queue."""
    return world._replace(copies=tuple(sorted((*world.copies, copy))))
