"""What a million messages cost by each door, from counts of what the functions ask of AWS."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from benchmarks.artifact import FUNCTIONS
from benchmarks.emulator import emulated
from benchmarks.report import Report, say, table
from tests.support import events
from tests.support.stub import stub
from tools.translated import translated

BATCH = 10
"""The event source's in template.yaml."""
MEGABYTES = 512
"""The functions' in template.yaml."""
SIZES = (256, 512, 1024, 1769)
LATENCY = 0.2
"""The provider's, in seconds."""
SAMPLED = 0.05
"""X-Ray's default rule traces one request in twenty, beyond one a second."""
RUNTIME_LOG = 420
"""Bytes that Lambda itself logs of an invocation with LogLevel=DEBUG: its start and its report."""


class Price(NamedTuple):
    """Dollars for a million units, where they are listed, and when they were last seen to be so."""

    dollars: float
    unit: str
    page: str
    seen: str


REST = Price(3.5, "REST API request", "api-gateway/pricing", "2026")
INVOCATION = Price(0.2, "Lambda request", "lambda/pricing", "2026-05")
GIGABYTE_SECOND = Price(13.3334, "Lambda GB-second, arm64", "lambda/pricing", "2026-05")
QUEUE = Price(0.4, "SQS request (64 KB)", "sqs/pricing", "2026-06")
FIFO = Price(0.5, "SQS request to a FIFO queue (64 KB)", "sqs/pricing", "2026-06")
WRITE = Price(0.625, "DynamoDB write unit (1 KB)", "dynamodb/pricing/on-demand", "2025-07")
READ = Price(0.125, "DynamoDB read unit (4 KB)", "dynamodb/pricing/on-demand", "2025-07")
LOG = Price(0.0005, "CloudWatch Logs byte", "cloudwatch/pricing", "2026")
TRACE = Price(5.0, "X-Ray trace recorded", "xray/pricing", "2025")
PRICES = (REST, INVOCATION, GIGABYTE_SECOND, QUEUE, FIFO, WRITE, READ, LOG, TRACE)
"""AWS's list prices in us-east-1, without free tiers."""

SECRET, ALARM = 0.40, 0.10
"""Dollars a month for one, as docs/operations.md lists them."""
POLLERS = 5
"""Requests at a time with which Lambda looks at a queue, 20 seconds each."""


WITHOUT_ORDER = "SQS, no order"
"""The one door whose messages do not go through the Ordered queue."""

COUNTS = {
    "API requests": "api requests",
    "api, billed ms": "api milliseconds",
    "sender runs": "sender runs",
    "sender, billed ms": "sender milliseconds",
    "record writes": "writes",
    "write units, pacing included": "write units",
    "read units": "read units",
    "calls that write to the table": "call:BatchExecuteStatement",
    "requests to the queue": "call:SendMessageBatch",
    "POSTs to the provider": "posts",
    "log bytes": "log bytes",
}


def measure(report: Report) -> None:
    """Count what a message asks of AWS by each door; price and judge it."""
    say("counts")
    doors = _doors()
    bills = {door: _bill(counts, _queue(door)) for door, counts in doors.items()}
    for (door, counts), most in zip(doors.items(), (3, 3, 2, 2), strict=True):
        what = f"writes of a message's record, {door} to `sent`"
        report.at_most("goals-cost", what, counts["writes"], most, unit="")
    shares = {door: _compute(bill) / sum(bill.values()) * 100 for door, bill in bills.items()}
    what = "the relay's own compute, share of the cost by any door"
    report.at_most("goals-cost", what, max(shares.values()), 20, unit=" %")
    rows = [
        [part, *(f"{bill[part]:.2f}" for bill in bills.values())] for part in bills[WITHOUT_ORDER]
    ]
    rows.append(["**total, $**", *(f"**{sum(bill.values()):.2f}**" for bill in bills.values())])
    rows.append(["the relay's own compute", *(f"{share:.0f} %" for share in shares.values())])
    for what, extra in _extras(doors).items():
        rows.append([what, *(f"{dollars:+.2f}" if dollars else "" for dollars in extra)])
    report.show("cost", table(["for a million messages", *doors], rows))
    report.show("idle", _idle())
    rows = [
        [label, *(f"{counts[what]:.4g}" for counts in doors.values())]
        for label, what in COUNTS.items()
    ]
    report.show("counts", table(["a message", *doors], rows))
    rows = [[p.unit, f"{p.dollars:.4g}", f"aws.amazon.com/{p.page}", p.seen] for p in PRICES]
    report.show("prices", table(["price", "$ a million", "listed at", "as of"], rows))


