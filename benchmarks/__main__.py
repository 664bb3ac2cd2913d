"""Measure the figures of docs/performance.md and benchmarks/README.md, and rewrite them.

Each is a ratio of sides that took turns on this machine in this run, a count, or a size.
"""

import argparse
import platform
import time

import psutil

from benchmarks import artifact, cost, drain, guarantees, personal, published, sends, starts
from benchmarks.report import PAGES, ROOT, Report, say


def main() -> None:
    """Measure everything; or the costs, the events or the guarantees alone, and write nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["all", "cost", "events", "guarantees"], default="all"
    )
    what = parser.parse_args().what
    say("building")
    version = artifact.build()
    report = Report()
    if what == "cost":
        cost.measure(report)
        return
    if what == "guarantees":
        guarantees.measure(report)
        return
    if what == "events":
        starts.measure_inits(report, ["publisher", "sender"])
        published.measure(report)
        return
    load, _, _ = psutil.getloadavg()
    report.show(
        "machine",
        f"Measured on {time.strftime('%Y-%m-%d')} by Python {version} on "
        f"{platform.machine()}, {psutil.cpu_count()} cores, at a load of {load:.1f} before. "
        "Medians; ± is the median absolute deviation.",
    )
    sends.measure(report)
    personal.measure(report)
    drain.measure(report)
    starts.measure(report)
    cost.measure(report)
    guarantees.measure(report)
    published.measure(report)
    cost.measure_memory_sizes(report)
    report.write()
    say("written to " + " and ".join(str(page.relative_to(ROOT)) for page in PAGES))
    for goal in report.missed:
        print(f"MISSED: {goal}")


if __name__ == "__main__":
    main()
