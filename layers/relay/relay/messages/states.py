"""The states of a message and every step between them, decided without touching anything.

A `Record` is what the table knows of a message. A `Change` is one step from a record to its
successor; it can be made only along `STEPS`. Each step raises the record's version, and the store
writes it only if the record is still the one the step was decided on. Times are seconds since the
epoch.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from relay.messages.envelope import Content, OnUnknown, QueuedMessage, differ
from relay.messages.hours import Hours
from relay.messages.seals import claim_of
from smsgold.responses import Outcome, Verdict

KEPT_ATTEMPTS = 20
"""How many attempts and events a record remembers, the latest ones."""

EARLY = 1.0
"""Seconds before its time at which a retry is made all the same."""

LONGEST_LIFE = 13 * 86400.0
"""No deadline is later than this after acceptance: a queue forgets a message after 14 days."""

FURTHEST = 12 * 86400.0
"""No `sendAt` is later than this after acceptance: at least a day is left to try it in."""

TOO_FAR = (("sendAt",), "must be at most 12 days ahead; for a later time use POST /schedules")
"""The problem of one that is later: (where, what to change)."""

CLOCKS = 60.0
"""Seconds by which the clocks of two machines never differ."""

TRIES_IN_TIME_LEFT = 100
"""No fewer tries than this fit into the time left: about 800 over the longest life."""


class State(StrEnum):
    """Where a message stands."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


REDRIVABLE = frozenset({State.REJECTED, State.UNKNOWN, State.FAILED})
"""The states whose envelope lies on the DeadLetter queue; a redrive starts them again."""

TERMINAL = REDRIVABLE | {State.SENT, State.EXPIRED, State.CANCELED}

STEPS: Mapping[State | None, frozenset[State]] = {
    # None: a message the table has never seen.
    # Canceled at once: a stopped broadcast's message, which has no record before its turn comes.
    None: frozenset({State.QUEUED, State.SENDING, State.EXPIRED, State.FAILED, State.CANCELED}),
    # Queued again: found on a queue while its hours are over.
    State.QUEUED: frozenset(
        {State.QUEUED, State.SENDING, State.EXPIRED, State.FAILED, State.CANCELED}
    ),
    State.SENDING: TERMINAL - {State.CANCELED} | {State.QUEUED, State.SENDING},
    # Out of these three leads only a redrive; one that comes too late sends nothing.
    State.REJECTED: frozenset({State.SENDING, State.FAILED}),
    State.FAILED: frozenset({State.SENDING, State.FAILED, State.EXPIRED}),
    # An unknown message stays unknown there; a person who found out what became of it resolves it.
    State.UNKNOWN: frozenset({State.SENDING, State.UNKNOWN, State.FAILED, State.SENT}),
    State.SENT: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELED: frozenset(),
}


class DeadLetter(StrEnum):
    """Whether a record's envelope lies on the DeadLetter queue."""

    NONE = ""
    DUE = "due"
    WRITTEN = "written"


RESOLVED = "resolved as "
"""What the history says of a message that a person resolved, before the state."""

TOO_MANY_REQUESTS = 429
"""The status that asks for quiet, with the length of it in `Retry-After`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST to the provider."""

    at: float
    outcome: str
    reason: str = ""
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something other than an attempt that changed a record, such as a redrive."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Record:
    """What the table knows of a message: never its text, number or buttons."""

    id: str
    state: State
    fingerprint: str
    door: str
    accepted_at: float
    updated_at: float
    """The time of the last step, but for the one that only marks the dead letter: of a message that
    has ended, when it did."""
    deadline: float
    generation: int = 0
    version: int = 0
    """How often the record has been written; 0 while only release 0.1.0 wrote it, which did not
    count."""
    attempt: str = ""
    """The id of the last claim."""
    lease: float = 0.0
    """While sending: when the claim's owner can no longer be at work; while queued: when the next
    try may be made, whichever copy of the message comes first."""
    tries: int = 0
    ambiguous: int = 0
    """Attempts whose outcome nobody knows, made again by `resend` or by a redrive."""
    dead_letter: DeadLetter = DeadLetter.NONE
    reason: str = ""
    detail: str = ""
    reference: str = ""
    broadcast: str = ""
    expires_at: float | None = None
    provider_id: str = ""
    caller: str = ""
    """Who handed it in, as far as its door knows."""
    attempts: tuple[Attempt, ...] = ()
    history: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One step; `before` is None for a message's first record. See `step`."""

    before: Record | None
    after: Record

    def __post_init__(self) -> None:
        was = self.before.state if self.before else None
        if self.after.version != _next_version(self.before):
            raise ValueError("a step raises the version by one")
        if self.after.state not in STEPS[was] and not self._leaves_the_message_as_it_is:
            raise ValueError(f"no step leads from {was} to {self.after.state}")

    @property
    def _leaves_the_message_as_it_is(self) -> bool:
        """Whether only the version differs, and that the dead letter is written."""
        if self.before is None:
            return False
        same = replace(self.before, version=self.after.version)
        return self.after in (same, replace(same, dead_letter=DeadLetter.WRITTEN))


