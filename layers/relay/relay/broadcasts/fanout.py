"""Fan-out: one message for each subscriber of a broadcast's bot, and the end of the broadcast.

The broadcast stays on the notifier's queue until its last message has ended. Each run continues
from the saved position, so a killed run repeats at most one chunk. The repeats carry the same ids
and are dropped like any duplicates.
"""

import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from relay.broadcasts.audience import (
    Audience,
    AudienceError,
    NotListedYetError,
    Personal,
    Skipped,
)
from relay.broadcasts.model import (
    BroadcastRecord,
    Cause,
    Command,
    QueuedBroadcast,
    Status,
    failed,
    first_record_of,
    hold_for,
    paced,
)
from relay.broadcasts.recounts import HEARTBEAT, LATEST, SOONEST, Recounts, Turn
from relay.broadcasts.table import APART, CHUNK, BroadcastTable, Listed
from relay.messages.envelope import differ
from relay.messages.queues import Queues, QueueUnavailableError, delay_for
from relay.messages.states import Rules, backoff, deadline
from relay.messages.store import StoreUnavailableError
from smsgold.errors import (
    CredentialsError,
    CredentialsRefusedError,
    ProviderRefusedError,
    ProviderUnavailableError,
)

log = logging.getLogger(__name__)

WINDOW = 10_000
"""Messages of one broadcast on the queue at a time. Those of a paused one are in flight, and SQS
lets a queue have "a maximum of approximately 120,000 in flight messages" (standard queue quotas):
after that it hands out none until some come back. A dozen broadcasts may be paused before that."""


LAST_MOMENT = 2.0
"""Seconds before a run's end at which it gives a list up: the next run would not get further. What
comes between two looks at the clock takes less: a chunk, to read or to write."""

AHEAD = 5.0
"""Seconds ahead of its time at which a chunk of a slowed broadcast goes on the queue, which then
holds each of its messages back until its own time."""


