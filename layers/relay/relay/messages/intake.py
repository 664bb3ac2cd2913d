"""accept(): the way in from every door but the queue itself.

The queue comes first, the record second: a record says that its message is, or was, on the queue.
Whatever stops a call in between leaves either nothing, or a message that the sender delivers as it
delivers one that a producer put on the queue; nothing is left that only a repeat could end.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.messages.envelope import Message, QueuedMessage, differ
from relay.messages.queues import Queues, delay_for
from relay.messages.seals import OWN_IDS
from relay.messages.states import (
    TERMINAL,
    TOO_FAR,
    Change,
    Record,
    Rules,
    State,
    first_record,
    is_too_far,
)
from relay.messages.store import (
    Applied,
    Conflict,
    Store,
    StoreUnavailableError,
    Unreadable,
    Written,
)
from relay.validation import Location


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay will deliver the message; `replayed` if an earlier call handed it in."""

    record: Record
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The id belongs to another message."""

    record: Record


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Not known to be accepted: repeat with the same key, under which it is sent once.

    The table or the queue did not say that it took the message, which does not mean that it did
    not.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class TooFar:
    """Its time is later than a queue can hold it; nothing was accepted."""

    problem: tuple[Location, str] = TOO_FAR


@dataclass(frozen=True, slots=True)
class Full:
    """Its time has not come, and too many others wait for theirs; nothing was accepted."""


Answer = Accepted | KeyReused | Unavailable | TooFar | Full

TABLE_SILENT = Unavailable("the table did not say that it took the record")
QUEUE_SILENT = Unavailable("the queue did not say that it took the message")

OVERDUE = 3600.0
"""Seconds after its deadline at which a message has ended, if the queue still had it."""


def fresh_id() -> str:
    """Return an id for a message that came without a key."""
    return uuid.uuid4().hex


def scoped_id(*parts: str) -> str:
    """Return the id for a caller's key: same parts, same id, at most 64 characters."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{OWN_IDS}{digest[:40]}"


def queued(message: Message, id_: str) -> QueuedMessage:
    """Return an envelope as it goes on the queue, under its id."""
    fields = {name: getattr(message, name) for name in Message.model_fields}
    return QueuedMessage.model_construct(**fields, id=id_)


