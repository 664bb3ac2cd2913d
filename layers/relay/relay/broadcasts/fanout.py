"""Spreads a broadcast over a bot's subscribers, a run at a time, and sees to its end.

The order stays on the notifier's queue until the last message has come to an end. Each run goes on
where the last saved place is, so that a run which is killed repeats one chunk at the most, under
the same ids: the copies are dropped like any duplicates.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from relay.broadcasts.model import (
    CHUNK,
    BroadcastRecord,
    BroadcastTable,
    Command,
    QueuedBroadcast,
    Status,
    failed,
    first_record_of,
    message_for,
    paused,
    recipients,
    resumed,
    stopped,
)
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
"""Seconds until another run takes over from one that was killed; more than a chunk takes."""

SPARE_SECONDS = 15.0
"""Kept at a run's end: more than a chunk takes, or the provider to list the subscribers."""

SOONEST, LATEST = 5.0, 1800.0
"""Seconds between two looks at a broadcast whose messages are all enqueued."""


class Subscribers(Protocol):
    """What a broadcast needs of the provider."""

    def __call__(self, bot_id: str) -> Iterable[Mapping[str, object]]:
        """Return a bot's subscribers; raise ProviderError or CredentialsError."""
        ...


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
    """The broadcast has ended, or cannot be steered that way as it stands."""

    broadcast: BroadcastRecord


