"""Accepts what schedules send, and fans broadcasts out."""

from relay.startup import ready

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from relay import metrics, wiring
from relay.broadcasts.model import QueuedBroadcast
from relay.broadcasts.recounts import Turn
from relay.logs import begin, logger
from relay.messages.queues import QueueUnavailableError
from relay.schedules.firings import FiringDoor, unwrapped
from relay.validation import validate

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = logger("notifier")
door = FiringDoor(wiring.intake(), wiring.broadcasts())
fan_out = wiring.fan_out()
recounts = wiring.recounts()
queues = wiring.queues()


RENEWED_AFTER = 7 * 86400.0
"""Seconds after which a new copy takes an order's place: SQS keeps none for more than 14 days, and
a broadcast may wait for 12 before it begins. Two copies do no more than one."""

RENEWED_AFTER_RECEIVES = 500
"""Receives after which a new copy takes an order's place: at 1,000 SQS gives it up (maxReceiveCount
in template.yaml), and a slowed broadcast takes one for each 500 recipients."""


class UnknownKindError(Exception):
    """A body on the notifier's queue is none of those that this version knows."""


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Take a firing of a schedule, or what lies on the notifier's queue."""
    begin(context.aws_request_id)
    if "Records" not in event:
        return accept(event, context.aws_request_id)
    ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
    later = [record for record in event["Records"] if not done(record, ends_at)]
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in later]}


def accept(event: Mapping[str, Any], invocation: str) -> dict[str, Any]:
    """Accept a firing; return its id and status."""
    accepted = door.accept(event, invocation)
    log.info("accepted", extra={**accepted, **metrics.fields()})
    return accepted


def done(record: dict[str, Any], ends_at: float) -> bool:
    """Work on what a queue record holds; return whether it may leave the queue."""
    body = unwrapped(json.loads(record["body"]))
    # Version 0.1.0 wrote no kind. Of its bodies only a queued broadcast has a botId of its own; the
    # others are events that an operator moved back from the dead-letter queue.
    match body.get("kind", "broadcast" if "botId" in body else "event"):
        case "broadcast":
            return has_ended(partial(fan_out.run, validate(QueuedBroadcast, body)), record, ends_at)
        case "recount":
            asked_at = int(record["attributes"]["SentTimestamp"]) / 1000
            again = partial(recounts.again, body["id"], asked_at=asked_at)
            return has_ended(again, record, ends_at)
        case "event":
            accept(body, record["messageId"])
            return True
        case kind:
            raise UnknownKindError(str(kind)[:64])


def has_ended(go_on: Callable[..., float | None], record: dict[str, Any], ends_at: float) -> bool:
    """Go on with what a queue record asks for; return whether it has ended."""

    def hide(seconds: float) -> None:
        queues.change_visibility(record["eventSourceARN"], {record["receiptHandle"]: seconds})

    count = int(record["attributes"]["ApproximateReceiveCount"])
    seconds = go_on(turn=Turn(ends_at, hide), receive_count=count)
    if seconds is None:
        return True
    sent_at = int(record["attributes"]["SentTimestamp"]) / 1000
    if time.time() - sent_at > RENEWED_AFTER or count >= RENEWED_AFTER_RECEIVES:
        with suppress(QueueUnavailableError):
            queues.enqueue_notifier(record["body"])
            return True
    hide(seconds)
    return False


ready()
