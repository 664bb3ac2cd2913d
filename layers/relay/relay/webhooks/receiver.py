"""Receives webhooks: verifies, renders and accepts them."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.service import Reused, Started
from relay.messages.envelope import Message
from relay.messages.intake import Accepted, Intake, KeyReused, fresh_id, queued, scoped_id
from relay.messages.queues import DeadLetterEntry, Queues, QueueUnavailableError
from relay.messages.store import StoreUnavailableError
from relay.problems import MAX_BODY, NOT_FOUND, TOO_LARGE, UNAVAILABLE, UNVERIFIED, ProblemError
from relay.webhooks.hooks import Hook, Ignored, Rendered, Request, Unrenderable, render
from relay.webhooks.secrets import HookSecrets, Secrets
from relay.webhooks.signatures import USABLE, UnverifiedError, usable
from smsgold.errors import CredentialsError

log = logging.getLogger(__name__)

NO_HOOK = "There is no such hook."


class _NoSecretError(Exception):
    """The hook exists, but nobody can have its secret."""


class BroadcastStarter(Protocol):
    """What the receiver needs of the broadcasts service."""

    def start(self, broadcast: QueuedBroadcast) -> Started | Reused:
        """Accept a broadcast; raise StoreUnavailableError or QueueUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Handled:
    """Nothing is left to do for the request: its sender need not repeat it."""

    status: str
    """The message's state; `ignored` if none is due, `failed` if none can be made."""
    id: str | None = None


class Receiver:
    """Handles requests to the configured hooks."""

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        secrets: HookSecrets,
        intake: Intake,
        broadcasts: BroadcastStarter,
        queues: Queues,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hooks = hooks
        self._secrets = secrets
        self._intake = intake
        self._broadcasts = broadcasts
        self._queues = queues
        self._clock = clock

    def receive(self, name: str, event: Mapping[str, Any]) -> Handled:
        """Handle an API Gateway event for the hook of this name, or raise ProblemError."""
        hook = self._hooks.get(name)
        if hook is None:
            raise ProblemError(NOT_FOUND, NO_HOOK)
        try:
            request = Request.from_event(event)
            if len(request.body) > MAX_BODY:
                raise ProblemError(TOO_LARGE, f"Send at most {MAX_BODY} bytes.")
            self._verify(name, hook, request)
            return self._handle(name, hook, request)
        except _NoSecretError:
            log.warning("hook without a secret", extra={"hook": name})
            raise ProblemError(NOT_FOUND, NO_HOOK) from None
        except UnverifiedError as error:
            log.warning("webhook not verified", extra={"hook": name, "reason": error.reason})
            detail = "The signature is missing, wrong or too old."
            raise ProblemError(UNVERIFIED, detail) from None
        except (CredentialsError, StoreUnavailableError, QueueUnavailableError) as error:
            log.error("webhook not accepted", extra={"hook": name, "reason": str(error)})
            raise ProblemError(UNAVAILABLE, "It cannot be accepted now; send it again.") from None

    def _verify(self, name: str, hook: Hook, request: Request) -> None:
        held = self._secrets.get()
        try:
            self._check(name, hook, request, held)
        except (_NoSecretError, CredentialsError, UnverifiedError):
            # The secret may just have been set or rotated.
            if (renewed := self._secrets.renew(held)) is None:
                raise
            self._check(name, hook, request, renewed)

    def _check(self, name: str, hook: Hook, request: Request, secrets: Secrets) -> None:
        if (own := secrets.get(name)) is None:
            raise _NoSecretError
        if not usable(hook.verify, own):
            raise CredentialsError(f"HookSecrets: {name} must be {USABLE}")
        hook.verify.verify(request.headers, request.body, own, self._clock())

    def _handle(self, name: str, hook: Hook, request: Request) -> Handled:
        match render(name, hook, request):
            case Ignored():
                log.info("webhook ignored", extra={"hook": name})
                return Handled("ignored")
            case Unrenderable(reason, detail, body):
                [error] = self._queues.enqueue_dead_letters(
                    [DeadLetterEntry(body, reason, detail, 0, self._clock())]
                )
                if error:
                    raise QueueUnavailableError(f"the DeadLetter queue refused it: {error}")
                log.error("webhook not rendered", extra={"hook": name, "reason": reason})
                return Handled("failed")
            case Rendered(message, delivery):
                id_ = scoped_id("hook", name, delivery) if delivery else fresh_id()
                fresh = () if delivery else (id_,)
                status, new = self._accept(message, id_, caller=f"hook:{name}", fresh=fresh)
                log.info(
                    "webhook accepted",
                    extra={"hook": name, "message_id": id_, "replayed": not new},
                )
                return Handled(status, id_)

    def _accept(
        self, message: Message | Broadcast, id_: str, *, caller: str, fresh: Collection[str]
    ) -> tuple[str, bool]:
        """Accept a message or broadcast; return its status and whether this is its first request.

        A repeat stays a repeat even if hooks.toml has changed and it renders differently.
        """
        if isinstance(message, Broadcast):
            started = self._broadcasts.start(queued_broadcast(message, id_))
            new = isinstance(started, Started) and not started.replayed
            return started.broadcast.status, new
        [answer] = self._intake.accept(
            [queued(message, id_)], door="hook", caller=caller, fresh=fresh
        )
        if not isinstance(answer, Accepted | KeyReused):
            raise QueueUnavailableError(str(answer))
        return answer.record.state, isinstance(answer, Accepted) and not answer.replayed