def step(before: Record | None, after: Record) -> Change:
    """Return the step from a record to what it becomes, with the version that belongs to it."""
    return Change(before, replace(after, version=_next_version(before)))


def _next_version(before: Record | None) -> int:
    return before.version + 1 if before else 1


@dataclass(frozen=True, slots=True)
class Rules:
    """The stack's settings that decide what happens to a message; durations in seconds."""

    on_unknown: OnUnknown = OnUnknown.HOLD
    retry_window: float = 21600.0
    backoff_min: float = 5.0
    backoff_max: float = 600.0


# ------------------------------------------------------------------ what to do with a message


@dataclass(frozen=True, slots=True)
class Send:
    """Claim the message and send it; `base` is the record to claim, `before` the stored one."""

    before: Record | None
    base: Record

    @property
    def redriven(self) -> bool:
        """Whether somebody ordered it again: whichever copy it was that came now."""
        return self.base.generation > 0


@dataclass(frozen=True, slots=True)
class Drop:
    """Take the message off the queue: it is finished already."""

    record: Record


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at `until`: another run is at work on the message, or its time has not come."""

    until: float
    record: Record


@dataclass(frozen=True, slots=True)
class Postpone:
    """Record when the message may go, since its time has not come; look again then."""

    change: Change


@dataclass(frozen=True, slots=True)
class Finish:
    """End the message without sending it."""

    change: Change


@dataclass(frozen=True, slots=True)
class WriteDeadLetter:
    """Put the finished message's envelope on the DeadLetter queue, which was not recorded yet."""

    record: Record


@dataclass(frozen=True, slots=True)
class Refuse:
    """Put the envelope on the DeadLetter queue: it is not what it says it is."""

    reason: str
    detail: str


Decision = Send | Drop | Wait | Postpone | Finish | WriteDeadLetter | Refuse


def first_record(
    message: QueuedMessage,
    *,
    door: str,
    accepted_at: float,
    now: float,
    rules: Rules,
    caller: str = "",
) -> Record:
    """Return the record of a message that is accepted now, by its door if by nobody known."""
    assert message.id is not None
    goes = message.may_go_at(now)
    return Record(
        id=message.id,
        state=State.QUEUED,
        fingerprint=message.fingerprint,
        door=door,
        accepted_at=accepted_at,
        updated_at=now,
        deadline=deadline(accepted_at, message, rules),
        generation=message.generation,
        version=_next_version(None),
        lease=goes if goes > now else 0.0,
        reference=message.reference or "",
        broadcast=message.broadcast,
        expires_at=message.expires_at.timestamp() if message.expires_at else None,
        caller=caller or (f"broadcast:{message.broadcast}" if message.broadcast else door),
    )


