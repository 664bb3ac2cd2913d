"""Events of EventBridge as messages and broadcasts: firings of schedules, events of rules.

A firing names its `schedule` and its planned `time`, a rule's event its `id`; both carry a
`message` or a `broadcast`. The schedule in template.yaml nests it in `content`, because
CloudFormation cannot merge JSON objects. A CloudWatch alarm comes as `alarm`, with its recipient
in `to`.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from pydantic import BaseModel, model_validator
from pydantic_core import PydanticCustomError

from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.service import Broadcasts, Reused, Started
from relay.messages.envelope import MAX_TEXT, KeyedMessage, QueuedMessage
from relay.messages.intake import Accepted, Intake, KeyReused, TooFar, queued, scoped_id
from relay.validation import InvalidMessageError, model_config, validate

log = logging.getLogger(__name__)

SYMBOLS = {"ALARM": "🔴", "OK": "🟢", "INSUFFICIENT_DATA": "⚪"}

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""The management console's host, by partition."""


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
class Event:
    """What to send, under an id that is the same whenever the event comes again."""

    id: str
    door: str
    caller: str
    content: QueuedMessage | QueuedBroadcast
    late: bool


def read(event: Mapping[str, Any], *, invocation: str, now: float) -> Event:
    """Return what an event asks for; raise InvalidMessageError naming each bad field.

    `invocation` identifies an event that does not identify itself.
    """
    caller = ""
    if "alarm" in event:
        alarm = event["alarm"]
        caller = f"alarm:{alarm['detail']['alarmName']}"
        event = {"id": alarm["id"], "message": alarm_message(alarm, event["to"])}
    planned = _planned_time(event.get("time"))
    limit = event.get("skipIfLateBy")
    late = planned is not None and limit is not None and now - planned.timestamp() > limit
    if "schedule" in event:
        door = "schedule"
        # The name is the last part of a schedule's ARN.
        caller = f"schedule:{str(event['schedule']).rpartition('/')[2]}"
        # The local AWS does not fill the time in; the invocation's id at least stays the same when
        # Lambda retries.
        id_ = scoped_id(door, event["schedule"], planned.isoformat() if planned else invocation)
    else:
        door = "event"
        id_ = scoped_id(door, str(event.get("id", invocation)))
    given = {name: event[name] for name in _Content.model_fields if name in event}
    content = validate(_Content, event.get("content", given))
    if content.broadcast:
        return Event(id_, door, caller, queued_broadcast(content.broadcast, id_), late)
    assert content.message
    return Event(id_, door, caller, queued(content.message, id_), late)


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


class EventDoor:
    """Accepts what an event asks for, once however often the event comes."""

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
        """Accept an event's message or broadcast; return its id and status.

        Raises InvalidMessageError, NotAcceptedError, StoreUnavailableError, QueueUnavailableError.
        """
        if "alarm" in event and is_new_and_ok(event["alarm"]):
            log.info("new alarm", extra={"alarm": event["alarm"]["detail"]["alarmName"]})
            return {"status": "ignored"}
        found = read(event, invocation=invocation, now=self._clock())
        if isinstance(found.content, QueuedBroadcast):
            return self._start(found.content, late=found.late)
        if found.late:
            answer = self._intake.skip(
                found.content, door=found.door, caller=found.caller, reason="late"
            )
        else:
            [answer] = self._intake.accept([found.content], door=found.door, caller=found.caller)
        match answer:
            case Accepted(record) | KeyReused(record):
                log.info(
                    "accepted",
                    extra={"message_id": found.id, "state": record.state, "late": found.late},
                )
                return {"id": found.id, "status": record.state}
            case TooFar(problem):
                raise InvalidMessageError([problem])
            case _:
                raise NotAcceptedError(str(answer))

    def _start(self, broadcast: QueuedBroadcast, *, late: bool) -> dict[str, Any]:
        match self._broadcasts.start(broadcast, late=late):
            case Started(record) | Reused(record):
                status = record.status
        log.info("broadcast", extra={"broadcast": broadcast.id, "status": status, "late": late})
        return {"id": broadcast.id, "status": status}


def is_new_and_ok(event: Mapping[str, Any]) -> bool:
    """Return whether an alarm was just created and is OK: a deployment makes a dozen of them.

    INSUFFICIENT_DATA "is the initial state of a new alarm" (Application Auto Scaling User Guide).
    The reason tells it from an alarm that went off and then had no data; AWS does not document the
    reason's text.
    """
    detail = event["detail"]
    before = detail.get("previousState", {})
    return (
        detail["state"]["value"] == "OK"
        and before.get("value") == "INSUFFICIENT_DATA"
        and str(before.get("reason", "")).startswith("Unchecked:")
    )


def alarm_message(event: Mapping[str, Any], to: Mapping[str, str]) -> dict[str, Any]:
    """Return the message that tells of a CloudWatch alarm's change of state."""
    detail = event["detail"]
    name, state = detail["alarmName"], detail["state"]
    before = detail.get("previousState", {}).get("value")
    lines = [
        f"{SYMBOLS.get(state['value'], '')} {name}: {state['value']}".strip(),
        f"was {before}" if before else "",
        detail.get("configuration", {}).get("description") or "",
        state.get("reason") or "",
        f"{event['account']} · {event['region']}",
    ]
    text = "\n".join(line for line in lines if line)
    return {
        **to,
        "text": text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…",
        "buttons": [{"text": "Open the alarm", "url": console_url(event)}],
        "reference": "alarm",
    }


def console_url(event: Mapping[str, Any]) -> str:
    """Return where the management console shows the alarm."""
    region = event["region"]
    partition = next(iter(event.get("resources", [])), "arn:aws:").split(":")[1]
    host = CONSOLES.get(partition, CONSOLES["aws"])
    name = quote(event["detail"]["alarmName"], safe="")
    return f"https://{region}.{host}/cloudwatch/home?region={region}#alarmsV2:alarm/{name}"
