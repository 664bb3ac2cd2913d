"""The records of one message, each kept once under a number, and what `states` makes of them.

Only what decides anything is kept apart: a time is to come, has passed or is the moment at which
the message may go, a message was tried or was not. So there are few records, and each function of
`states` is asked once for each.

Its version and its attempt's id, by which the table knows whether a record is still the one that a
step was decided on, are not part of a record here. Whoever holds a record holds one small number
for both, its version, that means nothing but "the same" or "another": each write makes a new one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum, auto
from typing import Literal, NamedTuple

from relay.messages import states
from relay.messages.envelope import OnUnknown, QueuedMessage
from relay.messages.states import Change, Record, Rules, State
from smsgold.responses import Outcome, Verdict

NOW = 1_800_000_000.0
EXPIRY = NOW + 10_000.0
LATER = EXPIRY + 10_000.0
"""The hour it is once a message's time is up; all other times are counted from the hour it is."""

DAY = 86_400.0
OPENING = NOW - 3_600.0
"""The moment at which a message may go that waits for one: at seven, the day of NOW."""

HOURS = {"from": "07:00", "to": "21:00", "timezone": "UTC"}

SOON = 60.0
RULES = Rules(retry_window=5_000.0)
PASSED, TO_COME, MOMENT = 0.0, 1.0, 2.0
"""When a time is: over, after a while, or the moment at which the message may go."""

NOTHING = -1
"""The number of no step."""

NONE = 0
"""The number of no record: a message that the table does not know."""


class Hour(IntEnum):
    """Whether the message may go by now."""

    OPEN = auto()
    SHUT = auto()
    NEARLY = auto()
    """Not yet, but so soon that a retry which waits for it is made: see `states.EARLY`."""


class Copy(NamedTuple):
    """A copy of the message on a queue."""

    generation: int = 0
    worn: bool = False
    """It was received so often, or is so old, that the queue will not keep it for much longer."""
    line: bool = False
    """It is on the Ordered queue, where those behind it wait for it."""


class Kind(IntEnum):
    """What a step is."""

    CLAIM = auto()
    POSTPONE = auto()
    FINISH = auto()
    STOP = auto()
    SETTLE = auto()
    RELEASE = auto()
    TAKE_BACK = auto()
    MARK = auto()
    CANCEL = auto()
    RESOLVE = auto()
    ACCEPT = auto()


class Step(NamedTuple):
    """A change of the record, by the numbers of the records before and after it."""

    kind: Kind
    before: int
    after: int
    doubt: bool
    """It adds to the record's count of ambiguous attempts."""
    tally: tuple[tuple[State, int], ...]
    """What it adds to the counts of its broadcast."""


class Todo(IntEnum):
    """What `decide` may say."""

    SEND = auto()
    POSTPONE = auto()
    FINISH = auto()
    DROP = auto()
    WAIT = auto()
    BURY = auto()


class Decision(NamedTuple):
    """What `decide` said, with its step's number; `stop` is that of a stopped broadcast."""

    todo: Todo
    step: int = 0
    stop: int = NOTHING


@dataclass(frozen=True)
class Answer:
    """What the provider does with a POST."""

    words: str
    kept: bool
    verdict: Verdict


ANSWERS = (
    Answer("takes it", True, Verdict(Outcome.ACCEPTED, "accepted", provider_id="p")),
    Answer("keeps it, but nobody hears so", True, Verdict(Outcome.UNKNOWN, "read_timeout")),
    Answer("is busy", False, Verdict(Outcome.NOT_SENT, "http_503")),
    Answer("refuses it", False, Verdict(Outcome.REFUSED, "http_400")),
)