def decide(
    record: Record | None,
    message: QueuedMessage,
    *,
    door: str,
    sent_at: float,
    now: float,
    rules: Rules,
    held_for: float = 0.0,
    ends_by: float = math.inf,
    proven: bool = True,
) -> Decision:
    """Decide what to do with a message that came from a queue, given what the table knows.

    `held_for` is how long its broadcast was paused: time that does not count against it. `ends_by`
    is when it has to end because the queue will not keep this copy for much longer. `proven` says
    whether the relay itself wrote the envelope, as far as it claims to be its own.
    """
    if refusal := _refusal(record, message, sent_at, proven=proven):
        return refusal
    if record is None:
        fresh = first_record(message, door=door, accepted_at=sent_at, now=now, rules=rules)
        return _send_in_time(None, fresh, message, now, ends_by)
    if record.state in REDRIVABLE and message.generation > record.generation:
        return _redriven(record, message, now, rules, ends_by)
    if record.state in TERMINAL:
        return WriteDeadLetter(record) if record.dead_letter is DeadLetter.DUE else Drop(record)
    if message.generation < record.generation:
        ends_by = math.inf  # since the redrive there is a newer copy
    if record.state is State.QUEUED:
        # A copy that is a moment early, as whole seconds of a queue can make it, is on time.
        ends = min(record.deadline, ends_by)
        if record.lease - EARLY > now and now < ends:
            return Wait(min(record.lease, ends), record)
        later = _later_deadline(record, message, held_for, rules)
        return _send_in_time(record, later, message, now, ends_by)
    if record.lease > now:
        return Wait(record.lease, record)
    return _abandoned(record, message, now, rules, ends_by)


def _refusal(
    record: Record | None, message: QueuedMessage, sent_at: float, *, proven: bool
) -> Refuse | None:
    """Return the refusal of an envelope that belongs to another message, or that nobody sealed.

    Or of one whose time the queue does not reach, put there by a producer.
    """
    if record is None and is_too_far(message, sent_at + CLOCKS):
        (field_,), problem = TOO_FAR
        return Refuse("invalid", f"{field_}: {problem}")
    if record and differ(record.fingerprint, message.fingerprint):
        return Refuse("id_reused", "id: another message has it already; choose a new one")
    if proven or (record and _already_known(record, message)):
        return None
    return Refuse("not_sealed", f"{claim_of(message)}: only the relay sets it; leave it out")


def _already_known(record: Record, message: QueuedMessage) -> bool:
    """Return whether an envelope that nobody sealed says no more than its record does.

    Release 0.1.0 sealed nothing, its redrives of its own records included.
    """
    return message.generation <= record.generation or _buried_by_0_1_0(record)


def _buried_by_0_1_0(record: Record) -> bool:
    """Return whether this release has at most resolved a record since release 0.1.0 ended it."""
    resolved = bool(record.history) and record.history[-1].what.startswith(RESOLVED)
    return record.version == 0 or (record.version == 1 and resolved)


def claim(send: Send, *, attempt: str, now: float, lease: float) -> Change:
    """Return the step that takes a message for one attempt, before anything is sent.

    `lease` is when the run that takes it can no longer be at work.
    """
    return step(
        send.before,
        replace(
            send.base,
            state=State.SENDING,
            attempt=attempt,
            lease=lease,
            updated_at=now,
            dead_letter=DeadLetter.NONE,
            reason="",
            detail="",
        ),
    )


def release(record: Record, now: float, *, not_before: float = 0.0) -> Change:
    """Return the step that gives a claimed message back unsent, with no attempt counted."""
    lease = not_before if not_before > now else 0.0
    return step(record, replace(record, state=State.QUEUED, lease=lease, updated_at=now))


