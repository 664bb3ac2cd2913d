"""Fan-out: one message for each subscriber of a broadcast's bot, and the end of the broadcast.

The broadcast stays on the notifier's queue until its last message has ended. Each run continues
from the saved position, so a killed run repeats at most one chunk. The repeats carry the same ids
and are dropped like any duplicates.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from relay.broadcasts.model import (
    BroadcastRecord,
    Command,
    QueuedBroadcast,
    failed,
    first_record_of,
    message_for,
    recipients,
)
from relay.broadcasts.table import CHUNK, BroadcastTable
from relay.messages.intake import scoped_id
from relay.messages.queues import Queues, QueueUnavailableError
from relay.messages.states import TERMINAL, Rules, State, backoff
from relay.messages.store import Store, StoreUnavailableError
from smsgold.errors import (
    CredentialsError,
    CredentialsRefusedError,
    ProviderRefusedError,
    ProviderUnavailableError,
)

log = logging.getLogger(__name__)

HEARTBEAT = 20.0
"""Seconds until another run takes over from a killed one; a chunk takes less."""

SPARE_SECONDS = 15.0
"""Seconds kept at a run's end: a chunk takes less, and so does listing the subscribers."""

LONGEST_REQUEST = 29.0
"""Seconds that the API may take, and so the run in which somebody resolves a message."""

SOONEST, LATEST = 5.0, 1800.0
"""Bounds of the seconds between two looks at a broadcast that is fully enqueued."""


class Subscribers(Protocol):
    """What a broadcast needs of the provider."""

    def __call__(self, bot_id: str) -> Iterable[Mapping[str, object]]:
        """Return a bot's subscribers; raise ProviderError or CredentialsError."""
        ...