class FanOut:
    """Makes messages of an accepted broadcast, one for each subscriber."""

    def __init__(
        self,
        *,
        table: BroadcastTable,
        queues: Queues,
        recounts: Recounts,
        audience: Audience,
        rules: Rules,
        rate: float,
        clock: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: uuid.uuid4().hex[:8],
    ) -> None:
        self._table = table
        self._queues = queues
        self._recounts = recounts
        self._audience = audience
        self._rules = rules
        self._rate = rate
        self._clock = clock
        self._new_name = new_name

    def run(self, queued: QueuedBroadcast, turn: Turn, *, receive_count: int = 1) -> float | None:
        """Do what can be done for a broadcast now; return the seconds until a next run, if any."""
        turn.keep()
        try:
            broadcast = self._record_of(queued)
            if broadcast and broadcast.awaits_snapshot:
                now = self._clock()
                if (goes := queued.may_go_at(now)) > now:
                    return goes - now
                broadcast = self._take_snapshot(queued, broadcast, turn)
            if broadcast is None or not broadcast.snapshot:
                return None
            return self._enqueue(queued, broadcast, turn)
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
        if differ(broadcast.fingerprint, queued.fingerprint):
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

    def _take_snapshot(
        self, queued: QueuedBroadcast, broadcast: BroadcastRecord, turn: Turn
    ) -> BroadcastRecord | None:
        """Save once who gets it, and what it says to each; None if that will never be known."""
        now = self._clock()
        problem: tuple[str, str]
        try:
            after = self._list(queued, replace(broadcast, started_at=now), turn)
        except (
            NotListedYetError,
            ProviderUnavailableError,
            CredentialsRefusedError,
            CredentialsError,
        ) as error:
            kept = queued.model_copy(update={"expires_at": None, "between": queued.hours})
            if now < deadline(broadcast.created_at, kept, self._rules):
                raise _NotYetError(str(error)) from None
            problem = ("retry_window_ended", str(error))
        except (AudienceError, ProviderRefusedError) as error:
            problem = (error.reason, error.detail)
        else:
            self._table.commit_snapshot(broadcast, after)
            return self._unless_changed(broadcast.id)
        if self._table.write_command(broadcast, failed(broadcast, now, *problem)):
            log.warning("broadcast failed", extra={"broadcast": broadcast.id, "reason": problem[0]})
        return self._unless_changed(broadcast.id)

    def _list(
        self, queued: QueuedBroadcast, broadcast: BroadcastRecord, turn: Turn
    ) -> BroadcastRecord:
        """Write who gets it chunk by chunk; return the broadcast with what is to be committed."""
        name = (APART if queued.is_kept_apart else "") + self._new_name()
        skipped: Counter[Cause] = Counter()
        chunks = 0
        chunk: list[Listed] = []
        kept_at = self._clock()

        def keep() -> None:
            """Go on while there is time: a killed run would be repeated, and killed again."""
            nonlocal kept_at
            now = self._clock()
            if now > turn.ends_at - LAST_MOMENT:
                raise AudienceError("list_too_long", "", "one run cannot read the list")
            if now > kept_at + HEARTBEAT / 4:
                turn.keep()
                kept_at = now

        def put() -> None:
            nonlocal chunks
            self._table.put_chunk(broadcast.id, name, chunks, chunk, broadcast.started_at)
            chunks += 1
            chunk.clear()

        for seen, found in enumerate(self._audience.select(queued, keep)):
            if isinstance(found, Skipped):
                skipped[found.cause] += 1
            else:
                chunk.append(found)
            if len(chunk) == CHUNK:
                put()
                keep()
            elif seen % CHUNK == 0:
                keep()
        total = chunks * CHUNK + len(chunk)
        if chunk:
            put()
        return replace(broadcast, snapshot=name, total=total, skipped=skipped)

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
        self, queued: QueuedBroadcast, broadcast: BroadcastRecord, turn: Turn
    ) -> float | None:
        """Enqueue from the saved position on; once all are queued, wait for the end."""
        personal = Personal(queued)
        while broadcast.enqueued < broadcast.total and not broadcast.halted:
            stopped = broadcast.command is Command.STOP
            if not stopped and (wait := self._no_room_for(queued, broadcast, turn)):
                return wait
            # Another run may have put a part of this chunk on the queue, and none can be further.
            # So a stopped broadcast takes this chunk in and no other: then all that may be on the
            # queue is counted.
            chunk = self._table.chunk(broadcast, broadcast.enqueued // CHUNK)
            messages = [personal.message(queued, listed) for listed in chunk]
            delays, next_chunk_at = _spread(broadcast, len(chunk), self._clock())
            if any(self._queues.enqueue_broadcast(messages, delays)):
                raise QueueUnavailableError("not all were taken")
            enqueued = broadcast.enqueued + len(chunk)
            self._table.advance(broadcast, enqueued, halted=stopped, next_chunk_at=next_chunk_at)
            turn.keep()
            broadcast = self._again(queued.id)
            log.info("enqueued", extra={"broadcast": queued.id, "enqueued": broadcast.enqueued})
            if broadcast.enqueued < broadcast.total and turn.is_over(self._clock()):
                return 0.0
        return self._watch_the_end(broadcast, turn)

    def _no_room_for(
        self, queued: QueuedBroadcast, broadcast: BroadcastRecord, turn: Turn
    ) -> float | None:
        """Return the seconds until there may be room for another chunk on the queue, if none is."""
        now = self._clock()
        if broadcast.status is Status.PAUSED:
            return hold_for(broadcast, now)
        if (goes := queued.may_go_at(now)) > now:
            return goes - now
        if (early := broadcast.next_chunk_at - AHEAD - now) > 0:
            return min(LATEST, early)
        quiet = self._quiet(broadcast)
        window = self._window(queued, now)
        if _on_the_queue(broadcast) + CHUNK > window and quiet > self._recounts.settled_after:
            # Runs may have died before they counted.
            broadcast = self._recounts.count_on(broadcast, turn)
        on_queue = _on_the_queue(broadcast)
        if on_queue + CHUNK <= window:
            return None
        rate = paced(broadcast.per_second, self._rate)
        half_empty = (on_queue - window / 2) / rate if rate else 0.0
        return min(LATEST, max(SOONEST, half_empty, quiet / 4))

    def _window(self, queued: QueuedBroadcast, now: float) -> float:
        """Return how many messages may be on the queue: no more than go before the hours end.

        The others would wait in flight until they begin again. A chunk always may.
        """
        rate = queued.pace(self._rate)
        if queued.hours is None or not rate:
            return WINDOW
        return max(CHUNK, min(WINDOW, rate * (queued.hours.closes_at(now) - now)))

    # ------------------------------------------------------------------------------- the end

    def _watch_the_end(self, broadcast: BroadcastRecord, turn: Turn) -> float | None:
        """Finish a broadcast whose messages have ended, or return the seconds until a next look.

        By the live counts they have, or nothing moves any more: a run may have died before it
        counted.
        """
        if broadcast.finished_at:
            return None
        quiet = self._quiet(broadcast)
        left = broadcast.due - broadcast.finished
        rate = paced(broadcast.per_second, self._rate)
        look_again = min(LATEST, max(SOONEST, left / rate if rate else 0.0, quiet / 4))
        if left > 0 and quiet <= self._recounts.settled_after:
            return look_again
        return self._recounts.finish(broadcast, turn, look_again)

    def _quiet(self, broadcast: BroadcastRecord) -> float:
        """Return for how long nothing has moved."""
        moved_at = max(broadcast.counted_at, broadcast.started_at, broadcast.commanded_at)
        return self._clock() - moved_at


def _on_the_queue(broadcast: BroadcastRecord) -> int:
    """Return how many of its messages may be on the queue, at the most."""
    return broadcast.enqueued - max(broadcast.finished, broadcast.recount.chunks * CHUNK)


def _spread(broadcast: BroadcastRecord, count: int, now: float) -> tuple[list[int], float]:
    """Return after how many seconds each message of a chunk may go, and when the next chunk may."""
    if not broadcast.per_second:
        return [0] * count, 0.0
    first = max(now, broadcast.next_chunk_at)
    # The queue counts whole seconds: as many messages as may go in one have the same. A stopped
    # one's last chunk comes ahead of its time, further than a queue holds anything back.
    delays = [delay_for(math.ceil(first - now) + n // broadcast.per_second) for n in range(count)]
    return delays, first + math.ceil(count / broadcast.per_second)


class _NotYetError(Exception):
    """The broadcast cannot go on now."""
