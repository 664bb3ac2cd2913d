"""Receives webhooks and EventBridge's events: verifies, renders and accepts them."""

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    QueuedBroadcast,
    queued_broadcast,
)
from relay.broadcasts.service import Reused, Started
from relay.messages.envelope import Message
from relay.messages.intake import Accepted, Intake, KeyReused, fresh_id, queued, scoped_id
from relay.messages.queues import DeadLetterEntry, Queues, QueueUnavailableError
from relay.messages.store import StoreUnavailableError
from relay.problems import MAX_BODY, NOT_FOUND, TOO_LARGE, UNAVAILABLE, UNVERIFIED, ProblemError
from relay.webhooks.hooks import (
    Addressed,
    Hook,
    Ignored,
    Rendered,
    Request,
    Unrenderable,
    render,
)
from relay.webhooks.secrets import HookSecrets, Secrets
from relay.webhooks.signatures import USABLE, EventBridge, UnverifiedError, usable
from smsgold.errors import CredentialsError

log = logging.getLogger(__name__)

NO_HOOK = "There is no such hook."

IGNORED = "ignored"
"""The status of what none of a hook's messages is for."""


class _NoSecretError(Exception):
    """The hook exists, but nobody can have its secret."""


class BroadcastStarter(Protocol):
    """What the receiver needs of the broadcasts service."""

    def start(self, broadcast: QueuedBroadcast) -> Started | Reused:
        """Accept a broadcast; raise StoreUnavailableError or QueueUnavailableError."""
        ...

    def get(self, id_: str) -> BroadcastRecord | None:
        """Return a broadcast as it stands; raise StoreUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Handled:
    """Nothing is left to do for the request: its sender need not repeat it."""

    status: str
    """The message's state; `ignored` if none is due, `failed` if none can be made,
    `accepted` if there are several recipients."""
    id: str | None = None
    results: tuple["Handled", ...] = ()
    """Of each recipient, if the hook has several, an address that comes again left out."""

    def body(self) -> dict[str, Any]:
        """Return what the sender is answered."""
        results = [result.body() for result in self.results]
        return (
            {"status": self.status}
            | ({"id": self.id} if self.id else {})
            | ({"results": results} if results else {})
        )


class Receiver:
    """Handles requests and events for the configured hooks."""

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
        # Two dictionaries, so that neither door can reach the other's hooks.
        self._by_http = {n: h for n, h in hooks.items() if not isinstance(h.verify, EventBridge)}
        self._by_event = {n: h for n, h in hooks.items() if isinstance(h.verify, EventBridge)}
        self._secrets = secrets
        self._intake = intake
        self._broadcasts = broadcasts
        self._queues = queues
        self._clock = clock

    def receive(self, name: str, event: Mapping[str, Any]) -> Handled:
        """Handle an API Gateway event for the hook of this name, or raise ProblemError."""
        hook = self._by_http.get(name)
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

    def take(self, event: Mapping[str, Any], *, invocation: str) -> Mapping[str, Handled]:
        """Handle an event that a rule passes on, for every hook with this door; return each result.

        Raises StoreUnavailableError or QueueUnavailableError if one could not accept it, after all
        have been asked; the same event again adds nothing. `invocation` stays the same when Lambda
        repeats it; it identifies an event without an id, as an input transformer makes it.
        """
        request = Request({}, json.dumps(event).encode())
        own_id = str(event.get("id") or invocation)
        taken: dict[str, Handled] = {}
        failure: StoreUnavailableError | QueueUnavailableError | None = None
        for name, hook in self._by_event.items():
            try:
                taken[name] = self._handle(name, hook, request, own_id)
            except (StoreUnavailableError, QueueUnavailableError) as error:
                log.error("event not accepted", extra={"hook": name, "reason": str(error)})
                failure = error
        if failure:
            raise failure
        return taken

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

    def _handle(
        self, name: str, hook: Hook, request: Request, own_id: str | None = None
    ) -> Handled:
        """Handle a delivery; `own_id` identifies it if the hook finds no id in it."""
        match render(name, hook, request):
            case Ignored():
                return Handled(IGNORED)
            case Unrenderable() as unrenderable:
                self._bury(name, [unrenderable])
                return Handled("failed")
            case Rendered(results, delivery):
                handled = self._hand_in(name, results, delivery or own_id)
                if len(hook.to) == 1:
                    return handled[0]
                return Handled("accepted", results=tuple(handled))

    def _hand_in(
        self, name: str, results: Sequence[Addressed | Unrenderable], delivery: str | None
    ) -> list[Handled]:
        """Accept each recipient's message; dead-letter those that cannot be made.

        Dead letters come first. So a message of this delivery that is known already says that an
        earlier request has written them.
        """
        ids = [_id(name, delivery, r) if isinstance(r, Addressed) else None for r in results]
        accepted = {
            id_: result.message
            for id_, result in zip(ids, results, strict=True)
            if id_ and isinstance(result, Addressed)
        }
        unrenderable = [result for result in results if isinstance(result, Unrenderable)]
        if unrenderable and not (delivery and self._knows_one(accepted)):
            self._bury(name, unrenderable)
        states = self._accept(name, accepted, fresh=() if delivery else accepted.keys())
        return [Handled(states[id_], id_) if id_ else Handled("failed") for id_ in ids]

    def _bury(self, name: str, unrenderable: Sequence[Unrenderable]) -> None:
        errors = self._queues.enqueue_dead_letters(
            [
                DeadLetterEntry(each.body, each.reason, each.detail, 0, self._clock())
                for each in unrenderable
            ]
        )
        if problem := next(filter(None, errors), None):
            raise QueueUnavailableError(f"the DeadLetter queue refused it: {problem}")
        for each in unrenderable:
            log.error("webhook not rendered", extra={"hook": name, "reason": each.reason})

    def _knows_one(self, accepted: Mapping[str, Message | Broadcast]) -> bool:
        """Return whether a request before this one came as far as to accept a message."""
        broadcasts = [i for i, message in accepted.items() if isinstance(message, Broadcast)]
        return self._intake.knows(accepted.keys() - broadcasts) or any(
            self._broadcasts.get(id_) for id_ in broadcasts
        )

    def _accept(
        self, name: str, accepted: Mapping[str, Message | Broadcast], *, fresh: Collection[str]
    ) -> Mapping[str, str]:
        """Accept messages and broadcasts by their ids; return the status of each.

        A repeat stays a repeat even if hooks.toml has changed and it renders differently.
        """
        states: dict[str, str] = {}
        for id_, message in accepted.items():
            if isinstance(message, Broadcast):
                started = self._broadcasts.start(queued_broadcast(message, id_))
                states[id_] = started.broadcast.status
        messages = [queued(m, i) for i, m in accepted.items() if not isinstance(m, Broadcast)]
        answers = (
            self._intake.accept(messages, door="hook", caller=f"hook:{name}", fresh=fresh)
            if messages
            else []
        )
        for answer in answers:
            if not isinstance(answer, Accepted | KeyReused):
                raise QueueUnavailableError(str(answer))
            states[answer.record.id] = answer.record.state
        return states


def _id(name: str, delivery: str | None, addressed: Addressed) -> str:
    if delivery is None:
        return fresh_id()
    of_many = [addressed.recipient] if addressed.recipient else []
    return scoped_id("hook", name, delivery, *of_many)
