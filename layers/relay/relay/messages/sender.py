"""deliver(): one batch, from receipt to result.

A message is claimed in the table before its POST and settled after it, each by one guarded write.
Whatever stops a run in between leaves a claim whose lease runs out; whoever receives the message
next knows that its outcome is unknown. `states` decides, this module does.
"""

import logging
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol

from relay.messages.chats import Chats
from relay.messages.dead_letters import DeadLetters, Ended
from relay.messages.dispatch import Claimed, Dispatcher
from relay.messages.envelope import QueuedMessage
from relay.messages.in_flight import InFlight
from relay.messages.lines import CHAT_SECONDS
from relay.messages.pacing import BROADCAST_HORIZON, HORIZON, Pacer, Slots
from relay.messages.queues import Queues, QueueUnavailableError, delay_for
from relay.messages.results import SOON, Counts, Done, Later, Received, Result, reopened
from relay.messages.seals import Seals
from relay.messages.spacing import spaced
from relay.messages.states import (
    Change,
    Decision,
    Drop,
    Finish,
    Postpone,
    Record,
    Refuse,
    Rules,
    Send,
    State,
    Wait,
    WriteDeadLetter,
    backoff,
    cancel_for_broadcast,
    claim,
    deadline,
    decide,
)
from relay.messages.store import (
    Applied,
    Conflict,
    Store,
    StoreUnavailableError,
    Unreadable,
    Unwritten,
    Written,
)
from smsgold.errors import CredentialsError

log = logging.getLogger(__name__)

GROUP = 25
"""Messages claimed together: one call to the table, and what a crash in between makes unknown."""

LEASE_SLACK = 5.0
"""Seconds that a claim outlives its run's end: Lambda ends a run on time, by its own clock."""

MOMENT = 0.01
"""Seconds that a wait is longer than it need be, so that rounding never ends it early."""

CLAIM_AHEAD = 0.1
"""Seconds before a message's slot at which it is claimed: what the write takes."""


class Passage(Enum):
    """What a gate lets a message do."""

    GO = auto()
    HOLD = auto()
    CANCEL = auto()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a gate says of a broadcast's messages: `hold_for` seconds at the most, if they wait.

    `paused_for` is how long they were held back so far: time that does not count against them.
    """

    passage: Passage
    hold_for: float = 0.0
    paused_for: float = 0.0


class Gate(Protocol):
    """Decides whether the messages of a broadcast may go; counts what becomes of them."""

    def check(self, ids: Collection[str]) -> Mapping[str, Ruling]:
        """Return the rulings on the broadcasts there are, by id; raise StoreUnavailableError."""
        ...

    def reopen(self, id_: str, counts: Mapping[State, int]) -> None:
        """Take back that so many of a broadcast's messages have ended, before they start again.

        Raises StoreUnavailableError or QueueUnavailableError.
        """
        ...

    def count(self, id_: str, counts: Mapping[State, int]) -> None:
        """Count what became of a broadcast's messages; never raise."""
        ...


class Reachability(Protocol):
    """Is told who was reached and who refused."""

    def note(self, outcomes: Sequence[tuple[QueuedMessage, State]], *, ends_at: float) -> None:
        """Note messages that were sent or refused by the provider; never raise.

        What there is no time for before `ends_at`, when the run has to have answered, is left out.
        """
        ...


Sendable = Sequence[tuple[int, Send]]
"""Messages that may be claimed, by their place in the batch."""


@dataclass(slots=True)
class _Run:
    """One batch under way: what came in, what came of it, and until when there is time."""

    batch: Sequence[Received]
    ends_at: float
    start_by: float
    counts: Counts = field(default_factory=Counts)
    results: dict[int, Result] = field(default_factory=dict)


