"""Broadcasts: one text to all subscribers of a bot, as one item of the Relay table.

The item holds what was ordered, how far the enqueueing came, and counts of what became of the
messages; the subscribers' ids lie in chunks beside it, a snapshot taken once. What is said travels
on the queues alone. Times are seconds since the epoch.
"""

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from relay.messages.envelope import MAX_ID, Content, ProviderId, QueuedMessage
from relay.messages.states import TERMINAL, Change, State
from relay.messages.store import KEPT_DAYS, KEYS_PER_CALL, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

log = logging.getLogger(__name__)

CHUNK = 500
"""Subscribers enqueued between two savings of the place, and so the most that a crash repeats."""

LONGEST_PAUSE = 3 * 86400.0
"""After so much time in pause a broadcast counts as stopped. A held-back message is received about
500 times in it; after 1,000 times its queue would give it up."""

LOOK_AGAIN = 2.0
"""Seconds until a run looks again whether a broadcast was paused or stopped."""

ENOUGH_TO_JUDGE = 20
"""Outcomes without which a share of refusals says nothing."""

COUNTED = sorted(TERMINAL)


class Broadcast(Content):
    """A broadcast as it is ordered: one text to all subscribers of a bot."""

    bot_id: ProviderId = Field(description="The bot whose subscribers get it.")


class QueuedBroadcast(Broadcast):
    """A broadcast as it lies on the notifier's queue."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_ID)]

    def to_body(self) -> str:
        """Return the broadcast as a queue body."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        # Escaped, so that the body has no character that SQS does not take.
        return json.dumps(content, separators=(",", ":"))


def ordered(broadcast: Broadcast, id_: str) -> QueuedBroadcast:
    """Return a broadcast as it goes on the queue, under its id."""
    fields = {name: getattr(broadcast, name) for name in Broadcast.model_fields}
    return QueuedBroadcast.model_construct(**fields, id=id_)


class Command(StrEnum):
    """What was last ordered of a broadcast; `failed`: there is nobody it could be sent to."""

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
class BroadcastRecord:
    """What the table knows of a broadcast."""

    id: str
    bot_id: str
    fingerprint: str
    created_at: float
    order: Command = Command.RUN
    ordered_at: float = 0.0
    reason: str = ""
    detail: str = ""
    reference: str = ""
    paused_for: float = 0.0
    """Seconds spent in the pauses that have ended."""
    snapshot: str = ""
    """The name of the snapshot that counts; empty until one is taken."""
    started_at: float = 0.0
    total: int = 0
    duplicates: int = 0
    without_id: int = 0
    enqueued: int = 0
    halted: bool = False
    """Stopped, and nothing more of it will be enqueued."""
    counts: Mapping[State, int] = field(default_factory=dict)
    counted_at: float = 0.0
    writes: int = 0
    """How often the counts were written."""
    judged: tuple[int, int] = (0, 0)
    """Outcomes and refusals up to the last resumption, which the next judgement leaves out."""

    @property
    def finished(self) -> int:
        """How many messages have come to an end."""
        return sum(self.counts.values())

    @property
    def complete(self) -> bool:
        """Tell whether every message there is has come to an end and is counted."""
        return bool(self.snapshot) and self.finished >= self.due

    @property
    def due(self) -> int:
        """How many messages there are, or will be if nobody stops it."""
        return self.enqueued if self.order is Command.STOP else self.total

    def pause_so_far(self, now: float) -> float:
        """Return the seconds spent in pauses."""
        return self.paused_for + (now - self.ordered_at if self.order is Command.PAUSE else 0.0)

    def status(self, now: float) -> Status:
        """Return where the broadcast stands."""
        match self.order:
            case Command.FAIL:
                return Status.FAILED
            case Command.STOP:
                return Status.STOPPED
            case _ if self.complete:
                return Status.COMPLETED
            case Command.PAUSE if self.pause_so_far(now) > LONGEST_PAUSE:
                return Status.STOPPED
            case Command.PAUSE:
                return Status.PAUSED
            case _:
                return Status.RUNNING if self.snapshot else Status.PREPARING

    def why(self, now: float) -> str:
        """Return the reason for its status, if there is one to give."""
        if self.order is Command.PAUSE and self.status(now) is Status.STOPPED:
            return "paused_too_long"
        return "" if self.status(now) is Status.COMPLETED else self.reason


# --------------------------------------------------------------------------------- decisions


def first_record_of(broadcast: QueuedBroadcast, now: float) -> BroadcastRecord:
    """Return what the table knows of a broadcast that is accepted now."""
    return BroadcastRecord(
        id=broadcast.id,
        bot_id=broadcast.bot_id,
        fingerprint=broadcast.fingerprint,
        created_at=now,
        ordered_at=now,
        reference=broadcast.reference or "",
    )


