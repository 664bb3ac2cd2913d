"""What the sandbox remembers: the messages it accepted and the requests it saw."""

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

    `time` is epoch seconds, taken as the message was accepted; `raw` is the request's body to the
    letter, credentials included; `fault` is what then became of the answer, if anything did.
    """

    seq: int
    time: float
    id: str
    botId: str  # noqa: N815 - the ledger speaks the provider's names
    bot: str
    subscriberId: str | None  # noqa: N815 - the same
    subscriber: str
    number: str | None
    text: str
    buttons: list[dict[str, str]]
    fault: str | None
    raw: str = field(repr=False)
    headers: dict[str, str]


FIELDS = frozenset(spec.name for spec in fields(Entry))


class Ledger:
    """Every accepted message in order; sequence numbers go on after it was emptied."""

    def __init__(self) -> None:
        self.era = secrets.token_hex(4)  # tells a page that came back that this is another ledger
        self.changed = asyncio.Event()
        self._entries: list[Entry] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> int:
        """The newest sequence number given away so far, 0 at first."""
        return self._next - 1

    def accept(
        self, message: Message, *, time: float, raw: str, headers: dict[str, str], fault: str | None
    ) -> Entry:
        """Write a message down and give it the provider's id."""
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
        """List what was accepted after this sequence number."""
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
    """Show entries as JSON objects with the wanted fields, or with all of them."""
    names = wanted or [spec.name for spec in fields(Entry)]
    return [{name: getattr(entry, name) for name in names} for entry in entries]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to one of the provider's endpoints and what became of it.

    `operation` is bots, subscribers or sendMessage; connection, where an outage left no more to
    see. `outcome` is accepted, listed, refused or fault; `status` is None where a fault left the
    request without one.
    """

    seq: int
    time: float
    operation: str
    outcome: str
    status: int | None
    fault: str | None


class RequestLog:
    """Every request the provider's endpoints saw, the faulted ones included."""

    def __init__(self) -> None:
        self._seen: list[Request] = []

    def add(
        self, *, time: float, operation: str, outcome: str, status: int | None, fault: str | None
    ) -> None:
        """Write a request down."""
        self._seen.append(Request(len(self._seen) + 1, time, operation, outcome, status, fault))

    def clear(self) -> None:
        """Forget every request."""
        self._seen = []

    def summary(self) -> dict[str, Any]:
        """Count the requests by operation and outcome, and list them."""
        return {
            "total": len(self._seen),
            "operations": Counter(request.operation for request in self._seen),
            "outcomes": Counter(request.outcome for request in self._seen),
            "requests": [asdict(request) for request in self._seen],
        }