class Sender:
    """Delivers received messages; one for each environment, used by one run at a time."""

    def __init__(
        self,
        *,
        store: Store,
        gate: Gate,
        pacer: Pacer,
        chats: Chats,
        dispatcher: Dispatcher,
        dead_letters: DeadLetters,
        queues: Queues,
        seals: Seals,
        rules: Rules,
        reachability: Reachability | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        new_attempt: Callable[[], str] = lambda: uuid.uuid4().hex[:16],
        jitter: random.Random | None = None,
    ) -> None:
        self._store = store
        self._gate = gate
        self._pacer = pacer
        self._chats = chats
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters
        self._queues = queues
        self._seals = seals
        self._rules = rules
        self._reachability = reachability
        self._clock = clock
        self._sleep = sleep
        self._new_attempt = new_attempt
        self._jitter = jitter

    def deliver(
        self, batch: Sequence[Received], *, ends_at: float, start_by: float = math.inf
    ) -> list[Result]:
        """Deliver each message, or say when to look at it again; in order.

        No POST starts that could not be finished and recorded before `ends_at`, and none waits for
        its slot beyond `start_by`. Broadcast-only batches reserve 0.4 seconds of slots at a
        time, so single messages get in between.
        """
        now = self._clock()
        # A broadcast's message waits for its turn first; that does not count as retry time.
        received = [replace(r, sent_at=now) if r.message.broadcast else r for r in batch]
        run = _Run(received, ends_at, start_by)
        self._deliver(run)
        self._leave_the_line(run)
        for id_, counts in run.counts.items():
            self._gate.count(id_, counts)
        if self._reachability:
            self._reachability.note(_heard(run), ends_at=ends_at)
        return [self._spaced(run.results[i], received) for i, received in enumerate(batch)]

    def refuse(
        self, body: str, reason: str, detail: str, *, sent_at: float, receive_count: int
    ) -> Result:
        """Put a body that is no message of the relay's on the DeadLetter queue, unchanged."""
        result = self._dead_letters.refuse(body, reason, detail)
        if isinstance(result, Later):
            waited = self._clock() - sent_at
            return replace(result, seconds=spaced(result.seconds, receive_count, waited))
        return result

    def _leave_the_line(self, run: _Run) -> None:
        """Have messages whose time has not come wait on the Messages queue.

        On the Ordered queue each would hold up what was accepted after it, for days perhaps. A
        crash before its first copy is deleted leaves two, of which one is sent.
        """
        now = self._clock()
        leaving: dict[int, int] = {}
        for i, result in run.results.items():
            received = run.batch[i]
            # Only what was decided on: the new copy has the relay's own seal.
            if not (received.in_line and isinstance(result, Later) and result.record):
                continue
            until = now + result.seconds
            if result.record.state is State.QUEUED and not received.message.may_go_throughout(
                now, until
            ):
                leaving[i] = delay_for(until - now)
        if not leaving:
            return
        messages = [run.batch[i].message for i in leaving]
        problems = self._queues.enqueue(messages, list(leaving.values()))
        for i, problem in zip(leaving, problems, strict=True):
            result = run.results[i]
            if problem is None:
                run.results[i] = Done(result.record, result.verdict)
            elif isinstance(result, Later):
                # It tries to leave again soon: else those behind it would wait as long as it does.
                soon = self._back_off(run.batch[i], "cannot_leave_its_line").seconds
                run.results[i] = replace(result, seconds=min(soon, result.seconds))

    def _spaced(self, result: Result, received: Received) -> Result:
        """Space out the looks at a message that stays on its queue; one is just in time."""
        if not isinstance(result, Later):
            return result
        now = self._clock()
        count = 1 if received.in_line else received.receive_count
        seconds = spaced(result.seconds, count, now - received.sent_at)
        if (ends := self._ends(received, result.record)) > now:
            seconds = min(seconds, max(result.seconds, ends - now - 1.0))
        return replace(result, seconds=seconds)

    def _ends(self, received: Received, record: Record | None) -> float:
        """Return a message's deadline, as far as it is known."""
        if record:
            return min(record.deadline, received.ends_by)
        if received.message.broadcast and received.message.expires_at is None:
            return received.ends_by  # its own time begins when its turn comes
        ends = deadline(received.sent_at, received.message, self._rules)
        return min(ends, received.ends_by)

    def _deliver(self, run: _Run) -> None:
        try:
            # A fresh message is not looked for: its claim, an INSERT, meets a record there is.
            ids = (r.message.id for r in run.batch if r.message.id and not r.fresh)
            records = self._store.load(ids)
            rulings = self._check(run, range(len(run.batch)))
            proven = [self._proven(received) for received in run.batch]
        except StoreUnavailableError as error:
            log.warning("table not readable", extra={"reason": str(error)})
            self._hand_back(run, range(len(run.batch)), "table_unavailable")
            return
        sends: list[tuple[int, Send]] = []
        finishes: list[tuple[int, Change]] = []
        ended: list[Ended] = []
        seen: set[str] = set()
        for i, received in enumerate(run.batch):
            message = received.message
            assert message.id is not None
            known = records.get(message.id)
            if isinstance(known, Unreadable):
                self._hand_back(run, [i], "record_unreadable")
                continue
            now = self._clock()
            ruling = rulings.get(message.broadcast)
            held_for = ruling.paused_for if ruling else 0.0
            decision = self._decide(received, known, now, held_for=held_for, proven=proven[i])
            if isinstance(decision, Send | Postpone | Finish | WriteDeadLetter):
                if message.id in seen:
                    run.results[i] = Later(SOON, "another_copy")
                    continue
                seen.add(message.id)
            match decision:
                case Send() as send:
                    sends.append((i, send))
                case Drop(record):
                    run.results[i] = Done(record, repeated=True)
                case Wait(until, record):
                    run.results[i] = Later(until - now + 1.0, "another_run", record)
                case Finish(change) | Postpone(change):
                    finishes.append((i, change))
                case WriteDeadLetter(record):
                    ended.append(Ended(i, message, record))
                case Refuse(reason, detail):
                    run.results[i] = self._dead_letters.refuse(message.to_body(), reason, detail)
        self._finish(run, finishes, ended)
        self._send(run, self._sendable(run, sends, rulings))

    def _decide(
        self,
        received: Received,
        record: Record | None,
        now: float,
        *,
        held_for: float = 0.0,
        proven: bool = True,
    ) -> Decision:
        return decide(
            record,
            received.message,
            door=received.door,
            sent_at=received.sent_at,
            now=now,
            rules=self._rules,
            held_for=held_for,
            ends_by=received.ends_by,
            proven=proven,
        )

    def _proven(self, received: Received) -> bool:
        return received.sealed is None or self._seals.proves(received.message, received.sealed)

    # --------------------------------------------------------------------------------- the gate

    def _check(self, run: _Run, indices: Collection[int]) -> Mapping[str, Ruling]:
        messages = (run.batch[i].message for i in indices)
        ids = {message.broadcast for message in messages if message.broadcast}
        return self._gate.check(ids) if ids else {}

    def _sendable(self, run: _Run, sends: Sendable, rulings: Mapping[str, Ruling]) -> Sendable:
        """Keep what may go; hand back what is held, and end what is canceled.

        A redrive is a command of its own, which no pause or stop undoes.
        """
        sendable: list[tuple[int, Send]] = []
        canceled: list[tuple[int, Change]] = []
        for i, send in sends:
            message = run.batch[i].message
            ruling = None if send.redriven else rulings.get(message.broadcast)
            match ruling:
                case Ruling(Passage.HOLD, hold_for):
                    # Each a little sooner or later, so that they do not all come back at once.
                    seconds = (self._jitter or _RANDOM).uniform(0.75, 1.0) * hold_for
                    run.results[i] = Later(seconds, "paused", send.before)
                case Ruling(Passage.CANCEL):
                    canceled.append((i, cancel_for_broadcast(send, self._clock()).change))
                case _:
                    sendable.append((i, send))
        self._finish(run, canceled, [])
        return sendable

    # ------------------------------------------------------------- ending unsent, and postponing

    def _finish(
        self, run: _Run, finishes: Sequence[tuple[int, Change]], ended: Sequence[Ended]
    ) -> None:
        ended = list(ended)
        answers = self._apply(run, finishes)
        for (i, change), written in zip(finishes, answers, strict=True):
            match written:
                case Applied(Record(state=State.QUEUED) as record):
                    seconds = min(record.lease, record.deadline) - self._clock() + 1.0
                    run.results[i] = Later(seconds, "not_yet", record)
                case Applied(record):
                    run.counts.note(run.batch[i].message, change)
                    ended.append(Ended(i, run.batch[i].message, record))
                case Conflict(record):
                    run.results[i] = Later(SOON, "another_run", record)
                case _:
                    self._hand_back(run, [i], "table_unavailable")
        run.results |= self._dead_letters.write(ended)

    def _apply(self, run: _Run, steps: Sequence[tuple[int, Change]]) -> list[Written]:
        """Write steps; first tell the broadcasts whose ended messages start again."""
        again: dict[str, Counter[State]] = {}
        for i, change in steps:
            if (id_ := run.batch[i].message.broadcast) and (ended := reopened(change)):
                again.setdefault(id_, Counter()).update(ended)
        untold = {id_ for id_, ended in again.items() if not self._told(id_, ended)}
        told = [
            (i, change)
            for i, change in steps
            if not reopened(change) or run.batch[i].message.broadcast not in untold
        ]
        answers = self._store.apply([change for _, change in told])
        written = {i: answer for (i, _), answer in zip(told, answers, strict=True)}
        return [written.get(i, Unwritten("its broadcast was not told")) for i, _ in steps]

    def _told(self, broadcast: str, ended: Mapping[State, int]) -> bool:
        try:
            self._gate.reopen(broadcast, ended)
        except (StoreUnavailableError, QueueUnavailableError) as error:
            log.warning("not reopened", extra={"broadcast": broadcast, "reason": str(error)})
            return False
        return True

    def _hand_back(self, run: _Run, indices: Collection[int], reason: str) -> None:
        """Hand back messages that are not to blame: their attempts stay as they are."""
        run.results |= {i: self._back_off(run.batch[i], reason) for i in indices}

    def _back_off(self, received: Received, reason: str) -> Later:
        ends = deadline(received.sent_at, received.message, self._rules)
        wait = backoff(
            received.receive_count,
            None,
            self._rules,
            time_left=ends - self._clock(),
            jitter=self._jitter,
        )
        return Later(wait, reason)

    # ---------------------------------------------------------------------------------- sending

    def _send(self, run: _Run, sends: Sendable) -> None:
        if not sends:
            return
        try:
            self._dispatcher.prepare()
        except CredentialsError as error:
            log.error("no credentials", extra={"reason": str(error)})
            self._hand_back(run, [i for i, _ in sends], "no_credentials")
            return
        in_flight = InFlight(
            store=self._store,
            dead_letters=self._dead_letters,
            rules=self._rules,
            counts=run.counts,
            ends_at=run.ends_at,
            clock=self._clock,
            sleep=self._sleep,
            jitter=self._jitter,
        )
        latest = self._latest(run)
        give_way = all(received.message.broadcast for received in run.batch)
        horizon = BROADCAST_HORIZON if give_way else HORIZON
        while sends:
            room = self._dispatcher.room()
            ready = sends if room is None else sends[:room]
            self._hand_back(run, [i for i, _ in sends[len(ready) :]], "provider_failing")
            ready = self._whose_chat_is_free(run, ready)
            if not ready:
                break
            within = min(horizon, max(0.0, latest - self._clock()))
            try:
                slots = self._pacer.reserve(len(ready), within=within)
            except StoreUnavailableError as error:
                log.warning("no slots", extra={"reason": str(error)})
                self._hand_back(run, [i for i, _ in ready], "table_unavailable")
                break
            self._chats.hold(slots.holds)
            ready = self._whose_chat_is_free(run, ready)
            in_time = [at for at in slots.times[: len(ready)] if at <= latest]
            claimable = ready[: len(in_time)]
            self._claim_and_submit(run, claimable, in_time, slots.grace, in_flight)
            left = ready[len(in_time) :]
            now = self._clock()
            again_at = max(slots.next - horizon, now + MOMENT)
            if not give_way or slots.next > latest or again_at > now + HORIZON:
                self._wait_for_slots(run, left, slots)
                break
            run.results |= in_flight.settle_until(again_at)
            sends = self._refresh(run, left)
        run.results |= in_flight.settle_all()

    def _whose_chat_is_free(self, run: _Run, sends: Sendable) -> Sendable:
        """Keep one message a chat, if the chat may have it now; hand the others back."""
        now = self._clock()
        free: list[tuple[int, Send]] = []
        due: dict[str, float] = {}
        for i, send in sends:
            chat = run.batch[i].message.chat
            if (held_until := self._chats.held_until(chat)) > now:
                run.results[i] = Later(held_until - now + MOMENT, "chat_held", send.before)
                continue
            at = due.get(chat, self._chats.free_at(chat))
            due[chat] = max(at, now) + CHAT_SECONDS
            if at > now:
                run.results[i] = Later(at - now + MOMENT, "chat_pace", send.before)
            else:
                free.append((i, send))
        return free

    def _latest(self, run: _Run) -> float:
        """Return until when a POST may start."""
        return min(run.start_by, self._dispatcher.last_start(run.ends_at))

    def _claim_and_submit(
        self,
        run: _Run,
        sends: Sendable,
        times: Sequence[float],
        grace: float,
        in_flight: InFlight,
    ) -> None:
        """Claim each group just ahead of its first slot: a crash makes few outcomes unknown."""
        for start in range(0, len(sends), GROUP):
            group, slots = sends[start : start + GROUP], times[start : start + GROUP]
            run.results |= in_flight.settle_until(slots[0] - CLAIM_AHEAD)
            for claimed in self._claim(run, group, slots, grace, in_flight):
                latest = self._latest(run)
                in_flight.add(self._dispatcher.submit(claimed, latest=latest, ends_at=run.ends_at))

    def _claim(
        self,
        run: _Run,
        group: Sendable,
        slots: Sequence[float],
        grace: float,
        in_flight: InFlight,
    ) -> list[Claimed]:
        lease = run.ends_at + LEASE_SLACK
        changes = [
            claim(send, attempt=self._new_attempt(), now=self._clock(), lease=lease)
            for _, send in group
        ]
        claims: list[Claimed] = []
        overtaken: list[tuple[int, Send]] = []
        their_slots: list[float] = []
        indices = [i for i, _ in group]
        answers = self._apply(run, list(zip(indices, changes, strict=True)))
        for (i, send), slot, change, written in zip(group, slots, changes, answers, strict=True):
            message = run.batch[i].message
            claimed = Claimed(i, change.after, message, slot, slot + grace)
            match written:
                case Applied():
                    run.counts.note(message, change)
                    claims.append(claimed)
                case Conflict(Record() as record) if again := self._again(run, i, send, record):
                    overtaken.append((i, again))
                    their_slots.append(slot)
                case Conflict(record):
                    run.results[i] = Later(1.0, "another_run", record)
                case Unwritten(in_doubt=True):
                    later = self._back_off(run.batch[i], "table_unavailable")
                    in_flight.take_back(claimed, change, later)
                case _:
                    self._hand_back(run, [i], "table_unavailable")
        if overtaken:
            claims += self._claim(run, overtaken, their_slots, grace, in_flight)
        return claims

    def _again(self, run: _Run, i: int, send: Send, record: Record) -> Send | None:
        """Return how to claim a message whose record its door wrote while this run looked for one.

        Doors write it after they have put the message on the queue. To look again a second later
        would cost every message that is taken up at once that second.
        """
        if send.before is not None:
            return None
        decision = self._decide(run.batch[i], record, self._clock())
        return decision if isinstance(decision, Send) else None

    def _wait_for_slots(self, run: _Run, sends: Sendable, slots: Slots) -> None:
        """Hand messages back until the next free slot comes near."""
        seconds = max(1.0, slots.next - self._clock())
        run.results |= {i: Later(seconds, "pace") for i, _ in sends}

    def _refresh(self, run: _Run, sends: Sendable) -> Sendable:
        """Ask the gate again after a wait for slots, and keep what may still go."""
        indices = [i for i, _ in sends]
        try:
            rulings = self._check(run, indices)
        except StoreUnavailableError:
            self._hand_back(run, indices, "table_unavailable")
            return []
        return self._sendable(run, sends, rulings)


def _heard(run: _Run) -> list[tuple[QueuedMessage, State]]:
    """Return the messages of which the provider has said that it takes or refuses them."""
    return [
        (run.batch[i].message, result.record.state)
        for i, result in run.results.items()
        if isinstance(result, Done)
        and result.record
        and result.verdict
        and result.record.state in (State.SENT, State.REJECTED)
    ]


_RANDOM = random.Random()  # noqa: S311 - spreads load, guards nothing