class Intake:
    """Accepts messages: puts each on the queue, writes its record, and only then says so."""

    def __init__(
        self,
        store: Store,
        queues: Queues,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.time,
        count: Callable[[int], None] = lambda _: None,
        new_id: Callable[[], str] = fresh_id,
    ) -> None:
        self._store = store
        self._queues = queues
        self._rules = rules
        self._clock = clock
        self._count = count
        self._new_id = new_id

    def skip(self, message: QueuedMessage, *, door: str, reason: str, caller: str = "") -> Answer:
        """Record that a message is too late to be sent, unless it was accepted in time."""
        record = self._record(message, door, caller)
        record = replace(record, state=State.EXPIRED, reason=reason, lease=0.0)
        [written] = self._store.apply([Change(None, record)])
        return self._concluded([message], [record], [written])[0] or TABLE_SILENT

    def knows(self, ids: Collection[str]) -> bool:
        """Return whether any of these ids has a record; raise StoreUnavailableError."""
        return bool(ids and self._store.load(ids))

    def accept(
        self,
        messages: Sequence[QueuedMessage],
        *,
        door: str,
        caller: str = "",
        delay: int = 0,
        fresh: Collection[str] = (),
    ) -> list[Answer]:
        """Accept each message, or say why not; answers in order, ids distinct.

        A known id is answered with its record as it stands. `fresh` are the ids that nobody has
        used, because they were made for this call: such a message needs no record to be accepted,
        since the sender makes one, which knows no `caller`. `delay` is how many seconds the queue
        holds the messages back, up to 900, or longer those whose time has not come.
        """
        answers: dict[str, Answer] = {}
        known = self._known([str(m.id) for m in messages if m.id not in fresh])
        new: list[QueuedMessage] = []
        again: list[QueuedMessage] = []
        for message in messages:
            id_ = str(message.id)
            if id_ in fresh:
                new.append(message)
            elif known is None or isinstance(record := known.get(id_), Unreadable):
                answers[id_] = TABLE_SILENT
            elif record:
                answers[id_] = _repeat(record, message)
                if isinstance(answers[id_], Accepted) and self._may_be_missing(record):
                    again.append(message)
            else:
                new.append(message)
        now = self._clock()
        refusals = self._refused(new, now)
        answers |= refusals
        new = [message for message in new if str(message.id) not in refusals]
        # Each repeat's copy would wait as long as the first one.
        too_many = self._refused(again, now)
        again = [message for message in again if str(message.id) not in too_many]
        delays = [max(delay, delay_for(m.may_go_at(now) - now)) for m in [*new, *again]]
        refused = self._queues.enqueue([*new, *again], delays)
        for message, problem in zip([*new, *again], refused, strict=True):
            if problem is not None:
                answers[str(message.id)] = QUEUE_SILENT
        new = [message for message in new if str(message.id) not in answers]
        records = [
            # Unique per call, so a write whose response was lost is not taken for another caller's.
            replace(self._record(message, door, caller), attempt=f"accept-{self._new_id()}")
            for message in new
        ]
        written = self._store.apply([Change(None, record) for record in records])
        concluded = self._concluded(new, records, written)
        for message, record, answer in zip(new, records, concluded, strict=True):
            if message.id in fresh:
                # Nobody else can have used the id: what has its record is the sender.
                found = answer.record if isinstance(answer, Accepted) else record
                answers[record.id] = Accepted(found)
            else:
                answers[record.id] = answer or TABLE_SILENT
        # What the sender made the record of, it counts itself.
        ours = {record.attempt for record in records}
        self._count(sum(isinstance(a, Accepted) and a.record.attempt in ours for a in concluded))
        return [answers[str(message.id)] for message in messages]

    def _refused(self, messages: Iterable[QueuedMessage], now: float) -> dict[str, Answer]:
        """Return the answers to those messages that cannot wait for their time, by id."""
        waiting = [message for message in messages if message.may_go_at(now) > now]
        full = bool(waiting) and not self._queues.has_room_to_wait()
        return {
            str(message.id): TooFar() if is_too_far(message, now) else Full()
            for message in waiting
            if full or is_too_far(message, now)
        }

    def _record(self, message: QueuedMessage, door: str, caller: str) -> Record:
        now = self._clock()
        return first_record(
            message, door=door, caller=caller, accepted_at=now, now=now, rules=self._rules
        )

    def _known(self, ids: Sequence[str]) -> Mapping[str, Record | Unreadable] | None:
        """Return the records there are, or None if the table cannot be read."""
        try:
            return self._store.load(ids) if ids else {}
        except StoreUnavailableError:
            return None

    def _may_be_missing(self, record: Record) -> bool:
        """Return whether to queue a repeat: a second copy does no harm, a missing one would.

        Its first copy may be gone if somebody emptied the queue, or was never there if version
        0.1.0 accepted it, which wrote the record first.
        """
        if record.state in TERMINAL:
            return False
        never_tried = record.state is State.QUEUED and not record.tries
        return never_tried or self._clock() > record.deadline + OVERDUE

    def _concluded(
        self,
        messages: Sequence[QueuedMessage],
        records: Sequence[Record],
        written: Sequence[Written],
    ) -> list[Answer | None]:
        """Return what the attempts to write first records mean; None where nobody can say.

        A write whose answer was lost may have been made or not: the table is asked again.
        """
        silent = [
            record.id
            for record, answer in zip(records, written, strict=True)
            if not isinstance(answer, Applied | Conflict)
        ]
        known = self._known(silent) or {}
        answers: list[Answer | None] = []
        for message, record, answer in zip(messages, records, written, strict=True):
            match answer:
                case Applied():
                    answers.append(Accepted(record))
                    continue
                case Conflict(current):
                    pass
                case _:
                    found = known.get(record.id)
                    current = found if isinstance(found, Record) else None
            if current is None:
                answers.append(None)
            elif current.attempt == record.attempt and current.state is record.state:
                answers.append(Accepted(current))
            else:
                # Another call's, or the sender's, which was faster. Nobody can tell which call was
                # first then, so that none says that it was.
                answers.append(_repeat(current, message))
        return answers


def _repeat(record: Record, message: QueuedMessage) -> Answer:
    """Return the answer to a message whose id has a record."""
    if differ(record.fingerprint, message.fingerprint):
        return KeyReused(record)
    return Accepted(record, replayed=True)
