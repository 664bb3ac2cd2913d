"""Who gets a broadcast, what it says to each, and who is left out and why.

A dry run and the real one read the list here, one entry at a time, so that they find the same.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from relay.broadcasts.bucket import Bucket, LineTooLongError, NoSuchFileError
from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    Cause,
    QueuedBroadcast,
    Recipient,
    message_id,
)
from relay.broadcasts.table import CHUNK, BroadcastTable, Listed, SnapshotGoneError
from relay.messages.envelope import (
    MAX_BUTTONS,
    MAX_ID,
    Button,
    Content,
    QueuedMessage,
    Text,
    chat_of,
)
from relay.messages.hours import Hours
from relay.messages.states import State
from relay.messages.store import Store, Unreadable
from relay.templates import Expression, Payload, Template, TemplateError
from relay.validation import InvalidMessageError, model_config, parse, validate

BAD_LINES = 5
"""Broken lines of a list that are named; no more are looked for."""

_PERSONAL = re.compile(r"[^ -~]+|\+?\d(?:[ ().-]*\d){4,}")
"""What may be a name or a number in a sentence about a broken line, which quotes fields' names: the
table holds none."""

DID_NOT_GET_IT = frozenset({State.REJECTED, State.FAILED, State.EXPIRED, State.CANCELED})
"""The states of a message that did not reach its recipient, and never will by itself."""


class AudienceError(Exception):
    """Nobody can say who gets a broadcast; nothing was sent.

    `reason` is a short stable code, `field` what to change.
    """

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.field = field
        self.detail = detail


class NotListedYetError(AudienceError):
    """The broadcast to exclude has not listed its recipients; nobody knows yet who will get it."""

    def __init__(self) -> None:
        super().__init__("exclude_not_listed", "exclude", "has not listed its recipients yet")


class _TimeIsUpError(Exception):
    """There is no time for more of a list."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that gets no message: its cause, and what is wrong if it cannot be rendered."""

    cause: Cause
    who: str = ""
    """The subscriber's id, or the place in the list of recipients, counted from 1."""
    problem: str = ""


class _Rendered(BaseModel):
    """What every door asks of a text and its buttons."""

    model_config = model_config

    text: Text
    buttons: Annotated[tuple[Button, ...], Field(max_length=MAX_BUTTONS)]
    between: Hours | None


