"""The account's rate: who may send when, agreed on by every concurrent run.

The account has one line of slots, 1/rate apart. A run takes a block of them with one conditional
write to one item of the table, whose `next` is the first slot nobody has. Times are seconds since
the epoch; Lambda's clocks are kept by NTP, well within a slot. A run on a host whose clock is wrong
leaves a `next` that nobody could have reserved; the next run puts it right.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.store import StoreUnavailableError, code_of

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


BROADCAST_HORIZON = 0.4
"""The same for broadcast-only batches, which also reserve no more slots than fit into it. However
many of their runs there are, a single message waits 0.8 seconds at most for its slot, unless the
rate is below 2.5 a second, and has the rest of a second for everything else."""


CLOCK_SLACK = 300.0
"""Seconds by which clocks may differ. AWS refuses what a host further off signs: "In most cases, a
request must reach AWS within five minutes of the time stamp in the request" (IAM User Guide)."""


CHATS_TO_HOLD_ALL = 3
CHATS_WITHIN = 10.0
"""Seconds. The provider does not say whether a chat or the account gets too much: it is the account
once it says so in three chats within ten seconds."""

MOST_HOLDS = 100
"""Chats whose holds the table keeps, those that last longest: the item is written for each block of
slots, and each begun KiB of it costs a write."""

FORGOTTEN = 8
"""Holds that are over before they are removed from the table."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The reserved slots' times; `next` is the first slot after them.

    A message must not be sent later than `grace` seconds after its slot, nor to a chat before the
    end of its hold, in `holds` by chat.
    """

    times: tuple[float, ...]
    next: float
    grace: float = GRACE
    holds: Mapping[str, float] = field(default_factory=dict)


class Pacer(Protocol):
    """What the relay needs of a pacer."""

    def reserve(self, count: int, *, within: float = HORIZON) -> Slots:
        """Reserve up to `count` slots, the first at most `within` seconds from now."""
        ...

    def hold(self, chat: str, until: float) -> float:
        """Note that the provider wants quiet in a chat; return until when in all of them, or 0."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """The line as the table keeps it, times since the epoch."""

    next: float = 0.0
    held_until: float = 0.0
    held_at: float = 0.0
    holds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By chat: when the provider asked for quiet, and until when."""

    def lasting(self, now: float) -> Mapping[str, float]:
        """Return until when each chat is held that is held still."""
        return {chat: until for chat, (_, until) in self.holds.items() if until > now}


@dataclass(frozen=True, slots=True)
class _Update:
    applied: bool
    line: Line


