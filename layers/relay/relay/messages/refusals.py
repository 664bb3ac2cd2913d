"""Which chats refused their last messages: marks in the table, which the first `sent` clears.

A mark is written on a refusal, and only looked for otherwise: an ordinary message costs one read
that it shares with its batch. A mark holds no phone number: a chat is a hash. Whoever reads the
marks decides which refusals count, by what else was refused with them.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.envelope import QueuedMessage
from relay.messages.states import State
from relay.messages.store import (
    KEYS_PER_CALL,
    TABLE_SECONDS,
    Item,
    StoreUnavailableError,
    code_of,
    items_under,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

log = logging.getLogger(__name__)

IN_A_ROW = 2
"""Refusals after which a chat counts as unreachable."""

MOST_SOURCES = 5
"""Refusals that a mark tells apart; more say nothing new."""

SHARDS = 256
"""Items that the list of marked chats is spread over: 300,000 chats make 40 KB each."""

KEPT_DAYS = 400
"""After the last refusal; then it may be tried again."""

RECENT = 20
"""Outcomes by which a run tells a chat that refuses from a provider that refuses everybody."""

NOTING_SECONDS = 2 * TABLE_SECONDS
"""What a chat's mark and its place on the list may take: a call to the table each."""

BROADCAST = "broadcast:"
"""How a source begins that is a broadcast's id."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What refused messages to a chat have in common: nothing was sent in between."""

    chat: str
    sources: frozenset[str]
    """The broadcasts and messages that were refused, a few of them."""
    refused_at: float
    subscriber_id: str = ""
    """Empty if it is addressed by number."""


class Refusals:
    """The marks in the Relay table."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._sleep = sleep
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def note(
        self, outcomes: Sequence[tuple[QueuedMessage, State]], *, ends_at: float = math.inf
    ) -> None:
        """Mark the chats that refused, and clear those that did not; never raise.

        What there is no time for before `ends_at` is left out.
        """
        if not outcomes:
            return
        self._recent.extend(state is State.SENT for _, state in outcomes)
        try:
            self._have_time(ends_at)
            known = self.marks(message.chat for message, _ in outcomes)
            for message, state in outcomes:
                self._have_time(ends_at)
                mark = known.get(message.chat)
                if state is State.SENT:
                    if mark:
                        self.clear(mark)
                elif self._counts(message, mark):
                    self._add(message)
        except StoreUnavailableError as error:
            log.warning("refusals not noted", extra={"reason": str(error)})

    def _have_time(self, ends_at: float) -> None:
        if self._clock() + NOTING_SECONDS > ends_at:
            raise StoreUnavailableError("the run ends")

    def _counts(self, message: QueuedMessage, mark: Mark | None) -> bool:
        """Return whether a refusal says something about the chat that is not known yet."""
        if mark and (_source(message) in mark.sources or len(mark.sources) >= MOST_SOURCES):
            return False
        # Of a broadcast's refusals, its own counts say later whether they count.
        return bool(message.broadcast) or 2 * sum(self._recent) > len(self._recent)

    def _add(self, message: QueuedMessage) -> None:
        """Mark a chat; an ADD to a set may be repeated."""
        chat, now = message.chat, self._clock()
        values: dict[str, Any] = {
            ":source": {"SS": [_source(message)]},
            ":at": {"N": f"{now:.3f}"},
            ":ttl": {"N": str(int(now) + KEPT_DAYS * 86400)},
        }
        setting = "SET refusedAt = :at, #ttl = :ttl"
        if message.subscriber_id:
            values[":id"] = {"S": message.subscriber_id}
            setting += ", subscriberId = :id"
        answer = self._update(
            Key=_key(chat),
            UpdateExpression=f"ADD sources :source {setting}",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
        )
        if len(answer["Attributes"]["sources"]["SS"]) >= IN_A_ROW:
            self._list("ADD", chat)

    def clear(self, mark: Mark) -> None:
        """Forget a chat's refusals; raise StoreUnavailableError."""
        if len(mark.sources) >= IN_A_ROW:
            self._list("DELETE", mark.chat)
        self._update(
            Key=_key(mark.chat),
            UpdateExpression="REMOVE sources SET #ttl = :ttl",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={":ttl": {"N": str(int(self._clock()) + 86400)}},
        )

    def _list(self, verb: str, chat: str) -> None:
        """Put a chat on the list of those that may be unreachable, or take it off."""
        self._update(
            Key=_shard_key(int(chat[:2], 16)),
            UpdateExpression=f"{verb} chats :chat",
            ExpressionAttributeValues={":chat": {"SS": [chat]}},
        )

    def marks(self, chats: Iterable[str]) -> Mapping[str, Mark]:
        """Return the marks there are on chats; raise StoreUnavailableError."""
        items = self._items([_key(chat) for chat in dict.fromkeys(chats)])
        found = (_mark(item) for item in items if "sources" in item)
        return {mark.chat: mark for mark in found}

    def listed(self, first: int = 0) -> Iterator[tuple[int, Sequence[Mark]]]:
        """Yield the chats with refusals in a row, shard by shard, from one on.

        Raises StoreUnavailableError.
        """
        for start in range(first, SHARDS, KEYS_PER_CALL):
            shards = range(start, min(start + KEYS_PER_CALL, SHARDS))
            items = self._items([_shard_key(n) for n in shards])
            chats = {item["pk"]["S"]: item["chats"]["SS"] for item in items if "chats" in item}
            for n in shards:
                own = chats.get(_shard_key(n)["pk"]["S"], [])
                yield n, list(self.marks(own).values()) if own else []

    def _items(self, keys: Sequence[Item]) -> Iterator[Item]:
        return items_under(self._client, self._table, keys, consistently=False, sleep=self._sleep)

    def _update(self, **arguments: Any) -> Any:
        try:
            return self._client.update_item(TableName=self._table, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailableError(code_of(error)) from None


def _source(message: QueuedMessage) -> str:
    return BROADCAST + message.broadcast if message.broadcast else f"message:{message.id}"


def _key(chat: str) -> dict[str, Any]:
    return {"pk": {"S": f"refusals#{chat}"}}


def _shard_key(n: int) -> dict[str, Any]:
    return {"pk": {"S": f"unreachable#{n}"}}


def _mark(item: Mapping[str, Any]) -> Mark:
    return Mark(
        item["pk"]["S"].partition("#")[2],
        frozenset(item["sources"]["SS"]),
        float(item["refusedAt"]["N"]),
        item.get("subscriberId", {}).get("S", ""),
    )
