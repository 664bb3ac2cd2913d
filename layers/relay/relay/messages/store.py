"""The Relay table: one record a message, each step of it one guarded write.

Steps travel many to a call (BatchExecuteStatement), each statement with a condition of its own:
a call costs the function more CPU than everything else it does for a message.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.lists import BY_LISTED, OFF_THE_LIST, Listing, Page, id_at, keys_of, place
from relay.messages.states import Attempt, Change, DeadLetter, Event, Record, State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

log = logging.getLogger(__name__)

KEPT_DAYS = 35
"""Longer than both queues' retention together (2 x 14 days): no copy outlives its record."""

Item = dict[str, Any]
"""A table item, each attribute with its DynamoDB type."""

EMPTY: Mapping[str, Any] = {"S": {"S": ""}, "N": {"N": "0"}, "L": {"L": []}}
"""What an attribute of each type is set to when there is nothing to say; read as if it were not
there."""

LEFT: Mapping[str, Any] = {
    BY_LISTED.partition: {"S": OFF_THE_LIST},
    BY_LISTED.place: {"S": OFF_THE_LIST},
}
"""The same of an index's keys: a text "must have a length greater than zero if the attribute is
used as a key attribute for a table or index" (API reference, PutItem)."""

TABLE_SECONDS = 4.0
"""What one call to the table may take; a test holds the client's time-outs and tries to it."""

STATEMENTS_PER_CALL = 25
KEYS_PER_CALL = 100
TRIES = 4


class StoreUnavailableError(Exception):
    """The table cannot be read, or the pace not agreed on, now."""


GUARD = ("version", "state", "attempt")
"""The attributes that have to be as they were when a step was decided on.

The version alone would not do: a claim whose answer was lost has the same one as the claim that
another run made instead of it; and release 0.1.0, which may still be at work during an update,
changes a record without raising it.
"""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that this release cannot read, because a later one wrote it, or nobody did."""

    id: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The step was written."""

    record: Record


@dataclass(frozen=True, slots=True)
class Conflict:
    """The step was not written: the record is no longer the one it was decided on.

    `current` is None where there is none, or none that can be read.
    """

    current: Record | None


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The table did not say that it took the step: throttled, failing or out of reach."""

    reason: str
    in_doubt: bool = False
    """It may have been written all the same, or still be."""


Written = Applied | Conflict | Unwritten


class Store(Protocol):
    """What the relay needs of a table."""

    def load(self, ids: Iterable[str]) -> Mapping[str, Record | Unreadable]:
        """Return the records there are, by message id, as of now."""
        ...

    def apply(self, changes: Sequence[Change]) -> list[Written]:
        """Write each step if its record is unchanged; answer in order, whatever goes wrong.

        Ids must not repeat.
        """
        ...


SEAL_KEY = "seal"
"""The table's key of the item that holds the key of the seals."""


