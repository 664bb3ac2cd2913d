"""deliver(): claim, pace, send, classify, settle.

A message is claimed in the table before its POST and settled after it, each by one guarded write.
Whatever stops a run in between leaves a claim whose lease runs out, and whoever receives the
message next knows that its outcome is unknown. `relay.states` decides; this module does.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Protocol

from relay.message import QueuedMessage
from relay.pacing import Breaker, Pacer
from relay.queues import DeadLetterNote, Queues, QueueUnavailableError, dead_letter_body
from relay.states import (
    Bury,
    Change,
    DeadLetter,
    Drop,
    Finish,
    Record,
    Refuse,
    Rules,
    Send,
    Wait,
    backoff,
    buried,
    claim,
    decide,
    release,
    settle,
)
from relay.store import Applied, Conflict, Store, StoreUnavailableError
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


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as received: when it was put on the queue, and how often it was received."""

    message: QueuedMessage
    door: str
    sent_at: float
    receives: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """The message is finished: take it off the queue."""

    record: Record | None
    verdict: Verdict | None = None


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


class Courier:
    """Delivers received messages; one for each environment, used by one run at a time."""

    def __init__(
        self,
        *,
        store: Store,
        queues: Queues,
        provider: Provider,
        credentials: CredentialsKeeper,
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
        self._pacer = pacer
        self._breaker = breaker
        self._executor = executor
        self._rules = rules
        self._provider_timeout = provider_timeout
        self._clock = clock
        self._sleep = sleep
        self._new_attempt = new_attempt
        self._jitter = jitter

    def deliver(self, batch: Sequence[Delivery], *, ends_at: float) -> list[Result]:
        """Deliver each message, or say when to look at it again; in order.

        No POST starts that could not be finished and recorded before `ends_at`.
        """
        results: dict[int, Result] = {}
        try:
            records = self._store.load(d.message.id for d in batch if d.message.id)
        except StoreUnavailableError as error:
            log.warning("table not readable", extra={"reason": str(error)})
            return [self._back_off(d, "table_unavailable") for d in batch]
        sends: list[tuple[int, Send]] = []
        finishes: list[tuple[int, Change]] = []
        seen: set[str] = set()
        for i, delivery in enumerate(batch):
            message = delivery.message
            assert message.id is not None
            if message.id in seen:
                results[i] = Later(SOON, "another_copy")
                continue
            seen.add(message.id)
            now = self._clock()
            match decide(
                records.get(message.id),
                message,
                door=delivery.door,
                sent_at=delivery.sent_at,
                now=now,
                rules=self._rules,
            ):
                case Send() as send:
                    sends.append((i, send))
                case Drop(record):
                    results[i] = Done(record)
                case Wait(until, record):
                    results[i] = Later(until - now + 1.0, "another_run", record)
                case Finish(change):
                    finishes.append((i, change))
                case Bury(record):
                    results[i] = self._bury(message, record)
                case Refuse(reason, detail):
                    results[i] = self.refuse(message.to_body(), reason, detail)
        results |= self._finish(batch, finishes)
        results |= self._send(batch, sends, ends_at)
        return [results[i] for i in range(len(batch))]

    def refuse(self, body: str, reason: str, detail: str) -> Result:
        """Put a body that is no message of its own on the DeadLetter queue, as it is."""
        try:
            self._queues.bury(body, DeadLetterNote(reason, detail, 0, self._clock()))
        except QueueUnavailableError:
            return Later(SOON, "dead_letter_queue_unavailable")
        return Done(None)

    # ------------------------------------------------------------------------ ending unsent

    def _finish(
        self, batch: Sequence[Delivery], finishes: Sequence[tuple[int, Change]]
    ) -> Mapping[int, Result]:
        results: dict[int, Result] = {}
        try:
            answers = self._store.apply([change for _, change in finishes])
        except StoreUnavailableError:
            return {i: self._back_off(batch[i], "table_unavailable") for i, _ in finishes}
        for (i, _), written in zip(finishes, answers, strict=True):
            match written:
                case Applied(record) if record:
                    results[i] = self._bury(batch[i].message, record)
                case Conflict(record):
                    results[i] = Later(SOON, "another_run", record)
                case _:
                    results[i] = self._back_off(batch[i], "table_unavailable")
        return results

    def _bury(
        self, message: QueuedMessage, record: Record, verdict: Verdict | None = None
    ) -> Result:
        """Put a dead message's envelope on the DeadLetter queue, and record that it lies there.

        A crash between the two puts it there twice; both copies carry the same generation, so
        that moving both back sends it once.
        """
        if record.dead_letter is not DeadLetter.DUE:
            return Done(record, verdict)
        note = DeadLetterNote(record.reason, record.detail, record.tries, record.updated_at)
        try:
            self._queues.bury(dead_letter_body(message, record.generation), note)
            self._store.apply([buried(record)])
        except (QueueUnavailableError, StoreUnavailableError) as error:
            log.warning("dead letter not written", extra={"id": record.id, "reason": str(error)})
            return Later(SOON, "dead_letter_due", record, verdict)
        return Done(replace(record, dead_letter=DeadLetter.WRITTEN), verdict)

    def _back_off(self, delivery: Delivery, reason: str) -> Later:
        """Hand a message back that is not to blame: its attempts stay as they are."""
        return Later(backoff(delivery.receives, None, self._rules, self._jitter), reason)

    # ------------------------------------------------------------------------------ sending

    def _send(
        self, batch: Sequence[Delivery], sends: Sequence[tuple[int, Send]], ends_at: float
    ) -> Mapping[int, Result]:
        results: dict[int, Result] = {}
        if not sends:
            return results
        try:
            self._credentials.get()
        except CredentialsError as error:
            log.error("no credentials", extra={"reason": str(error)})
            return {i: self._back_off(batch[i], "no_credentials") for i, _ in sends}
        allowed = self._breaker.room()
        ready = sends if allowed is None else sends[:allowed]
        results |= {i: self._back_off(batch[i], "provider_failing") for i, _ in sends[len(ready) :]}
        if not ready:
            return results
        try:
            slots = self._pacer.reserve(len(ready))
        except StoreUnavailableError:
            return results | {i: self._back_off(batch[i], "table_unavailable") for i, _ in ready}
        paced = ready[: len(slots.times)]
        wait_for_slot = max(1.0, slots.next - self._clock())
        results |= {i: Later(wait_for_slot, "pace") for i, _ in ready[len(paced) :]}

        running: set[Future[_Sent | _Unsent]] = set()
        for start in range(0, len(paced), GROUP):
            group = paced[start : start + GROUP]
            times = slots.times[start : start + GROUP]
            # Claimed just ahead of its first slot: a crash makes unknown only what it may have sent.
            while running and self._clock() < times[0] - 0.1:
                results |= self._collect(batch, running, times[0] - 0.1 - self._clock())
            self._pause_until(times[0] - 0.1)
            jobs, lost = self._claim(batch, group, times)
            results |= lost
            running |= {self._executor.submit(self._exchange, job, ends_at) for job in jobs}
        while running:
            results |= self._collect(batch, running, None)
        return results

    def _claim(
        self, batch: Sequence[Delivery], group: Sequence[tuple[int, Send]], times: Sequence[float]
    ) -> tuple[list[_Job], Mapping[int, Result]]:
        now = self._clock()
        changes = [
            claim(send, attempt=self._new_attempt(), now=now, rules=self._rules)
            for _, send in group
        ]
        try:
            answers = self._store.apply(changes)
        except StoreUnavailableError as error:
            log.warning("table not writable", extra={"reason": str(error)})
            return [], {i: self._back_off(batch[i], "table_unavailable") for i, _ in group}
        jobs: list[_Job] = []
        lost: dict[int, Result] = {}
        for (i, _), slot, written in zip(group, times, answers, strict=True):
            match written:
                case Applied(record) if record:
                    jobs.append(_Job(i, record, batch[i].message, slot))
                case Conflict(record):
                    lost[i] = Later(1.0, "another_run", record)
                case _:
                    lost[i] = self._back_off(batch[i], "table_unavailable")
        return jobs, lost

    def _exchange(self, job: _Job, ends_at: float) -> _Sent | _Unsent:
        """Wait for the message's slot and make its POST, if there is still time and reason to."""
        self._pause_until(job.slot)
        if self._clock() + self._provider_timeout + SETTLE_SECONDS > ends_at:
            return _Unsent(job, 1.0, "run_ends")
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
        if verdict.outcome is Outcome.CREDENTIALS and (renewed := self._renew(credentials)):
            time_left = ends_at - self._clock() - self._provider_timeout - SETTLE_SECONDS
            if time_left > 0:
                verdict = self._provider.send(renewed, outgoing)
        ended = self._clock()
        self._breaker.record(failed=_provider_failing(verdict))
        if verdict.status == 429:
            self._slow_down(verdict, ended)
        return _Sent(job, verdict, began, ended)

    def _renew(self, refused: Credentials) -> Credentials | None:
        try:
            return self._credentials.renew(refused)
        except CredentialsError:
            return None

    def _slow_down(self, verdict: Verdict, now: float) -> None:
        """Hold the whole account back for as long as the provider asks, within the cap."""
        seconds = min(verdict.retry_after or 1.0, self._rules.backoff_max)
        try:
            self._pacer.hold(now + seconds)
        except StoreUnavailableError as error:
            log.warning("pace not recorded", extra={"reason": str(error)})

    def _collect(
        self,
        batch: Sequence[Delivery],
        running: set[Future[_Sent | _Unsent]],
        timeout: float | None,
    ) -> Mapping[int, Result]:
        """Settle the exchanges that have ended, all in one call; wait for one if none has."""
        ended, _ = wait(running, timeout=timeout, return_when=FIRST_COMPLETED)
        running -= ended
        return self._settle(batch, [future.result() for future in ended])

    def _settle(
        self, batch: Sequence[Delivery], outcomes: Iterable[_Sent | _Unsent]
    ) -> Mapping[int, Result]:
        results: dict[int, Result] = {}
        settled: list[tuple[_Job, Change, Later | None, Verdict | None]] = []
        for outcome in outcomes:
            match outcome:
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
                    settled.append((job, settlement.change, later, verdict))
                case _Unsent(job, retry_in, reason):
                    change = release(job.record, self._clock())
                    settled.append((job, change, Later(retry_in, reason, change.after), None))
        for start in range(0, len(settled), GROUP):
            group = settled[start : start + GROUP]
            try:
                answers = self._store.apply([change for _, change, _, _ in group])
            except StoreUnavailableError as error:
                # The claims stay; their leases run out, and the outcome counts as unknown.
                log.error(
                    "outcomes not recorded",
                    extra={"reason": str(error), "ids": [job.record.id for job, *_ in group]},
                )
                for job, *_ in group:
                    results[job.index] = self._lease_ends(job, "table_unavailable")
                continue
            for (job, _, later, verdict), written in zip(group, answers, strict=True):
                match written:
                    case Applied(record) if record:
                        results[job.index] = later or self._bury(
                            batch[job.index].message, record, verdict
                        )
                    case Conflict(record):
                        log.warning("claim lost", extra={"id": job.record.id})
                        results[job.index] = Later(SOON, "claim_lost", record, verdict)
                    case _:
                        results[job.index] = self._lease_ends(job, "table_unavailable")
        return results

    def _lease_ends(self, job: _Job, reason: str) -> Later:
        return Later(job.record.lease - self._clock() + 1.0, reason, job.record)

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
