"""deliver(): claim, pace, send, classify, settle.

A message is claimed in the table before its POST and settled after it, each by one guarded write.
Whatever stops a run in between leaves a claim whose lease runs out, and whoever receives the
message next knows that its outcome is unknown. `relay.messages.states` decides; this module does.
"""

import logging
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from relay.broadcasts.model import BroadcastRecord, Status, hold_for, tally
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import BROADCAST_HORIZON, HORIZON, Breaker, Pacer
from relay.messages.queues import DeadLetterEntry, Queues, dead_letter_body
from relay.messages.states import (
    Change,
    DeadLetter,
    Drop,
    Finish,
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
    marked_dead_lettered,
    release,
    settle,
)
from relay.messages.store import Applied, Conflict, Store, StoreUnavailableError
from smsgold.client import OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsError
from smsgold.responses import Outcome, Verdict

log = logging.getLogger(__name__)

GROUP = 25
"""Messages claimed together: one call to the table, and what a crash in between makes unknown."""

SETTLE_SECONDS = 3.0
"""Kept at a run's end for recording what the provider answered."""

SOON = 5.0
"""Seconds until a second look at a message that another copy or run is busy with."""

LEASE_SLACK = 5.0
"""Seconds that a claim outlives its run's end: Lambda ends a run on time, by its own clock."""

CLAIM_AHEAD = 0.1
"""Seconds before a message's slot at which it is claimed: what the write takes."""


class Provider(Protocol):
    """What delivery needs of the provider's client."""

    def send(self, credentials: Credentials, message: OutgoingMessage) -> Verdict:
        """Make one POST; never raise for what the provider or the network does."""
        ...


class CredentialsKeeper(Protocol):
    """What delivery needs of a credentials source."""

    def get(self) -> Credentials:
        """Return the credentials; raise CredentialsError if there are none."""
        ...

    def renew(self, refused: Credentials) -> Credentials | None:
        """Return other credentials than the refused ones, or None."""
        ...


class Broadcasts(Protocol):
    """What delivery needs of the broadcasts that messages belong to."""

    def look(self, ids: Collection[str]) -> Mapping[str, BroadcastRecord]:
        """Return the broadcasts there are, by id, as they were a moment ago."""
        ...

    def count(self, id_: str, counts: Mapping[State, int]) -> None:
        """Count what became of a broadcast's messages; never raise."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """A message as received: when it was put on the queue, and how often it was received."""

    message: QueuedMessage
    door: str
    sent_at: float
    receive_count: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """The message is finished: take it off the queue; `repeated` if it was so before this run."""

    record: Record | None
    verdict: Verdict | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """Keep the message on the queue and look again in so many seconds."""

    seconds: float
    reason: str
    record: Record | None = None
    verdict: Verdict | None = None


Result = Done | Later


@dataclass(frozen=True, slots=True)
class _Job:
    """A claimed message on its way to the provider."""

    index: int
    record: Record
    message: QueuedMessage
    slot: float
    slot_ends: float


@dataclass(frozen=True, slots=True)
class _Sent:
    job: _Job
    verdict: Verdict
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class _Unsent:
    job: _Job
    retry_in: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Settling:
    """What came of a claim, to be recorded."""

    job: _Job
    change: Change
    later: Later | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message that has ended; its envelope may be due on the DeadLetter queue."""

    index: int
    message: QueuedMessage
    record: Record
    verdict: Verdict | None = None


@dataclass(slots=True)
class _Running:
    """What a run has under way: exchanges, and outcomes that the table has not taken yet."""

    exchanges: list[Future[_Sent | _Unsent]] = field(default_factory=list)
    unwritten: list[_Settling] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.exchanges or self.unwritten)


