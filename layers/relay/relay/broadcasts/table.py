"""The broadcasts' items in the Relay table, and the snapshots beside them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from relay.broadcasts.bucket import Bucket, NoSuchFileError
from relay.broadcasts.model import (
    COUNTED,
    BroadcastRecord,
    Cause,
    Command,
    Recount,
    paused_too_long,
)
from relay.messages.lists import BROADCASTS, Page, broadcast_keys
from relay.messages.states import State
from relay.messages.store import KEPT_DAYS, StoreUnavailableError, code_of, items_under, page

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

CHUNK = 500
"""Subscribers enqueued before the position is saved: the most that a crash repeats."""

RECORD_DAYS = 400
"""How long a broadcast's own item is kept, which is small: as long as the refusals that it met."""

APART = "apart-"
"""How the name of a snapshot begins that is in the bucket: it holds more than subscribers' ids."""


class SnapshotGoneError(Exception):
    """The broadcast is so old that nobody knows any more who was to get it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One who gets a broadcast: an address, and what the templates have found, if there are any."""

    address: tuple[str, ...]
    """A subscriber's id; or a bot ("" for the broadcast's own) and a phone number."""
    values: tuple[str, ...] = ()


FIRST_VERSION = {"version": {"N": "1"}}
"""How often a broadcast's status has been written when it is new."""


