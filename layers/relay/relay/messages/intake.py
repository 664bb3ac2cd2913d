"""accept(): the way in from every door but the queue itself."""

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay.messages.envelope import Message, QueuedMessage
from relay.messages.queues import Queues
from relay.messages.states import Change, Record, Rules, State, first_record
from relay.messages.store import Applied, Conflict, Store


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
    """Not accepted: the table or the queue is unavailable. Repeat with the same key."""

    reason: str


@dataclass(frozen=True, slots=True)
class InProgress:
    """An earlier call with this id is being withdrawn. Repeat in a moment."""


Answer = Accepted | KeyReused | Unavailable | InProgress


def fresh_id() -> str:
    """Return an id for a message that came without a key."""
    return uuid.uuid4().hex


def scoped_id(*parts: str) -> str:
    """Return the id for a caller's key: same parts, same id, at most 64 characters."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"k-{digest[:40]}"


def queued(message: Message, id_: str) -> QueuedMessage:
    """Return an envelope as it goes on the queue, under its id."""
    fields = {name: getattr(message, name) for name in Message.model_fields}
    return QueuedMessage.model_construct(**fields, id=id_)


class Intake:
    """Accepts messages: writes the record, puts the message on the queue, and only then says so."""

    def __init__(
        self,
        store: Store,
        queues: Queues,
        rules: Rules,
        *,
        clock: Callable[[], float] = time.time,
        count: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._queues = queues
        self._rules = rules
        self._clock = clock
        self._count = count

    def skip(self, message: QueuedMessage, *, door: str, reason: str) -> Answer:
        """Record that a message is too late to be sent, unless it was accepted in time."""
        now = self._clock()
        record = first_record(message, door=door, accepted_at=now, now=now, rules=self._rules)
        skipped = replace(record, state=State.EXPIRED, reason=reason)
        match self._store.apply([Change(None, skipped)]):
            case [Applied()]:
                return Accepted(skipped)
            case _:
                return self.accept([message], door=door)[0]

    def accept(
        self, messages: Sequence[QueuedMessage], *, door: str, delay: int = 0
    ) -> list[Answer]:
        """Accept each message, or say why not; answers in order, ids distinct.

        A known id is answered with its record as it stands. Its message is queued again if it was
        never tried: a second copy does no harm, a missing one would. `delay` is how many seconds
        the queue holds the message back, up to 900.
        """
        now = self._clock()
        changes = [
            # Unique per call, so a write whose response was lost is not taken for another caller's.
            Change(None, replace(record, attempt=f"accept-{fresh_id()}"))
            for record in (
                first_record(m, door=door, accepted_at=now, now=now, rules=self._rules)
                for m in messages
            )
        ]
        answers: list[Answer] = []
        to_queue: list[int] = []
        for i, written in enumerate(self._store.apply(changes)):
            match written:
                case Applied(record) if record:
                    answers.append(Accepted(record))
                    to_queue.append(i)
                case Conflict(record) if record:
                    if record.fingerprint != messages[i].fingerprint:
                        answers.append(KeyReused(record))
                        continue
                    answers.append(Accepted(record, replayed=True))
                    if record.state is State.QUEUED and not record.tries:
                        to_queue.append(i)
                case Conflict():
                    answers.append(InProgress())
                case _:
                    answers.append(Unavailable("the table does not accept messages now"))
        refused = self._queues.enqueue([messages[i] for i in to_queue], delay)
        for i, problem in zip(to_queue, refused, strict=True):
            if problem is None:
                continue
            answer = answers[i]
            answers[i] = Unavailable("the queue does not accept messages now")
            if isinstance(answer, Accepted) and not answer.replayed:
                # The caller was not told that it is accepted, and may never repeat it.
                self._store.apply([Change(answer.record, None)])
        self._count(sum(isinstance(a, Accepted) and not a.replayed for a in answers))
        return answers