class TablePacer:
    """A pacer that keeps the next free slot in an item of the Relay table."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        rate: float,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._rate = rate
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
        quiet = "(attribute_not_exists(#held) OR #held <= :now)"
        # Busy: append to the reserved slots. Idle: start anew. One of the two conditions holds,
        # unless another run writes between the two attempts.
        for _ in range(10):
            busy = self._update(
                "SET #next = #next + :block",
                {":block": block, ":floor": floor, ":limit": now + within, ":now": now},
                f"#next >= :floor AND #next <= :limit AND {quiet}",
            )
            line = busy.line
            if busy.applied:
                return self._slots(line, line.next - block, count)
            if self._put_right(line, now, floor):
                continue
            if line.held_until > now:
                return Slots((), max(line.next, line.held_until))
            if line.next > now + within:
                return Slots((), line.next, holds=line.lasting(now))
            idle = self._update(
                "SET #next = :end",
                {":end": floor + block, ":floor": floor, ":now": now},
                f"(attribute_not_exists(#next) OR #next < :floor) AND {quiet}",
            )
            if idle.applied:
                return self._slots(idle.line, floor, count)
        return Slots((), now + 1.0)

    def hold(self, chat: str, until: float) -> float:
        """Note that the provider wants quiet in a chat; return until when in all of them, or 0."""
        now = self._clock()
        entry = {"L": [{"N": _number(now)}, {"N": _number(until)}]}
        line = self._update(
            "SET #hold = :hold", {}, names={"#hold": _HOLD + chat}, values={":hold": entry}
        ).line
        lately = [at for at, _ in line.holds.values() if now - CHATS_WITHIN <= at <= now]
        if len(lately) >= CHATS_TO_HOLD_ALL:
            log.warning("account held", extra={"seconds": round(until - now)})
            line = self._update(
                "SET #held = :until, #heldAt = :now",
                {":until": until, ":now": now},
                "attribute_not_exists(#held) OR #held < :until",
            ).line
        self._forget(line, now)
        return line.held_until if line.held_until > now else 0.0

    def _put_right(self, line: Line, now: float, floor: float) -> bool:
        """Put right what a host with a wrong clock has left; return whether there was something.

        Guarded: where another run was faster, this one joins its line.
        """
        believable = now + HORIZON + max(HORIZON, 1 / self._rate) + CLOCK_SLACK
        if line.next > believable:
            log.error("pace put right", extra={"ahead_seconds": round(line.next - now)})
            self._update(
                "SET #next = :floor",
                {":floor": floor, ":believable": believable},
                "#next > :believable",
            )
            return True
        if line.held_until > now and line.held_at > now + CLOCK_SLACK:
            log.error("hold put right", extra={"ahead_seconds": round(line.held_at - now)})
            self._update("REMOVE #held", {":until": line.held_until}, "#held = :until")
            return True
        return False

    def _slots(self, line: Line, first: float, count: int) -> Slots:
        now = self._clock()
        if len(line.holds) - len(line.lasting(now)) >= FORGOTTEN:
            self._forget(line, now)
        times = tuple(first + i / self._rate for i in range(count))
        return Slots(times, first + count / self._rate, holds=line.lasting(now))

    def _unpaced(self, now: float, count: int) -> Slots:
        return Slots((now,) * count, now, grace=float("inf"))

    def _forget(self, line: Line, now: float) -> None:
        """Remove the holds that are over, and those that end soonest where there are too many."""
        lasting = sorted(line.lasting(now), key=lambda chat: line.holds[chat][1])
        kept = lasting[-MOST_HOLDS:]
        gone = {
            f"#gone{i}": _HOLD + c for i, c in enumerate(c for c in line.holds if c not in kept)
        }
        if gone:
            self._update(f"REMOVE {', '.join(gone)}", {}, names=gone)

    def _update(
        self,
        update: str,
        numbers: Mapping[str, float],
        condition: str = "",
        *,
        names: Mapping[str, str] = MappingProxyType({}),
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> _Update:
        used = {name: known for name, known in _NAMES.items() if name in f"{update} {condition}"}
        request: dict[str, Any] = {
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {**used, **names},
            "ExpressionAttributeValues": {
                **{name: {"N": _number(value)} for name, value in numbers.items()},
                **values,
            },
        }
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=KEY,
                UpdateExpression=update,
                # "There is no additional cost associated with requesting a return value" (DynamoDB
                # API Reference, UpdateItem).
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **{name: value for name, value in request.items() if value},
            )
        except ClientError as error:
            if (code := code_of(error)) != "ConditionalCheckFailedException":
                raise StoreUnavailableError(code) from None
            return _Update(False, line_of(error.response.get("Item")))
        except BotoCoreError as error:
            raise StoreUnavailableError(code_of(error)) from None
        return _Update(True, line_of(answer.get("Attributes")))


_HOLD = "hold#"
_NAMES = {"#next": "next", "#held": "held", "#heldAt": "heldAt"}


def line_of(item: Any) -> Line:
    """Return the line that the item under `KEY` holds; an empty one if there is no item."""
    item = item or {}

    def number(name: str) -> float:
        return float(item[name]["N"]) if name in item else 0.0

    holds = {
        name.removeprefix(_HOLD): (float(entry["L"][0]["N"]), float(entry["L"][1]["N"]))
        for name, entry in item.items()
        if name.startswith(_HOLD)
    }
    return Line(number("next"), number("held"), number("heldAt"), holds)


def _number(value: float) -> str:
    return str(round(Decimal(value), 6))