class FanOut:
    """Makes messages of an accepted broadcast, one for each subscriber."""

    def __init__(
        self,
        *,
        table: BroadcastTable,
        store: Store,
        queues: Queues,
        subscribers: Subscribers,
        rules: Rules,
        longest_run: float,
        rate: float,
        clock: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: uuid.uuid4().hex[:8],
    ) -> None:
        self._table = table
        self._store = store
        self._queues = queues
        self._subscribers = subscribers
        self._rules = rules
        # By then a run has made its steps and counted them, or has died.
        self._settled_after = max(longest_run, LONGEST_REQUEST) + 15.0
        self._rate = rate
        self._clock = clock
        self._new_name = new_name

    def run(
        self,
        queued: QueuedBroadcast,
        *,
        ends_at: float,
        receive_count: int = 1,
        still_here: Callable[[float], None] = lambda _: None,
    ) -> float | None:
        """Do what can be done for a broadcast now; return the seconds until the next run, if any.

        Calls `still_here` with the seconds after which another run may take over.
        """
        still_here(HEARTBEAT)
        try:
            broadcast = self._record_of(queued)
            if broadcast and broadcast.awaits_snapshot:
                broadcast = self._take_snapshot(broadcast)
            if broadcast is None or not broadcast.snapshot:
                return None
            return self._enqueue(queued, broadcast, ends_at, still_here)
        except (_NotYetError, StoreUnavailableError, QueueUnavailableError) as error:
            log.warning("broadcast waits", extra={"broadcast": queued.id, "reason": str(error)})
            return backoff(receive_count, None, self._rules)

    def _record_of(self, queued: QueuedBroadcast) -> BroadcastRecord | None:
        """Return a queued broadcast's record, made now if it has none; None if the id is another's.

        Whoever put it on the queue may have died before the record was written.
        """
        broadcast = self._table.load([queued.id]).get(queued.id)
        if broadcast is None:
            first = first_record_of(queued, self._clock())
            broadcast = self._table.create(first) or first
        if broadcast.fingerprint != queued.fingerprint:
            # Its caller was told so, or was told nothing.
            log.warning("another broadcast has the id", extra={"broadcast": queued.id})
            return None
        return self._table.stop_if_paused_too_long(broadcast, self._clock())

    def _again(self, id_: str) -> BroadcastRecord:
        """Return a broadcast as it is now."""
        broadcast = self._table.load([id_]).get(id_)
        if broadcast is None:
            raise _NotYetError("its record is gone")
        return broadcast

    # ------------------------------------------------------------------------------ snapshot

    def _take_snapshot(self, broadcast: BroadcastRecord) -> BroadcastRecord | None:
        """Save once who gets it; None if that will never be known."""
        now = self._clock()
        problem: tuple[str, str]
        try:
            entries = self._subscribers(broadcast.bot_id)
        except ProviderRefusedError as error:
            problem = (error.reason, error.detail)
        except (ProviderUnavailableError, CredentialsRefusedError, CredentialsError) as error:
            if now < broadcast.created_at + self._rules.retry_window:
                raise _NotYetError(str(error)) from None
            problem = ("retry_window_ended", str(error))
        else:
            ids, duplicates, without_id = recipients(entries)
            after = replace(
                broadcast,
                snapshot=self._new_name(),
                started_at=now,
                total=len(ids),
                duplicates=duplicates,
                without_id=without_id,
            )
            self._table.put_snapshot(broadcast.id, after.snapshot, ids, now)
            self._table.commit_snapshot(broadcast, after)
            return self._unless_changed(broadcast.id)
        if self._table.write_command(broadcast, failed(broadcast, now, *problem)):
            log.warning("broadcast failed", extra={"broadcast": broadcast.id, "reason": problem[0]})
        return self._unless_changed(broadcast.id)

    def _unless_changed(self, id_: str) -> BroadcastRecord:
        """Return a broadcast as it is now that it was to be listed.

        Another run may have listed it first; then its snapshot counts.
        """
        broadcast = self._again(id_)
        if broadcast.awaits_snapshot:
            raise _NotYetError("a command came in between")
        return broadcast

    # ---------------------------------------------------------------------------- enqueueing

    def _enqueue(
        self,
        queued: QueuedBroadcast,
        broadcast: BroadcastRecord,
        ends_at: float,
        still_here: Callable[[float], None],
    ) -> float | None:
        """Enqueue from the saved position on; once all are queued, wait for the end."""
        while broadcast.enqueued < broadcast.total and not broadcast.halted:
            # Another run may have put a part of this chunk on the queue, and none can be further.
            # So a stopped broadcast takes this chunk in and no other: then all that may be on the
            # queue is counted.
            ids = self._table.chunk(broadcast, broadcast.enqueued // CHUNK)
            messages = [message_for(queued, id_, message_id(queued.id, id_)) for id_ in ids]
            if any(self._queues.enqueue_broadcast(messages)):
                raise QueueUnavailableError("not all were taken")
            stopped = broadcast.command is Command.STOP
            self._table.advance(broadcast, broadcast.enqueued + len(ids), halted=stopped)
            still_here(HEARTBEAT)
            broadcast = self._again(queued.id)
            log.info("enqueued", extra={"broadcast": queued.id, "enqueued": broadcast.enqueued})
            if broadcast.enqueued < broadcast.total and self._clock() > ends_at - SPARE_SECONDS:
                return 0.0
        return self._watch_the_end(broadcast, ends_at, still_here)

    # ------------------------------------------------------------------------------- the end

    def _watch_the_end(
        self, broadcast: BroadcastRecord, ends_at: float, still_here: Callable[[float], None]
    ) -> float | None:
        """Finish a broadcast whose messages have ended, or return the seconds until a next look.

        By the live counts they have, or nothing moves any more: a run may have died before it
        counted.
        """
        if broadcast.finished_at:
            return None
        quiet = self._quiet(broadcast)
        left = broadcast.due - broadcast.finished
        look_again = min(LATEST, max(SOONEST, left / self._rate if self._rate else 0.0, quiet / 4))
        if left > 0 and quiet <= self._settled_after:
            return look_again
        return self._finish(broadcast, look_again, ends_at, still_here)

    def _quiet(self, broadcast: BroadcastRecord) -> float:
        """Return for how long nothing has moved."""
        moved_at = max(broadcast.counted_at, broadcast.started_at, broadcast.commanded_at)
        return self._clock() - moved_at

    def recount(
        self,
        id_: str,
        *,
        asked_at: float,
        ends_at: float,
        receive_count: int = 1,
        still_here: Callable[[float], None] = lambda _: None,
    ) -> float | None:
        """Count anew a broadcast whose ended messages have started again, once they have ended.

        `asked_at` is when that was asked for: before the first of them started again. Returns the
        seconds until the next run, if any.
        """
        now = self._clock()
        if now < asked_at + self._settled_after:
            # What is counted before may start again a moment later.
            return asked_at + self._settled_after - now
        still_here(HEARTBEAT)
        try:
            broadcast = self._table.load([id_]).get(id_)
            if broadcast is None or broadcast.recount.asked_at > asked_at:
                return None  # a later one counts what this one would have counted
            if broadcast.recount.asked_at < asked_at:
                if not self._table.begin_recount(broadcast, asked_at):
                    return SOONEST
                broadcast = self._again(id_)
            if broadcast.final or not broadcast.finished_at:
                return None  # one that has not ended is counted at its end
            look_again = min(LATEST, max(SOONEST, (now - asked_at) / 4))
            return self._finish(broadcast, look_again, ends_at, still_here)
        except (_NotYetError, StoreUnavailableError) as error:
            log.warning("recount waits", extra={"broadcast": id_, "reason": str(error)})
            return backoff(receive_count, None, self._rules)

    def _finish(
        self,
        broadcast: BroadcastRecord,
        look_again: float,
        ends_at: float,
        still_here: Callable[[float], None],
    ) -> float | None:
        """Make the final counts if every message has ended; return the seconds until a next look.

        They are counted chunk by chunk, each as soon as all of its messages have ended, by as many
        runs as it takes.
        """
        while broadcast.recount.chunks * CHUNK < broadcast.enqueued:
            if self._clock() > ends_at - SPARE_SECONDS:
                return 0.0
            counts = self._counted(broadcast, broadcast.recount.chunks)
            if counts is None:
                return look_again
            recount = replace(
                broadcast.recount,
                chunks=broadcast.recount.chunks + 1,
                counts=counts + Counter(broadcast.recount.counts),
            )
            if not self._table.save_recount(broadcast, recount):
                return SOONEST
            still_here(HEARTBEAT)
            broadcast = replace(broadcast, recount=recount)
        if not self._table.finish(broadcast, self._clock()):
            return SOONEST
        log.info("broadcast counted", extra={"broadcast": broadcast.id, "total": broadcast.total})
        return None

    def _counted(self, broadcast: BroadcastRecord, n: int) -> Counter[State] | None:
        """Return what became of a chunk's messages; None if one has not ended."""
        ids = [message_id(broadcast.id, id_) for id_ in self._table.chunk(broadcast, n)]
        records = self._store.load(ids)
        counts = Counter(record.state for record in records.values())
        return counts if len(records) == len(ids) and counts.keys() <= TERMINAL else None


class _NotYetError(Exception):
    """The broadcast cannot go on now."""


def message_id(broadcast_id: str, subscriber_id: str) -> str:
    """Return the id of a broadcast's message to one subscriber."""
    return scoped_id("broadcast", broadcast_id, subscriber_id)
