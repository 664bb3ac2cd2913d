"""Broadcasts, decided without touching anything: statuses, and the steps between them.

The table keeps one item for each broadcast: the last command, how far it is enqueued, and counts of
what became of its messages. The subscribers' ids are kept beside it, in a snapshot that is taken
once. The text travels on the queues only. Times are seconds since the epoch.

Counts are made twice. Live ones are added up by the runs that send: they may fall behind, as when a
run is killed before it counts, and never run ahead. Final ones are made from the messages' records
once all have ended; only they complete a broadcast. A redrive or a resolution makes ended messages
start again, so it has the final counts made anew.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from relay.messages.envelope import MAX_ID, Content, ProviderId, QueuedMessage
from relay.messages.intake import scoped_id
from relay.messages.states import TERMINAL, State

LONGEST_PAUSE = 3 * 86400.0
"""Seconds of pause after which whoever meets a broadcast stops it. A message that is held back that
long is received about 500 times; its queue gives it up after 1,000."""

ENOUGH_TO_JUDGE = 20
"""Minimum outcomes before the refusal rate counts."""

COUNTED = sorted(TERMINAL)


class Broadcast(Content):
    """One text to all subscribers of a bot."""

    bot_id: ProviderId = Field(description="The bot whose subscribers get it.")


class QueuedBroadcast(Broadcast):
    """A broadcast as it lies on the notifier's queue."""

    kind: Literal["broadcast"] = "broadcast"
    """Tells it from the events moved back to that queue; version 0.1.0 did not write it."""
    id: Annotated[str, Field(min_length=1, max_length=MAX_ID)]

    def to_body(self) -> str:
        """Return the broadcast as a queue body."""
        content = {"kind": self.kind, **self.model_dump(mode="json", exclude_defaults=True)}
        # Escaped, so that the body has no character that SQS does not take.
        return json.dumps(content, separators=(",", ":"))


def queued_broadcast(broadcast: Broadcast, id_: str) -> QueuedBroadcast:
    """Return a broadcast as it goes on the queue, under its id."""
    fields = {name: getattr(broadcast, name) for name in Broadcast.model_fields}
    return QueuedBroadcast.model_construct(**fields, id=id_)


