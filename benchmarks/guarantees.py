"""What the guarantees cost: the sender beside a function that gives none of them."""

import math
from collections import Counter
from pathlib import Path
from statistics import median

from benchmarks.artifact import FUNCTIONS, PLAIN
from benchmarks.cost import LATENCY, MEGABYTES, dollars
from benchmarks.emulator import Function, emulated
from benchmarks.report import Report, Spread, ratio, say, table
from tests.support import events
from tests.support.stub import Stub, stub

PEER = Path(__file__).parent / "peer"
RATE = 1000
"""Messages a second: slots are reserved, and hardly waited for."""
ROUNDS = {10: 15, 100: 9}
"""By the batch's size."""


def measure(report: Report) -> None:
    """Compare billed time, CPU and cost, each function with its share of a processor."""
    say("the price of the guarantees")
    rows = []
    with (
        stub(provider=LATENCY) as running,
        emulated(FUNCTIONS / "sender", running.environment(rate=RATE)) as sender,
        emulated(PEER, running.environment(), PLAIN) as peer,
    ):
        sides = (sender, peer)
        for size, rounds in ROUNDS.items():
            for function in sides:
                function.warm_up(events.batch(size))
            took = [[_count(f, running, size) for f in sides] for _ in range(rounds)]
            ours, theirs = zip(*took, strict=True)
            shown = []
            for what in ("sender milliseconds", "cpu"):
                times = ratio([n[what] for n in ours], [n[what] for n in theirs])
                each = (median(n[what] for n in side) for side in (ours, theirs))
                shown.append(_cell(times, " : ".join(f"{ms:.2f}" for ms in each), "ms"))
            bills = [[dollars(n) for n in side] for side in (ours, theirs)]
            each = (median(bill) for bill in bills)
            shown.append(_cell(ratio(*bills), " : ".join(f"{d:.2f}" for d in each), "$"))
            rows.append([f"batches of {size}", *shown])
    header = [
        "ours against the peer",
        "billed, a message",
        "CPU, a message",
        "$ a million messages",
    ]
    report.show("guarantees", table(header, rows))


def _cell(times: Spread, each: str, unit: str) -> str:
    return f"**{times.median:.1f}×** ± {times.deviation:.1f} ({each} {unit})"


def _count(function: Function, running: Stub, size: int) -> Counter[str]:
    """Return a message's share of what a batch of new messages takes and asks of AWS."""
    running.reset()
    logged = function.logged_bytes()
    spent = function.invoke(events.batch(size), MEGABYTES)
    return Counter(
        {
            what: count / size
            for what, count in {
                **running.counts,
                "sender runs": 1,
                "sender milliseconds": math.ceil(spent.billed),
                "cpu": spent.cpu,
                "log bytes": function.logged_bytes() - logged,
            }.items()
        }
    )
