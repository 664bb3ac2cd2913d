"""Accepts what schedules and rules send, and spreads broadcasts."""

from relay.startup import ready

import json
import time
from datetime import datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.service import Reused, Started
from relay.eventbridge import alarm_message
from relay.logs import logger
from relay.messages.envelope import KeyedMessage
from relay.messages.intake import Accepted, KeyReused, queued, scoped_id
from relay.validation import validate

log = logger("notifier")
intake = wiring.intake()
broadcasts = wiring.broadcasts()
fan_out = wiring.fan_out()
queues = wiring.queues()


class NotAcceptedError(Exception):
    """The table or the queue is out of order; Lambda's own retries bring the event again."""


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what a schedule's event says, or what lies on the notifier's queue."""
    if "Records" not in event:
        return fire(event, context.aws_request_id)
    ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
    later = [record for record in event["Records"] if work(record, ends_at) is not None]
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in later]}


def work(record: dict[str, Any], ends_at: float) -> float | None:
    """Do what can be done of an order now; return the seconds it stays on the queue, if it does."""
    body = json.loads(record["body"])
    if "botId" not in body:
        fire(body, record["messageId"])
        return None

    def hide(seconds: float) -> None:
        queues.change_visibility(record["eventSourceARN"], {record["receiptHandle"]: seconds})

    seconds = fan_out.run(
        validate(QueuedBroadcast, body),
        ends_at=ends_at,
        receive_count=int(record["attributes"]["ApproximateReceiveCount"]),
        still_here=hide,
    )
    if seconds is not None:
        hide(seconds)
    return seconds


def fire(event: dict[str, Any], invocation: str) -> dict[str, Any]:
    """Accept an event's message or broadcast, once for each planned time."""
    if "alarm" in event:
        event = {"id": event["alarm"]["id"], "message": alarm_message(event["alarm"], event["to"])}
    planned = planned_time(event.get("time"))
    limit = event.get("skipIfLateBy")
    late = planned is not None and limit is not None and time.time() - planned.timestamp() > limit
    if "schedule" in event:
        # A scheduler that leaves the time's placeholder as it is, as local ones do, is told by the
        # invocation, whose id stays the same over Lambda's own retries.
        id_ = scoped_id(
            "schedule", event["schedule"], planned.isoformat() if planned else invocation
        )
    else:
        id_ = scoped_id("event", str(event.get("id", invocation)))
    if "broadcast" in event:
        broadcast = queued_broadcast(validate(Broadcast, event["broadcast"]), id_)
        match broadcasts.start(broadcast, late=late):
            case Started(progress) | Reused(progress):
                status = progress.status(time.time())
                log.info("broadcast", extra={"broadcast": id_, "status": status, "late": late})
                return {"id": id_, "status": status}
    message = queued(validate(KeyedMessage, event.get("message")), id_)
    door = "schedule" if "schedule" in event else "event"
    if late:
        answer = intake.skip(message, door=door, reason="late")
    else:
        [answer] = intake.accept([message], door=door)
    match answer:
        case Accepted(record) | KeyReused(record):
            log.info("accepted", extra={"message_id": id_, "state": record.state, "late": late})
            return {"id": id_, "status": record.state}
        case _:
            raise NotAcceptedError(str(answer))


def planned_time(text: object) -> datetime | None:
    """Return the time a firing was planned for, if the event says it."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


ready()