class Broadcaster:
    """Accepts broadcasts, and spreads what was accepted."""

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
        # After so long a run that settled messages has counted them, or is dead.
        self._settled_after = longest_run + 15.0
        self.rate = rate
        self._clock = clock
        self._new_name = new_name

    def start(self, broadcast: QueuedBroadcast, *, late: bool = False) -> Started | Reused:
        """Accept a broadcast; one that comes too `late` is only recorded, as stopped.

        Raises StoreUnavailableError or QueueUnavailableError if it is not accepted.
        """
        now = self._clock()
        first = first_record_of(broadcast, now)
        if late:
            first = stopped(first, now, "late") or first
        known = self._table.create(first)
        if known and known.fingerprint != broadcast.fingerprint:
            return Reused(known)
        if (known or first).status(now) is Status.PREPARING:
            # Again, if it may be that the first one was never put there: two copies do no harm.
            try:
                self._queues.enqueue_notifier(broadcast.to_body())
            except QueueUnavailableError:
                if not known:
                    self._table.delete(broadcast.id)
                raise
        return Started(known or first, replayed=known is not None)

    def look_up(self, id_: str) -> BroadcastRecord | None:
        """Return a broadcast as it stands; raise StoreUnavailableError."""
        return self._table.load([id_]).get(id_)

    def order(self, id_: str, order: Command) -> BroadcastRecord | InvalidTransition | None:
        """Pause, resume or stop a broadcast; the same order again changes nothing.

        Raises StoreUnavailableError.
        """
        for _ in range(3):
            broadcast = self.look_up(id_)
            if broadcast is None:
                return None
            now = self._clock()
            if broadcast.status(now) in _DONE[order]:
                return broadcast
            match order:
                case Command.PAUSE:
                    after = paused(broadcast, now, "requested")
                case Command.RUN:
                    after = resumed(broadcast, now)
                case _:
                    after = stopped(broadcast, now)
            if after is None:
                return InvalidTransition(broadcast)
            if self._table.command(broadcast, after):
                return after
        raise StoreUnavailableError("other orders came in between")

    def work(
        self,
        order: QueuedBroadcast,
        *,
        ends_at: float,
        receive_count: int = 1,
        still_here: Callable[[float], None] = lambda _: None,
    ) -> float | None:
        """Do what can be done for a broadcast now; return the seconds until the next look, if any.

        Calls `still_here` with the seconds after which another run may take over.
        """
        still_here(HEARTBEAT)
        try:
            broadcast = self._table.load([order.id]).get(order.id)
            if broadcast is None or broadcast.order is Command.FAIL:
                return None
            if not broadcast.snapshot:
                taken = None if broadcast.order is Command.STOP else self._take_snapshot(broadcast)
                if taken is None:
                    return None
                broadcast = taken
            return self._go_on(order, broadcast, ends_at, still_here)
        except (_NotYetError, StoreUnavailableError, QueueUnavailableError) as error:
            log.warning("broadcast waits", extra={"broadcast": order.id, "reason": str(error)})
            return backoff(receive_count, None, self._rules)

    # ------------------------------------------------------------------------------ snapshot

    def _take_snapshot(self, broadcast: BroadcastRecord) -> BroadcastRecord | None:
        """Write down once who gets it; None if that will never be known."""
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
            self._table.commit_snapshot(broadcast.id, after)
            # Another run may have been quicker: its snapshot counts then.
            return self._table.load([broadcast.id])[broadcast.id]
        self._table.command(broadcast, failed(broadcast, now, *problem))
        log.warning("broadcast failed", extra={"broadcast": broadcast.id, "reason": problem[0]})
        return None

    # ---------------------------------------------------------------------------- enqueueing

    def _go_on(
        self,
        order: QueuedBroadcast,
        broadcast: BroadcastRecord,
        ends_at: float,
        still_here: Callable[[float], None],
    ) -> float | None:
        """Enqueue from the saved place on; once all are, see to the end."""
        while broadcast.enqueued < broadcast.total and not broadcast.halted:
            # A stopped one, too, has the chunk done that a killed run may have begun: so that what
            # is on the queue is never more than what is counted as enqueued.
            ids = self._table.chunk(broadcast, broadcast.enqueued // CHUNK)
            messages = [message_for(order, id_, message_id(order.id, id_)) for id_ in ids]
            if any(self._queues.enqueue_broadcast(messages)):
                raise QueueUnavailableError("not all were taken")
            self._table.advance(broadcast, broadcast.enqueued + len(ids))
            still_here(HEARTBEAT)
            broadcast = self._table.load([order.id])[order.id]
            log.info("enqueued", extra={"broadcast": order.id, "enqueued": broadcast.enqueued})
            if broadcast.order is Command.STOP:
                self._table.advance(broadcast, broadcast.enqueued, halted=True)
                break
            if broadcast.enqueued < broadcast.total and self._clock() > ends_at - SPARE_SECONDS:
                return 0.0
        return self._see_to_the_end(broadcast)

    # ------------------------------------------------------------------------------- the end

    def _see_to_the_end(self, broadcast: BroadcastRecord) -> float | None:
        """Return when to look again; put the counts right if a run was killed before counting."""
        now = self._clock()
        if broadcast.complete:
            log.info("broadcast ended", extra={"broadcast": broadcast.id})
            return None
        quiet = now - max(broadcast.counted_at, broadcast.started_at, broadcast.ordered_at)
        if quiet > self._settled_after and self._recount(broadcast):
            return SOONEST
        left = (broadcast.due - broadcast.finished) / self.rate if self.rate else 0.0
        return min(LATEST, max(SOONEST, left, quiet / 4))

    def _recount(self, broadcast: BroadcastRecord) -> bool:
        """Count from the records; tell whether that changed anything.

        Settling a message and counting it are two writes. Only what was settled before any run
        that is still alive is sure to have been counted, or never to be.
        """
        settled_before = self._clock() - self._settled_after
        counts: Counter[State] = Counter()
        for n in range(-(-broadcast.enqueued // CHUNK)):
            ids = [message_id(broadcast.id, id_) for id_ in self._table.chunk(broadcast, n)]
            for record in self._store.load(ids).values():
                if record.state in TERMINAL:
                    if record.updated_at > settled_before:
                        return False
                    counts[record.state] += 1
        if counts == Counter(broadcast.counts):
            return False
        log.warning("counts put right", extra={"broadcast": broadcast.id})
        return self._table.recount(broadcast, counts)


_DONE = {
    Command.PAUSE: {Status.PAUSED},
    Command.RUN: {Status.RUNNING, Status.PREPARING},
    Command.STOP: {Status.STOPPED},
}
"""Where a broadcast stands once it has followed an order."""


class _NotYetError(Exception):
    """The provider does not list the subscribers now."""


def message_id(broadcast_id: str, subscriber_id: str) -> str:
    """Return the id of a broadcast's message to one subscriber."""
    return scoped_id("broadcast", broadcast_id, subscriber_id)
