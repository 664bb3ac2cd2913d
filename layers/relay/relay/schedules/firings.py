"""Firings of schedules as messages and broadcasts.

A firing names its `schedule` and its planned `time`, and carries a `message` or a `broadcast`. The
schedule in template.yaml nests that in `content`, because CloudFormation cannot merge JSON objects.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.service import Broadcasts, Reused, Started
from relay.messages.envelope import KeyedMessage, QueuedMessage
from relay.messages.intake import Accepted, Intake, KeyReused, TooFar, queued, scoped_id
from relay.validation import InvalidMessageError, model_config, validate

DOOR = "schedule"


class NotAcceptedError(Exception):
    """The table or a queue is unavailable; Lambda retries the event, or SQS redelivers it."""


class _Content(BaseModel):
    model_config = model_config

    message: KeyedMessage | None = None
    broadcast: Broadcast | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.message is None) == (self.broadcast is None):
            raise PydanticCustomError("content", "give either message or broadcast, not both")
        return self


@dataclass(frozen=True, slots=True)
class Firing:
    """What to send, under an id that is the same whenever the firing comes again."""

    id: str
    caller: str
    content: QueuedMessage | QueuedBroadcast
    late: bool


def read(event: Mapping[str, Any], *, invocation: str, now: float) -> Firing:
    """Return what a firing asks for; raise InvalidMessageError naming each bad field.

    `invocation` identifies a firing whose planned time nobody filled in.
    """
    if not isinstance(schedule := event.get("schedule"), str):
        raise InvalidMessageError([(("schedule",), "is required: rules invoke the hooks function")])
    planned = _planned_time(event.get("time"))
    limit = event.get("skipIfLateBy")
    late = planned is not None and limit is not None and now - planned.timestamp() > limit
    # The name is the last part of a schedule's ARN.
    caller = f"schedule:{schedule.rpartition('/')[2]}"
    # The local AWS does not fill the time in; the invocation's id at least stays the same when
    # Lambda retries.
    id_ = scoped_id(DOOR, schedule, planned.isoformat() if planned else invocation)
    given = {name: event[name] for name in _Content.model_fields if name in event}
    content = validate(_Content, event.get("content", given))
    if content.broadcast:
        return Firing(id_, caller, queued_broadcast(content.broadcast, id_), late)
    assert content.message
    return Firing(id_, caller, queued(content.message, id_), late)


def unwrapped(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event in a body that an operator moved back from the dead-letter queue.

    Lambda writes "the original event payload with no modifications to the message body" there.
    EventBridge Scheduler writes "a JSON payload containing invocation details": its user guide
    shows the whole request to a queue, so to Lambda it is FunctionName, InvocationType, Payload.
    """
    match body:
        case {"FunctionName": str(), "Payload": str(payload)}:
            event: Mapping[str, Any] = json.loads(payload)
            return event
        case _:
            return body


def _planned_time(text: object) -> datetime | None:
    """Return the time a firing was planned for, if the event says it."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


class FiringDoor:
    """Accepts what a firing asks for, once however often it comes."""

    def __init__(
        self,
        intake: Intake,
        broadcasts: Broadcasts,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._broadcasts = broadcasts
        self._clock = clock

    def accept(self, event: Mapping[str, Any], invocation: str) -> dict[str, Any]:
        """Accept a firing's message or broadcast; return its id and status.

        Raises InvalidMessageError, NotAcceptedError, StoreUnavailableError, QueueUnavailableError.
        """
        found = read(event, invocation=invocation, now=self._clock())
        if isinstance(found.content, QueuedBroadcast):
            return self._start(found.content, late=found.late)
        if found.late:
            answer = self._intake.skip(found.content, door=DOOR, caller=found.caller, reason="late")
        else:
            [answer] = self._intake.accept([found.content], door=DOOR, caller=found.caller)
        match answer:
            case Accepted(record) | KeyReused(record):
                return {"id": found.id, "status": record.state}
            case TooFar(problem):
                raise InvalidMessageError([problem])
            case _:
                raise NotAcceptedError(str(answer))

    def _start(self, broadcast: QueuedBroadcast, *, late: bool) -> dict[str, Any]:
        match self._broadcasts.start(broadcast, late=late):
            case Started(record) | Reused(record):
                status = record.status
        return {"id": broadcast.id, "status": status}
