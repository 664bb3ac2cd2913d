"""What a million events cost, from what a run of the publisher is billed and logs."""

import math
from statistics import median

from benchmarks.artifact import FUNCTIONS
from benchmarks.cost import INVOCATION, LOG, MEGABYTES, Price, duration
from benchmarks.emulator import emulated
from benchmarks.report import Report, say, table
from tests.support import events
from tests.support.stub import stub

EVENT = Price(1.0, "event put on a bus (64 KB)", "eventbridge/pricing", "2026")
SIZES = (1, 10, 100)
"""Events in a run: one at a time, or as many as have gathered."""


def measure(report: Report, rounds: int = 9) -> None:
    """Price events that come alone and together."""
    say("events")
    rows = []
    with stub() as running, emulated(FUNCTIONS / "publisher", running.environment()) as publisher:
        publisher.warm_up(events.stream(1))
        for size in SIZES:
            before = publisher.logged_bytes()
            took = [publisher.invoke(events.stream(size), MEGABYTES).billed for _ in range(rounds)]
            logged = (publisher.logged_bytes() - before) / rounds
            parts = (
                EVENT.dollars,
                INVOCATION.dollars / size,
                duration(math.ceil(median(took))) / size,
                logged * LOG.dollars / size,
            )
            shown = (f"{dollars:.2f}" for dollars in (*parts, sum(parts)))
            rows.append([str(size), f"{median(took):.0f} ms", *shown])
    header = ["events in a run", "billed", "EventBridge", "runs", "time", "logs", "**$**"]
    report.show("events", table(header, rows))
