"""What a million messages cost by each door: `make cost`.

Every count is measured: the functions run against a stub that counts what they ask of the table
and the queue (`measures.doors`). Every price is AWS's list price in us-east-1, without free tiers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.measures import MEGABYTES, Door

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Dollars for one unit, where it is listed, and when it was seen to be this."""

    dollars: float
    unit: str
    source: str
    as_of: str


_TABLE = "aws.amazon.com/dynamodb/pricing/on-demand"

PRICES: Mapping[str, Price] = {
    "rest": Price(3.50e-6, "REST API request", "aws.amazon.com/api-gateway/pricing", "2026"),
    "invocation": Price(0.20e-6, "Lambda request", "aws.amazon.com/lambda/pricing", "2026-05"),
    "gigabyte second": Price(
        0.0000133334, "Lambda GB-second, arm64", "aws.amazon.com/lambda/pricing", "2026-05"
    ),
    "queue": Price(0.40e-6, "SQS request (64 KB)", "aws.amazon.com/sqs/pricing", "2026-06"),
    "write": Price(
        0.625e-6,
        "DynamoDB write unit (1 KB)",
        _TABLE,
        "2025-07",
    ),
    "read": Price(
        0.125e-6,
        "DynamoDB read unit (4 KB)",
        _TABLE,
        "2025-07",
    ),
    "log": Price(0.50e-9, "CloudWatch Logs byte", "aws.amazon.com/cloudwatch/pricing", "2026"),
    "trace": Price(5.00e-6, "X-Ray trace recorded", "aws.amazon.com/xray/pricing", "2025"),
}

SAMPLED = 0.05
"""X-Ray's default rule traces one request in twenty, beyond one a second."""

RUNTIME_LOG = 420
"""Bytes that Lambda itself logs for an invocation (START, END, REPORT), with the trace's id."""


@dataclass(frozen=True)
class Bill:
    """Dollars for a million messages by one door."""

    door: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Return all of it."""
        return sum(self.parts.values())

    @property
    def compute_share(self) -> float:
        """Return the relay's own compute as a share of the total."""
        own = sum(cost for part, cost in self.parts.items() if part.endswith("function"))
        return own / self.total


def bill(door: Door) -> Bill:
    """Return what a million messages by a door cost."""
    n = door.counts.get
    requests = n("api requests", 0.0)
    runs = n("sender invocations", 0.0)
    # A producer pays for its own request; then the event source receives and deletes a batch each.
    sends = n("call:SendMessageBatch", 0.0) + n("call:SendMessage", 0.0) or 1.0
    logged = n("log bytes", 0.0) + RUNTIME_LOG * (requests + runs)
    parts = {
        "API Gateway": requests * PRICES["rest"].dollars,
        "api function": _function(requests, n("api milliseconds", 0.0)),
        "queue": (sends + 2 * runs) * PRICES["queue"].dollars,
        "table writes": n("write units", 0.0) * PRICES["write"].dollars,
        "table reads": n("read units", 0.0) * PRICES["read"].dollars,
        "sender function": _function(runs, n("sender milliseconds", 0.0)),
        "logs": logged * PRICES["log"].dollars,
        "traces": SAMPLED * (requests or runs) * PRICES["trace"].dollars,
    }
    return Bill(door.name, {part: cost * MILLION for part, cost in parts.items()})


def _function(invocations: float, milliseconds: float) -> float:
    return invocations * PRICES["invocation"].dollars + duration(milliseconds, MEGABYTES)


def duration(milliseconds: float, megabytes: int) -> float:
    """Return the dollars for so much billed time."""
    return milliseconds / 1000 * megabytes / 1024 * PRICES["gigabyte second"].dollars


def table(bills: list[Bill]) -> str:
    """Return the bills side by side, in dollars, as Markdown."""
    lines = ["| for a million messages | " + " | ".join(b.door for b in bills) + " |"]
    lines.append("|---|" + "--:|" * len(bills))
    lines += [
        f"| {part} | " + " | ".join(f"{b.parts[part]:.2f}" for b in bills) + " |"
        for part in bills[0].parts
    ]
    lines.append("| **total, $** | " + " | ".join(f"**{b.total:.2f}**" for b in bills) + " |")
    lines.append(
        "| the relay's own compute | " + " | ".join(f"{b.compute_share:.0%}" for b in bills) + " |"
    )
    return "\n".join(lines)


def counts(doors: list[Door]) -> str:
    """Return the measured counts a message, as Markdown."""
    shown = {
        "API requests": "api requests",
        "api, billed ms": "api milliseconds",
        "sender runs": "sender invocations",
        "sender, billed ms": "sender milliseconds",
        "record writes": "writes",
        "write units, pacing included": "write units",
        "read units": "read units",
        "calls that write to the table": "call:BatchExecuteStatement",
        "requests to the queue": "call:SendMessageBatch",
        "POSTs to the provider": "posts",
        "log bytes": "log bytes",
    }
    lines = ["| a message | " + " | ".join(d.name for d in doors) + " |"]
    lines.append("|---|" + "--:|" * len(doors))
    lines += [
        f"| {label} | " + " | ".join(f"{d.counts.get(name, 0.0):.3g}" for d in doors) + " |"
        for label, name in shown.items()
    ]
    return "\n".join(lines)


def prices() -> str:
    """Return the prices, as Markdown."""
    lines = ["| price | $ a million | listed at | as of |", "|---|--:|---|---|"]
    lines += [
        f"| {p.unit} | {p.dollars * MILLION:.4g} | {p.source} | {p.as_of} |"
        for p in PRICES.values()
    ]
    return "\n".join(lines)