def take_back(lost: Change, current: Record | None, now: float) -> Change | None:
    """Return the step after which a claim that nobody will use is not there, and never will be.

    `lost` is the claim, to which the table gave no answer; `current` is the record as it is. None:
    the claim is not there, and cannot be made any more, since the record has changed.
    """
    before, claimed = lost.before, lost.after
    if current and (current.state, current.attempt) == (State.SENDING, claimed.attempt):
        return release(current, now)
    # The claim may still be under way: it must not find the record that it was decided on.
    if current is None:
        return None if before else step(None, release(claimed, now).after)
    if before and (current.version, current.attempt) == (before.version, before.attempt):
        return step(current, current)
    return None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt led to: the step to write, and the seconds until the next try, if any."""

    change: Change
    retry_in: float | None = field(default=None)


def settle(
    record: Record,
    verdict: Verdict,
    *,
    began: float,
    now: float,
    on_unknown: OnUnknown | None,
    rules: Rules,
    between: Hours | None = None,
    jitter: random.Random | None = None,
) -> Settlement:
    """Return what follows from an attempt's verdict."""
    attempt = Attempt(began, verdict.outcome, verdict.reason, round((now - began) * 1000))
    tried = replace(
        record,
        lease=0.0,
        updated_at=now,
        tries=record.tries + 1,
        attempts=(*record.attempts, attempt)[-KEPT_ATTEMPTS:],
        reason=verdict.reason,
        detail=verdict.detail,
    )
    match verdict.outcome:
        case Outcome.ACCEPTED:
            sent = replace(
                tried,
                state=State.SENT,
                reason="",
                detail="",
                provider_id=verdict.provider_id or "",
            )
            return Settlement(step(record, sent))
        case Outcome.REFUSED:
            return Settlement(step(record, _dead(tried, State.REJECTED)))
        case Outcome.UNKNOWN if (on_unknown or rules.on_unknown) is OnUnknown.HOLD:
            return Settlement(step(record, _dead(tried, State.UNKNOWN)))
        case Outcome.UNKNOWN:
            tried = replace(tried, ambiguous=tried.ambiguous + 1)
    if now >= record.deadline:
        return Settlement(step(record, _dead(tried, State.FAILED)))
    time_left = record.deadline - now
    wait = backoff(tried.tries, verdict.retry_after, rules, time_left=time_left, jitter=jitter)
    # The last try comes at the deadline, not after it.
    wait = max(1.0, min(wait, time_left - 1.0))
    if verdict.status == TOO_MANY_REQUESTS:
        # Not even the last try is made into a flood ban: it may make that longer.
        wait = max(wait, verdict.retry_after or 0.0)
    again_at = between.opens_at(now + wait) if between else now + wait
    retry_in = min(again_at - now, max(wait, time_left))
    return Settlement(step(record, replace(tried, state=State.QUEUED, lease=again_at)), retry_in)


def backoff(
    tries: int,
    retry_after: float | None,
    rules: Rules,
    *,
    time_left: float = 0.0,
    jitter: random.Random | None = None,
) -> float:
    """Return the seconds until the next try: exponential, full jitter, `Retry-After` obeyed.

    With more than 17 hours left it may be later than the rules' maximum: else a message would use
    up the thousand receives that a queue grants before its time is up.
    """
    longest = max(rules.backoff_max, time_left / TRIES_IN_TIME_LEFT)
    ceiling = min(longest, rules.backoff_min * 2.0 ** min(tries, 30))
    wait = (jitter or random).uniform(min(rules.backoff_min, ceiling), ceiling)
    return max(wait, min(retry_after or 0.0, rules.backoff_max))


def cancel(record: Record, now: float) -> Change | None:
    """Return the step that cancels a message, or None if it may have been sent already."""
    if record.state is not State.QUEUED or record.ambiguous:
        return None
    return step(
        record,
        replace(record, state=State.CANCELED, lease=0.0, reason="canceled", updated_at=now),
    )


def resolve(record: Record, state: Literal[State.SENT, State.FAILED], now: float) -> Change | None:
    """Return the step by which a person who found out ends an unknown message; None for others."""
    if record.state is not State.UNKNOWN:
        return None
    found_out = Event(now, f"{RESOLVED}{state}")
    resolved = replace(
        record,
        state=state,
        updated_at=now,
        history=(*record.history, found_out)[-KEPT_ATTEMPTS:],
    )
    if state is State.SENT:
        # Nothing is left to redrive; a letter that lies there already would be dropped: see decide.
        due = record.dead_letter is DeadLetter.DUE
        kept = DeadLetter.NONE if due else record.dead_letter
        resolved = replace(resolved, reason="", detail="", dead_letter=kept)
    return step(record, resolved)


def cancel_for_broadcast(send: Send, now: float) -> Finish:
    """Return the end of a message whose broadcast was stopped before it was sent."""
    ended = replace(send.base, lease=0.0, updated_at=now, reason="broadcast_stopped")
    # One that may have been sent is not simply canceled.
    state = State.FAILED if ended.ambiguous else State.CANCELED
    return Finish(
        step(
            send.before,
            _dead(ended, state) if state is State.FAILED else replace(ended, state=state),
        )
    )


def tally(change: Change) -> Counter[State]:
    """Return what a message's step adds to the counts of its broadcast, and takes away."""
    was = change.before.state if change.before else None
    now = change.after.state
    counts: Counter[State] = Counter()
    if was is not now:
        counts.update([now] if now in TERMINAL else [])
        counts.subtract([was] if was in TERMINAL and was else [])
    return counts


def marked_dead_lettered(record: Record) -> Change:
    """Return the step that records that the envelope lies on the DeadLetter queue."""
    return step(record, replace(record, dead_letter=DeadLetter.WRITTEN))


