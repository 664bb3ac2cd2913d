"""The account's rate: who may send when, agreed on by every concurrent run.

The account has one line of slots, 1/rate apart. A run takes a block of them with one conditional
write to one item of the table, whose `next` is the first slot nobody has. Times are seconds since
the epoch; Lambda's clocks are kept by NTP, well within a slot. A run on a host whose clock is wrong
leaves a `next` that nobody could have reserved; the next run puts it right.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.store import StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

log = logging.getLogger(__name__)

KEY = {"pk": {"S": "pacing"}}

IDLE_SECONDS = 0.2
"""Seconds of idle time that still count as slots, so a run between two batches loses none."""

GRACE = 0.4
"""Seconds after its slot in which a message may still be sent. It bounds bursts: no second sees
more than 1.4 seconds' worth of messages, whatever delays a POST."""

HORIZON = 10.0
"""Seconds. Slots further off are not reserved: those messages wait on the queue, at no cost."""


BROADCAST_HORIZON = 0.5
"""The same for broadcast-only batches, which also reserve no more slots than fit into it. A single
message therefore waits about a second at most for its slot."""


CLOCK_SLACK = 300.0
"""Seconds by which clocks may differ. AWS refuses what a host further off signs: "In most cases, a
request must reach AWS within five minutes of the time stamp in the request" (IAM User Guide)."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The reserved slots' times; `next` is the first slot after them.

    A message must not be sent later than `grace` seconds after its slot.
    """

    times: tuple[float, ...]
    next: float
    grace: float = GRACE


class Pacer(Protocol):
    """What the relay needs of a pacer."""

    def reserve(self, count: int, *, within: float = HORIZON) -> Slots:
        """Reserve up to `count` slots, the first at most `within` seconds from now."""
        ...

    def hold(self, until: float) -> None:
        """Grant no slot before `until`: the provider asked to slow down."""
        ...


class TablePacer:
    """A pacer that keeps the next free slot in an item of the Relay table."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        rate: float,
        *,
        longest_hold: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._rate = rate
        self._longest_hold = longest_hold
        self._clock = clock

    def reserve(self, count: int, *, within: float = HORIZON) -> Slots:
        """Reserve up to `count` slots, the first at most `within` seconds from now.

        One write does it, unless another run's came in between. Raises StoreUnavailableError if
        the table does not answer.
        """
        now = self._clock()
        if not self._rate:
            return self._unpaced(now, count)
        count = min(count, max(1, int(self._rate * within)))
        block = count / self._rate
        floor = now - IDLE_SECONDS
        # Busy: append to the reserved slots. Idle: start anew. One of the two conditions holds,
        # unless another run writes between the two attempts.
        for _ in range(10):
            busy = self._update(
                "SET #next = #next + :block",
                "#next >= :floor AND #next <= :limit",
                {":block": block, ":floor": floor, ":limit": now + within},
            )
            if busy.applied:
                return self._slots(busy.next - block, count)
            if busy.next > (believable := self._believable(now)):
                log.error("pace put right", extra={"ahead_seconds": round(busy.next - now)})
                # Guarded: where another run was faster, this one joins its line.
                self._update(
                    "SET #next = :floor",
                    "#next > :believable",
                    {":floor": floor, ":believable": believable},
                )
                continue
            if busy.next > now + within:
                return Slots((), busy.next)
            idle = self._update(
                "SET #next = :end",
                "attribute_not_exists(#next) OR #next < :floor",
                {":end": floor + block, ":floor": floor},
            )
            if idle.applied:
                return self._slots(floor, count)
        return Slots((), now + 1.0)

    def hold(self, until: float) -> None:
        """Grant no slot before `until`: the provider asked to slow down."""
        self._update(
            "SET #next = :until",
            "attribute_not_exists(#next) OR #next < :until",
            {":until": until},
        )

    def _believable(self, now: float) -> float:
        """Return the latest `next` that a hold or a block of slots can have left."""
        block = max(HORIZON, 1 / self._rate)
        return now + max(self._longest_hold, HORIZON + block) + CLOCK_SLACK

    def _slots(self, first: float, count: int) -> Slots:
        times = tuple(first + i / self._rate for i in range(count))
        return Slots(times, first + count / self._rate)

    def _unpaced(self, now: float, count: int) -> Slots:
        return Slots((now,) * count, now, grace=float("inf"))

    def _update(self, update: str, condition: str, values: dict[str, float]) -> "_Update":
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=KEY,
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames={"#next": "next"},
                ExpressionAttributeValues={
                    name: {"N": str(round(Decimal(value), 6))} for name, value in values.items()
                },
                ReturnValues="UPDATED_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise StoreUnavailableError(error.response["Error"]["Code"]) from None
            return _Update(False, _next_of(error.response.get("Item")))
        except BotoCoreError as error:
            raise StoreUnavailableError(type(error).__name__) from None
        return _Update(True, _next_of(answer.get("Attributes")))


@dataclass(frozen=True, slots=True)
class _Update:
    applied: bool
    next: float


def _next_of(item: Any) -> float:
    return float(item["next"]["N"]) if item and "next" in item else 0.0
