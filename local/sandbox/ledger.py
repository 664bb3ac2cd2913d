"""The messages the sandbox accepted and the requests it saw."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from local.sandbox.provider import Message


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted message.

    `time` is when, in epoch seconds; `raw` is the request's body as it came, credentials included;
    `fault` is the fault that spoiled the response, if any.
    """

    seq: int
    time: float
    id: str
    botId: str  # noqa: N815 - the provider's name
    bot: str
    subscriberId: str | None  # noqa: N815 - likewise
    subscriber: str
    number: str | None
    text: str
    buttons: list[dict[str, str]]
    fault: str | None
    raw: str = field(repr=False)
    headers: dict[str, str]


FIELDS = frozenset(spec.name for spec in fields(Entry))


class Ledger:
    """The accepted messages in order; clearing it does not restart their numbers."""

    def __init__(self) -> None:
        self.era = secrets.token_hex(4)  # changes when cleared, so that an open page starts over
        self.changed = asyncio.Event()
        self._entries: list[Entry] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> int:
        """The newest sequence number, 0 if there is none yet."""
        return self._next - 1

    def accept(
        self, message: Message, *, time: float, raw: str, headers: dict[str, str], fault: str | None
    ) -> Entry:
        """Record a message and give it an id of the provider's."""
        entry = Entry(
            seq=self._next,
            time=time,
            id=secrets.token_hex(12),
            botId=message.bot.id,
            bot=message.bot.name,
            subscriberId=message.subscriber.get("id"),
            subscriber=str(message.subscriber.get("name", "")),
            number=message.number,
            text=message.text,
            buttons=message.buttons,
            fault=fault,
            raw=raw,
            headers=headers,
        )
        self._next += 1
        self._entries.append(entry)
        self._announce()
        return entry

    def since(self, seq: int) -> Sequence[Entry]:
        """Return the messages after this sequence number."""
        first = self._next - len(self._entries)
        return self._entries[max(0, seq + 1 - first) :]

    def clear(self) -> None:
        """Forget every message."""
        self._entries = []
        self.era = secrets.token_hex(4)
        self._announce()

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def shown(entries: Sequence[Entry], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Return entries as JSON objects with the wanted fields, all of them if none is named."""
    names = wanted or [spec.name for spec in fields(Entry)]
    return [{name: getattr(entry, name) for name in names} for entry in entries]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to one of the provider's endpoints, and its outcome.

    `operation` is bots, subscribers or sendMessage, or connection if an outage reset it unread.
    `outcome` is accepted, listed, refused or fault. `status` is None if a fault sent none.
    """

    seq: int
    time: float
    operation: str
    outcome: str
    status: int | None
    fault: str | None


class RequestLog:
    """Every request to the provider's endpoints, those struck by a fault included."""

    def __init__(self) -> None:
        self._seen: list[Request] = []

    def add(
        self, *, time: float, operation: str, outcome: str, status: int | None, fault: str | None
    ) -> None:
        """Record a request."""
        self._seen.append(Request(len(self._seen) + 1, time, operation, outcome, status, fault))

    def clear(self) -> None:
        """Forget every request."""
        self._seen = []

    def summary(self) -> dict[str, Any]:
        """Return the requests, counted by operation and by outcome."""
        return {
            "total": len(self._seen),
            "operations": Counter(request.operation for request in self._seen),
            "outcomes": Counter(request.outcome for request in self._seen),
            "requests": [asdict(request) for request in self._seen],
        }
