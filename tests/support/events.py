"""Events as SQS and API Gateway bring them."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

TEXT = "Ваш заказ 4711 оплачен и передан в доставку. Курьер позвонит за час до приезда."


def message() -> dict[str, Any]:
    """Return a message of usual size: a text of 80 letters and one button."""
    return {
        "subscriberId": uuid.uuid4().hex,
        "text": TEXT,
        "buttons": [{"text": "Отследить", "url": "https://shop.example/orders/4711"}],
        "reference": "order-4711",
    }


def envelope() -> str:
    """Return a message as it lies on the queue."""
    return json.dumps(message(), ensure_ascii=False)


def sqs(bodies: Sequence[str]) -> bytes:
    """Return the event of one batch of messages from the queue."""
    now = str(int(time.time() * 1000))
    records = [
        {
            "messageId": str(uuid.uuid4()),
            "receiptHandle": "AQEB" + "x" * 400,
            "body": body,
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": now,
                "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                "ApproximateFirstReceiveTimestamp": now,
            },
            "messageAttributes": {},
            "md5OfBody": "",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:messages",
            "awsRegion": "us-east-1",
        }
        for body in bodies
    ]
    return json.dumps({"Records": records}).encode()


def http(path: str, body: str) -> bytes:
    """Return the event of a POST through the REST API."""
    headers = {"Content-Type": "application/json", "Host": "api.example"}
    event: dict[str, Any] = {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.removeprefix("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "path": f"/v1{path}",
            "httpMethod": "POST",
            "stage": "v1",
            "requestId": str(uuid.uuid4()),
            "domainName": "api.example",
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "protocol": "HTTP/1.1",
            "identity": {"sourceIp": "127.0.0.1", "apiKeyId": "abc123", "apiKey": "key"},
        },
        "body": body,
        "isBase64Encoded": False,
    }
    return json.dumps(event).encode()


def http_batch(size: int) -> bytes:
    """Return the event of a POST of many messages."""
    body = json.dumps({"messages": [message() for _ in range(size)]}, ensure_ascii=False)
    return http("/messages/batch", body)
