"""One claimed message: its slot, its POST, its verdict."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Protocol

from relay.messages.breaker import Breaker
from relay.messages.chats import Chats
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import Pacer
from relay.messages.results import SOON
from relay.messages.states import TOO_MANY_REQUESTS, Record
from relay.messages.store import TABLE_SECONDS, StoreUnavailableError
from smsgold.client import OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsError
from smsgold.responses import Outcome, Verdict

log = logging.getLogger(__name__)

SETTLE_SECONDS = 4.0
"""Kept at a run's end for recording what the provider answered: one call to the table."""

RENEW_SECONDS = 9.0
"""What fetching the credentials anew may take; held to as the table's is."""

CONNECT_AHEAD = 2.0
"""Seconds before a slot at which a connection is made for it, unless one is open."""


class Provider(Protocol):
    """What the dispatcher needs of the provider's client."""

    def connect(self) -> None:
        """Have a connection at hand for the next message, if one can be made; never raise."""
        ...

    def send(
        self,
        credentials: Credentials,
        message: OutgoingMessage,
        *,
        withhold: Callable[[], str | None],
    ) -> Verdict:
        """Make one POST; never raise for what the provider or the network does.

        `withhold` is asked right before the first byte; with a reason, nothing is sent, and the
        verdict is WITHHELD.
        """
        ...


