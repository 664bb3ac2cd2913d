"""The gate: tells the sender whether a broadcast's messages may go."""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping

from relay.broadcasts.model import (
    BroadcastRecord,
    Status,
    hold_for,
    paused,
    recount_order,
    too_many_refusals,
)
from relay.broadcasts.table import BroadcastTable
from relay.messages.queues import Queues
from relay.messages.sender import Passage, Ruling
from relay.messages.states import State
from relay.messages.store import StoreUnavailableError

log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""How old a broadcast's record may be that a ruling is made of."""


class BroadcastGate:
    """Rules on broadcasts' messages, and counts what becomes of them."""

    def __init__(
        self,
        table: BroadcastTable,
        queues: Queues,
        *,
        refusals_percent: float,
        clock: Callable[[], float] = time.time,
        new_name: Callable[[], str] = lambda: uuid.uuid4().hex[:8],
    ) -> None:
        self._table = table
        self._queues = queues
        self._refusals_percent = refusals_percent
        self._clock = clock
        self._new_name = new_name
        self._records: dict[str, BroadcastRecord] = {}
        self._read_at = 0.0

    def check(self, ids: Collection[str]) -> Mapping[str, Ruling]:
        """Return the rulings on the broadcasts there are, by id; raise StoreUnavailableError."""
        now = self._clock()
        if now - self._read_at > FRESH_SECONDS or not self._records.keys() >= set(ids):
            found = self._table.load(ids) if ids else {}
            self._records = {
                id_: self._table.stop_if_paused_too_long(record, now)
                for id_, record in found.items()
            }
            self._read_at = now
        return {id_: ruling(record, now) for id_, record in self._records.items()}

    def reopen(self, id_: str, counts: Mapping[State, int]) -> None:
        """Take back that messages have ended, before they start again.

        `counts` says in which states. Raises StoreUnavailableError or QueueUnavailableError.
        """
        if self._table.uncount(id_, counts, self._clock(), writer=self._new_name()):
            self._queues.enqueue_notifier(recount_order(id_))

    def count(self, id_: str, counts: Mapping[State, int]) -> None:
        """Count what became of messages, and pause their broadcast if too many were refused."""
        if not any(counts.values()):
            return
        now = self._clock()
        try:
            broadcast = self._table.count(id_, counts, now, writer=self._new_name())
            if broadcast is None:
                return
            if problem := too_many_refusals(broadcast, self._refusals_percent):
                after = paused(broadcast, now, "refusals", problem)
                if after and self._table.write_command(broadcast, after):
                    log.warning("broadcast paused", extra={"broadcast": id_, "detail": problem})
        except StoreUnavailableError as error:
            # The recount at the end counts it.
            log.warning("not counted", extra={"broadcast": id_, "reason": str(error)})


def ruling(broadcast: BroadcastRecord, now: float) -> Ruling:
    """Return what a broadcast's status means for its messages."""
    paused_for = broadcast.pause_so_far(now)
    match broadcast.status:
        case Status.PAUSED:
            return Ruling(Passage.HOLD, hold_for(broadcast, now), paused_for)
        case Status.STOPPED | Status.FAILED:
            return Ruling(Passage.CANCEL, paused_for=paused_for)
        case _:
            return Ruling(Passage.GO, paused_for=paused_for)