class Command(StrEnum):
    """The last command given to a broadcast; `fail` if its subscribers could not be listed."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"
    FAIL = "fail"


class Status(StrEnum):
    """Where a broadcast stands."""

    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Recount:
    """A count from the messages' records, chunk by chunk, and how far it has come."""

    asked_at: float = 0.0
    """When it was asked for; 0 for the first one, that every broadcast ends with."""
    chunks: int = 0
    """The chunks counted so far: every message in them has ended."""
    counts: Mapping[State, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BroadcastRecord:
    """What the table knows of a broadcast."""

    id: str
    bot_id: str
    fingerprint: str
    created_at: float
    command: Command = Command.RUN
    commanded_at: float = 0.0
    reason: str = ""
    detail: str = ""
    reference: str = ""
    paused_for: float = 0.0
    """Seconds spent in past pauses."""
    snapshot: str = ""
    """The name of the committed snapshot; empty until there is one."""
    started_at: float = 0.0
    total: int = 0
    duplicates: int = 0
    without_id: int = 0
    enqueued: int = 0
    halted: bool = False
    """Stopped, and nothing more will be enqueued."""
    counts: Mapping[State, int] = field(default_factory=dict)
    """Below zero where it was taken back that messages ended before the run that saw it counted."""
    counted_at: float = 0.0
    writes: int = 0
    """How many times the counts were written."""
    writer: str = ""
    """Who wrote them last, by a name for that one write."""
    recount: Recount = Recount()
    finished_at: float = 0.0
    """When the first recount found that all messages had ended."""
    final: bool = False
    """The counts were made from the records, and nobody has asked for another recount."""
    judged: tuple[int, int] = (0, 0)
    """Outcomes and refusals up to the last resume; the refusal rate is of those since."""

    @property
    def finished(self) -> int:
        """How many messages have ended."""
        return sum(self.counts.values())

    @property
    def shown(self) -> Mapping[State, int]:
        """The counts without the debts: none is below zero."""
        return {state: max(0, count) for state, count in self.counts.items()}

    @property
    def due(self) -> int:
        """How many messages there will be."""
        return self.enqueued if self.halted else self.total

    @property
    def awaits_snapshot(self) -> bool:
        """Return whether its subscribers are still to be listed."""
        return not self.snapshot and self.command in (Command.RUN, Command.PAUSE)

    def pause_so_far(self, now: float) -> float:
        """Return the seconds spent in pauses."""
        return self.paused_for + (now - self.commanded_at if self.command is Command.PAUSE else 0.0)

    @property
    def status(self) -> Status:
        """Where the broadcast stands. Only a write changes it, never time alone."""
        match self.command:
            case Command.FAIL:
                return Status.FAILED
            case Command.STOP:
                return Status.STOPPED
            case _ if self.finished_at:
                return Status.COMPLETED
            case Command.PAUSE:
                return Status.PAUSED
            case _:
                return Status.RUNNING if self.snapshot else Status.PREPARING

    @property
    def why(self) -> str:
        """Return the reason for its status, or ""."""
        return "" if self.status is Status.COMPLETED else self.reason


# --------------------------------------------------------------------------------- decisions


def first_record_of(broadcast: QueuedBroadcast, now: float) -> BroadcastRecord:
    """Return the record of a broadcast that is accepted now."""
    return BroadcastRecord(
        id=broadcast.id,
        bot_id=broadcast.bot_id,
        fingerprint=broadcast.fingerprint,
        created_at=now,
        commanded_at=now,
        reference=broadcast.reference or "",
    )


def paused(
    broadcast: BroadcastRecord, now: float, reason: str, detail: str = ""
) -> BroadcastRecord | None:
    """Return the broadcast paused, or None if it has ended or is paused already."""
    if broadcast.status not in (Status.PREPARING, Status.RUNNING):
        return None
    return replace(broadcast, command=Command.PAUSE, commanded_at=now, reason=reason, detail=detail)


def resumed(broadcast: BroadcastRecord, now: float) -> BroadcastRecord | None:
    """Return the broadcast running again, its refusals forgiven; None if it is not paused."""
    if broadcast.status is not Status.PAUSED:
        return None
    return replace(
        broadcast,
        command=Command.RUN,
        commanded_at=now,
        reason="",
        detail="",
        paused_for=broadcast.pause_so_far(now),
        judged=_outcomes(broadcast),
    )


def stopped(
    broadcast: BroadcastRecord, now: float, reason: str = "requested"
) -> BroadcastRecord | None:
    """Return the broadcast stopped for good, or None if it has ended."""
    if broadcast.status not in (Status.PREPARING, Status.RUNNING, Status.PAUSED):
        return None
    return replace(
        broadcast,
        command=Command.STOP,
        commanded_at=now,
        reason=reason,
        detail="",
        paused_for=broadcast.pause_so_far(now),
    )


def paused_too_long(broadcast: BroadcastRecord, now: float) -> BroadcastRecord | None:
    """Return the broadcast stopped because its pauses were too long, or None if they were not."""
    if broadcast.status is not Status.PAUSED or broadcast.pause_so_far(now) <= LONGEST_PAUSE:
        return None
    return stopped(broadcast, now, "paused_too_long")


def failed(broadcast: BroadcastRecord, now: float, reason: str, detail: str) -> BroadcastRecord:
    """Return the broadcast failed, before anything was enqueued."""
    return replace(broadcast, command=Command.FAIL, commanded_at=now, reason=reason, detail=detail)


def too_many_refusals(broadcast: BroadcastRecord, percent: float) -> str:
    """Return a sentence if too many messages were refused since the last resume, or "".

    `percent` is the share that is too many; 0 switches the check off.
    """
    outcomes, refusals = (
        count - before for count, before in zip(_outcomes(broadcast), broadcast.judged, strict=True)
    )
    if not percent or outcomes < ENOUGH_TO_JUDGE or refusals * 100 < percent * outcomes:
        return ""
    return f"{refusals} of {outcomes} messages were refused; the limit is {percent:g} %"


def _outcomes(broadcast: BroadcastRecord) -> tuple[int, int]:
    counts = broadcast.shown
    rejected = counts.get(State.REJECTED, 0)
    tried = (State.SENT, State.UNKNOWN, State.FAILED)
    return rejected + sum(counts.get(state, 0) for state in tried), rejected


def hold_for(broadcast: BroadcastRecord, now: float) -> float:
    """Return the seconds that a paused broadcast's message stays off the queue, at the most.

    A quarter of the pause so far, 10 s to 10 min: a short pause ends within seconds for all of
    them, a long one costs little.
    """
    return min(600.0, max(10.0, (now - broadcast.commanded_at) / 4))


def eta(broadcast: BroadcastRecord, rate: float, now: float) -> float | None:
    """Return when the last message goes out at the account's rate (per second), if known."""
    if broadcast.status is not Status.RUNNING or not rate:
        return None
    return now + (broadcast.total - broadcast.finished) / rate


def recipients(entries: Iterable[Mapping[str, object]]) -> tuple[list[str], int, int]:
    """Return the subscribers' ids, each once; how many entries repeat one; how many have none."""
    ids: dict[str, None] = {}
    duplicates = without_id = 0
    for entry in entries:
        id_ = entry.get("id")
        if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID:
            without_id += 1
        elif id_ in ids:
            duplicates += 1
        else:
            ids[id_] = None
    return list(ids), duplicates, without_id


def recount_order(id_: str) -> str:
    """Return the body that asks the notifier for a recount of a broadcast."""
    return json.dumps({"kind": "recount", "id": id_}, separators=(",", ":"))


def message_id(broadcast_id: str, subscriber_id: str) -> str:
    """Return the id of a broadcast's message to one subscriber."""
    return scoped_id("broadcast", broadcast_id, subscriber_id)


def message_for(broadcast: QueuedBroadcast, subscriber_id: str, message_id: str) -> QueuedMessage:
    """Return one subscriber's message."""
    fields = {name: getattr(broadcast, name) for name in Content.model_fields}
    return QueuedMessage.model_construct(
        **fields, subscriber_id=subscriber_id, id=message_id, broadcast=broadcast.id
    )
