"""What is promised: of every step, of every record, and of a message that is left alone."""

from collections import Counter

from relay.messages.states import REDRIVABLE, TERMINAL, DeadLetter, State
from tests.model.records import (
    MOMENT,
    PASSED,
    TO_COME,
    Book,
    Decision,
    Hour,
    Kind,
    Step,
    Todo,
)
from tests.model.world import World, Write, excuse

LEAST = {Hour.OPEN: PASSED, Hour.SHUT: MOMENT, Hour.NEARLY: TO_COME}
"""How long a message waits at least that is handed back; any retry outlasts the last second."""


def decided(book: Book, world: World, known: int, decision: Decision) -> str:
    """Return what is wrong with a decision on a message, of which a record is known."""
    match decision.todo:
        case Todo.SEND if world.hour is not Hour.OPEN:
            return "it is to be sent before it may go"
        case Todo.WAIT:
            waits = book.records[known]
            if waits and waits.state not in TERMINAL and not waits.lease:
                return "it waits, and its record does not say until when"
        case Todo.POSTPONE:
            step = book.steps[decision.step]
            if step.before == step.after:
                return "it is postponed again, to the same moment"
            waits = book.record(step.after)
        case _:
            return ""
    if waits and waits.state is State.QUEUED and not waits.deadline:
        return "its time is up, and yet it waits"
    return ""


def timely(book: Book, world: World, step: int) -> World:
    """Return the world with what is wrong with a step that hands the message back to its queue."""
    record = book.record(book.steps[step].after)
    if record.state is State.QUEUED and record.lease < LEAST[world.hour]:
        return world._replace(wrong="it may not go yet, and its record does not say until when")
    return world


def judged(book: Book, before: World, after: World, write: Write) -> World:
    """Return the world after a step, with what is to be remembered of it, and what is wrong."""
    step = book.steps[write.step]
    now = book.record(after.record)
    was = book.record(before.record) if before.record else None
    noted = step.doubt or (step.kind is Kind.CLAIM and was and now.generation > was.generation)
    ending = step.kind in (Kind.CLAIM, Kind.POSTPONE, Kind.FINISH, Kind.STOP)
    taken_over = ending and was and was.state is State.SENDING
    after = after._replace(
        unnoted=before.unnoted and not noted,
        by_hand=(before.by_hand and now.state in TERMINAL) or step.kind is Kind.RESOLVE,
        tried=before.tried or bool(taken_over),
    )
    if step.kind is Kind.TAKE_BACK and before.version in before.excused:
        after = excuse(after, after.version)
    if step.kind is Kind.RESOLVE and now.state is State.FAILED:
        # Whoever says so has looked.
        after = after._replace(kept=False, unnoted=False)
    wrong = before.wrong
    if taken_over and was and was.lease:
        wrong = "it is taken from its owner"
    elif taken_over and before.version not in before.excused:
        wrong = "nobody sent it, and yet its outcome counts as unknown"
    elif step.kind is Kind.CLAIM and was and was.state is State.QUEUED and was.lease:
        wrong = "a retry is brought forward"
    elif step.kind is Kind.STOP and was and was.generation:
        wrong = "the stop of its broadcast calls off a redrive"
    elif was and was.state in TERMINAL and was.state is not now.state:
        wrong = _restarted(step.kind, was.state, now.state, was.generation, now.generation)
    return after._replace(wrong=wrong or _untrue(book, after))


def _restarted(kind: Kind, was: State, now: State, before: int, after: int) -> str:
    if kind is Kind.RESOLVE:
        return "" if was is State.UNKNOWN else f"what was {was} is resolved"
    if was not in REDRIVABLE or after <= before:
        return f"what was {was} becomes {now}"
    if was is State.UNKNOWN and now is not State.SENDING:
        return f"a redrive that sends nothing turns unknown into {now}"
    return ""


def _untrue(book: Book, world: World) -> str:
    """Return what a record says that is not so."""
    record = book.record(world.record)
    match record.state:
        case State.SENT if not world.kept and not world.by_hand:
            return "it is sent, but the provider does not have it"
        case State.EXPIRED | State.CANCELED if world.kept:
            return f"it is {record.state}, but the provider may have it"
        case State.FAILED | State.REJECTED if world.unnoted and not world.by_hand:
            return f"it is {record.state}, but the provider may have it, and nothing says so"
    if record.tries and not world.tried:
        return "an attempt is counted that was none"
    if record.state in TERMINAL - {State.SENT} and not record.reason:
        return f"it is {record.state} without a reason"
    if record.state in TERMINAL and record.lease:
        return f"it is {record.state}, and yet it waits"
    if record.dead_letter is DeadLetter.WRITTEN and world.buried <= record.generation:
        return f"it is {record.state} and its letter counts as written, but never was"
    return ""


def left_alone(book: Book, world: World) -> str:
    """Return what is wrong with a world in which nothing happens any more."""
    if not world.record:
        return "it is accepted, and then lost" if world.accepted else ""
    record = book.record(world.record)
    if record.state not in TERMINAL:
        return f"it stays {record.state} for ever"
    if record.state in REDRIVABLE and record.generation + 1 not in world.letters:
        return f"it is {record.state} and there is no dead letter"
    if world.counts is not None and world.counts != ((record.state, 1),):
        return f"it is {record.state}, but its broadcast counts {dict(world.counts)}"
    return ""


def counted(world: World, step: Step) -> World:
    """Count a step that a run knows to have made."""
    if world.counts is None or not step.tally:
        return world
    counts = Counter(dict(world.counts))
    counts.update(dict(step.tally))
    return world._replace(counts=tuple(sorted((s, n) for s, n in counts.items() if n)))
