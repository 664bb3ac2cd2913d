"""Recounts: what became of a broadcast's messages, counted from their records.

The live counts may be short; these are final. A recount goes through the snapshot chunk by chunk,
counts each once all of its messages have ended, and saves how far it has come, so that it takes as
many runs as it takes and no record is read twice but those of the chunk it waits at.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from relay.broadcasts.model import BroadcastRecord, message_id
from relay.broadcasts.table import CHUNK, BroadcastTable, SnapshotGoneError
from relay.messages.states import TERMINAL, Rules, State, backoff
from relay.messages.store import Store, StoreUnavailableError, Unreadable

log = logging.getLogger(__name__)

HEARTBEAT = 20.0
"""Seconds until another run takes over from a killed one; a chunk takes less."""

SPARE_SECONDS = 15.0
"""Seconds kept at a run's end: a chunk takes less, and so does listing the subscribers."""

LONGEST_REQUEST = 29.0
"""Seconds that the API may take, and so the run in which somebody resolves a message."""

GONE_AFTER = 86400.0
"""Seconds for which a recount looks for a snapshot that is not there."""

SOONEST, LATEST = 5.0, 1800.0
"""Bounds of the seconds between two looks at messages that are to end."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of the notifier: until when it has time, and how it keeps what it works on."""

    ends_at: float
    hide: Callable[[float], None] = lambda _: None
    """Called with the seconds after which another run may take over."""

    def keep(self) -> None:
        """Say that this run is still at work."""
        self.hide(HEARTBEAT)

    def is_over(self, now: float) -> bool:
        """Return whether there is no time left for another chunk."""
        return now > self.ends_at - SPARE_SECONDS


class Recounts:
    """Counts from the records."""

    def __init__(
        self,
        table: BroadcastTable,
        store: Store,
        rules: Rules,
        *,
        longest_run: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._store = store
        self._rules = rules
        self._clock = clock
        self.settled_after = max(longest_run, LONGEST_REQUEST) + 15.0
        """Seconds after which a run has made its steps and counted them, or has died."""

    def again(
        self, id_: str, turn: Turn, *, asked_at: float, receive_count: int = 1
    ) -> float | None:
        """Count anew a broadcast of which ended messages have started again, once they have ended.

        `asked_at` is when that was asked for, before they started. Returns the seconds until the
        next run, if any.
        """
        now = self._clock()
        if now < asked_at + self.settled_after:
            # What is counted by now may start again yet.
            return asked_at + self.settled_after - now
        turn.keep()
        try:
            broadcast = self._table.load([id_]).get(id_)
            if broadcast and broadcast.recount.asked_at < asked_at:
                if not self._table.begin_recount(broadcast, asked_at):
                    return SOONEST
                broadcast = self._table.load([id_]).get(id_)
            if broadcast is None or broadcast.recount.asked_at > asked_at:
                return None  # a later order counts what this one would have counted
            if broadcast.final or not broadcast.finished_at:
                return None  # one that has not ended is counted at its end
            look_again = min(LATEST, max(SOONEST, (now - asked_at) / 4))
            return self.finish(broadcast, turn, look_again)
        except SnapshotGoneError:
            # Its objects were deleted, or the redrive came more than 35 days after its start. S3
            # says the same while somebody has taken the permission away.
            log.warning("nobody knows who got it", extra={"broadcast": id_})
            return LATEST if now < asked_at + GONE_AFTER else None
        except StoreUnavailableError as error:
            log.warning("recount waits", extra={"broadcast": id_, "reason": str(error)})
            return backoff(receive_count, None, self._rules)

    def finish(self, broadcast: BroadcastRecord, turn: Turn, look_again: float) -> float | None:
        """Make the final counts if all messages have ended; return the seconds until a next look.

        `look_again` says how many these are if a message has not ended.
        """
        broadcast = self.count_on(broadcast, turn)
        if broadcast.recount.chunks * CHUNK < broadcast.enqueued:
            return 0.0 if turn.is_over(self._clock()) else look_again
        if not self._table.finish(broadcast, self._clock()):
            return SOONEST  # a command, a count or another recount came in between
        log.info("broadcast counted", extra={"broadcast": broadcast.id, "total": broadcast.total})
        return None

    def count_on(self, broadcast: BroadcastRecord, turn: Turn) -> BroadcastRecord:
        """Count as many chunks more as have ended and as there is time for."""
        while broadcast.recount.chunks * CHUNK < broadcast.enqueued:
            if turn.is_over(self._clock()):
                break
            counts = self._counted(broadcast, broadcast.recount.chunks)
            if counts is None:
                break
            recount = replace(
                broadcast.recount,
                chunks=broadcast.recount.chunks + 1,
                counts=counts + Counter(broadcast.recount.counts),
            )
            if not self._table.save_recount(broadcast, recount):
                break  # another run counts
            turn.keep()
            broadcast = replace(broadcast, recount=recount)
        return broadcast

    def _counted(self, broadcast: BroadcastRecord, n: int) -> Counter[State] | None:
        """Return what became of a chunk's messages; None if one has not ended."""
        found = self._table.chunk(broadcast, n)
        ids = [message_id(broadcast.id, *listed.address) for listed in found]
        records = self._store.load(ids)
        readable = [record for record in records.values() if not isinstance(record, Unreadable)]
        counts = Counter(record.state for record in readable)
        return counts if len(readable) == len(ids) and counts.keys() <= TERMINAL else None