class TableStore:
    """The store on DynamoDB."""

    def __init__(
        self, client: "DynamoDBClient", table: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._table = table
        self._sleep = sleep
        self._seal_key: bytes | None = None

    def load(self, ids: Iterable[str]) -> Mapping[str, Record | Unreadable]:
        """Return the records there are, by message id, read consistently."""
        records = map(readable, self._items([key(id_) for id_ in dict.fromkeys(ids)]))
        return {record.id: record for record in records}

    def _items(self, keys: Sequence[str]) -> Iterator[Item]:
        """Yield the items there are under keys of the table, read consistently."""
        under = [{"pk": {"S": pk}} for pk in keys]
        return items_under(self._client, self._table, under, sleep=self._sleep)

    def apply(self, changes: Sequence[Change]) -> list[Written]:
        """Write each step if its record is unchanged; answer in order, whatever goes wrong.

        Ids must not repeat.
        """
        answers: list[Written] = [Unwritten("not asked")] * len(changes)
        for start in range(0, len(changes), STATEMENTS_PER_CALL):
            group = range(start, min(start + STATEMENTS_PER_CALL, len(changes)))
            try:
                self._apply(changes, list(group), answers)
            except StoreUnavailableError as error:
                # Each group would wait for the same time-outs: one failure speaks for the rest.
                return [
                    replace(a, reason=str(error)) if isinstance(a, Unwritten) else a
                    for a in answers
                ]
        return answers

    def _apply(self, changes: Sequence[Change], left: list[int], answers: list[Written]) -> None:
        in_doubt: set[int] = set()
        for tried in range(TRIES):
            if tried:
                self._sleep(0.05 * 2**tried)
            try:
                answer = self._client.batch_execute_statement(
                    Statements=[statement(self._table, changes[i]) for i in left]
                )
            except (ClientError, BotoCoreError) as error:
                for i in left:
                    answers[i] = Unwritten("", i in in_doubt or _may_be_written(error))
                raise StoreUnavailableError(code_of(error)) from None
            if _repeated(answer):
                in_doubt.update(left)
            refused: dict[int, Record | Unreadable | None] = {}
            for i, response in zip(left, answer["Responses"], strict=True):
                match response.get("Error", {}).get("Code"):
                    case None:
                        answers[i] = Applied(changes[i].after)
                    case "ConditionalCheckFailed" | "DuplicateItem":
                        item = response["Error"].get("Item")
                        refused[i] = readable(item) if item else None
                        answers[i] = Unwritten("refused", i in in_doubt)
                    case code:
                        if code == "InternalServerError":
                            in_doubt.add(i)
                        answers[i] = Unwritten(str(code), i in in_doubt)
            # An INSERT's refusal brings no item along.
            missing = [changes[i].after.id for i, current in refused.items() if current is None]
            loaded = self.load(missing) if missing else {}
            for i, current in refused.items():
                answers[i] = _conflict(changes[i], current or loaded.get(changes[i].after.id))
            left = [i for i in left if isinstance(answers[i], Unwritten)]
            if not left:
                return

    def page(self, listing: Listing, *, limit: int, after: str = "") -> Page:
        """Return up to `limit` places of a list after a place; raise StoreUnavailableError."""
        return page(self._client, self._table, listing, limit, after)

    def seal_key(self) -> bytes:
        """Return the key of the stack's seals, made by whoever needs it first.

        Raises StoreUnavailableError.
        """
        if self._seal_key is None:
            self._seal_key = self._read_seal_key() or self._make_seal_key()
        return self._seal_key

    def _read_seal_key(self) -> bytes | None:
        item = next(self._items([SEAL_KEY]), None)
        return bytes.fromhex(item["key"]["S"]) if item else None

    def _make_seal_key(self) -> bytes:
        insert = f"""INSERT INTO "{self._table}" VALUE {{'pk': ?, 'key': ?}}"""
        made: list[Any] = [{"S": SEAL_KEY}, {"S": secrets.token_hex(32)}]
        try:
            self._client.batch_execute_statement(
                Statements=[{"Statement": insert, "Parameters": made}]
            )
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailableError(code_of(error)) from None
        # Another function may have made it meanwhile: what the table has now is the key.
        if key := self._read_seal_key():
            return key
        raise StoreUnavailableError("the key of the seals is not written")


def items_under(
    client: "DynamoDBClient",
    table: str,
    keys: Sequence[Item],
    *,
    consistently: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Item]:
    """Yield the items there are under keys of a table; raise StoreUnavailableError.

    It does not ask for ever where the table is throttled: a run has to end in time.
    """
    for start in range(0, len(keys), KEYS_PER_CALL):
        left: Any = keys[start : start + KEYS_PER_CALL]
        for tried in range(TRIES):
            if tried:
                sleep(0.05 * 2**tried)
            try:
                answer = client.batch_get_item(
                    RequestItems={table: {"Keys": left, "ConsistentRead": consistently}}
                )
            except (ClientError, BotoCoreError) as error:
                raise StoreUnavailableError(code_of(error)) from None
            yield from answer["Responses"].get(table, [])
            unread: Any = answer.get("UnprocessedKeys", {})
            left = unread.get(table, {}).get("Keys", [])
            if not left:
                break
        else:
            raise StoreUnavailableError("keys left unprocessed")


def page(client: "DynamoDBClient", table: str, listing: Listing, limit: int, after: str) -> Page:
    """Return up to `limit` places of a list after a place; raise StoreUnavailableError."""
    index = listing.index
    begin: dict[str, Any] = {}
    if after:
        begin["ExclusiveStartKey"] = {
            "pk": {"S": f"{listing.kind}#{id_at(after)}"},
            index.partition: {"S": listing.partition},
            index.place: {"S": after},
        }
    try:
        answer = client.query(
            TableName=table,
            IndexName=index.name,
            KeyConditionExpression="#partition = :partition AND #place >= :since",
            ExpressionAttributeNames={"#partition": index.partition, "#place": index.place},
            ExpressionAttributeValues={
                ":partition": {"S": listing.partition},
                ":since": {"S": place(listing.since)},
            },
            ScanIndexForward=False,
            Limit=limit,
            **begin,
        )
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailableError(code_of(error)) from None
    last = answer.get("LastEvaluatedKey", {}).get(index.place, {}).get("S", "")
    return Page([item[index.place]["S"] for item in answer["Items"]], last)


def key(message_id: str) -> str:
    """Return the table's key of a message."""
    return f"message#{message_id}"


def _conflict(change: Change, current: Record | Unreadable | None) -> Written:
    if current is None or isinstance(current, Unreadable):
        return Conflict(None)
    # A repeated request whose first answer was lost meets its own write: that is no conflict.
    if current == from_item(to_item(change.after)):
        return Applied(current)
    return Conflict(current)


def _may_be_written(error: ClientError | BotoCoreError) -> bool:
    """Return whether a call that failed may have been done all the same."""
    if isinstance(error, BotoCoreError):
        return True
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or _repeated(error.response)


def _repeated(answer: Any) -> bool:
    """Return whether botocore got this answer only after repeating the call."""
    return bool(answer.get("ResponseMetadata", {}).get("RetryAttempts"))


def code_of(error: ClientError | BotoCoreError) -> str:
    """Return a short name of what went wrong with a call: AWS's code, or botocore's class."""
    if isinstance(error, ClientError):
        return str(error.response["Error"]["Code"])
    return type(error).__name__


# ---------------------------------------------------------------------- records as table items


def statement(table: str, change: Change) -> Any:
    """Return a step as one PartiQL statement, guarded by what it was decided on.

    An UPDATE only sets attributes: "[SET | REMOVE] path [= data] […]", says the DynamoDB Developer
    Guide, and shows one SET after the other, but neither two REMOVEs nor both kinds together.
    """
    item = to_item(change.after)
    if change.before is None:
        # One parameter an attribute: PartiQL has no parameter for a whole item.
        content = ", ".join(f"'{name}': ?" for name in item)
        return {
            "Statement": f"""INSERT INTO "{table}" VALUE {{{content}}}""",
            "Parameters": list(item.values()),
        }
    was = to_item(change.before)
    if not change.before.version:  # release 0.1.0 put nothing on the lists
        was = {name: value for name, value in was.items() if name not in keys_of(change.before)}
    changed = difference(was, item)
    clauses = [f'SET "{name}" = ?' for name in changed]
    guard = {name: was.get(name) for name in ("pk", *GUARD)}
    conditions = [
        f'"{name}" IS MISSING' if value is None else f'"{name}" = ?'
        for name, value in guard.items()
    ]
    return {
        "Statement": f"""UPDATE "{table}" {" ".join(clauses)} WHERE {" AND ".join(conditions)}""",
        "Parameters": [*changed.values(), *(value for value in guard.values() if value)],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def difference(was: Item, item: Item) -> Item:
    """Return the attributes that a step sets; those that it clears become empty."""
    changed = {name: value for name, value in item.items() if was.get(name) != value}
    gone = [name for name in was if name not in item]
    cleared = {name: LEFT.get(name) or EMPTY[next(iter(was[name]))] for name in gone}
    return changed | cleared


def to_item(record: Record) -> Item:
    """Return a record as a table item; what is empty is left out."""
    texts = {
        "pk": key(record.id),
        "state": record.state,
        "attempt": record.attempt,
        "fingerprint": record.fingerprint,
        "door": record.door,
        "deadLetter": record.dead_letter,
        "reason": record.reason,
        "detail": record.detail,
        "reference": record.reference,
        "broadcast": record.broadcast,
        "providerId": record.provider_id,
        "caller": record.caller,
        **keys_of(record),
    }
    numbers = {
        "acceptedAt": record.accepted_at,
        "updatedAt": record.updated_at,
        "deadline": record.deadline,
        "expiresAt": record.expires_at,
        "lease": record.lease,
        "generation": record.generation,
        "version": record.version,
        "tries": record.tries,
        "ambiguous": record.ambiguous,
        "ttl": int(max(record.updated_at, record.deadline)) + KEPT_DAYS * 86400,
    }
    item: Item = {
        name: {"S": str(value)} for name, value in texts.items() if value or name == "attempt"
    }
    item |= {
        name: {"N": _number(value)}
        for name, value in numbers.items()
        if value or (name == "expiresAt" and value is not None)
    }
    if record.attempts:
        item["attempts"] = {
            "L": [
                {
                    "M": {
                        "at": {"N": _number(a.at)},
                        "outcome": {"S": a.outcome},
                        "reason": {"S": a.reason},
                        "ms": {"N": str(a.milliseconds)},
                    }
                }
                for a in record.attempts
            ]
        }
    if record.history:
        item["history"] = {
            "L": [
                {"M": {"at": {"N": _number(e.at)}, "what": {"S": e.what}}} for e in record.history
            ]
        }
    return item


def readable(item: Item) -> Record | Unreadable:
    """Return the record that a table item holds, if it is one."""
    try:
        return from_item(item)
    except (KeyError, TypeError, ValueError) as error:
        id_ = str(item["pk"]["S"]).partition("#")[2]
        log.error("record unreadable", extra={"message_id": id_, "error": type(error).__name__})
        return Unreadable(id_)


def from_item(item: Item) -> Record:
    """Return the record that a table item holds."""

    def text(name: str) -> str:
        return str(item[name]["S"]) if name in item else ""

    def number(name: str) -> float:
        return float(item[name]["N"]) if name in item else 0.0

    return Record(
        id=text("pk").partition("#")[2],
        state=State(text("state")),
        fingerprint=text("fingerprint"),
        door=text("door"),
        caller=text("caller"),
        accepted_at=number("acceptedAt"),
        updated_at=number("updatedAt"),
        deadline=number("deadline"),
        generation=int(number("generation")),
        version=int(number("version")),
        attempt=text("attempt"),
        lease=number("lease"),
        tries=int(number("tries")),
        ambiguous=int(number("ambiguous")),
        dead_letter=DeadLetter(text("deadLetter")),
        reason=text("reason"),
        detail=text("detail"),
        reference=text("reference"),
        broadcast=text("broadcast"),
        expires_at=number("expiresAt") if "expiresAt" in item else None,
        provider_id=text("providerId"),
        attempts=tuple(
            Attempt(
                float(a["M"]["at"]["N"]),
                a["M"]["outcome"]["S"],
                a["M"]["reason"]["S"],
                int(a["M"]["ms"]["N"]),
            )
            for a in item.get("attempts", {}).get("L", [])
        ),
        history=tuple(
            Event(float(e["M"]["at"]["N"]), e["M"]["what"]["S"])
            for e in item.get("history", {}).get("L", [])
        ),
    )


def _number(value: float) -> str:
    """Return a number as DynamoDB's text of it; times to the millisecond."""
    return str(value) if isinstance(value, int) else f"{value:.3f}"
