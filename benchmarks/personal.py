"""What a personal text costs beside a plain one: the CPU of the notifier for each recipient."""

import json
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import boto3

from benchmarks.report import Report, say, table
from relay.broadcasts.audience import Audience, Personal
from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.table import Listed
from relay.messages.queues import SqsQueues
from relay.messages.seals import Seals
from relay.validation import validate
from tests.support.stub import stub

RECIPIENTS = 2_000
ROUNDS = 5
SENDER_CPU = 0.70
"""Milliseconds that the sender takes for a message: the table above has the newest figure."""

TEXT = "Hello {{ name || 'friend' }}! Order {{ order }} is on its way to {{ city }}."
BUTTON = {"text": "Track {{ order }}", "url": "https://shop.example/?o={{ urlencode(order) }}"}


class _File:
    """A bucket with one list."""

    name = "bench"

    def lines(self, _: str) -> Iterator[bytes]:
        for n in range(RECIPIENTS):
            data = {"name": f"Анна {n}", "order": f"A-{n}", "city": "Москва"}
            yield json.dumps({"subscriberId": f"{n:024}", "data": data}).encode()


def measure(report: Report) -> None:
    """Measure listing and enqueueing, plain and personal, taking turns."""
    say("personal texts")
    rows = []
    with stub(aws=0.0) as running:
        client = boto3.client(
            "sqs",
            endpoint_url=running.aws,
            region_name="us-east-1",
            verify=running.certificates,
            aws_access_key_id="stub",
            aws_secret_access_key="stub",  # noqa: S106 - the stub takes any
        )
        queues = SqsQueues(
            client,
            **{
                f"{name}_url": f"{running.aws}/1/{name}"
                for name in ("messages", "ordered", "broadcast", "notifier", "dead_letter")
            },
            seals=Seals(lambda: b"0" * 32),
            clock=time.time,
        )
        found = {
            name: [_round(queued, queues) for _ in range(ROUNDS)]
            for name, queued in (("plain", _broadcast(None)), ("personal", _broadcast(True)))
        }
    per = {
        name: [median(each) for each in zip(*rounds, strict=True)] for name, rounds in found.items()
    }
    for name, (listing, enqueueing) in per.items():
        rows.append([name, f"{listing:.3f}", f"{enqueueing:.3f}", f"{listing + enqueueing:.3f}"])
    rendering = sum(per["personal"]) - sum(per["plain"])
    share = rendering / (sum(per["personal"]) + SENDER_CPU) * 100
    report.show(
        "personal",
        table(["CPU, ms a recipient", "list from a file", "enqueue", "notifier"], rows)
        + f"\n\nRendering takes {rendering:.3f} ms, {share:.0f} % of a personal broadcast's CPU, "
        f"the sender's {SENDER_CPU:.2f} ms a message included.",
    )


def _broadcast(template: bool | None) -> QueuedBroadcast:
    fields: dict[str, Any] = {
        "botId": "b",
        "text": TEXT,
        "buttons": [BUTTON],
        "template": template,
        "recipientsFrom": "s3://bench/recipients/x",
    }
    return queued_broadcast(validate(Broadcast, fields), "bench")


def _round(queued: QueuedBroadcast, queues: SqsQueues) -> tuple[float, float]:
    """Return the milliseconds of CPU that listing and enqueueing take for each recipient."""
    anything: Any = _File()
    audience = Audience(subscribers=lambda _: [], table=anything, store=anything, bucket=anything)
    listed: list[Listed] = []

    def listing() -> None:
        listed.extend(each for each in audience.select(queued) if isinstance(each, Listed))

    def enqueueing() -> None:
        personal = Personal(queued)
        queues.enqueue_broadcast([personal.message(queued, each) for each in listed])

    return _cpu(listing), _cpu(enqueueing)


def _cpu(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000 / RECIPIENTS