class Sender:
    """Delivers received messages; one for each environment, used by one run at a time."""

    def __init__(
        self,
        *,
        store: Store,
        queues: Queues,
        provider: Provider,
        credentials: CredentialsKeeper,
        broadcasts: Broadcasts,
        pacer: Pacer,
        breaker: Breaker,
        executor: Executor,
        rules: Rules,
        provider_timeout: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        new_attempt: Callable[[], str] = lambda: uuid.uuid4().hex[:16],
        jitter: random.Random | None = None,
    ) -> None:
        self._store = store
        self._queues = queues
        self._provider = provider
        self._credentials = credentials
        self._broadcasts = broadcasts
        self._pacer = pacer
        self._breaker = breaker
        self._executor = executor
        self._rules = rules
        self._provider_timeout = provider_timeout
        self._clock = clock
        self._sleep = sleep
        self._new_attempt = new_attempt
        self._jitter = jitter
        self._held_until = 0.0
        self._counts: dict[str, Counter[State]] = {}

    def deliver(
        self, batch: Sequence[Received], *, ends_at: float, start_by: float = math.inf
    ) -> list[Result]:
        """Deliver each message, or say when to look at it again; in order.

        No POST starts that could not be finished and recorded before `ends_at`, and none waits for
        its slot beyond `start_by`. A batch of nothing but broadcasts takes the account's slots in
        small portions: others join the line between.
        """
        self._counts = {}
        now = self._clock()
        # A broadcast's message first waits for its turn: that time is not the retry window's.
        batch = [replace(d, sent_at=now) if d.message.broadcast else d for d in batch]
        results = self._deliver(batch, ends_at, start_by)
        for id_, counts in self._counts.items():
            self._broadcasts.count(id_, counts)
        return results

    def _deliver(self, batch: Sequence[Received], ends_at: float, start_by: float) -> list[Result]:
        results: dict[int, Result] = {}
        try:
            records = self._store.load(d.message.id for d in batch if d.message.id)
            broadcasts = self._look(d.message for d in batch)
        except StoreUnavailableError as error:
            log.warning("table not readable", extra={"reason": str(error)})
            return [self._back_off(d, "table_unavailable") for d in batch]
        sends: list[tuple[int, Send]] = []
        finishes: list[tuple[int, Change]] = []
        letters: list[_Letter] = []
        seen: set[str] = set()
        for i, delivery in enumerate(batch):
            message = delivery.message
            assert message.id is not None
            now = self._clock()
            broadcast = broadcasts.get(message.broadcast)
            decision = decide(
                records.get(message.id),
                message,
                door=delivery.door,
                sent_at=delivery.sent_at,
                now=now,
                rules=self._rules,
                held_for=broadcast.pause_so_far(now) if broadcast else 0.0,
            )
            if isinstance(decision, Send | Finish | WriteDeadLetter):
                if message.id in seen:
                    results[i] = Later(SOON, "another_copy")
                    continue
                seen.add(message.id)
            match decision:
                case Send() as send:
                    sends.append((i, send))
                case Drop(record):
                    results[i] = Done(record, repeated=True)
                case Wait(until, record):
                    results[i] = Later(until - now + 1.0, "another_run", record)
                case Finish(change):
                    finishes.append((i, change))
                case WriteDeadLetter(record):
                    letters.append(_Letter(i, message, record))
                case Refuse(reason, detail):
                    results[i] = self.refuse(message.to_body(), reason, detail)
        results |= self._finish(batch, finishes, letters)
        wanted, held = self._sendable(batch, sends, broadcasts)
        results |= held
        results |= self._send(batch, wanted, ends_at, start_by)
        return [results[i] for i in range(len(batch))]

    def refuse(self, body: str, reason: str, detail: str) -> Result:
        """Put a body that is no message of its own on the DeadLetter queue, as it is."""
        [problem] = self._queues.enqueue_dead_letters(
            [DeadLetterEntry(body, reason, detail, 0, self._clock())]
        )
        return Later(SOON, "dead_letter_queue_unavailable") if problem else Done(None)

    # --------------------------------------------------------------------------- broadcasts

    def _look(self, messages: Iterable[QueuedMessage]) -> Mapping[str, BroadcastRecord]:
        ids = {message.broadcast for message in messages if message.broadcast}
        return self._broadcasts.look(ids) if ids else {}

    def _sendable(
        self,
        batch: Sequence[Received],
        sends: Sequence[tuple[int, Send]],
        broadcasts: Mapping[str, BroadcastRecord],
    ) -> tuple[Sequence[tuple[int, Send]], Mapping[int, Result]]:
        """Keep what may go; hand back what is paused, and end what is stopped.

        A redrive is an order of its own, which no pause or stop undoes.
        """
        wanted: list[tuple[int, Send]] = []
        finishes: list[tuple[int, Change]] = []
        held: dict[int, Result] = {}
        now = self._clock()
        for i, send in sends:
            message = batch[i].message
            broadcast = broadcasts.get(message.broadcast)
            status = broadcast.status(now) if broadcast and not message.generation else None
            match status:
                case Status.PAUSED if broadcast:
                    wait_for = hold_for(broadcast, now, self._jitter)
                    held[i] = Later(wait_for, "paused", send.before)
                case Status.STOPPED | Status.FAILED:
                    finishes.append((i, cancel_for_broadcast(send, now).change))
                case _:
                    wanted.append((i, send))
        return wanted, {**held, **self._finish(batch, finishes, [])}

    def _count(self, message: QueuedMessage, change: Change) -> None:
        """Note a step that this run has won, for the one writing of counts at its end."""
        if message.broadcast and (step := tally(change)):
            self._counts.setdefault(message.broadcast, Counter()).update(step)

    # ------------------------------------------------------------------------ ending unsent

    def _finish(
        self,
        batch: Sequence[Received],
        finishes: Sequence[tuple[int, Change]],
        letters: Sequence[_Letter],
    ) -> Mapping[int, Result]:
        results: dict[int, Result] = {}
        letters = list(letters)
        answers = self._store.apply([change for _, change in finishes])
        for (i, change), written in zip(finishes, answers, strict=True):
            match written:
                case Applied(record) if record:
                    self._count(batch[i].message, change)
                    letters.append(_Letter(i, batch[i].message, record))
                case Conflict(record):
                    results[i] = Later(SOON, "another_run", record)
                case _:
                    results[i] = self._back_off(batch[i], "table_unavailable")
        return {**results, **self._bury(letters)}

    def _bury(self, ended: Sequence[_Letter]) -> Mapping[int, Result]:
        """Put dead messages' envelopes on the DeadLetter queue, and record that they lie there.

        If a crash comes between the two, or the record is not written, a message may lie there
        twice; both copies carry the same generation, so that moving both back sends it once.
        """
        results: dict[int, Result] = {e.index: Done(e.record, e.verdict) for e in ended}
        due = [e for e in ended if e.record.dead_letter is DeadLetter.DUE]
        problems = self._queues.enqueue_dead_letters(
            [
                DeadLetterEntry(
                    dead_letter_body(e.message, e.record.generation),
                    e.record.reason,
                    e.record.detail,
                    e.record.tries,
                    e.record.updated_at,
                )
                for e in due
            ]
        )
        lying: list[Change] = []
        for e, problem in zip(due, problems, strict=True):
            if problem is None:
                change = marked_dead_lettered(e.record)
                lying.append(change)
                results[e.index] = Done(change.after, e.verdict)
            else:
                results[e.index] = Later(SOON, "dead_letter_due", e.record, e.verdict)
        self._store.apply(lying)
        return results

    def _back_off(self, delivery: Received, reason: str) -> Later:
        """Hand a message back that is not to blame: its attempts stay as they are."""
        at = delivery.message.expires_at
        ends = deadline(delivery.sent_at, at.timestamp() if at else None, self._rules)
        wait = backoff(
            delivery.receive_count,
            None,
            self._rules,
            time_left=ends - self._clock(),
            jitter=self._jitter,
        )
        return Later(wait, reason)

    # ------------------------------------------------------------------------------ sending

    def _send(
        self,
        batch: Sequence[Received],
        sends: Sequence[tuple[int, Send]],
        ends_at: float,
        start_by: float,
    ) -> Mapping[int, Result]:
        results: dict[int, Result] = {}
        if not sends:
            return results
        try:
            self._credentials.get()
        except CredentialsError as error:
            log.error("no credentials", extra={"reason": str(error)})
            return {i: self._back_off(batch[i], "no_credentials") for i, _ in sends}
        latest = min(start_by, self._last_start(ends_at))
        give_way = all(delivery.message.broadcast for delivery in batch)
        horizon = BROADCAST_HORIZON if give_way else HORIZON
        running = _Running()
        while sends:
            allowed = self._breaker.room()
            ready = sends if allowed is None else sends[:allowed]
            refused = sends[len(ready) :]
            results |= {i: self._back_off(batch[i], "provider_failing") for i, _ in refused}
            if not ready:
                break
            try:
                within = min(horizon, max(0.0, latest - self._clock()))
                slots = self._pacer.reserve(len(ready), within=within)
            except StoreUnavailableError as error:
                log.warning("no pace", extra={"reason": str(error)})
                results |= {i: self._back_off(batch[i], "table_unavailable") for i, _ in ready}
                break
            in_time = [at for at in slots.times if at <= latest]
            paced, left = ready[: len(in_time)], ready[len(in_time) :]
            for start in range(0, len(paced), GROUP):
                group = paced[start : start + GROUP]
                times = in_time[start : start + GROUP]
                # Claimed just ahead of its first slot: a crash makes unknown what it may have sent.
                results |= self._collect_until(times[0] - CLAIM_AHEAD, running, ends_at)
                jobs, lost = self._claim(batch, group, times, slots.grace, ends_at)
                results |= lost
                running.exchanges += [
                    self._executor.submit(self._guarded_exchange, job, ends_at) for job in jobs
                ]
            again_at = slots.next - horizon
            soon = min(self._clock() + HORIZON, latest)
            if not give_way or again_at > soon:
                wait_for_slot = max(1.0, slots.next - self._clock())
                results |= {i: Later(wait_for_slot, "pace") for i, _ in left}
                break
            results |= self._collect_until(again_at, running, ends_at)
            sends, held = self._look_again(batch, left)
            results |= held
        while running:
            results |= self._collect(running, ends_at)
        return results

    def _look_again(
        self, batch: Sequence[Received], sends: Sequence[tuple[int, Send]]
    ) -> tuple[Sequence[tuple[int, Send]], Mapping[int, Result]]:
        """Keep what may still go after a wait for slots, as `_sendable` does."""
        try:
            broadcasts = self._look(batch[i].message for i, _ in sends)
        except StoreUnavailableError:
            return [], {i: self._back_off(batch[i], "table_unavailable") for i, _ in sends}
        return self._sendable(batch, sends, broadcasts)

    def _last_start(self, ends_at: float) -> float:
        """Return until when a POST may start that is to be finished and recorded by then."""
        return ends_at - self._provider_timeout - SETTLE_SECONDS

    def _claim(
        self,
        batch: Sequence[Received],
        group: Sequence[tuple[int, Send]],
        times: Sequence[float],
        grace: float,
        ends_at: float,
    ) -> tuple[list[_Job], Mapping[int, Result]]:
        changes = [
            claim(send, attempt=self._new_attempt(), now=self._clock(), lease=ends_at + LEASE_SLACK)
            for _, send in group
        ]
        jobs: list[_Job] = []
        lost: dict[int, Result] = {}
        answers = self._store.apply(changes)
        for (i, _), slot, change, written in zip(group, times, changes, answers, strict=True):
            match written:
                case Applied(record) if record:
                    self._count(batch[i].message, change)
                    jobs.append(_Job(i, record, batch[i].message, slot, slot + grace))
                case Conflict(record):
                    lost[i] = Later(1.0, "another_run", record)
                case _:
                    lost[i] = self._back_off(batch[i], "table_unavailable")
        return jobs, lost

    def _guarded_exchange(self, job: _Job, ends_at: float) -> _Sent | _Unsent:
        began = self._clock()
        try:
            return self._exchange(job, ends_at)
        except Exception as error:  # noqa: BLE001 - a message's bug must not cost its neighbours' outcomes
            kind = type(error).__name__
            log.error("unexpected error", extra={"message_id": job.record.id, "error": kind})
            verdict = Verdict(Outcome.UNKNOWN, "unexpected_error", kind)
            return _Sent(job, verdict, began, self._clock())

    def _exchange(self, job: _Job, ends_at: float) -> _Sent | _Unsent:
        """Wait for the message's slot and make its POST, if there is still time and reason to."""
        self._pause_until(job.slot)
        now = self._clock()
        if now > self._last_start(ends_at):
            return _Unsent(job, 1.0, "run_ends")
        if now >= job.record.deadline:
            return _Unsent(job, 1.0, "too_late")
        if now < self._held_until:
            return _Unsent(job, self._held_until - now, "slow_down")
        if job.record.expires_at is not None and now >= job.record.expires_at:
            return _Unsent(job, 1.0, "expired")
        if now > job.slot_ends:
            # Sent now it would come on top of those whose turn it is.
            return _Unsent(job, 1.0, "slot_missed")
        try:
            credentials = self._credentials.get()
        except CredentialsError:
            return _Unsent(job, SOON, "no_credentials")
        if not self._breaker.admit():
            shut = self._breaker.shut_until() - self._clock()
            return _Unsent(job, max(1.0, shut), "provider_failing")
        outgoing = _outgoing(job.message)
        began = self._clock()
        verdict = self._provider.send(credentials, outgoing)
        if (
            verdict.outcome is Outcome.CREDENTIALS
            and (renewed := self._renew(credentials))
            and self._slot_for_one_more(ends_at)
        ):
            verdict = self._provider.send(renewed, outgoing)
        ended = self._clock()
        self._breaker.record(failed=_provider_failing(verdict))
        if verdict.status == 429:
            self._slow_down(verdict, ended)
        return _Sent(job, verdict, began, ended)

    def _renew(self, refused: Credentials) -> Credentials | None:
        try:
            renewed = self._credentials.renew(refused)
        except CredentialsError:
            return None
        return renewed if renewed != refused else None

    def _slot_for_one_more(self, ends_at: float) -> bool:
        """Take a slot for a message's second POST and wait for it, if it comes in time."""
        try:
            times = self._pacer.reserve(1).times
        except StoreUnavailableError:
            return False
        if not times or times[0] > self._last_start(ends_at):
            return False
        self._pause_until(times[0])
        return self._clock() <= self._last_start(ends_at)

    def _slow_down(self, verdict: Verdict, now: float) -> None:
        """Hold the whole account back for as long as the provider asks, within the cap.

        This run stops at once; another one that holds slots already learns it from its next answer.
        """
        until = now + min(verdict.retry_after or 1.0, self._rules.backoff_max)
        self._held_until = max(self._held_until, until)
        try:
            self._pacer.hold(until)
        except StoreUnavailableError as error:
            log.warning("pace not recorded", extra={"reason": str(error)})

    def _collect_until(self, at: float, running: _Running, ends_at: float) -> Mapping[int, Result]:
        """Wait until a moment, and settle meanwhile what ends before it."""
        results: dict[int, Result] = {}
        while running and self._clock() < at:
            results |= self._collect(running, ends_at, at - self._clock())
        self._pause_until(at)
        return results

    def _collect(
        self, running: _Running, ends_at: float, timeout: float = math.inf
    ) -> Mapping[int, Result]:
        """Settle the exchanges that have ended, all in one call; wait for one if none has.

        What the table did not take goes along with the next ones, so that it holds up no other.
        """
        if running.unwritten:
            timeout = min(timeout, SETTLE_SECONDS / 6)
        ended = []
        if running.exchanges:
            patience = None if timeout == math.inf else timeout
            done, _ = wait(running.exchanges, patience, return_when=FIRST_COMPLETED)
            ended = [exchange for exchange in running.exchanges if exchange in done]
            running.exchanges = [e for e in running.exchanges if e not in done]
        else:
            self._sleep(max(0.0, timeout))
        outcomes = [self._outcome(exchange.result()) for exchange in ended]
        results, running.unwritten = self._settle([*running.unwritten, *outcomes], ends_at)
        return results

    def _outcome(self, outcome: _Sent | _Unsent) -> _Settling:
        match outcome:
            case _Unsent(job, retry_in, reason):
                change = release(job.record, self._clock())
                return _Settling(job, change, Later(retry_in, reason, change.after), None)
            case _Sent(job, verdict, began, ended):
                settlement = settle(
                    job.record,
                    verdict,
                    began=began,
                    now=ended,
                    on_unknown=job.message.on_unknown,
                    rules=self._rules,
                    jitter=self._jitter,
                )
                later = None
                if settlement.retry_in is not None:
                    after = settlement.change.after
                    later = Later(settlement.retry_in, verdict.reason, after, verdict)
                return _Settling(job, settlement.change, later, verdict)

    def _settle(
        self, outcomes: Sequence[_Settling], ends_at: float
    ) -> tuple[Mapping[int, Result], list[_Settling]]:
        """Record what came of each claim, and bury the dead; return also what to record again."""
        results: dict[int, Result] = {}
        letters: list[_Letter] = []
        unwritten: list[_Settling] = []
        answers = self._store.apply([s.change for s in outcomes])
        for s, written in zip(outcomes, answers, strict=True):
            i = s.job.index
            match written:
                case Applied(record) if record:
                    self._count(s.job.message, s.change)
                    if s.later:
                        results[i] = s.later
                    else:
                        letters.append(_Letter(i, s.job.message, record, s.verdict))
                case Conflict(record):
                    log.warning("claim lost", extra={"message_id": s.job.record.id})
                    results[i] = Later(SOON, "claim_lost", record, s.verdict)
                case _:
                    unwritten.append(s)
        # What is known now counts as unknown once this run has ended: it tries to its end.
        if unwritten and self._clock() + SETTLE_SECONDS / 2 > ends_at:
            ids = [s.job.record.id for s in unwritten]
            log.error("outcomes not recorded", extra={"message_ids": ids})
            for s in unwritten:
                wait_for_lease = s.job.record.lease - self._clock() + 1.0
                results[s.job.index] = Later(wait_for_lease, "table_unavailable", s.job.record)
            unwritten = []
        return {**results, **self._bury(letters)}, unwritten

    def _pause_until(self, at: float) -> None:
        if (seconds := at - self._clock()) > 0:
            self._sleep(seconds)


def _provider_failing(verdict: Verdict) -> bool:
    """Tell trouble that every message would meet from an answer to this one message.

    Refused credentials belong to it: to go on with them is how an account gets locked.
    """
    if verdict.outcome in (Outcome.MISDIRECTED, Outcome.CREDENTIALS):
        return True
    trouble = verdict.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN)
    return trouble and (verdict.status is None or verdict.status >= 500)


def _outgoing(message: QueuedMessage) -> OutgoingMessage:
    return OutgoingMessage(
        subscriber_id=message.subscriber_id,
        bot_id=message.bot_id,
        number=message.number,
        text=message.text,
        buttons=tuple((button.text, button.url) for button in message.buttons),
    )
