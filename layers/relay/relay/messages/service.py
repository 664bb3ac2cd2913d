"""What a caller may do with single messages: hand one in, wait for it, get, cancel, resolve."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from relay.messages.envelope import QueuedMessage
from relay.messages.intake import Accepted, Answer, Intake
from relay.messages.lists import Found, Listing, Lists, id_at, keys_of
from relay.messages.queues import Queues, delay_for
from relay.messages.results import Done, Received, Result, reopened
from relay.messages.states import RESOLVED, TERMINAL, Change, Record, State, cancel, resolve, tally
from relay.messages.store import Applied, Conflict, Store, StoreUnavailableError, Unreadable

if TYPE_CHECKING:
    from relay.messages.sender import Gate, Sender

POLL_SECONDS = 0.5
"""Seconds between two reads of a message that another run is sending."""

READ_WRITE_ROUNDS = 5
"""How often a record may change between being read and being written."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The message is in a state that does not allow it."""

    record: Record


def find(lists: Lists, store: Store, listing: Listing, *, limit: int, after: str = "") -> Found:
    """Return up to `limit` messages of a list, after a place; raise StoreUnavailableError.

    Two reads, whatever the list's length. Of the places read, those are left out whose message has
    left the list or moved up, so there may be fewer, or none, before the end.
    """
    page = lists.page(listing, limit=limit, after=after)
    known = store.load(map(id_at, page.places))
    records = [
        record
        for at in page.places
        if isinstance(record := known.get(id_at(at)), Record) and listing.holds(keys_of(record), at)
    ]
    return Found(records, page.after)


class Messages:
    """Single messages, as the HTTP API's callers deal with them."""

    def __init__(
        self,
        *,
        store: Store,
        lists: Lists,
        queues: Queues,
        intake: Intake,
        sender: "Callable[[], Sender]",
        gate: "Callable[[], Gate]",
        count: Callable[[Sequence[Received], Sequence[Result]], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`count` is told what came of each try to send a message at once.

        `sender` and `gate` are called by the requests that need one: most do not.
        """
        self._store = store
        self._lists = lists
        self._queues = queues
        self._intake = intake
        self._sender = sender
        self._gate = gate
        self._count = count
        self._clock = clock
        self._sleep = sleep

    def accept(
        self, messages: Sequence[QueuedMessage], *, caller: str = "", fresh: Collection[str] = ()
    ) -> list[Answer]:
        """Accept messages for delivery; answers in order, ids distinct, `fresh` ones never used."""
        return self._intake.accept(messages, door="http", caller=caller, fresh=fresh)

    def accept_and_wait(
        self,
        message: QueuedMessage,
        *,
        seconds: float,
        time_left: float,
        caller: str = "",
        fresh: Collection[str] = (),
    ) -> Answer:
        """Accept a message and try to send it at once, for so many seconds; return how it stands.

        The queue gets a copy first, delayed until this run has ended, which has `time_left`
        seconds: if the run dies, that copy takes over. An exchange that began in time is finished,
        so the answer may come a little later than `seconds`. One whose time has not come is only
        accepted and watched.
        """
        now = self._clock()
        ends_at = now + time_left
        until = min(now + seconds, ends_at)
        if message.may_go_at(now) > now:
            [answer] = self._intake.accept([message], door="http", caller=caller, fresh=fresh)
            if isinstance(answer, Accepted):
                return replace(answer, record=self._watch(answer.record, until))
            return answer
        delay = math.ceil(time_left) + 1
        [answer] = self._intake.accept(
            [message], door="http", caller=caller, delay=delay, fresh=fresh
        )
        match answer:
            case Accepted(record, replayed=True):
                # Not ours to send: an earlier call or the queue's copy takes care of it.
                return Accepted(self._watch(record, until), replayed=True)
            case Accepted(record):
                return Accepted(self._deliver(message, record, until, ends_at))
        return answer

    def get(self, id_: str) -> Record | None:
        """Return a message's record, if there is one; raise StoreUnavailableError."""
        record = self._store.load([id_]).get(id_)
        if isinstance(record, Unreadable):
            raise StoreUnavailableError("the record cannot be read")
        return record

    def find(self, listing: Listing, *, limit: int, after: str = "") -> Found:
        """Return up to `limit` messages of a list, after a place; raise StoreUnavailableError."""
        return find(self._lists, self._store, listing, limit=limit, after=after)

    def cancel(self, id_: str) -> Record | Refused | None:
        """Cancel a waiting message; None if there is no such message."""

        def step(record: Record) -> Change | None:
            return cancel(record, self._clock())

        return self._end(id_, State.CANCELED, step)

    def resolve(
        self, id_: str, state: Literal[State.SENT, State.FAILED]
    ) -> Record | Refused | None:
        """Set an unknown message to what a person found out; None if there is no such message."""

        def step(record: Record) -> Change | None:
            return resolve(record, state, self._clock())

        return self._end(id_, state, step)

    def _end(
        self, id_: str, state: State, step: Callable[[Record], Change | None]
    ) -> Record | Refused | None:
        """Write a step to `state`, decided on the record as it is when it is written."""
        record = self.get(id_)
        for _ in range(READ_WRITE_ROUNDS):
            if record is None:
                return None
            if (change := step(record)) is None:
                # A repeated request gets the first one's answer.
                return record if record.state is state and _by_hand(record) else Refused(record)
            if record.broadcast and (ended := reopened(change)):
                self._gate().reopen(record.broadcast, ended)
            match self._store.apply([change]):
                case [Applied(written)]:
                    if written.broadcast:
                        self._gate().count(written.broadcast, +tally(change))
                    return written
                case [Conflict(current)]:
                    record = current
                case _:
                    break
        raise StoreUnavailableError("the step was not written")

    def _deliver(
        self, message: QueuedMessage, record: Record, until: float, ends_at: float
    ) -> Record:
        """Try until the message has ended, or its next try would come after `until`."""
        received = Received(message, door="http", sent_at=record.accepted_at)
        while True:
            [result] = self._sender().deliver([received], ends_at=ends_at, start_by=until)
            self._count([received], [result])
            record = result.record or record
            if isinstance(result, Done):
                return record
            if result.reason == "another_run":
                return self._watch(record, until)
            if result.reason == "run_ends" or self._clock() + result.seconds > until:
                break
            self._sleep(result.seconds)
        if self._clock() + result.seconds < ends_at:
            # It comes sooner than the delayed copy, which is still there if this one fails.
            self._queues.enqueue([message], [delay_for(result.seconds)])
        return record

    def _watch(self, record: Record, until: float) -> Record:
        """Poll a message that another run is sending until it has ended or `until` has come."""
        while record.state not in TERMINAL and self._clock() + POLL_SECONDS <= until:
            self._sleep(POLL_SECONDS)
            try:
                record = self.get(record.id) or record
            except StoreUnavailableError:
                break  # it is accepted all the same
        return record


def _by_hand(record: Record) -> bool:
    """Return whether a person put the message into its state."""
    if record.state is State.CANCELED:
        return True
    return bool(record.history) and record.history[-1].what == f"{RESOLVED}{record.state}"
