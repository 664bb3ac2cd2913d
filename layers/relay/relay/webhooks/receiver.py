"""Takes webhooks: verified, rendered, accepted; or says why not."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.service import Reused, Started
from relay.messages.envelope import Message
from relay.messages.intake import Accepted, Intake, KeyReused, fresh_id, queued, scoped_id
from relay.messages.queues import DeadLetterEntry, Queues, QueueUnavailableError
from relay.messages.store import StoreUnavailableError
from relay.problems import NOT_FOUND, TOO_LARGE, UNAVAILABLE, UNVERIFIED, ProblemError
from relay.webhooks.hooks import MAX_BODY, Hook, Ignored, Rendered, Request, Unrenderable, render
from relay.webhooks.secrets import Secrets
from relay.webhooks.signatures import UnverifiedError
from smsgold.errors import CredentialsError

log = logging.getLogger(__name__)


class SecretsSource(Protocol):
    """Where the hooks' secrets come from."""

    def get(self) -> Secrets:
        """Return the secrets; raise CredentialsError if there are none yet."""
        ...

    def renew(self, refused: Secrets) -> Secrets | None:
        """Return newer secrets, if there are."""
        ...


class Broadcasts(Protocol):
    """Where broadcasts go."""

    def start(self, broadcast: QueuedBroadcast) -> Started | Reused:
        """Accept a broadcast; raise StoreUnavailableError or QueueUnavailableError if it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """The request is done with: its message is the relay's, or it asks for none."""

    status: str
    """The message's state, or `ignored`; `failed` for what no message can be made of."""
    id: str | None = None


class Receiver:
    """Takes the requests to the configured hooks."""

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        secrets: SecretsSource,
        intake: Intake,
        broadcasts: Broadcasts,
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

    def receive(self, name: str, event: Mapping[str, Any]) -> Taken:
        """Take an API Gateway event for the hook of this name; raise ProblemError if it is not."""
        hook = self._hooks.get(name)
        try:
            secrets = self._secrets.get() if hook else {}
            if hook is None or name not in secrets:
                if hook:
                    log.warning("hook without a secret", extra={"hook": name})
                raise ProblemError(NOT_FOUND, "There is no such hook.")
            request = Request.from_event(event)
            if len(request.body) > MAX_BODY:
                raise ProblemError(TOO_LARGE, f"Send at most {MAX_BODY} bytes.")
            self._verify(name, hook, request, secrets)
            return self._take(name, hook, request)
        except UnverifiedError as error:
            log.warning("webhook not verified", extra={"hook": name, "reason": error.reason})
            detail = "The signature is missing, wrong or too old."
            raise ProblemError(UNVERIFIED, detail) from None
        except (CredentialsError, StoreUnavailableError, QueueUnavailableError) as error:
            log.error("webhook not taken", extra={"hook": name, "reason": str(error)})
            raise ProblemError(UNAVAILABLE, "Not accepted now; send it again.") from None

    def _verify(self, name: str, hook: Hook, request: Request, secrets: Secrets) -> None:
        now = self._clock()
        try:
            hook.verify.verify(request.headers, request.body, secrets[name], now)
        except UnverifiedError:
            # The secret may have been changed a moment ago.
            if name not in (renewed := self._secrets.renew(secrets) or {}):
                raise
            hook.verify.verify(request.headers, request.body, renewed[name], now)

    def _take(self, name: str, hook: Hook, request: Request) -> Taken:
        match render(name, hook, request):
            case Ignored():
                log.info("webhook ignored", extra={"hook": name})
                return Taken("ignored")
            case Unrenderable(reason, detail, body):
                [trouble] = self._queues.enqueue_dead_letters(
                    [DeadLetterEntry(body, reason, detail, 0, self._clock())]
                )
                if trouble:
                    raise QueueUnavailableError(f"the DeadLetter queue does not take it: {trouble}")
                log.error("webhook not renderable", extra={"hook": name, "reason": reason})
                return Taken("failed")
            case Rendered(message, delivery):
                id_ = scoped_id("hook", name, delivery) if delivery else fresh_id()
                status, first = self._accept(message, id_)
                log.info(
                    "webhook accepted",
                    extra={"hook": name, "message_id": id_, "replayed": not first},
                )
                return Taken(status, id_)

    def _accept(self, message: Message | Broadcast, id_: str) -> tuple[str, bool]:
        """Accept what was rendered; return its status and whether this is the first request for it.

        A repeat that renders otherwise, as hooks.toml was changed in between, is a repeat as well.
        """
        if isinstance(message, Broadcast):
            begun = self._broadcasts.start(queued_broadcast(message, id_))
            first = isinstance(begun, Started) and not begun.replayed
            return begun.broadcast.status(self._clock()), first
        [answer] = self._intake.accept([queued(message, id_)], door="hook")
        if not isinstance(answer, Accepted | KeyReused):
            raise QueueUnavailableError(str(answer))
        return answer.record.state, isinstance(answer, Accepted) and not answer.replayed
