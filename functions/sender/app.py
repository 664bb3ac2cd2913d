"""Delivers what is on the Messages and the Broadcast queue."""

from relay.startup import ready

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import metrics, wiring
from relay.logs import logger
from relay.messages.envelope import QueuedMessage
from relay.messages.results import Later, Received, Result, ends_by
from relay.messages.seals import ATTRIBUTE, Sealed
from relay.validation import InvalidMessageError, parse

log = logger("sender")
sender = wiring.sender()
queues = wiring.queues()


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Deliver a batch; answer with the messages that stay on the queue."""
    ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
    records = event["Records"]
    results: dict[str, Result] = {}
    received: dict[str, Received] = {}
    for record in records:
        try:
            received[record["messageId"]] = from_sqs(record)
        except InvalidMessageError as error:
            sent_at, count = _on_the_queue(record)
            results[record["messageId"]] = sender.refuse(
                record["body"], "invalid", str(error), sent_at=sent_at, receive_count=count
            )
    delivered = sender.deliver(list(received.values()), ends_at=ends_at)
    metrics.delivered(list(received.values()), delivered)
    results |= dict(zip(received, delivered, strict=True))

    later = {id_: result for id_, result in results.items() if isinstance(result, Later)}
    handles = {record["messageId"]: record["receiptHandle"] for record in records}
    source = records[0]["eventSourceARN"]
    queues.change_visibility(
        source, {handles[id_]: result.seconds for id_, result in later.items()}
    )
    log.info("batch", extra={"messages": len(records), "later": len(later)})
    for id_, result in results.items():
        state = result.record.state if result.record else None
        reason = result.reason if isinstance(result, Later) else None
        message_id = received[id_].message.id if id_ in received else id_
        log.info("message", extra={"message_id": message_id, "state": state, "later": reason})
    return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in later]}


def from_sqs(record: dict[str, Any]) -> Received:
    """Return the message an SQS record holds; raise InvalidMessageError if it holds none."""
    message = parse(QueuedMessage, record["body"])
    if message.id is None:
        message = message.model_copy(update={"id": record["messageId"]})
    sent_at, count = _on_the_queue(record)
    return Received(message, "sqs", sent_at, count, ends_by(sent_at, count), _sealed(record))


def _sealed(record: dict[str, Any]) -> Sealed | None:
    """Return a record's body with its seal; None from the queue that only the relay writes to."""
    if queues.is_broadcast(record["eventSourceARN"]):
        return None
    attribute = record["messageAttributes"].get(ATTRIBUTE, {})
    return Sealed(record["body"], attribute.get("stringValue") or "")


def _on_the_queue(record: dict[str, Any]) -> tuple[float, int]:
    """Return when a record's message was put on its queue, and how often it was received."""
    attributes = record["attributes"]
    return int(attributes["SentTimestamp"]) / 1000, int(attributes["ApproximateReceiveCount"])


ready()
