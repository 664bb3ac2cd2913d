"""Delivers what is on the Messages and the Broadcast queue."""

from relay.startup import ready

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from relay import metrics, wiring
from relay.logs import begin, logger
from relay.messages.envelope import QueuedMessage
from relay.messages.lines import one_by_one
from relay.messages.results import Later, Received, Result, ends_by
from relay.messages.seals import ATTRIBUTE, Sealed
from relay.validation import InvalidMessageError, parse

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = logger("sender")
sender = wiring.sender()
queues = wiring.queues()


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Deliver a batch; answer with the messages that stay on the queue."""
    begin(context.aws_request_id)
    ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
    records = event["Records"]
    source = records[0]["eventSourceARN"]
    ids: dict[str, str | None] = {}
    run = partial(deliver, ids=ids, ends_at=ends_at)
    results = one_by_one(records, _line, run) if queues.is_ordered(source) else run(records)

    later = {
        record["messageId"]: (record["receiptHandle"], result.seconds)
        for record, result in zip(records, results, strict=True)
        if isinstance(result, Later)
    }
    queues.change_visibility(source, dict(later.values()))
    what_became: defaultdict[str, list[str | None]] = defaultdict(list)
    for record, result in zip(records, results, strict=True):
        what_became[in_words(result)].append(ids.get(record["messageId"], record["messageId"]))
    log.info("batch", extra={"messages": what_became, **metrics.fields()})
    while more := metrics.fields():
        log.info("metrics", extra=more)
    return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in later]}


def in_words(result: Result) -> str:
    """Return what a log line says of a message: its state, and why it stays on the queue."""
    state = result.record.state if result.record else ""
    if isinstance(result, Later):
        return f"{state} {result.reason}".strip()
    return f"{state} again" if result.repeated else state or "dead_lettered"


def deliver(
    records: Sequence[dict[str, Any]], *, ids: dict[str, str | None], ends_at: float
) -> list[Result]:
    """Deliver SQS records beside each other; return what came of each, in order.

    `ids` gets the ids of those that are messages, by the records' own.
    """
    results: dict[int, Result] = {}
    received: dict[int, Received] = {}
    for i, record in enumerate(records):
        try:
            received[i] = from_sqs(record)
            ids[record["messageId"]] = received[i].message.id
        except InvalidMessageError as error:
            sent_at, count = _on_the_queue(record)
            results[i] = sender.refuse(
                record["body"], "invalid", str(error), sent_at=sent_at, receive_count=count
            )
    delivered = sender.deliver(list(received.values()), ends_at=ends_at)
    metrics.delivered(list(received.values()), delivered)
    results |= dict(zip(received, delivered, strict=True))
    return [results[i] for i in range(len(records))]


def from_sqs(record: dict[str, Any]) -> Received:
    """Return the message an SQS record holds; raise InvalidMessageError if it holds none."""
    message = parse(QueuedMessage, record["body"])
    sent_at, count = _on_the_queue(record)
    # A broadcast's message has no record before the sender makes it.
    made_here = message.id is None or queues.is_broadcast(record["eventSourceARN"])
    fresh = made_here and count == 1
    if message.id is None:
        message = message.model_copy(update={"id": record["messageId"]})
    in_line = queues.is_ordered(record["eventSourceARN"])
    return Received(
        message,
        "sqs",
        sent_at,
        count,
        ends_by(sent_at, count, in_line=in_line),
        in_line,
        _sealed(record),
        fresh,
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