def paused(
    broadcast: BroadcastRecord, now: float, reason: str, detail: str = ""
) -> BroadcastRecord | None:
    """Return the broadcast paused, or None if there is nothing to pause."""
    if broadcast.status(now) not in (Status.PREPARING, Status.RUNNING):
        return None
    return replace(broadcast, order=Command.PAUSE, ordered_at=now, reason=reason, detail=detail)


def resumed(broadcast: BroadcastRecord, now: float) -> BroadcastRecord | None:
    """Return the broadcast running again, its refusals so far forgiven, or None."""
    if broadcast.status(now) is not Status.PAUSED:
        return None
    return replace(
        broadcast,
        order=Command.RUN,
        ordered_at=now,
        reason="",
        detail="",
        paused_for=broadcast.pause_so_far(now),
        judged=_outcomes(broadcast),
    )


def stopped(
    broadcast: BroadcastRecord, now: float, reason: str = "requested"
) -> BroadcastRecord | None:
    """Return the broadcast stopped for good, or None if it has ended."""
    if broadcast.status(now) not in (Status.PREPARING, Status.RUNNING, Status.PAUSED):
        return None
    return replace(broadcast, order=Command.STOP, ordered_at=now, reason=reason, detail="")


def failed(broadcast: BroadcastRecord, now: float, reason: str, detail: str) -> BroadcastRecord:
    """Return the broadcast given up before anything was enqueued."""
    return replace(broadcast, order=Command.FAIL, ordered_at=now, reason=reason, detail=detail)


def too_many_refusals(broadcast: BroadcastRecord, percent: float) -> str:
    """Say how many of the messages since the last resumption were refused, if it is too many.

    `percent` is the share from which it is; 0 switches the judgement off.
    """
    outcomes, refusals = (
        count - before for count, before in zip(_outcomes(broadcast), broadcast.judged, strict=True)
    )
    if not percent or outcomes < ENOUGH_TO_JUDGE or refusals * 100 < percent * outcomes:
        return ""
    return f"{refusals} of {outcomes} messages were refused; the limit is {percent:g} %"


def _outcomes(broadcast: BroadcastRecord) -> tuple[int, int]:
    rejected = broadcast.counts.get(State.REJECTED, 0)
    tried = (State.SENT, State.UNKNOWN, State.FAILED)
    return rejected + sum(broadcast.counts.get(state, 0) for state in tried), rejected


def hold_for(broadcast: BroadcastRecord, now: float, jitter: random.Random | None = None) -> float:
    """Return the seconds that a paused broadcast's message stays off the queue.

    A quarter of the pause so far, 10 s to 10 min: a short pause ends within seconds for all of
    them, a long one costs little.
    """
    longest = min(600.0, max(10.0, (now - broadcast.ordered_at) / 4))
    return (jitter or random).uniform(0.75, 1.0) * longest


def tally(change: Change) -> Counter[State]:
    """Return what a message's step adds to the counts of its broadcast, and takes away."""
    was = change.before.state if change.before else None
    now = change.after.state if change.after else None
    counts: Counter[State] = Counter()
    if was is not now:
        counts.update([now] if now in TERMINAL and now else [])
        counts.subtract([was] if was in TERMINAL and was else [])
    return counts


def eta(broadcast: BroadcastRecord, rate: float, now: float) -> float | None:
    """Return when the last message goes out at the account's rate (a second), if that is known."""
    if broadcast.status(now) is not Status.RUNNING or not rate:
        return None
    return now + (broadcast.total - broadcast.finished) / rate


def recipients(entries: Iterable[Mapping[str, object]]) -> tuple[list[str], int, int]:
    """Return the subscribers' ids, each once, and how many entries repeat one or have none."""
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


def message_for(broadcast: QueuedBroadcast, subscriber_id: str, message_id: str) -> QueuedMessage:
    """Return one subscriber's message."""
    fields = {name: getattr(broadcast, name) for name in Content.model_fields}
    return QueuedMessage.model_construct(
        **fields, subscriber_id=subscriber_id, id=message_id, broadcast=broadcast.id
    )


# ----------------------------------------------------------------------------------- the table