class Book:
    """Numbers for the records and steps of one message, found by asking `states`."""

    def __init__(
        self,
        policy: OnUnknown,
        *,
        expires: bool = False,
        broadcast: bool = False,
        moment: bool = False,
        hours: bool = False,
    ) -> None:
        self.rules = replace(RULES, on_unknown=policy)
        self.records: list[Record | None] = [None]
        self.steps: list[Step] = []
        self._numbers: dict[Record, int] = {}
        self._step_numbers: dict[Step, int] = {}
        self._message = QueuedMessage(
            id="m",
            subscriberId="s",
            text="a text",
            sendAt=datetime.fromtimestamp(OPENING, UTC) if moment else None,
            between=HOURS if hours else None,
            expiresAt=datetime.fromtimestamp(EXPIRY, UTC) if expires else None,
            broadcast="b" if broadcast else "",
        )
        self._asked: dict[tuple[object, ...], int] = {}
        self._decisions: dict[tuple[int, Copy, bool, Hour], Decision] = {}

    def record(self, number: int) -> Record:
        """Return the record of a number."""
        record = self.records[number]
        assert record is not None
        return record

    # ------------------------------------------------------------------------ what states says

    def may_go(self, *, overdue: bool, hour: Hour) -> bool:
        """Return whether the message may be sent now."""
        now = _now(overdue, hour)
        return self._message.may_go_at(now) == now

    def decide(self, number: int, copy: Copy, *, overdue: bool, hour: Hour) -> Decision:
        """Return what `states` decides on a copy, given what the table knows."""
        key = (number, copy, overdue, hour)
        if (known := self._decisions.get(key)) is None:
            known = self._decisions[key] = self._decide(number, copy, overdue=overdue, hour=hour)
        return known

    def _decide(self, number: int, copy: Copy, *, overdue: bool, hour: Hour) -> Decision:
        now = _now(overdue, hour)
        message = self._message.model_copy(update={"generation": copy.generation})
        decision = states.decide(
            self._concrete(number, now) if number else None,
            message,
            door="sqs",
            sent_at=NOW if overdue and not message.broadcast else now,
            now=now,
            rules=self.rules,
            ends_by=now - SOON if copy.worn else math.inf,
        )
        match decision:
            case states.Send():
                change = states.claim(decision, attempt="new", now=now, lease=now + SOON)
                stop = NOTHING
                if message.broadcast and not decision.redriven:
                    ended = states.cancel_for_broadcast(decision, now)
                    stop = self._step(Kind.STOP, ended.change, now)
                return Decision(Todo.SEND, self._step(Kind.CLAIM, change, now), stop)
            case states.Finish(change):
                return Decision(Todo.FINISH, self._step(Kind.FINISH, change, now))
            case states.Drop():
                return Decision(Todo.DROP)
            case states.Wait():
                return Decision(Todo.WAIT)
            case states.WriteDeadLetter():
                return Decision(Todo.BURY)
            case states.Refuse(reason):
                raise AssertionError(reason)
            case states.Postpone(change):
                return Decision(Todo.POSTPONE, self._step(Kind.POSTPONE, change, now))

    def accept(self, *, overdue: bool, hour: Hour) -> int:
        """Return the step by which a door records that the message is accepted."""
        now = _now(overdue, hour)

        def step() -> Change:
            first = states.first_record(
                self._message, door="http", accepted_at=now, now=now, rules=self.rules
            )
            return Change(None, first)

        return self._ask(("accept", overdue, hour), Kind.ACCEPT, now, step)

    def settle(self, number: int, answer: int, *, overdue: bool, hour: Hour) -> int:
        """Return what follows from the provider's answer."""
        now = _now(overdue, hour)

        def step() -> Change:
            return states.settle(
                self._concrete(number, now),
                ANSWERS[answer].verdict,
                began=now,
                now=now,
                on_unknown=None,
                rules=self.rules,
                between=self._message.between,
            ).change

        return self._ask(("settle", number, answer, overdue, hour), Kind.SETTLE, now, step)

    def release(self, number: int, *, hour: Hour = Hour.OPEN) -> int:
        """Return the step that gives a claimed message back unsent; it may say when it may go."""
        now = _now(False, hour)

        def step() -> Change:
            goes = self._message.may_go_at(now)
            return states.release(self._concrete(number, now), now, not_before=goes)

        return self._ask(("release", number, hour), Kind.RELEASE, now, step)

    def take_back(self, lost: int, current: int, *, same: bool, claimed: bool) -> int | None:
        """Return the step that takes a claim back which may have been lost, if one is needed.

        `current` is the record there is: the `same` as before the claim, the `claimed` one, or
        another.
        """

        def step() -> Change | None:
            claim = self.steps[lost]
            before = replace(self._concrete(claim.before, NOW), version=1) if claim.before else None
            after = replace(
                self._concrete(claim.after, NOW), version=2 if before else 1, attempt="new"
            )
            now = None
            if current:
                version, attempt = (1, "kept") if same else (9, "another")
                now = replace(self._concrete(current, NOW), version=version, attempt=attempt)
            return states.take_back(Change(before, after), after if claimed else now, NOW)

        key = ("take back", lost, current, same, claimed)
        return self._ask_whether(key, Kind.TAKE_BACK, step)

    def mark(self, number: int) -> int:
        """Return the step that records that the letter lies on the queue."""
        return self._ask(
            ("mark", number),
            Kind.MARK,
            NOW,
            lambda: states.marked_dead_lettered(self._concrete(number, NOW)),
        )

    def cancel(self, number: int) -> int | None:
        """Return the step by which a person cancels the message, if it may be."""
        return self._ask_whether(
            ("cancel", number), Kind.CANCEL, lambda: states.cancel(self._concrete(number, NOW), NOW)
        )

    def resolve(self, number: int, state: Literal[State.SENT, State.FAILED]) -> int | None:
        """Return the step by which a person says what became of the message, if it may be."""
        return self._ask_whether(
            ("resolve", number, state),
            Kind.RESOLVE,
            lambda: states.resolve(self._concrete(number, NOW), state, NOW),
        )

    def _ask(
        self, key: tuple[object, ...], kind: Kind, now: float, step: Callable[[], Change]
    ) -> int:
        if (known := self._asked.get(key)) is None:
            known = self._asked[key] = self._step(kind, step(), now)
        return known

    def _ask_whether(
        self, key: tuple[object, ...], kind: Kind, step: Callable[[], Change | None]
    ) -> int | None:
        if (known := self._asked.get(key)) is None:
            change = step()
            known = self._asked[key] = self._step(kind, change, NOW) if change else NOTHING
        return None if known == NOTHING else known

    # ----------------------------------------------------------------------------------- times

    def lease_over(self, number: int) -> int:
        """Return the record once its lease has ended, or its next try may be made."""
        return self._passed(number, "lease")

    def moment_over(self, number: int) -> int:
        """Return the record once the moment has come at which its message may go."""
        return self._passed(number, "moment")

    def deadline_over(self, number: int) -> int:
        """Return the record once its time is up."""
        return self._passed(number, "deadline")

    def _passed(self, number: int, name: str) -> int:
        if number == NONE:
            return NONE
        key = (name, number)
        if (known := self._asked.get(key)) is None:
            record = self.record(number)
            match name:
                case "deadline":
                    record = replace(record, deadline=PASSED)
                case "lease" if record.lease == TO_COME:
                    record = replace(record, lease=PASSED)
                case "moment" if record.lease == MOMENT:
                    record = replace(record, lease=PASSED)
            known = self._asked[key] = self._number(record)
        return known

    def step_later(self, number: int, over: Callable[[int], int]) -> int:
        """Return a step that was decided already, once time has passed."""
        step = self.steps[number]
        return self._step_number(step._replace(before=over(step.before), after=over(step.after)))

    # --------------------------------------------------------------------------------- numbers

    def _concrete(self, number: int, now: float) -> Record:
        record = self.record(number)
        leases = {PASSED: now - SOON, TO_COME: now + SOON, MOMENT: _opening(now)}
        return replace(
            record,
            lease=leases[record.lease],
            deadline=now + RULES.retry_window if record.deadline else now - SOON,
            accepted_at=now,
        )

    def _step(self, kind: Kind, change: Change, now: float) -> int:
        before, after = change.before, change.after
        doubt = before is not None and after.ambiguous > before.ambiguous
        return self._step_number(
            Step(
                kind,
                self._number(_abstract(before, now)) if before else NONE,
                self._number(_abstract(after, now)),
                doubt,
                tuple(sorted(states.tally(change).items())),
            )
        )

    def _number(self, record: Record) -> int:
        if (known := self._numbers.get(record)) is None:
            known = self._numbers[record] = len(self.records)
            self.records.append(record)
        return known

    def _step_number(self, step: Step) -> int:
        if (known := self._step_numbers.get(step)) is None:
            known = self._step_numbers[step] = len(self.steps)
            self.steps.append(step)
        return known


def _abstract(record: Record, now: float) -> Record:
    """Return what of a record decides anything."""
    lease = TO_COME if record.lease > now else PASSED
    if record.lease == _opening(now):
        lease = MOMENT
    return replace(
        record,
        version=1,
        attempt="kept",
        door="",
        accepted_at=0.0,
        updated_at=0.0,
        lease=lease,
        deadline=TO_COME if record.deadline > now else PASSED,
        tries=min(record.tries, 1),
        ambiguous=min(record.ambiguous, 1),
        reason="why" if record.reason else "",
        detail="",
        provider_id="",
        attempts=(),
        history=(),
    )


def _now(overdue: bool, hour: Hour) -> float:
    """Return what time it is; once the message's time is up, another day."""
    if hour is Hour.OPEN:
        return LATER if overdue else NOW
    opening = OPENING + DAY if overdue else OPENING
    return opening - states.EARLY / 2 if hour is Hour.NEARLY else opening - 3_600.0


def _opening(now: float) -> float:
    """Return the next moment at which a message may go that waits for one."""
    return OPENING if now < OPENING else OPENING + DAY