class BroadcastTable:
    """The broadcasts' items in the Relay table."""

    def __init__(self, client: "DynamoDBClient", table: str, bucket: Bucket | None = None) -> None:
        self._client = client
        self._table = table
        self._bucket = bucket

    def create(self, broadcast: BroadcastRecord) -> BroadcastRecord | None:
        """Write a broadcast's first item; if there is one already, return that instead."""
        try:
            self._call(
                "put_item",
                Item=_key(broadcast.id)
                | _attributes(broadcast)
                | _listed(broadcast)
                | _step("status")
                | FIRST_VERSION,
                ConditionExpression="attribute_not_exists(pk)",
            )
        except _ConditionError:
            return self.load([broadcast.id]).get(broadcast.id)
        return None

    def load(self, ids: Iterable[str]) -> dict[str, BroadcastRecord]:
        """Return the broadcasts there are, by id, as of now."""
        keys = [_key(id_) for id_ in dict.fromkeys(ids)]
        found = map(_record, items_under(self._client, self._table, keys))
        return {broadcast.id: broadcast for broadcast in found}

    def page(self, *, limit: int, after: str = "") -> Page:
        """Return up to `limit` places of the list of broadcasts, after a place."""
        return page(self._client, self._table, BROADCASTS, limit, after)

    def write_command(self, before: BroadcastRecord, after: BroadcastRecord) -> bool:
        """Write a new command; return False if what it was decided on has changed."""
        judged = ("judgedOutcomes", "judgedRefusals")
        names = ("order", "orderedAt", "reason", "detail", "pausedFor", *judged)
        content = _attributes(after)
        guard: dict[str, Any] = {**_command(before), "finishedAt": _number(before.finished_at)}
        if after.command is Command.FAIL:
            # Another run may have listed the subscribers meanwhile.
            guard["snapshot"] = None
        content = {name: content[name] for name in names}
        return self._update(before.id, content, guard, changes_status=True)

    def stop_if_paused_too_long(self, broadcast: BroadcastRecord, now: float) -> BroadcastRecord:
        """Stop a broadcast whose pauses were too long; return it as it is then."""
        after = paused_too_long(broadcast, now)
        if after is None:
            return broadcast
        if self.write_command(broadcast, after):
            return after
        return self.load([broadcast.id]).get(broadcast.id, broadcast)

    def put_chunk(self, id_: str, name: str, n: int, listed: Sequence[Listed], now: float) -> None:
        """Write a chunk of a snapshot beside the broadcast, not yet committed.

        The table holds subscribers' ids and no more; the bucket, which forgets sooner, the rest.
        """
        if name.startswith(APART):
            rows = [[each.address, each.values] for each in listed]
            self._apart().put(_object(id_, name, n), rows)
            return
        ids = [address for each in listed for address in each.address]
        self._call(
            "put_item",
            Item=_chunk_key(id_, name, n) | {"ids": {"S": json.dumps(ids)}, "ttl": _ttl(now)},
        )

    def commit_snapshot(self, before: BroadcastRecord, after: BroadcastRecord) -> bool:
        """Commit a snapshot, unless there is one already or a command came in between."""
        names = ("snapshot", "startedAt", "total", *Cause)
        content = _attributes(after)
        guard = {"snapshot": None, **_command(before)}
        content = {name: content[name] for name in names}
        return self._update(before.id, content, guard, changes_status=True)

    def chunk(self, broadcast: BroadcastRecord, n: int) -> list[Listed]:
        """Return who is in one chunk of the snapshot, counted from 0; raise SnapshotGoneError."""
        if broadcast.snapshot.startswith(APART):
            try:
                rows = self._apart().get(_object(broadcast.id, broadcast.snapshot, n))
            except NoSuchFileError:
                raise SnapshotGoneError from None
            return [Listed(tuple(address), tuple(values)) for address, values in rows]
        answer = self._call(
            "get_item", Key=_chunk_key(broadcast.id, broadcast.snapshot, n), ConsistentRead=True
        )
        if "Item" not in answer:
            raise SnapshotGoneError
        return [Listed((id_,)) for id_ in json.loads(answer["Item"]["ids"]["S"])]

    def _apart(self) -> Bucket:
        if self._bucket is None:
            raise StoreUnavailableError("no bucket")
        return self._bucket

    def advance(
        self,
        broadcast: BroadcastRecord,
        enqueued: int,
        *,
        halted: bool,
        next_chunk_at: float = 0.0,
    ) -> bool:
        """Save the position, the last one if `halted`; return False if another run has moved it."""
        content = {
            "enqueued": _count(enqueued),
            "halted": {"BOOL": halted},
            **({"nextChunkAt": _number(next_chunk_at)} if next_chunk_at else {}),
        }
        return self._update(broadcast.id, content, {"enqueued": _count(broadcast.enqueued)})

    def count(
        self, id_: str, counts: Mapping[State, int], now: float, *, writer: str
    ) -> BroadcastRecord | None:
        """Add to the live counts, at most once; return the broadcast as it is then.

        None if there is no such broadcast, if its counts are made from the records by now, or if
        nobody can say whether they were added: the recount will.
        """
        before = self.load([id_]).get(id_)
        while before and not before.finished_at:
            after = self._add(before, counts, now, writer)
            if isinstance(after, Added):
                return after.broadcast
            if after is None or after.writes != before.writes + 1:
                # Ours may be among the writes that came in between.
                return None
            before = after
        return None

    def uncount(
        self, id_: str, counts: Mapping[State, int], now: float, *, writer: str
    ) -> BroadcastRecord | None:
        """Take from the live counts, at least once; return the broadcast, if there is one."""
        taken = {state: -count for state, count in counts.items()}
        before = self.load([id_]).get(id_)
        while before and not before.finished_at:
            after = self._add(before, taken, now, writer)
            if isinstance(after, Added):
                return after.broadcast
            before = after
        return before

    def _add(
        self, before: BroadcastRecord, counts: Mapping[State, int], now: float, writer: str
    ) -> "Added | BroadcastRecord | None":
        """Add to the counts as they were; return them, or what others have made of them.

        A write whose answer was lost is repeated by botocore and meets itself: `writer` tells.
        """
        counted = {s: before.counts.get(s, 0) + counts.get(s, 0) for s in COUNTED}
        after = replace(
            before, counts=counted, counted_at=now, writes=before.writes + 1, writer=writer
        )
        content = _attributes(after)
        names = ("countedAt", "writes", "writer", *COUNTED)
        guard = {"writes": _count(before.writes)}
        if self._update(before.id, {name: content[name] for name in names}, guard):
            return Added(after)
        current = self.load([before.id]).get(before.id)
        return Added(current) if current and current.writer == writer else current

    def begin_recount(self, broadcast: BroadcastRecord, asked_at: float) -> bool:
        """Have the counts made from the records anew; return False if something came in between."""
        content = {**_of_recount(Recount(asked_at)), "final": {"BOOL": False}}
        guard = {"writes": _count(broadcast.writes), **_recount_guard(broadcast)}
        return self._update(broadcast.id, content, guard)

    def save_recount(self, broadcast: BroadcastRecord, recount: Recount) -> bool:
        """Save how far a recount has come; return False if another run has moved it."""
        return self._update(broadcast.id, _of_recount(recount), _recount_guard(broadcast))

    def finish(self, broadcast: BroadcastRecord, now: float) -> bool:
        """Make a recount the final counts; return False if something came in between."""
        after = replace(
            broadcast,
            counts=broadcast.recount.counts,
            writes=broadcast.writes + 1,
            writer="",
            finished_at=broadcast.finished_at or now,
            final=True,
        )
        content = _attributes(after)
        names = ("writes", "writer", "finishedAt", "final", *COUNTED)
        # No count may land on them, and no command on a broadcast that has ended.
        guard = {
            "writes": _count(broadcast.writes),
            **_command(broadcast),
            **_recount_guard(broadcast),
        }
        content = {name: content[name] for name in names}
        return self._update(broadcast.id, content, guard, changes_status=True)

    def _update(
        self,
        id_: str,
        content: Mapping[str, Any],
        guard: Mapping[str, Any],
        *,
        changes_status: bool = False,
    ) -> bool:
        """Set attributes if the guard's are as given; None means absent.

        A write that changes the status, or makes its counts final, raises the version and becomes
        an event; `step` lets the stream's filter tell it from the others.
        """
        content = {**content, **_step("status" if changes_status else "progress")}
        raised = {":raised": {"N": "1"}} if changes_status else {}
        conditions = [_condition(name, value) for name, value in guard.items()]
        try:
            self._call(
                "update_item",
                Key=_key(id_),
                UpdateExpression="SET "
                + ", ".join(f"#{name} = :{name}" for name in content)
                + (" ADD #version :raised" if changes_status else ""),
                ConditionExpression=" AND ".join(["attribute_exists(pk)", *conditions]),
                ExpressionAttributeNames={
                    f"#{name}": name
                    for name in {*content, *guard, *(["version"] if changes_status else [])}
                },
                ExpressionAttributeValues={
                    **{f":{name}": value for name, value in content.items()},
                    **raised,
                    **{f":was_{name}": value for name, value in guard.items() if value},
                },
            )
        except _ConditionError:
            return False
        return True

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(TableName=self._table, **arguments)
        except (ClientError, BotoCoreError) as error:
            if (code := code_of(error)) == "ConditionalCheckFailedException":
                raise _ConditionError from None
            raise StoreUnavailableError(code) from None