class Personal:
    """A broadcast's text and buttons, for each recipient."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._content = {name: getattr(broadcast, name) for name in Content.model_fields}
        self._templates: list[Template] = []
        if broadcast.template:
            self._templates = [Template(source) for _, source in broadcast.sources]
        self._hours = broadcast.between
        self._where = Expression(broadcast.where) if broadcast.where else None

    def wants(self, entry: Mapping[str, Any]) -> bool:
        """Return whether `where` holds for an entry; raise TemplateError if nobody can say."""
        return self._where is None or self._where.holds(Payload(entry, {}))

    def values(self, entry: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what the templates find in an entry; raise TemplateError, InvalidMessageError."""
        if not self._templates:
            return ()
        payload = Payload(entry, {})
        values = tuple(value for t in self._templates for value in t.values(payload))
        self.content(values)
        return values

    def content(self, values: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a message; raise InvalidMessageError if one breaks a rule."""
        if not self._templates:
            return self._content
        left = iter(values)
        filled = [t.fill([next(left) for _ in range(t.holes)]) for t in self._templates]
        hours = self._hours.model_dump() if self._hours else None
        if hours and self._hours and self._hours.differ:
            hours["timezone"] = filled.pop()
        pairs = zip(filled[1::2], filled[2::2], strict=True)
        buttons = [{"text": text, "url": url} for text, url in pairs]
        rendered = validate(_Rendered, {"text": filled[0], "buttons": buttons, "between": hours})
        return {
            **self._content,
            **{name: getattr(rendered, name) for name in _Rendered.model_fields},
        }

    def message(self, broadcast: QueuedBroadcast, listed: Listed) -> QueuedMessage:
        """Return one recipient's message."""
        return QueuedMessage.model_construct(
            **self.content(listed.values),
            **addressed(listed, broadcast.bot_id),
            id=message_id(broadcast.id, *listed.address),
            broadcast=broadcast.id,
        )


def addressed(listed: Listed, bot_id: str) -> dict[str, Any]:
    """Return the fields of a message that say who gets it."""
    match listed.address:
        case (subscriber_id,):
            return {"subscriber_id": subscriber_id}
        case (own, number):
            return {"bot_id": own or bot_id, "number": number}
        case _:
            raise ValueError("no address")


@dataclass(slots=True)
class Trial:
    """What a broadcast would do, as far as its list was read."""

    complete: bool = True
    total: int = 0
    skipped: Counter[Cause] = field(default_factory=Counter)
    samples: list[QueuedMessage] = field(default_factory=list)
    unrenderable: list[Skipped] = field(default_factory=list)


class Audience:
    """Reads who gets a broadcast."""

    def __init__(
        self,
        *,
        subscribers: Callable[[str], Iterable[Mapping[str, object]]],
        table: BroadcastTable,
        store: Store,
        bucket: Bucket,
        unreachable: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._subscribers = subscribers
        self._table = table
        self._store = store
        self._bucket = bucket
        self._unreachable = unreachable

    def select(
        self, broadcast: Broadcast, keep: Callable[[], None] = lambda: None
    ) -> "Iterator[Listed | Skipped]":
        """Yield who gets a broadcast and who does not, in the order of the list.

        `keep` is called now and then while nobody is yielded; what it raises ends the list. Raises
        AudienceError, ProviderError, CredentialsError and StoreUnavailableError.
        """
        personal = Personal(broadcast)
        entries = self._entries(broadcast, keep)
        with _Addresses() as excluded, _Addresses() as refused, _Addresses() as seen:
            if broadcast.exclude:
                for address in self._reached_by(broadcast.exclude, keep):
                    excluded.add(chat_of(*address))
            if not broadcast.include_unreachable:
                for n, chat in enumerate(self._unreachable()):
                    refused.add(chat)
                    if n % CHUNK == 0:
                        keep()
            for who, address, entry in entries:
                chat = chat_of(*_full(address, broadcast.bot_id))
                if not address:
                    yield Skipped(Cause.WITHOUT_ID)
                elif not seen.add(chat):
                    yield Skipped(Cause.DUPLICATES)
                elif chat in excluded:
                    yield Skipped(Cause.EXCLUDED)
                elif chat in refused:
                    yield Skipped(Cause.UNREACHABLE)
                else:
                    yield _rendered(personal, who, address, entry)

    def try_out(
        self, broadcast: QueuedBroadcast, *, samples: int, goes_on: Callable[[], bool]
    ) -> Trial:
        """Return what a broadcast would do; `goes_on` says whether there is time for more of it."""
        trial = Trial()
        personal = Personal(broadcast)

        def keep() -> None:
            if not goes_on():
                raise _TimeIsUpError

        try:
            for found in self.select(broadcast, keep):
                if isinstance(found, Skipped):
                    trial.skipped[found.cause] += 1
                    if found.problem and len(trial.unrenderable) < 10:
                        trial.unrenderable.append(found)
                else:
                    trial.total += 1
                    if len(trial.samples) < samples:
                        trial.samples.append(personal.message(broadcast, found))
                keep()
        except _TimeIsUpError:
            trial.complete = False
        return trial

    def check(self, broadcast: Broadcast) -> None:
        """Raise AudienceError for what can be seen without reading the list."""
        if broadcast.recipients_from:
            self._key(broadcast.recipients_from)
        if broadcast.exclude:
            self._excluded(broadcast.exclude)

    # -------------------------------------------------------------------------------- the lists

    def _entries(
        self, broadcast: Broadcast, keep: Callable[[], None]
    ) -> "Iterable[tuple[str, tuple[str, ...], Mapping[str, Any]]]":
        """Return (who, address, entry) of everybody in the list."""
        if broadcast.recipients is not None:
            return (
                (str(n), _shortened(recipient.address, broadcast.bot_id), recipient.data)
                for n, recipient in enumerate(broadcast.recipients, start=1)
            )
        if broadcast.recipients_from:
            return self._from_file(self._key(broadcast.recipients_from), broadcast.bot_id, keep)
        return (
            (address[0] if address else "", address, entry)
            for entry in self._subscribers(broadcast.bot_id)
            for address in [_usable(entry.get("id"))]
        )

    def _from_file(
        self, key: str, bot_id: str, keep: Callable[[], None]
    ) -> "Iterator[tuple[str, tuple[str, ...], Mapping[str, Any]]]":
        """Yield the recipients in a file; read on after a broken line only to name others."""
        broken: list[str] = []
        n = 0
        try:
            for n, line in enumerate(self._bucket.lines(key), start=1):
                if n % CHUNK == 0:
                    keep()
                text = line.removeprefix(b"\xef\xbb\xbf") if n == 1 else line
                if not text.strip():
                    continue
                try:
                    recipient = parse(Recipient, text)
                except InvalidMessageError as error:
                    broken.append(f"line {n}: {_PERSONAL.sub('…', str(error))}")
                    if len(broken) == BAD_LINES:
                        break
                    continue
                if not broken:
                    yield str(n), _shortened(recipient.address, bot_id), recipient.data
        except LineTooLongError:
            broken.append(f"line {n + 1}: is too long")
        except NoSuchFileError:
            raise _no_file() from None
        if broken:
            raise AudienceError("recipients_invalid", "recipientsFrom", "; ".join(broken))

    def _key(self, address: str) -> str:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        if bucket != self._bucket.name:
            raise AudienceError(
                "recipients_elsewhere",
                "recipientsFrom",
                f"must be in the stack's bucket, s3://{self._bucket.name}/recipients/",
            )
        return key

    def _excluded(self, id_: str) -> BroadcastRecord:
        found = self._table.load([id_]).get(id_)
        if found is None:
            raise AudienceError("exclude_unknown", "exclude", "no broadcast has this id")
        return found

    def _reached_by(self, id_: str, keep: Callable[[], None]) -> Iterator[tuple[str, ...]]:
        """Yield the addresses that a broadcast has reached, or may have or yet reach."""
        other = self._excluded(id_)
        if other.awaits_snapshot:
            raise NotListedYetError
        for n in range((other.due + CHUNK - 1) // CHUNK if other.snapshot else 0):
            keep()
            try:
                found = self._table.chunk(other, n)
            except SnapshotGoneError:
                raise AudienceError(
                    "exclude_gone", "exclude", "is too old: nobody knows who got it"
                ) from None
            ids = [message_id(id_, *listed.address) for listed in found]
            records = self._store.load(ids)
            for key, listed in zip(ids, found, strict=True):
                record = records.get(key)
                known = None if isinstance(record, Unreadable) else record
                if known is None or known.state not in DID_NOT_GET_IT:
                    yield _full(listed.address, other.bot_id)


def _rendered(
    personal: Personal, who: str, address: tuple[str, ...], entry: Mapping[str, Any]
) -> Listed | Skipped:
    try:
        if not personal.wants(entry):
            return Skipped(Cause.FILTERED)
        return Listed(address, personal.values(entry))
    except (TemplateError, InvalidMessageError) as error:
        return Skipped(Cause.UNRENDERABLE, who, str(error))


def _no_file() -> AudienceError:
    return AudienceError(
        "recipients_not_found",
        "recipientsFrom",
        "there is no such file, or the relay may not read it",
    )


def _usable(id_: object) -> tuple[str, ...]:
    return (id_,) if isinstance(id_, str) and 0 < len(id_) <= MAX_ID else ()


def _full(address: tuple[str, ...], bot_id: str) -> tuple[str, ...]:
    """Return an address that says its bot."""
    return (address[0] or bot_id, address[1]) if len(address) > 1 else address


def _shortened(address: tuple[str, ...], bot_id: str) -> tuple[str, ...]:
    """Return an address that leaves out the broadcast's own bot."""
    return ("", *address[1:]) if len(address) > 1 and address[0] == bot_id else address


class _Addresses:
    """A set of chats of any size in little memory: SQLite keeps it in a temporary file."""

    def __enter__(self) -> Self:
        import sqlite3  # noqa: PLC0415 - only who lists an audience needs it

        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE seen (chat BLOB PRIMARY KEY) WITHOUT ROWID")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, chat: str) -> bool:
        """Add a chat; return whether it is new."""
        added = self._database.execute(
            "INSERT OR IGNORE INTO seen VALUES (?)", [bytes.fromhex(chat)]
        )
        return bool(added.rowcount)

    def __contains__(self, chat: str) -> bool:
        found = self._database.execute("SELECT 1 FROM seen WHERE chat = ?", [bytes.fromhex(chat)])
        return found.fetchone() is not None