class CredentialsKeeper(Protocol):
    """What the dispatcher needs of a credentials source."""

    def get(self) -> Credentials:
        """Return the credentials; raise CredentialsError if there are none."""
        ...

    def last(self) -> Credentials | None:
        """Return them as they were last fetched, without fetching."""
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
        chats: Chats,
        executor: Executor,
        provider_timeout: float,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._provider = provider
        self._credentials = credentials
        self._breaker = breaker
        self._pacer = pacer
        self._chats = chats
        self._executor = executor
        self._provider_timeout = provider_timeout
        self._clock = clock
        self._sleep = sleep
        self._held_until = 0.0
        self._refused: Credentials | None = None
        """What was refused and not renewed yet: a run's end was too near."""

    def prepare(self) -> None:
        """Have at hand what takes time to get, so that no message that has its slot waits for it.

        Raises CredentialsError if there are no credentials to send with.
        """
        if self._credentials.get() == self._refused:
            self._renew(self._refused)
        if self._breaker.room() != 0:
            self._provider.connect()

    def room(self) -> int | None:
        """Return how many messages are worth claiming now; None for any number."""
        return self._breaker.room()

    def last_start(self, ends_at: float) -> float:
        """Return until when a POST may start so that it is finished and recorded by `ends_at`."""
        return ends_at - self._provider_timeout - SETTLE_SECONDS

    def submit(self, claimed: Claimed, *, latest: float, ends_at: float) -> Future[Exchange]:
        """Send a message at its slot, in a thread of its own; the future never raises.

        No POST starts after `latest`, nor anything else that might not be over by `ends_at`.
        """
        return self._executor.submit(self._guarded, claimed, latest, ends_at)

    def _guarded(self, claimed: Claimed, latest: float, ends_at: float) -> Exchange:
        began = self._clock()
        try:
            return self._exchange(claimed, latest, ends_at)
        except Exception as error:  # noqa: BLE001 - one message's bug must not cost its neighbours' outcomes
            kind = type(error).__name__
            log.error("unexpected error", extra={"message_id": claimed.record.id, "error": kind})
            verdict = Verdict(Outcome.UNKNOWN, "unexpected_error", kind)
            return Sent(claimed, verdict, began, self._clock())

    def _exchange(self, claimed: Claimed, latest: float, ends_at: float) -> Exchange:
        """Wait for the message's slot and make its POST, if there is still time and reason to."""
        if claimed.slot > self._clock():
            self._pause_until(claimed.slot - CONNECT_AHEAD)
            self._provider.connect()
            self._pause_until(claimed.slot)
        if unsent := self._too_late(claimed, latest):
            return unsent
        # However old: a fetch could take longer than the slot lasts.
        credentials = self._credentials.last()
        if credentials is None:
            return Unsent(claimed, SOON, "no_credentials")
        if not self._breaker.admit():
            shut = self._breaker.shut_until() - self._clock()
            return Unsent(claimed, max(1.0, shut), "provider_failing")
        outgoing = _outgoing(claimed.message)
        began = self._clock()
        verdict = self._post(credentials, outgoing, claimed, latest)
        if verdict.outcome is Outcome.WITHHELD:
            return self._too_late(claimed, latest) or Unsent(claimed, 1.0, verdict.reason)
        if verdict.outcome is Outcome.CREDENTIALS:
            verdict = self._post_again(credentials, outgoing, claimed, latest, ends_at) or verdict
        ended = self._clock()
        self._breaker.record(failed=_provider_failing(verdict))
        if verdict.status == TOO_MANY_REQUESTS:
            self._slow_down(claimed.message.chat, verdict, ended)
        return Sent(claimed, verdict, began, ended)

    def _post(
        self,
        credentials: Credentials,
        outgoing: OutgoingMessage,
        claimed: Claimed,
        latest: float,
    ) -> Verdict:
        """Make one POST, unless it becomes too late for it before its first byte.

        The client is given the question, not a time: a hold can begin while it connects.
        """

        def withhold() -> str | None:
            unsent = self._too_late(claimed, latest)
            if unsent is None:
                self._chats.posted(claimed.message.chat, self._clock())
            return unsent.reason if unsent else None

        return self._provider.send(credentials, outgoing, withhold=withhold)

    def _post_again(
        self,
        refused: Credentials,
        outgoing: OutgoingMessage,
        claimed: Claimed,
        latest: float,
        ends_at: float,
    ) -> Verdict | None:
        """Make a second POST, with renewed credentials and in a slot of its own.

        Returns None if there is no reason, no slot or no time for it.
        """
        self._refused = refused
        last_moment = ends_at - SETTLE_SECONDS - TABLE_SECONDS - RENEW_SECONDS
        if self._clock() > last_moment or not (renewed := self._renew(refused)):
            return None
        if (again := self._another_slot(claimed, latest)) is None:
            return None
        self._pause_until(again.slot)
        verdict = self._post(renewed, outgoing, again, latest)
        return None if verdict.outcome is Outcome.WITHHELD else verdict

    def _too_late(self, claimed: Claimed, latest: float) -> Unsent | None:
        """Say why a message cannot be sent any more, now that its slot has come."""
        now = self._clock()
        record = claimed.record
        if now > latest:
            return Unsent(claimed, 1.0, "run_ends")
        if now >= record.deadline:
            return Unsent(claimed, 1.0, "too_late")
        if (goes := claimed.message.may_go_at(now)) > now:
            return Unsent(claimed, min(goes, record.deadline) - now, "not_yet")
        if now < self._held_until:
            return Unsent(claimed, self._held_until - now, "slow_down")
        if (held_until := self._chats.held_until(claimed.message.chat)) > now:
            return Unsent(claimed, held_until - now, "chat_held")
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

    def _another_slot(self, claimed: Claimed, latest: float) -> Claimed | None:
        """Give a message a second slot, if there is one in time."""
        try:
            slots = self._pacer.reserve(1)
        except StoreUnavailableError:
            return None
        if not slots.times or slots.times[0] > latest:
            return None
        [slot] = slots.times
        return replace(claimed, slot=slot, slot_ends=slot + slots.grace)

    def _slow_down(self, chat: str, verdict: Verdict, now: float) -> None:
        """Hold a chat back for as long as the provider asks, and the account if it means that.

        This run stops at once. Another one that already has slots learns it from its next answer.
        """
        until = now + (verdict.retry_after or 1.0)
        self._chats.hold({chat: until})
        try:
            self._held_until = max(self._held_until, self._pacer.hold(chat, until))
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
