"""Events for the functions, made of those in events/, with messages of usual size."""

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.function_variables import ENVIRONMENT

EVENTS = Path(__file__).resolve().parents[2] / "events"
TEXT = "Ваш заказ 4711 оплачен и передан в доставку. Курьер позвонит за час до приезда."


def message(reference: str = "") -> dict[str, Any]:
    """Return a message: a text of 80 letters and one button."""
    return {
        **({"reference": reference} if reference else {}),
        "subscriberId": uuid.uuid4().hex,
        "text": TEXT,
        "buttons": [{"text": "Отследить", "url": "https://shop.example/orders/4711"}],
    }


def envelope(reference: str = "") -> str:
    """Return a message as a producer puts it on the queue."""
    return json.dumps(message(reference), ensure_ascii=False)


def sqs(bodies: Sequence[str], *, in_line: bool = False) -> bytes:
    """Return the event of one batch from the Messages queue, or from the Ordered one."""
    record = _event("sqs_batch.json")["Records"][0]
    now = str(int(time.time() * 1000))
    attributes = {**record["attributes"], "SentTimestamp": now}
    if in_line:
        queue = ENVIRONMENT["ORDERED_QUEUE_URL"].rsplit("/", 1)[-1]
        record["eventSourceARN"] = f"arn:aws:sqs:eu-central-1:123456789012:{queue}"
    records = [
        {
            **record,
            "messageId": str(uuid.uuid4()),
            "body": body,
            "attributes": attributes
            | ({"MessageGroupId": json.loads(body)["subscriberId"]} if in_line else {}),
        }
        for body in bodies
    ]
    return json.dumps({"Records": records}).encode()


def batch(size: int) -> bytes:
    """Return the event of one batch of new messages from the queue."""
    return sqs([envelope() for _ in range(size)])


def stream(size: int) -> bytes:
    """Return the event of one batch from the table's stream: messages that have ended."""
    record = _event("stream.json")["Records"][0]
    records = []
    for number in range(size):
        pk = {"pk": {"S": f"message#{uuid.uuid4().hex}"}}
        change = {**record["dynamodb"], "Keys": pk, "SequenceNumber": str(number)}
        records.append({**record, "dynamodb": change})
    return json.dumps({"Records": records}).encode()


def http(path: str, body: str) -> bytes:
    """Return the event of a POST to the API."""
    event = _event("api_batch.json")
    event |= {"path": path, "pathParameters": {"proxy": path.removeprefix("/")}, "body": body}
    event["requestContext"] |= {"path": f"/v1{path}", "requestId": str(uuid.uuid4())}
    return json.dumps(event).encode()


def http_batch(size: int) -> bytes:
    """Return the event of a POST of many messages."""
    body = json.dumps({"messages": [message() for _ in range(size)]}, ensure_ascii=False)
    return http("/messages/batch", body)


def _event(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / name).read_text(encoding="utf-8"))
    return event