class BroadcastTable:
    """The broadcasts' items in the Relay table."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def create(self, broadcast: BroadcastRecord) -> BroadcastRecord | None:
        """Write a broadcast's first item; return the one that is there already instead, if any."""
        try:
            self._call(
                "put_item",
                Item=_key(broadcast.id) | _attributes(broadcast),
                ConditionExpression="attribute_not_exists(pk)",
            )
        except _ConditionError:
            return self.load([broadcast.id]).get(broadcast.id)
        return None

    def delete(self, id_: str) -> None:
        """Take back a broadcast that nobody was told of."""
        self._call("delete_item", Key=_key(id_))

    def load(self, ids: Iterable[str]) -> dict[str, BroadcastRecord]:
        """Return the broadcasts there are, by id, as of now."""
        keys = [_key(id_) for id_ in dict.fromkeys(ids)]
        found = {}
        for start in range(0, len(keys), KEYS_PER_CALL):
            wanted: Any = keys[start : start + KEYS_PER_CALL]
            while wanted:
                answer = self._request(
                    "batch_get_item",
                    RequestItems={self._table: {"Keys": wanted, "ConsistentRead": True}},
                )
                for item in answer["Responses"].get(self._table, []):
                    broadcast = _progress(item)
                    found[broadcast.id] = broadcast
                wanted = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        return found

    def command(self, before: BroadcastRecord, after: BroadcastRecord) -> bool:
        """Write another order than the one there was; tell whether nobody else came in between."""
        judged = ("judgedOutcomes", "judgedRefusals")
        names = ("order", "orderedAt", "reason", "detail", "pausedFor", *judged)
        content = _attributes(after)
        guard = {"order": {"S": before.order}, "orderedAt": _number(before.ordered_at)}
        return self._update(before.id, {name: content[name] for name in names}, guard)

    def put_snapshot(self, id_: str, name: str, ids: Sequence[str], now: float) -> None:
        """Write the subscribers' ids beside the broadcast; nothing refers to them yet."""
        for n, start in enumerate(range(0, len(ids), CHUNK)):
            self._call(
                "put_item",
                Item=_chunk_key(id_, name, n)
                | {"ids": {"S": json.dumps(ids[start : start + CHUNK])}, "ttl": _ttl(now)},
            )

    def commit_snapshot(self, id_: str, after: BroadcastRecord) -> bool:
        """Let a snapshot be the one that counts, unless there is one already."""
        names = ("snapshot", "startedAt", "total", "duplicates", "withoutId")
        content = _attributes(after)
        return self._update(id_, {name: content[name] for name in names}, {"snapshot": None})

    def chunk(self, broadcast: BroadcastRecord, n: int) -> list[str]:
        """Return the ids in one chunk of the snapshot, counted from 0."""
        answer = self._call(
            "get_item", Key=_chunk_key(broadcast.id, broadcast.snapshot, n), ConsistentRead=True
        )
        found: list[str] = json.loads(answer["Item"]["ids"]["S"])
        return found

    def advance(self, broadcast: BroadcastRecord, enqueued: int, *, halted: bool = False) -> bool:
        """Save the place; tell whether another run has not done so already."""
        content = {"enqueued": {"N": str(enqueued)}, "halted": {"BOOL": halted}}
        return self._update(broadcast.id, content, {"enqueued": {"N": str(broadcast.enqueued)}})

    def count(self, id_: str, counts: Mapping[State, int], now: float) -> BroadcastRecord | None:
        """Add to the counts, in one write; return the broadcast as it is then, if there is one."""
        added = {state: {"N": str(count)} for state, count in counts.items() if count}
        try:
            answer = self._call(
                "update_item",
                Key=_key(id_),
                UpdateExpression="SET countedAt = :now ADD writes :one, "
                + ", ".join(f"#{state} :{state}" for state in added),
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeNames={f"#{state}": state for state in added},
                ExpressionAttributeValues={
                    ":now": _number(now),
                    ":one": {"N": "1"},
                    **{f":{state}": value for state, value in added.items()},
                },
                ReturnValues="ALL_NEW",
            )
        except _ConditionError:
            return None
        return _progress(answer["Attributes"])

    def recount(self, broadcast: BroadcastRecord, counts: Mapping[State, int]) -> bool:
        """Put right the counts, unless somebody has counted meanwhile."""
        content = {state.value: {"N": str(counts.get(state, 0))} for state in COUNTED}
        content["writes"] = {"N": str(broadcast.writes + 1)}
        return self._update(broadcast.id, content, {"writes": {"N": str(broadcast.writes)}})

    def _update(self, id_: str, content: Mapping[str, Any], guard: Mapping[str, Any]) -> bool:
        """Set attributes if those of the guard are as it says, where None is absent."""
        conditions = [
            f"attribute_not_exists(#{name})" if value is None else f"#{name} = :was_{name}"
            for name, value in guard.items()
        ]
        try:
            self._call(
                "update_item",
                Key=_key(id_),
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in content),
                ConditionExpression=" AND ".join(["attribute_exists(pk)", *conditions]),
                ExpressionAttributeNames={f"#{name}": name for name in {*content, *guard}},
                ExpressionAttributeValues={
                    **{f":{name}": value for name, value in content.items()},
                    **{f":was_{name}": value for name, value in guard.items() if value},
                },
            )
        except _ConditionError:
            return False
        return True

    def _call(self, operation: str, **arguments: Any) -> Any:
        return self._request(operation, TableName=self._table, **arguments)

    def _request(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                raise _ConditionError from None
            raise StoreUnavailableError(code) from None
        except BotoCoreError as error:
            raise StoreUnavailableError(type(error).__name__) from None


class _ConditionError(Exception):
    pass


def _key(id_: str) -> dict[str, Any]:
    return {"pk": {"S": f"broadcast#{id_}"}}


def _chunk_key(id_: str, snapshot: str, n: int) -> dict[str, Any]:
    return {"pk": {"S": f"broadcast#{id_}#{snapshot}#{n}"}}


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}