@dataclass(frozen=True, slots=True)
class Added:
    """The counts are added; the broadcast as it was right then."""

    broadcast: BroadcastRecord


class _ConditionError(Exception):
    pass


def _condition(name: str, value: Any) -> str:
    if value is None:
        return f"attribute_not_exists(#{name})"
    same = f"#{name} = :was_{name}"
    # Version 0.1.0 did not write them all: what is not there is nothing.
    nothing = value in ({"N": "0"}, {"N": "0.000"}, {"BOOL": False})
    return f"({same} OR attribute_not_exists(#{name}))" if nothing else same


def _step(kind: Literal["status", "progress"]) -> dict[str, Any]:
    """Return the attribute that says what the last write changed."""
    return {"step": {"S": kind}}


def _key(id_: str) -> dict[str, Any]:
    return {"pk": {"S": f"broadcast#{id_}"}}


def _chunk_key(id_: str, snapshot: str, n: int) -> dict[str, Any]:
    return {"pk": {"S": f"broadcast#{id_}#{snapshot}#{n}"}}


def _object(id_: str, snapshot: str, n: int) -> str:
    return f"snapshots/{id_}/{snapshot}/{n}.json"


def _command(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return the attributes that differ if a command came in between."""
    return {"order": {"S": broadcast.command}, "orderedAt": _number(broadcast.commanded_at)}


def _of_recount(recount: Recount) -> dict[str, Any]:
    counts = {state.value: count for state, count in sorted(recount.counts.items()) if count}
    return {
        "recountAskedAt": _number(recount.asked_at),
        "recountChunks": _count(recount.chunks),
        "recountCounts": {"S": json.dumps(counts, separators=(",", ":"))},
    }


def _recount_guard(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return the attributes that differ if another run has moved the recount."""
    now = _of_recount(broadcast.recount)
    return {name: now[name] for name in ("recountAskedAt", "recountChunks")}


def _count(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}


def _ttl(now: float, days: int = KEPT_DAYS) -> dict[str, str]:
    return {"N": str(int(now) + days * 86400)}


def _listed(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return what puts a broadcast on the list of all, where it stays."""
    keys = broadcast_keys(broadcast.created_at, broadcast.id)
    return {name: {"S": value} for name, value in keys.items()}


def _attributes(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return a broadcast as a table item's attributes; `snapshot` is absent until there is one."""
    texts = {
        "botId": broadcast.bot_id,
        "fingerprint": broadcast.fingerprint,
        "order": broadcast.command.value,
        "reason": broadcast.reason,
        "detail": broadcast.detail,
        "reference": broadcast.reference,
        "writer": broadcast.writer,
    }
    times = {
        "createdAt": broadcast.created_at,
        "orderedAt": broadcast.commanded_at,
        "startedAt": broadcast.started_at,
        "pausedFor": broadcast.paused_for,
        "countedAt": broadcast.counted_at,
        "finishedAt": broadcast.finished_at,
    }
    numbers = {
        "total": broadcast.total,
        **{cause.value: broadcast.skipped.get(cause, 0) for cause in Cause},
        "perSecond": broadcast.per_second,
        "enqueued": broadcast.enqueued,
        "writes": broadcast.writes,
        "judgedOutcomes": broadcast.judged[0],
        "judgedRefusals": broadcast.judged[1],
        **{state.value: broadcast.counts.get(state, 0) for state in COUNTED},
    }
    return {
        **{name: {"S": value} for name, value in texts.items()},
        **{name: _number(value) for name, value in times.items()},
        **{name: _count(value) for name, value in numbers.items()},
        **_of_recount(broadcast.recount),
        **({"snapshot": {"S": broadcast.snapshot}} if broadcast.snapshot else {}),
        "halted": {"BOOL": broadcast.halted},
        "final": {"BOOL": broadcast.final},
        "ttl": _ttl(broadcast.created_at, RECORD_DAYS),
    }


def _record(item: Mapping[str, Any]) -> BroadcastRecord:
    """Return the broadcast that a table item holds."""

    def text(name: str) -> str:
        return str(item[name]["S"]) if name in item else ""

    def time(name: str) -> float:
        return float(item[name]["N"]) if name in item else 0.0

    def count(name: str) -> int:
        return int(item[name]["N"]) if name in item else 0

    def flag(name: str) -> bool:
        return name in item and bool(item[name]["BOOL"])

    counts = {state: count(state.value) for state in COUNTED}
    enqueued, total, halted = count("enqueued"), count("total"), flag("halted")
    finished_at, final = time("finishedAt"), flag("final")
    if "finishedAt" not in item and text("snapshot"):
        # Version 0.1.0 completed a broadcast by its live counts.
        complete = sum(counts.values()) >= (enqueued if halted else total)
        finished_at = max(time("countedAt"), time("startedAt")) if complete else 0.0
        final = final or (complete and "final" not in item)
    return BroadcastRecord(
        id=text("pk").partition("#")[2],
        bot_id=text("botId"),
        fingerprint=text("fingerprint"),
        created_at=time("createdAt"),
        command=Command(text("order")),
        commanded_at=time("orderedAt"),
        reason=text("reason"),
        detail=text("detail"),
        reference=text("reference"),
        paused_for=time("pausedFor"),
        snapshot=text("snapshot"),
        started_at=time("startedAt"),
        total=total,
        skipped={cause: count(cause.value) for cause in Cause},
        enqueued=enqueued,
        per_second=count("perSecond"),
        next_chunk_at=time("nextChunkAt"),
        halted=halted,
        counts=counts,
        counted_at=time("countedAt"),
        writes=count("writes"),
        writer=text("writer"),
        recount=Recount(
            time("recountAskedAt"),
            count("recountChunks"),
            {State(s): n for s, n in json.loads(text("recountCounts") or "{}").items()},
        ),
        finished_at=finished_at,
        final=final,
        judged=(count("judgedOutcomes"), count("judgedRefusals")),
    )
