"""How fast the local stack delivers what is queued, and whether a long queue slows it down."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.artifact import HOME
from benchmarks.report import Report, say
from tests.support import events
from tests.support.deployment import Deployment, deployed
from tests.support.stub import Stub, stub

SIZES = (100, *[100] * 9, *[1_000] * 3, *[10_000] * 2)
"""Messages queued at once; the first warms everything up."""
TIMEOUT = 600.0  # seconds


def measure(report: Report) -> None:
    """Drain queues of several lengths, pacing off; judge the longest against the shortest."""
    say("draining the local stack's queue")
    took: dict[int, list[float]] = defaultdict(list)
    with stub(provider=0.02) as provider:
        os.environ["SSL_CERT_FILE"] = provider.certificates
        try:
            with deployed(
                HOME / "stack", {"MessagesPerSecond": "0"}, provider_base_url=provider.provider
            ) as deployment:
                for size in SIZES:
                    took[size].append(_drain(deployment, provider, size))
        finally:
            del os.environ["SSL_CERT_FILE"]
    took[SIZES[0]].pop(0)
    each = {size: median(seconds) / size for size, seconds in took.items()}
    rates = ", ".join(f"{size:,}: {1 / seconds:.0f}/s" for size, seconds in each.items())
    what = "time a message on the local stack, 10,000 queued against 100"
    report.at_most("sending", what, each[max(each)] / each[min(each)], 1.1, note=f" ({rates})")


def _drain(deployment: Deployment, provider: Stub, size: int) -> float:
    """Return the seconds until so many messages are sent and the queue is empty.

    A message leaves the queue only when its outcome is written.
    """
    sqs, functions = deployment.client("sqs"), deployment.client("lambda")
    queue, sender = deployment.facts["messagesQueueUrl"], deployment.facts["senderFunction"]
    sources = functions.list_event_source_mappings(FunctionName=sender)["EventSourceMappings"]
    for source in sources:
        functions.update_event_source_mapping(UUID=source["UUID"], Enabled=False)
    for _ in range(0, size, 10):
        entries = [{"Id": str(i), "MessageBody": events.envelope()} for i in range(10)]
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    done = provider.counts["posts"] + size
    for source in sources:
        functions.update_event_source_mapping(UUID=source["UUID"], Enabled=True)
    began = time.perf_counter()
    while provider.counts["posts"] < done or _left(sqs, queue):
        if time.perf_counter() - began > TIMEOUT:
            raise TimeoutError(f"{size} messages were not delivered in {TIMEOUT:g} s")
        time.sleep(0.01)
    return time.perf_counter() - began


def _left(sqs: Any, queue: str) -> int:
    """Return how many messages are still on the queue, those under way included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found: Mapping[str, str] = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)[
        "Attributes"
    ]
    return sum(int(found[name]) for name in names)
