"""The broadcasts' items in the Relay table, and the snapshots beside them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from relay.broadcasts.model import COUNTED, BroadcastRecord, Command, paused_too_long
from relay.messages.states import State
from relay.messages.store import KEPT_DAYS, KEYS_PER_CALL, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

CHUNK = 500
"""Subscribers enqueued before the position is saved: the most that a crash repeats."""


class BroadcastTable:
    """The broadcasts' items in the Relay table."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def create(self, broadcast: BroadcastRecord) -> BroadcastRecord | None:
        """Write a broadcast's first item; if there is one already, return that instead."""
        try:
            self._call(
                "put_item",
                Item=_key(broadcast.id) | _attributes(broadcast),
                ConditionExpression="attribute_not_exists(pk)",
            )
        except _ConditionError:
            return self.load([broadcast.id]).get(broadcast.id)
        return None

    def load(self, ids: Iterable[str]) -> dict[str, BroadcastRecord]:
        """Return the broadcasts there are, by id, as of now."""
        keys = [_key(id_) for id_ in dict.fromkeys(ids)]
        found: dict[str, BroadcastRecord] = {}
        for start in range(0, len(keys), KEYS_PER_CALL):
            wanted: Any = keys[start : start + KEYS_PER_CALL]
            while wanted:
                answer = self._request(
                    "batch_get_item",
                    RequestItems={self._table: {"Keys": wanted, "ConsistentRead": True}},
                )
                for item in answer["Responses"].get(self._table, []):
                    broadcast = _record(item)
                    found[broadcast.id] = broadcast
                wanted = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        return found

    def write_command(self, before: BroadcastRecord, after: BroadcastRecord) -> bool:
        """Write a new command; return False if what it was decided on has changed."""
        judged = ("judgedOutcomes", "judgedRefusals")
        names = ("order", "orderedAt", "reason", "detail", "pausedFor", *judged)
        content = _attributes(after)
        guard: dict[str, Any] = _command(before)
        if after.command is Command.FAIL:
            # Another run may have listed the subscribers meanwhile.
            guard["snapshot"] = None
        return self._update(before.id, {name: content[name] for name in names}, guard)

    def stop_if_paused_too_long(self, broadcast: BroadcastRecord, now: float) -> BroadcastRecord:
        """Stop a broadcast whose pauses were too long; return it as it is then."""
        after = paused_too_long(broadcast, now)
        if after is None:
            return broadcast
        if self.write_command(broadcast, after):
            return after
        return self.load([broadcast.id]).get(broadcast.id, broadcast)

    def put_snapshot(self, id_: str, name: str, ids: Sequence[str], now: float) -> None:
        """Write the subscribers' ids beside the broadcast, not yet committed."""
        for n, start in enumerate(range(0, len(ids), CHUNK)):
            self._call(
                "put_item",
                Item=_chunk_key(id_, name, n)
                | {"ids": {"S": json.dumps(ids[start : start + CHUNK])}, "ttl": _ttl(now)},
            )

    def commit_snapshot(self, before: BroadcastRecord, after: BroadcastRecord) -> bool:
        """Commit a snapshot, unless there is one already or a command came in between."""
        names = ("snapshot", "startedAt", "total", "duplicates", "withoutId")
        content = _attributes(after)
        guard = {"snapshot": None, **_command(before)}
        return self._update(before.id, {name: content[name] for name in names}, guard)

    def chunk(self, broadcast: BroadcastRecord, n: int) -> list[str]:
        """Return the ids in one chunk of the snapshot, counted from 0."""
        answer = self._call(
            "get_item", Key=_chunk_key(broadcast.id, broadcast.snapshot, n), ConsistentRead=True
        )
        found: list[str] = json.loads(answer["Item"]["ids"]["S"])
        return found

    def advance(self, broadcast: BroadcastRecord, enqueued: int, *, halted: bool) -> bool:
        """Save the position, the last one if `halted`; return False if another run has moved it."""
        content = {"enqueued": {"N": str(enqueued)}, "halted": {"BOOL": halted}}
        return self._update(broadcast.id, content, {"enqueued": {"N": str(broadcast.enqueued)}})

    def count(self, id_: str, counts: Mapping[State, int], now: float) -> BroadcastRecord | None:
        """Add to the counts in one write; return the broadcast as it is then, if there is one."""
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
        return _record(answer["Attributes"])

    def recount(self, broadcast: BroadcastRecord, counts: Mapping[State, int]) -> bool:
        """Replace the counts, unless another write came in between."""
        content = {state.value: {"N": str(counts.get(state, 0))} for state in COUNTED}
        content["writes"] = {"N": str(broadcast.writes + 1)}
        return self._update(broadcast.id, content, {"writes": {"N": str(broadcast.writes)}})

    def _update(self, id_: str, content: Mapping[str, Any], guard: Mapping[str, Any]) -> bool:
        """Set attributes if the guard's are as given; None means absent."""
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


def _command(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return the attributes that differ if a command came in between."""
    return {"order": {"S": broadcast.command}, "orderedAt": _number(broadcast.commanded_at)}


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}


def _ttl(now: float) -> dict[str, str]:
    return {"N": str(int(now) + KEPT_DAYS * 86400)}


def _attributes(broadcast: BroadcastRecord) -> dict[str, Any]:
    """Return a broadcast as a table item's attributes; `snapshot` is absent until there is one."""
    texts = {
        "botId": broadcast.bot_id,
        "fingerprint": broadcast.fingerprint,
        "order": broadcast.command.value,
        "reason": broadcast.reason,
        "detail": broadcast.detail,
        "reference": broadcast.reference,
    }
    times = {
        "createdAt": broadcast.created_at,
        "orderedAt": broadcast.commanded_at,
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


def _record(item: Mapping[str, Any]) -> BroadcastRecord:
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
        command=Command(text("order")),
        commanded_at=time("orderedAt"),
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
