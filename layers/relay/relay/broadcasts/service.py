"""What a caller may do with broadcasts: start one, get it, pause, resume and stop it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from relay.broadcasts.audience import Audience, Trial
from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    Command,
    QueuedBroadcast,
    Status,
    first_record_of,
    message_id,
    paused,
    resumed,
    stopped,
)
from relay.broadcasts.reach import Reach
from relay.broadcasts.table import CHUNK, BroadcastTable, SnapshotGoneError
from relay.messages.envelope import differ
from relay.messages.lists import Found, id_at
from relay.messages.queues import Queues
from relay.messages.states import TOO_FAR, Record, State, is_too_far
from relay.messages.store import KEYS_PER_CALL, Store, StoreUnavailableError
from relay.validation import InvalidMessageError

SAMPLES = 3
"""Messages that a dry run shows."""

READ_WRITE_ROUNDS = 3
"""How often a broadcast may change between being read and being written."""

LOOKED_THROUGH = 1000
"""Messages of a broadcast that one look for those in a state reads, at the most: ten reads of a
hundred, about 0.2 seconds."""

OBEYED: Mapping[Command, frozenset[Status]] = {
    Command.PAUSE: frozenset({Status.PAUSED}),
    Command.RUN: frozenset({Status.RUNNING, Status.PREPARING}),
    Command.STOP: frozenset({Status.STOPPED}),
}
"""The statuses in which there is nothing left to do for a command."""


@dataclass(frozen=True, slots=True)
class Started:
    """The broadcast is the relay's to deliver; `replayed` if an earlier call brought it."""

    broadcast: BroadcastRecord
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Reused:
    """Another broadcast has this id already."""

    broadcast: BroadcastRecord


@dataclass(frozen=True, slots=True)
class InvalidTransition:
    """The broadcast has ended, or its status does not allow the command."""

    broadcast: BroadcastRecord


@dataclass(frozen=True, slots=True)
class FoundBroadcasts:
    """Broadcasts, newest first; `after` is where the next ones begin, "" at the end."""

    broadcasts: Sequence[BroadcastRecord]
    after: str = ""


class Broadcasts:
    """Broadcasts, as callers deal with them."""

    def __init__(
        self,
        table: BroadcastTable,
        messages: Store,
        queues: Queues,
        audience: Audience,
        reach: Reach,
        *,
        rate: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._messages = messages
        self._queues = queues
        self._audience = audience
        self.reach = reach
        self.rate = rate
        self._clock = clock

    def start(self, broadcast: QueuedBroadcast, *, late: bool = False) -> Started | Reused:
        """Accept a broadcast; one that is too `late` is recorded as stopped and never sent.

        The queue comes first, the record second, so a record says that the broadcast is, or was,
        on the queue; the fan-out makes the record if nobody else did. StoreUnavailableError and
        QueueUnavailableError mean that nobody knows whether it is accepted: a repeat will say.
        InvalidMessageError means that its time is too far ahead.
        """
        now = self._clock()
        first = first_record_of(broadcast, now)
        if late:
            first = stopped(first, now, "late") or first
        known = earlier = self._table.load([broadcast.id]).get(broadcast.id)
        if known is None:
            if is_too_far(broadcast, now):
                raise InvalidMessageError([TOO_FAR])
            if not late:
                self._queues.enqueue_notifier(broadcast.to_body())
            # The fan-out may have met it on the queue and made the record meanwhile.
            known = self._table.create(first) or first
        if differ(known.fingerprint, broadcast.fingerprint):
            return Reused(known)
        if earlier and earlier.awaits_snapshot:
            # Version 0.1.0 wrote the record first, and may have died before it came to the queue.
            self._queues.enqueue_notifier(broadcast.to_body())
        return Started(known, replayed=earlier is not None)

    def check(self, broadcast: Broadcast) -> None:
        """Refuse a broadcast before it is accepted, for what can be seen without its list.

        Raises AudienceError and StoreUnavailableError.
        """
        self._audience.check(broadcast)

    def try_out(self, broadcast: QueuedBroadcast, *, seconds: float) -> Trial:
        """Return what a broadcast would do, as far as it can be said in so many seconds.

        Nothing is written or sent. Raises what Audience.select raises.
        """
        ends_at = self._clock() + seconds
        return self._audience.try_out(
            broadcast, samples=SAMPLES, goes_on=lambda: self._clock() < ends_at
        )

    def get(self, id_: str) -> BroadcastRecord | None:
        """Return a broadcast as it stands; raise StoreUnavailableError."""
        return self._table.load([id_]).get(id_)

    def find(self, *, limit: int, after: str = "") -> FoundBroadcasts:
        """Return up to `limit` broadcasts after a place; raise StoreUnavailableError."""
        page = self._table.page(limit=limit, after=after)
        known = self._table.load(map(id_at, page.places))
        found = (known.get(id_at(at)) for at in page.places)
        return FoundBroadcasts([broadcast for broadcast in found if broadcast], page.after)

    def messages(
        self, broadcast: BroadcastRecord, state: State | None, *, limit: int, after: str = ""
    ) -> Found:
        """Return up to `limit` of a broadcast's messages, in a state if one is given.

        They come in the order of the snapshot, which never changes; `after` counts the subscribers
        looked at. A message has a record from its turn on. Few may be found, or none, before the
        end. Raises StoreUnavailableError.
        """
        done = int(after or 0)
        end = min(broadcast.enqueued, done + LOOKED_THROUGH)
        found: list[Record] = []
        for ids in self._message_ids(broadcast, done, end):
            known = self._messages.load(ids)
            for id_ in ids:
                if len(found) == limit:
                    return Found(found, str(done))
                done += 1
                record = known.get(id_)
                if isinstance(record, Record) and state in (None, record.state):
                    found.append(record)
        return Found(found, str(end) if end < broadcast.enqueued else "")

    def _message_ids(
        self, broadcast: BroadcastRecord, start: int, end: int
    ) -> Iterator[Sequence[str]]:
        """Yield the ids of a broadcast's messages in its snapshot's order, a read's worth each."""
        while start < end:
            chunk, offset = divmod(start, CHUNK)
            try:
                listed = self._table.chunk(broadcast, chunk)[offset : offset + end - start]
            except SnapshotGoneError:
                return  # and so are the messages' records
            ids = [message_id(broadcast.id, *each.address) for each in listed]
            start += len(ids)
            for first in range(0, len(ids), KEYS_PER_CALL):
                yield ids[first : first + KEYS_PER_CALL]

    def command(self, id_: str, command: Command) -> BroadcastRecord | InvalidTransition | None:
        """Pause, resume or stop a broadcast; the same command again changes nothing.

        Raises StoreUnavailableError.
        """
        for _ in range(READ_WRITE_ROUNDS):
            broadcast = self.get(id_)
            if broadcast is None:
                return None
            now = self._clock()
            broadcast = self._table.stop_if_paused_too_long(broadcast, now)
            if broadcast.status in OBEYED[command]:
                return broadcast
            match command:
                case Command.PAUSE:
                    after = paused(broadcast, now, "requested")
                case Command.RUN:
                    after = resumed(broadcast, now)
                case _:
                    after = stopped(broadcast, now)
            if after is None:
                return InvalidTransition(broadcast)
            if self._table.write_command(broadcast, after):
                return after
        raise StoreUnavailableError("other commands came in between")