def _ttl(now: float) -> dict[str, str]:
    return {"N": str(int(now) + KEPT_DAYS * 86400)}


def _attributes(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return a broadcast as a table item's attributes; no snapshot, no attribute of that name."""
    texts = {
        "botId": broadcast.bot_id,
        "fingerprint": broadcast.fingerprint,
        "order": broadcast.order.value,
        "reason": broadcast.reason,
        "detail": broadcast.detail,
        "reference": broadcast.reference,
    }
    times = {
        "createdAt": broadcast.created_at,
        "orderedAt": broadcast.ordered_at,
        "startedAt": broadcast.started_at,
        "pausedFor": broadcast.paused_for,
        "countedAt": broadcast.counted_at,
    }
    numbers = {
        "total": broadcast.total,
        "duplicates": broadcast.duplicates,
        "withoutId": broadcast.without_id,
        "enqueued": broadcast.enqueued,
        "writes": broadcast.writes,
        "judgedOutcomes": broadcast.judged[0],
        "judgedRefusals": broadcast.judged[1],
        **{state.value: broadcast.counts.get(state, 0) for state in COUNTED},
    }
    return {
        **{name: {"S": value} for name, value in texts.items()},
        **{name: _number(value) for name, value in times.items()},
        **{name: {"N": str(value)} for name, value in numbers.items()},
        **({"snapshot": {"S": broadcast.snapshot}} if broadcast.snapshot else {}),
        "halted": {"BOOL": broadcast.halted},
        "ttl": _ttl(broadcast.created_at),
    }


def _progress(item: Mapping[str, Any]) -> BroadcastRecord:
    """Return the broadcast that a table item holds."""

    def text(name: str) -> str:
        return str(item[name]["S"]) if name in item else ""

    def time(name: str) -> float:
        return float(item[name]["N"]) if name in item else 0.0

    def count(name: str) -> int:
        return int(item[name]["N"]) if name in item else 0

    return BroadcastRecord(
        id=text("pk").partition("#")[2],
        bot_id=text("botId"),
        fingerprint=text("fingerprint"),
        created_at=time("createdAt"),
        order=Command(text("order")),
        ordered_at=time("orderedAt"),
        reason=text("reason"),
        detail=text("detail"),
        reference=text("reference"),
        paused_for=time("pausedFor"),
        snapshot=text("snapshot"),
        started_at=time("startedAt"),
        total=count("total"),
        duplicates=count("duplicates"),
        without_id=count("withoutId"),
        enqueued=count("enqueued"),
        halted="halted" in item and bool(item["halted"]["BOOL"]),
        counts={state: count(state.value) for state in COUNTED},
        counted_at=time("countedAt"),
        writes=count("writes"),
        judged=(count("judgedOutcomes"), count("judgedRefusals")),
    )


# ---------------------------------------------------------------------------- the sender's view


class Board:
    """What the sender needs of broadcasts: what was ordered of them, and to count its messages."""

    def __init__(
        self,
        table: BroadcastTable,
        *,
        refusals_percent: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._refusals_percent = refusals_percent
        self._clock = clock
        self._seen: dict[str, BroadcastRecord] = {}
        self._seen_at = 0.0

    def look(self, ids: Collection[str]) -> Mapping[str, BroadcastRecord]:
        """Return the broadcasts there are, as they were at most `LOOK_AGAIN` seconds ago."""
        now = self._clock()
        if now - self._seen_at > LOOK_AGAIN or not self._seen.keys() >= set(ids):
            self._seen = self._table.load(ids) if ids else {}
            self._seen_at = now
        return self._seen

    def count(self, id_: str, counts: Mapping[State, int]) -> None:
        """Count what became of messages, and pause their broadcast if too many were refused."""
        now = self._clock()
        try:
            broadcast = self._table.count(id_, counts, now)
            if broadcast is None:
                return
            if problem := too_many_refusals(broadcast, self._refusals_percent):
                after = paused(broadcast, now, "refusals", problem)
                if after and self._table.command(broadcast, after):
                    log.warning("broadcast paused", extra={"broadcast": id_, "detail": problem})
        except StoreUnavailableError as error:
            # The notifier puts the counts right in the end.
            log.warning("not counted", extra={"broadcast": id_, "reason": str(error)})