def _doors(rounds: int = 5) -> dict[str, Mapping[str, float]]:
    """Return a message's share of each count, by door.

    The functions are warm, with their share of a processor; pacing is at work.
    """
    singles = [events.http("/messages", events.envelope()) for _ in range(rounds * BATCH)]
    requests = {
        "POST /messages": singles,
        "POST /messages/batch": [events.http_batch(100)],
        "SQS, in order": [],
        WITHOUT_ORDER: [],
    }
    found: dict[str, Mapping[str, float]] = {}
    with (
        stub(provider=LATENCY) as running,
        emulated(FUNCTIONS / "api", running.environment(rate=100)) as api,
        emulated(FUNCTIONS / "sender", running.environment(rate=100)) as sender,
    ):
        api.warm_up(singles[0])
        sender.warm_up(events.batch(BATCH))
        for door, events_ in requests.items():
            running.reset()
            totals = Counter({"log bytes": -api.logged_bytes() - sender.logged_bytes()})
            for event in events_:
                totals["api requests"] += 1
                totals["api milliseconds"] += math.ceil(api.invoke(event, MEGABYTES).billed)
            bodies = running.bodies() or [events.envelope() for _ in range(rounds * BATCH)]
            for start in range(0, len(bodies), BATCH):
                batch = events.sqs(bodies[start : start + BATCH], in_line=door != WITHOUT_ORDER)
                totals["sender runs"] += 1
                totals["sender milliseconds"] += math.ceil(sender.invoke(batch, MEGABYTES).billed)
            totals["log bytes"] += api.logged_bytes() + sender.logged_bytes()
            totals.update(running.counts)
            shares = {what: count / totals["posts"] for what, count in totals.items()}
            found[door] = defaultdict(float, shares)
    return found


def _bill(n: Mapping[str, float], queue: Price) -> dict[str, float]:
    """Return the dollars of a million messages, by what they are paid for."""
    requests, runs = n["api requests"], n["sender runs"]
    # A producer pays for its own request; the event source receives and deletes each batch.
    sends = n["call:SendMessageBatch"] + n["call:SendMessage"] or 1.0
    return {
        "API Gateway": requests * REST.dollars,
        "api function": requests * INVOCATION.dollars + duration(n["api milliseconds"]),
        "queue": (sends + 2 * runs) * queue.dollars,
        "table writes": (n["write units"] + n["index units"]) * WRITE.dollars,
        "table reads": n["read units"] * READ.dollars,
        "sender function": runs * INVOCATION.dollars + duration(n["sender milliseconds"]),
        "logs": n["log bytes"] * LOG.dollars,
    }


def _extras(doors: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the dollars that a parameter, or a frugal producer, adds to each door's."""
    counts = doors.values()
    platform = [RUNTIME_LOG * (n["api requests"] + n["sender runs"]) * LOG.dollars for n in counts]
    traces = [SAMPLED * (n["api requests"] or n["sender runs"]) * TRACE.dollars for n in counts]
    tens = [
        0.0 if n["api requests"] else (1 / BATCH - 1) * _queue(door).dollars
        for door, n in doors.items()
    ]
    return {
        "with `LogLevel=DEBUG`: Lambda's own log lines": platform,
        "with `Traces=true`": traces,
        "with ten messages in each of the producer's requests": tens,
    }


def _queue(door: str) -> Price:
    return QUEUE if door == WITHOUT_ORDER else FIFO


def _idle() -> str:
    """Return what the stack costs in a month in which no message comes."""
    resources = translated()["Resources"].values()
    kinds = Counter(resource["Type"] for resource in resources)
    sources = sum("ScalingConfig" in resource["Properties"] for resource in resources)
    looks = POLLERS * 3 * 60 * 24 * 30 / 1e6
    parts = {
        "requests that look for messages": (sources - 1) * looks * QUEUE.dollars,
        "the same for the Ordered queue": looks * FIFO.dollars,
        "secrets": kinds["AWS::SecretsManager::Secret"] * SECRET,
        "alarms": kinds["AWS::CloudWatch::Alarm"] * ALARM,
    }
    rows = [[what, f"{dollars:.2f}"] for what, dollars in parts.items()]
    rows.append(["**idle, $ a month**", f"**{sum(parts.values()):.2f}**"])
    return table(["before the first message", "$ a month"], rows)


def _compute(bill: Mapping[str, float]) -> float:
    return bill["api function"] + bill["sender function"]


def duration(milliseconds: float, megabytes: int = MEGABYTES) -> float:
    """Return the dollars of a million times so much billed time."""
    return milliseconds / 1000 * megabytes / 1024 * GIGABYTE_SECOND.dollars


def dollars(n: Mapping[str, float]) -> float:
    """Return what a million messages from the queue cost, from a message's share of each count."""
    return sum(_bill(n, QUEUE).values())


def measure_memory_sizes(report: Report, rounds: int = 7) -> None:
    """Measure warm functions with each memory size's share of a processor, in turns."""
    say("memory sizes")
    took: dict[int, list[list[float]]] = defaultdict(list)
    with (
        stub(provider=LATENCY) as running,
        emulated(FUNCTIONS / "api", running.environment(rate=100)) as api,
        emulated(FUNCTIONS / "sender", running.environment(rate=0)) as sender,
    ):
        request = events.http("/messages", events.envelope())
        api.warm_up(request)
        sender.warm_up(events.batch(100))
        for _ in range(rounds):
            for size in SIZES:
                spent = (
                    api.invoke(request, size),
                    sender.invoke(events.batch(10), size),
                    sender.invoke(events.batch(100), size),
                )
                took[size].append([one.billed for one in spent])
    rows = []
    for size, rounds_ in took.items():
        accept, ten, hundred = (median(side) for side in zip(*rounds_, strict=True))
        dollars = f"{duration(accept + ten / 10, size):.2f}"
        rows.append([f"{size} MB", *(f"{ms:.0f} ms" for ms in (accept, ten, hundred)), dollars])
    header = ["memory", "`POST /messages`", "10 sent", "100 sent", "$ of both, a million messages"]
    report.show("memory", table(header, rows))
