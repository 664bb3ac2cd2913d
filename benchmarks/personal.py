"""What a recipient costs the notifier: of a personal text, of a plain one, in a long list."""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import boto3

from benchmarks.report import Report, ratio, say, table
from relay.broadcasts.audience import Audience, Personal
from relay.broadcasts.model import Broadcast, QueuedBroadcast, queued_broadcast
from relay.broadcasts.table import Listed
from relay.messages.queues import SqsQueues
from relay.messages.seals import Seals
from relay.validation import validate
from tests.support.stub import stub

RECIPIENTS = 2_000
SHORT, LONG = 1_000, 100_000
"""Recipients in the lists that are compared."""
ROUNDS = 5
LIST_ROUNDS = 3
SENDER_CPU = 0.70
"""Milliseconds that the sender takes for a message: the table above has the newest figure."""

TEXT = "Hello {{ name || 'friend' }}! Order {{ order }} is on its way to {{ city }}."
BUTTON = {"text": "Track {{ order }}", "url": "https://shop.example/?o={{ urlencode(order) }}"}


class _File:
    """A bucket with one list."""

    name = "bench"

    def __init__(self, count: int) -> None:
        self._count = count

    def lines(self, _: str) -> Iterator[bytes]:
        for n in range(self._count):
            data = {"name": f"Анна {n}", "order": f"A-{n}", "city": "Москва"}
            yield json.dumps({"subscriberId": f"{n:024}", "data": data}).encode()


def measure(report: Report) -> None:
    """Measure listing and enqueueing, plain and personal; a short list and a long one."""
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

    _measure_lists(report)


def _measure_lists(report: Report) -> None:
    say("a list of 100,000")
    queued = _broadcast(True)
    rounds = [(_listing(queued, LONG), _listing(queued, SHORT)) for _ in range(LIST_ROUNDS)]
    long, short = zip(*rounds, strict=True)
    what = f"CPU of a recipient in a list of {LONG:,}, against {SHORT:,}"
    report.at_most("lists", what, ratio(long, short), 1.2)
    what = f"peak memory of reading a list of {LONG:,}"
    note = f", {_peak(queued, SHORT) / 1e6:.2f} MB for {SHORT:,}"
    report.at_most("lists", what, _peak(queued, LONG) / 1e6, 1.0, unit=" MB", note=note)


def _read(queued: QueuedBroadcast, count: int) -> None:
    anything: Any = _File(count)
    audience = Audience(subscribers=lambda _: [], table=anything, store=anything, bucket=anything)
    for _ in audience.select(queued):
        pass


def _listing(queued: QueuedBroadcast, count: int) -> float:
    """Return the seconds of CPU that a recipient takes in a list of so many."""
    began = time.thread_time()
    _read(queued, count)
    return (time.thread_time() - began) / count


def _peak(queued: QueuedBroadcast, count: int) -> float:
    """Return the bytes that are allocated at most while a list of so many is read."""
    tracemalloc.start()
    _read(queued, count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return float(peak)


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
    anything: Any = _File(RECIPIENTS)
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
