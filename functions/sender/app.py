"""Delivers what is on the Messages and the Broadcast queue."""

from relay.startup import ready

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import metrics, wiring
from relay.logs import logger
from relay.messages.envelope import QueuedMessage
from relay.messages.lines import one_by_one
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
    source = records[0]["eventSourceARN"]
    run = partial(deliver, ends_at=ends_at)
    results = one_by_one(records, _line, run) if queues.is_ordered(source) else run(records)

    later = {
        record["messageId"]: (record["receiptHandle"], result.seconds)
        for record, result in zip(records, results, strict=True)
        if isinstance(result, Later)
    }
    queues.change_visibility(source, dict(later.values()))
    log.info("batch", extra={"messages": len(records), "later": len(later)})
    return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in later]}


def deliver(records: Sequence[dict[str, Any]], *, ends_at: float) -> list[Result]:
    """Deliver SQS records beside each other; return what came of each, in order."""
    results: dict[int, Result] = {}
    received: dict[int, Received] = {}
    for i, record in enumerate(records):
        try:
            received[i] = from_sqs(record)
        except InvalidMessageError as error:
            sent_at, count = _on_the_queue(record)
            results[i] = sender.refuse(
                record["body"], "invalid", str(error), sent_at=sent_at, receive_count=count
            )
    delivered = sender.deliver(list(received.values()), ends_at=ends_at)
    metrics.delivered(list(received.values()), delivered)
    results |= dict(zip(received, delivered, strict=True))
    for i, result in sorted(results.items()):
        state = result.record.state if result.record else None
        reason = result.reason if isinstance(result, Later) else None
        message_id = received[i].message.id if i in received else records[i]["messageId"]
        log.info("message", extra={"message_id": message_id, "state": state, "later": reason})
    return [results[i] for i in range(len(records))]


def from_sqs(record: dict[str, Any]) -> Received:
    """Return the message an SQS record holds; raise InvalidMessageError if it holds none."""
    message = parse(QueuedMessage, record["body"])
    if message.id is None:
        message = message.model_copy(update={"id": record["messageId"]})
    sent_at, count = _on_the_queue(record)
    in_line = queues.is_ordered(record["eventSourceARN"])
    return Received(
        message,
        "sqs",
        sent_at,
        count,
        ends_by(sent_at, count, in_line=in_line),
        in_line,
        _sealed(record),
    )


def _line(record: dict[str, Any]) -> str:
    """Return the line that a record of the Ordered queue stands in."""
    return str(record["attributes"]["MessageGroupId"])


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
