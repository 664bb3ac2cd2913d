"""What a message asks of AWS, counted: each write and request is a part of the bill."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import events
from tests.support.stub import ACCOUNT, HOOK_SECRETS, Stub, stub

ROOT = Path(__file__).parents[2]
BATCH = 10

INVOKE = """
import json, sys, types
import app
context = types.SimpleNamespace(
    function_name="f", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="r",
    get_remaining_time_in_millis=lambda: 60_000,
)
for line in sys.stdin:
    print("answer", json.dumps(app.handler(json.loads(line), context)))
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[Stub]:
    """Answer for AWS and the provider, and count."""
    with stub(provider=0.0, aws=0.0) as running:
        yield running


def invoke(
    function: str, aws: Stub, invocations: Sequence[bytes], logged: list[str] | None = None
) -> list[dict[str, object]]:
    """Invoke a function in a process of its own; return its answers, add its lines to `logged`."""
    path = os.pathsep.join([str(ROOT / "functions" / function), str(ROOT / "layers" / "relay")])
    done = subprocess.run(
        [sys.executable, "-c", INVOKE],
        env={
            **aws.environment(rate=50),  # slots come as fast as this batch is sent
            "PYTHONPATH": path,
            "PATH": os.environ["PATH"],
        },
        input=b"\n".join(invocations),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    if logged is not None:
        logged += [line for line in lines if not line.startswith("answer ")]
    return [json.loads(line[7:]) for line in lines if line.startswith("answer ")]


def deliver(aws: Stub, bodies: Sequence[str], logged: list[str] | None = None) -> None:
    (answer,) = invoke("sender", aws, [events.sqs(bodies)], logged)
    assert answer == {"batchItemFailures": []}


def test_a_message_from_the_http_door_takes_three_writes_and_one_post(aws: Stub) -> None:
    aws.reset()

    answers = invoke(
        "api", aws, [events.http("/messages", events.envelope()) for _ in range(BATCH)]
    )
    assert {answer["statusCode"] for answer in answers} == {202}
    bodies = aws.bodies()
    assert len(bodies) == BATCH
    deliver(aws, bodies)

    counts = aws.counts
    assert counts["posts"] == BATCH
    assert counts["writes"] <= 3 * BATCH
    assert counts["call:SendMessageBatch"] + counts["call:SendMessage"] == BATCH


def test_a_message_from_the_queue_takes_two_writes_and_one_post(aws: Stub) -> None:
    aws.reset()

    deliver(aws, [events.envelope() for _ in range(BATCH)])

    counts = aws.counts
    assert counts["posts"] == BATCH
    assert counts["writes"] <= 2 * BATCH
    assert counts["write units"] <= 2 * BATCH + counts["pace writes"], "a record fits a kilobyte"


def test_a_batch_takes_few_calls(aws: Stub) -> None:
    aws.reset()

    deliver(aws, [events.envelope() for _ in range(BATCH)])

    counts = aws.counts
    assert counts["call:BatchGetItem"] == 1, "one look for marks of refusals"
    assert counts["read units"] == BATCH / 2, "no record is read that can hardly be there"
    assert counts["pace writes"] == 1, "one block of slots for all"
    # One claim of all; outcomes in groups as they come in, each alone at the worst.
    assert counts["call:BatchExecuteStatement"] <= 1 + BATCH
    assert counts["call:GetSecretValue"] == 1


def test_a_batch_at_the_http_door_travels_together(aws: Stub) -> None:
    aws.reset()

    (answer,) = invoke("api", aws, [events.http_batch(100)])

    assert answer["statusCode"] == 202
    counts = aws.counts
    assert counts["writes"] == 100
    assert counts["call:BatchExecuteStatement"] == 4, "25 records a call"
    assert counts["call:SendMessageBatch"] == 10, "10 messages a call"


def test_a_reference_costs_an_index_write_and_a_sent_message_without_one_none(aws: Stub) -> None:
    """docs/performance.md says so, in its second table of costs."""
    aws.reset()
    deliver(aws, [events.envelope() for _ in range(BATCH)])
    assert (aws.counts["posts"], aws.counts["index units"]) == (BATCH, 0)
    plain = aws.counts["write units"] - aws.counts["pace writes"]

    aws.reset()
    deliver(aws, [events.envelope(f"order-{n}") for n in range(BATCH)])
    assert (aws.counts["posts"], aws.counts["index units"]) == (BATCH, BATCH)
    # The record fits a kilobyte still.
    assert aws.counts["write units"] - aws.counts["pace writes"] == plain, (
        "it fits a kilobyte still"
    )


# ----------------------------------------------------------------------------------- log bytes

NUMBER = "79161234567"
LINK = "https://shop.example/orders/4711"


def of_http() -> list[bytes]:
    return [events.http("/messages", events.envelope()) for _ in range(BATCH)]


def of_hook() -> list[bytes]:
    event = json.loads(events.http("/hooks/plain", ""))
    event["pathParameters"] = {"name": "plain"}
    event["headers"]["Authorization"] = f"Bearer {HOOK_SECRETS['plain']}"
    bodies = [{"id": f"d-{n}", "text": events.TEXT, "url": LINK} for n in range(BATCH)]
    return [json.dumps({**event, "body": json.dumps(body)}).encode() for body in bodies]


def of_schedule() -> list[bytes]:
    firing = json.loads((ROOT / "events" / "schedule.json").read_text("utf-8"))
    times = [f"2026-12-01T10:{n:02}:00Z" for n in range(BATCH)]
    firings = [{**firing, "time": at, "message": events.message()} for at in times]
    return [json.dumps(each).encode() for each in firings]


def of_queue() -> list[bytes]:
    by_number = {"botId": "b-1", "number": NUMBER, "text": events.TEXT, "reference": "order-4711"}
    others = [events.envelope("order-4711") for _ in range(BATCH - 1)]
    return [events.sqs([json.dumps(by_number), *others])]


def of_broadcast() -> list[bytes]:
    bodies = [
        json.dumps({**events.message(), "id": f"k-{n:040}", "broadcast": "b-1"})
        for n in range(BATCH)
    ]
    batch = json.loads(events.sqs(bodies))
    for record in batch["Records"]:
        record["eventSourceARN"] = "arn:aws:sqs:eu-central-1:123456789012:BroadcastQueue"
    return [json.dumps(batch).encode()]


@pytest.mark.parametrize(
    ("function", "invocations", "messages", "most"),
    [
        ("api", of_http(), BATCH, 430),  # 926 before
        ("api", [events.http_batch(100)], 100, 41),  # 44, and 380 in the sender
        ("hooks", of_hook(), BATCH, 400),  # 543, and Lambda's own 420
        ("notifier", of_schedule(), BATCH, 380),  # 535, and Lambda's own 420
        ("sender", of_queue(), BATCH, 110),  # 380
        ("sender", of_broadcast(), BATCH, 115),  # 385
    ],
    ids=["POST /messages", "a batch of 100", "a hook", "a schedule", "a queue", "a broadcast"],
)
def test_a_message_costs_few_bytes_of_logs(
    aws: Stub, function: str, invocations: Sequence[bytes], messages: int, most: int
) -> None:
    """By each door, with what Lambda itself logs, less than half of what it was in 0.1.0."""
    aws.reset()
    logged: list[str] = []
    invoke(function, aws, invocations, logged)

    assert sum(len(line.encode()) + 1 for line in logged) / messages <= most
    # Whom it went to, what it said, and who the relay is there, are nobody's to read.
    for secret in (
        NUMBER,
        "order-4711",
        events.TEXT,
        LINK,
        *ACCOUNT.values(),
        *HOOK_SECRETS.values(),
    ):
        assert all(secret not in line for line in logged)


def test_a_broadcast_s_messages_are_claimed_without_a_read(aws: Stub) -> None:
    aws.reset()
    invoke("sender", aws, of_broadcast())

    assert aws.counts["posts"] == BATCH
    assert aws.counts["records looked for"] == 0
