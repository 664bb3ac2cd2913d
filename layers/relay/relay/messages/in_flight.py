"""A run's exchanges under way, and their verdicts until the table has them."""

import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace

from relay.messages.dead_letters import DeadLetters, Ended
from relay.messages.dispatch import SETTLE_SECONDS, Claimed, Exchange, Sent, Unsent
from relay.messages.results import SOON, Counts, Later, Result
from relay.messages.states import Change, Rules, release, settle, take_back
from relay.messages.store import TABLE_SECONDS, Applied, Conflict, Store
from smsgold.responses import Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a claim: the step to write, and what then becomes of the message."""

    claimed: Claimed
    change: Change
    later: Later | None
    verdict: Verdict | None = None
    lost: Change | None = None
    """The claim, where the table gave no answer to it and no POST was made."""


class InFlight:
    """What one run has under way: every claim is settled or released before the run ends."""

    def __init__(
        self,
        *,
        store: Store,
        dead_letters: DeadLetters,
        rules: Rules,
        counts: Counts,
        ends_at: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: random.Random | None = None,
    ) -> None:
        self._store = store
        self._dead_letters = dead_letters
        self._rules = rules
        self._counts = counts
        self._ends_at = ends_at
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._exchanges: list[Future[Exchange]] = []
        self._unwritten: list[_Outcome] = []

    def __bool__(self) -> bool:
        return bool(self._exchanges or self._unwritten)

    def add(self, exchange: Future[Exchange]) -> None:
        """Take charge of an exchange."""
        self._exchanges.append(exchange)

    def take_back(self, claimed: Claimed, lost: Change, later: Later) -> None:
        """Take charge of a claim that may have been written although the table did not say so.

        Nothing was sent, and nobody else can know that: left alone, it would count as unknown.
        """
        back = release(claimed.record, self._clock())
        self._unwritten.append(_Outcome(claimed, back, later, lost=lost))

    def settle_until(self, at: float) -> Mapping[int, Result]:
        """Wait until a moment, and settle meanwhile what ends before it."""
        results: dict[int, Result] = {}
        while self and self._clock() < at:
            results |= self._collect(at - self._clock())
        if (seconds := at - self._clock()) > 0:
            self._sleep(seconds)
        return results

    def settle_all(self) -> Mapping[int, Result]:
        """Wait for every exchange and settle it."""
        results: dict[int, Result] = {}
        while self:
            results |= self._collect(math.inf)
        return results

    def _collect(self, timeout: float) -> Mapping[int, Result]:
        """Settle the exchanges that have ended, all in one call; wait for one if none has.

        What the table did not take goes along with the next ones, so that it holds up no other.
        """
        if self._unwritten:
            timeout = min(timeout, SETTLE_SECONDS / 6)
        ended: list[Future[Exchange]] = []
        if self._exchanges:
            patience = None if timeout == math.inf else timeout
            done, _ = wait(self._exchanges, patience, return_when=FIRST_COMPLETED)
            ended = [exchange for exchange in self._exchanges if exchange in done]
            self._exchanges = [e for e in self._exchanges if e not in done]
        else:
            self._sleep(max(0.0, timeout))
        outcomes = [self._outcome(exchange.result()) for exchange in ended]
        return self._settle([*self._unwritten, *outcomes])

    def _outcome(self, exchange: Exchange) -> _Outcome:
        match exchange:
            case Unsent(claimed, retry_in, reason):
                now = self._clock()
                change = release(claimed.record, now, not_before=claimed.message.may_go_at(now))
                return _Outcome(claimed, change, Later(retry_in, reason, change.after))
            case Sent(claimed, verdict, began, ended):
                settlement = settle(
                    claimed.record,
                    verdict,
                    began=began,
                    now=ended,
                    on_unknown=claimed.message.on_unknown,
                    rules=self._rules,
                    between=claimed.message.between,
                    jitter=self._jitter,
                )
                later = None
                if settlement.retry_in is not None:
                    after = settlement.change.after
                    later = Later(settlement.retry_in, verdict.reason, after, verdict)
                return _Outcome(claimed, settlement.change, later, verdict)

    def _settle(self, outcomes: Sequence[_Outcome]) -> Mapping[int, Result]:
        """Record what came of each claim; write the dead letters; keep what is to be retried."""
        results: dict[int, Result] = {}
        ended: list[Ended] = []
        unwritten: list[_Outcome] = []
        answers = self._store.apply([o.change for o in outcomes])
        for o, written in zip(outcomes, answers, strict=True):
            i = o.claimed.index
            match written:
                case Applied(record):
                    self._count(o)
                    if o.later:
                        results[i] = o.later
                    else:
                        ended.append(Ended(i, o.claimed.message, record, o.verdict))
                case Conflict(current) if o.lost:
                    if back := take_back(o.lost, current, self._clock()):
                        unwritten.append(replace(o, change=back))
                    else:
                        results[i] = o.later or Later(SOON, "claim_lost", current)
                case Conflict(record):
                    log.warning("claim lost", extra={"message_id": o.claimed.record.id})
                    results[i] = Later(SOON, "claim_lost", record, o.verdict)
                case _:
                    unwritten.append(o)
        # A verdict that is never written counts as unknown: keep trying until the run's end.
        if unwritten and self._clock() + TABLE_SECONDS > self._ends_at:
            ids = [o.claimed.record.id for o in unwritten]
            log.error("outcomes not recorded", extra={"message_ids": ids})
            for o in unwritten:
                record = o.claimed.record
                wait_for_lease = record.lease - self._clock() + 1.0
                results[o.claimed.index] = Later(wait_for_lease, "table_unavailable", record)
            unwritten = []
        self._unwritten = unwritten
        return {**results, **self._dead_letters.write(ended)}

    def _count(self, outcome: _Outcome) -> None:
        if outcome.lost and outcome.change.before == outcome.claimed.record:
            self._counts.note(outcome.claimed.message, outcome.lost)  # it was written after all
        self._counts.note(outcome.claimed.message, outcome.change)