def is_too_far(message: Content, accepted_at: float) -> bool:
    """Return whether a message's time is later than a queue can hold it."""
    return message.send_at is not None and message.send_at.timestamp() > accepted_at + FURTHEST


def deadline(accepted_at: float, message: Content, rules: Rules, *, held_for: float = 0.0) -> float:
    """Return when the last try for a message may begin.

    The retry window starts when the message may first be sent, and only hours in which it may be
    sent count.
    """
    latest = accepted_at + LONGEST_LIFE
    if message.expires_at:
        return min(message.expires_at.timestamp(), latest)
    starts, window = message.may_go_at(accepted_at), rules.retry_window + held_for
    if message.between:
        return message.between.after(starts, window, before=latest)
    return min(starts + window, latest)


def _later_deadline(record: Record, message: Content, held_for: float, rules: Rules) -> Record:
    if not held_for or record.expires_at is not None or record.generation:
        return record
    later = deadline(record.accepted_at, message, rules, held_for=held_for)
    return replace(record, deadline=later)


def _dead(record: Record, state: State) -> Record:
    return replace(record, state=state, lease=0.0, dead_letter=DeadLetter.DUE)


def _send_in_time(
    before: Record | None, base: Record, message: Content, now: float, ends_by: float
) -> Decision:
    """Send a message unless it is too late for it, or too early."""
    ends = min(base.deadline, ends_by)
    if now < ends:
        if (goes := message.may_go_at(now)) > now:
            return _postponed(before, base, now, goes, ends)
        return Send(before, replace(base, deadline=ends))
    expired = base.expires_at is not None and now >= base.expires_at
    over = "retry_window_ended" if now >= base.deadline else "given_up"
    ended = replace(
        base,
        lease=0.0,
        updated_at=now,
        reason=base.reason or ("expired" if expired else over),
    )
    # A message that was tried ends as failed: only one that never was is surely nowhere.
    if expired and not base.tries:
        return Finish(step(before, replace(ended, state=State.EXPIRED)))
    return Finish(step(before, _dead(ended, State.FAILED)))


def _postponed(
    before: Record | None, base: Record, now: float, goes: float, ends: float
) -> Decision:
    """Wait until a message may go; have its record say so, once."""
    if before and (before.state in REDRIVABLE or before.lease == goes):
        # What has ended starts again when it goes, and not before.
        return Wait(min(goes, ends), before)
    waits = replace(base, state=State.QUEUED, lease=goes, deadline=ends, updated_at=now)
    return Postpone(step(before, waits))


def _redriven(
    record: Record, message: QueuedMessage, now: float, rules: Rules, ends_by: float
) -> Decision:
    """Decide on an order to try a dead message again."""
    again = replace(
        record,
        generation=message.generation,
        attempt=f"redrive-{message.generation}",
        deadline=deadline(now, message, rules),
        dead_letter=DeadLetter.NONE,
        history=(*record.history, Event(now, "redriven"))[-KEPT_ATTEMPTS:],
    )
    unknown = record.state is State.UNKNOWN
    if unknown and now >= min(again.deadline, ends_by):
        # Nothing is sent, so that its outcome is what it was: for a person to find out.
        return Finish(step(record, _dead(replace(again, updated_at=now), State.UNKNOWN)))
    base = replace(again, ambiguous=record.ambiguous + unknown, reason="", detail="")
    return _send_in_time(record, base, message, now, ends_by)


def _abandoned(
    record: Record, message: QueuedMessage, now: float, rules: Rules, ends_by: float
) -> Decision:
    """Decide on a message whose run stopped between claim and record: nobody knows its outcome."""
    attempt = Attempt(record.updated_at, Outcome.UNKNOWN, "abandoned")
    tried = replace(
        record,
        lease=0.0,
        updated_at=now,
        tries=record.tries + 1,
        attempts=(*record.attempts, attempt)[-KEPT_ATTEMPTS:],
        reason="abandoned",
        detail="the run that was sending it ended before it could record the outcome",
    )
    if (message.on_unknown or rules.on_unknown) is OnUnknown.HOLD:
        return Finish(step(record, _dead(tried, State.UNKNOWN)))
    doubtful = replace(tried, ambiguous=tried.ambiguous + 1)
    return _send_in_time(record, doubtful, message, now, ends_by)
