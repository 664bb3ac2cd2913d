"""One claimed message: its slot, its POST, its verdict."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Protocol

from relay.messages.breaker import Breaker
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import Pacer
from relay.messages.results import SOON
from relay.messages.states import Record
from relay.messages.store import StoreUnavailableError
from smsgold.client import OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsError
from smsgold.responses import Outcome, Verdict

log = logging.getLogger(__name__)

SETTLE_SECONDS = 3.0
"""Kept at a run's end for recording what the provider answered."""


class Provider(Protocol):
    """What the dispatcher needs of the provider's client."""

    def send(self, credentials: Credentials, message: OutgoingMessage) -> Verdict:
        """Make one POST; never raise for what the provider or the network does."""
        ...


class CredentialsKeeper(Protocol):
    """What the dispatcher needs of a credentials source."""

    def get(self) -> Credentials:
        """Return the credentials; raise CredentialsError if there are none."""
        ...

    def renew(self, refused: Credentials) -> Credentials | None:
        """Return other credentials than the refused ones, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claimed message, its place in the batch, and when it may be sent."""

    index: int
    record: Record
    message: QueuedMessage
    slot: float
    slot_ends: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A POST was made; the verdict says what came of it."""

    claimed: Claimed
    verdict: Verdict
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Unsent:
    """No POST was made; try again in so many seconds."""

    claimed: Claimed
    retry_in: float
    reason: str


Exchange = Sent | Unsent


class Dispatcher:
    """Sends claimed messages, many at a time; at most one POST a slot, and none it cannot finish.

    One for each environment.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        credentials: CredentialsKeeper,
        breaker: Breaker,
        pacer: Pacer,
        executor: Executor,
        provider_timeout: float,
        longest_hold: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._provider = provider
        self._credentials = credentials
        self._breaker = breaker
        self._pacer = pacer
        self._executor = executor
        self._provider_timeout = provider_timeout
        self._longest_hold = longest_hold
        self._clock = clock
        self._sleep = sleep
        self._held_until = 0.0

    def check_credentials(self) -> None:
        """Raise CredentialsError if there are no credentials to send with."""
        self._credentials.get()

    def room(self) -> int | None:
        """Return how many messages are worth claiming now; None for any number."""
        return self._breaker.room()

    def last_start(self, ends_at: float) -> float:
        """Return until when a POST may start so that it is finished and recorded by `ends_at`."""
        return ends_at - self._provider_timeout - SETTLE_SECONDS

    def submit(self, claimed: Claimed, ends_at: float) -> Future[Exchange]:
        """Send a message at its slot, in a thread of its own; the future never raises."""
        return self._executor.submit(self._guarded, claimed, ends_at)

    def _guarded(self, claimed: Claimed, ends_at: float) -> Exchange:
        began = self._clock()
        try:
            return self._exchange(claimed, ends_at)
        except Exception as error:  # noqa: BLE001 - one message's bug must not cost its neighbours' outcomes
            kind = type(error).__name__
            log.error("unexpected error", extra={"message_id": claimed.record.id, "error": kind})
            verdict = Verdict(Outcome.UNKNOWN, "unexpected_error", kind)
            return Sent(claimed, verdict, began, self._clock())

    def _exchange(self, claimed: Claimed, ends_at: float) -> Exchange:
        """Wait for the message's slot and make its POST, if there is still time and reason to."""
        self._pause_until(claimed.slot)
        if unsent := self._too_late(claimed, ends_at):
            return unsent
        try:
            credentials = self._credentials.get()
        except CredentialsError:
            return Unsent(claimed, SOON, "no_credentials")
        if not self._breaker.admit():
            shut = self._breaker.shut_until() - self._clock()
            return Unsent(claimed, max(1.0, shut), "provider_failing")
        outgoing = _outgoing(claimed.message)
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
        return Sent(claimed, verdict, began, ended)

    def _too_late(self, claimed: Claimed, ends_at: float) -> Unsent | None:
        """Say why a message cannot be sent any more, now that its slot has come."""
        now = self._clock()
        record = claimed.record
        if now > self.last_start(ends_at):
            return Unsent(claimed, 1.0, "run_ends")
        if now >= record.deadline:
            return Unsent(claimed, 1.0, "too_late")
        if now < self._held_until:
            return Unsent(claimed, self._held_until - now, "slow_down")
        if record.expires_at is not None and now >= record.expires_at:
            return Unsent(claimed, 1.0, "expired")
        if now > claimed.slot_ends:
            # Sent now, it would come on top of those whose turn it is.
            return Unsent(claimed, 1.0, "slot_missed")
        return None

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
        if not times or times[0] > self.last_start(ends_at):
            return False
        self._pause_until(times[0])
        return self._clock() <= self.last_start(ends_at)

    def _slow_down(self, verdict: Verdict, now: float) -> None:
        """Hold the whole account back for as long as the provider asks, up to the cap.

        This run stops at once. Another one that already has slots learns it from its next answer.
        """
        until = now + min(verdict.retry_after or 1.0, self._longest_hold)
        self._held_until = max(self._held_until, until)
        try:
            self._pacer.hold(until)
        except StoreUnavailableError as error:
            log.warning("hold not recorded", extra={"reason": str(error)})

    def _pause_until(self, at: float) -> None:
        if (seconds := at - self._clock()) > 0:
            self._sleep(seconds)


def _provider_failing(verdict: Verdict) -> bool:
    """Return whether the provider is failing, not just this message.

    Refused credentials count: an account is locked by those who keep trying with them.
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
