"""Measure and write it down: `python -m benchmarks`; the costs alone: `python -m benchmarks cost`.

Every figure is a ratio of sides that took turns on this machine in this run, a count, or a size.
"""

import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from benchmarks import artifact, cost, exchange, measures, plots
from benchmarks.artifact import ROOT, Artifact
from benchmarks.measures import Spread, ratios

PAGE = ROOT / "docs" / "performance.md"
BATCH_SIZE = 10
"""The event source's in template.yaml."""
IN_FLIGHT = measures.IN_FLIGHT[0]
"""relay.wiring's."""
MEGABYTE = 1_000_000

Batches = Mapping[str, Sequence[Sequence[float]]]
"""Seconds and CPU seconds in rounds, as `measures.batches` returns them."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what was found, against its goal."""

    what: str
    found: str
    goal: str
    met: bool

    def markdown(self) -> str:
        """Return the line."""
        return f"| {self.what} | {self.found} | {self.goal} | {'yes' if self.met else '**no**'} |"


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def _told(rows: list[Row]) -> list[Row]:
    """Print rows as soon as they are known."""
    for row in rows:
        print(f"  {row.what}: {row.found} (goal {row.goal})", flush=True)
    return rows


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f}× ± {spread.deviation:.2f}"


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median:.2f} ms ± {spread.deviation:.2f}"


def starts(built: Artifact) -> list[Row]:
    """Measure INIT."""
    _say("cold starts")
    found = measures.cold_starts(built)
    rows = []
    for name in built.names:
        factor = 8.0 if name in {"sender", "notifier"} else 9.5
        empty = ratios(found[name], found["empty"])
        plain = ratios(found[name], found[f"{name} plain"])
        rows += [
            Row(
                f"INIT of `{name}` against an empty handler",
                _times(empty),
                f"≤ {factor}×",
                empty.median <= factor,
            ),
            Row(
                f"INIT of `{name}` against the plain build, source only",
                _times(plain),
                "≤ 0.45×",
                plain.median <= 0.45,
            ),
        ]
    return rows


def sizes(built: Artifact) -> list[Row]:
    """Measure the artifact."""
    whole = artifact.size(built.layer, built.functions) / MEGABYTE
    plain = artifact.size(built.plain, built.functions) / MEGABYTE
    return [
        Row(
            "layer and functions, unzipped",
            f"{whole:.1f} MB (the plain build: {plain:.1f} MB)",
            "≤ 12 MB",
            whole <= 12,
        )
    ]


def exchanges(found: Batches) -> list[Row]:
    """Judge the provider's client alone."""
    chosen = found[str(IN_FLIGHT)]
    took = Spread.of([s / measures.bound(IN_FLIGHT) for s, _ in chosen])
    cpu = _cpu(chosen)
    beside = ratios([c for _, c in chosen], [c for _, c in found["urllib3"]])
    return [
        Row(
            f"100 sends, {IN_FLIGHT} in flight, provider at 100 ms, against the physical bound",
            _times(took),
            "≤ 1.10×",
            took.median <= 1.10,
        ),
        Row(
            "CPU of one exchange with the provider",
            f"{_milliseconds(cpu)}, {beside.median:.2f}× urllib3 alone",
            "≤ 0.35 ms",
            cpu.median <= 0.35,
        ),
    ]


def _cpu(rounds: Sequence[Sequence[float]]) -> Spread:
    """Return the CPU milliseconds of a message."""
    return Spread.of([seconds / exchange.MESSAGES * 1000 for _, seconds in rounds])


def _beneath(found: Batches) -> str:
    """Show what the client stands on, and what each layer adds."""
    lines = [f"| {IN_FLIGHT} in flight, over TLS | CPU of one exchange |", "|---|--:|"]
    sides = {
        "Python's `http.client`, a connection for each thread": found["http.client"],
        "urllib3's pool alone": found["urllib3"],
        "`smsgold`: deadline, capped body, outcome, redaction": found[str(IN_FLIGHT)],
    }
    for name, rounds in sides.items():
        lines.append(f"| {name} | {_milliseconds(_cpu(rounds))} |")
    return "\n".join(lines)


def _memory(sizes: Sequence[measures.Memory]) -> str:
    """Show what each memory size takes and costs."""
    lines = [
        "| memory | `POST /messages` | 10 sent | 100 sent | billed time, $ a million messages |",
        "|--:|--:|--:|--:|--:|",
    ]
    for size in sizes:
        milliseconds = [size.took[name].median for name in ("api", "10", "100")]
        dollars = cost.duration(milliseconds[0] + milliseconds[1] / 10, size.megabytes)
        cells = " | ".join(f"{ms:.0f} ms" for ms in milliseconds)
        lines.append(f"| {size.megabytes} MB | {cells} | {dollars * cost.MILLION:.2f} |")
    return "\n".join(lines)


def sends(built: Artifact) -> list[Row]:
    """Measure the whole sender beside the sequential reference, its CPU and its memory."""
    rows = []
    for size, rounds, goal in ((100, 3, 20.0), (10, 7, 7.0)):
        _say(f"batches of {size}, beside the sequential reference")
        both = measures.sending(built, size, rounds)
        factor = ratios(both.reference, both.ours)
        rows.append(
            Row(
                f"billed time a message, batches of {size}: sequential reference against ours",
                _times(factor),
                f"≥ {goal:.0f}×",
                factor.median >= goal,
            )
        )
    _say("CPU")
    cpu = measures.cpu(built)
    warm = Spread.of(cpu.warm)
    first = Spread.of([one / warm.median for one in cpu.first])
    each = Spread.of([one / 100 for one in cpu.warm])
    _say("memory")
    memory = measures.memory(built)
    (early, early_mb), (late, late_mb) = sorted(memory.items())
    return [
        *rows,
        Row(
            "CPU of a fresh environment's first batch of 100 against a warm one",
            _times(first),
            "≤ 4×",
            first.median <= 4,
        ),
        Row(
            "CPU of a message, everything included",
            _milliseconds(each),
            "≤ 1.5 ms",
            each.median <= 1.5,
        ),
        Row(
            f"peak memory of the sender, batches of 100, after {late:,} messages",
            f"{late_mb:.0f} MB (after {early:,}: {early_mb:.0f} MB)",
            "≤ 110 MB, flat",
            late_mb <= 110 and late_mb <= 1.1 * early_mb,
        ),
    ]


def drains() -> list[Row]:
    """Measure the local stack's throughput."""
    _say("draining the local stack's queue")
    found = measures.drain()
    each = {size: seconds / size * 1000 for size, seconds in found.items()}
    small, large = min(each), max(each)
    shown = ", ".join(f"{size:,}: {1000 / ms:.0f}/s" for size, ms in sorted(each.items()))
    factor = each[large] / each[small]
    return [
        Row(
            "time a message on the local stack, 10,000 queued against 100",
            f"{factor:.2f}× ({shown})",
            "≤ 1.10×",
            factor <= 1.10,
        )
    ]


def writes(doors: Sequence[measures.Door]) -> list[Row]:
    """Judge the counts."""
    return [
        Row(
            f"writes of a message's record, {door.name} to `sent`",
            f"{door.counts['writes']:.2f}",
            f"≤ {most}",
            door.counts["writes"] <= most,
        )
        for door, most in zip(doors, (3, 3, 2), strict=True)
    ]


def bills(doors: Sequence[measures.Door]) -> list[Row]:
    """Judge the compute's share of the cost."""
    shares = [cost.bill(door).compute_share for door in doors]
    return [
        Row(
            "the relay's own compute, share of the cost by each door",
            " / ".join(f"{share:.0%}" for share in shares),
            "≤ 20 %",
            max(shares) <= 0.2,
        )
    ]


def _page(marker: str, content: str) -> None:
    """Replace what stands between two markers of the page."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}{content}\n{end}{after}", encoding="utf-8")


def _machine(built: Artifact) -> str:
    load, _, _ = psutil.getloadavg()
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} by Python {built.version} on "
        f"{platform.machine()}, {psutil.cpu_count()} cores, at a load of {load:.1f}. "
        "Medians; ± is the median absolute deviation."
    )


def _costs(doors: list[measures.Door]) -> str:
    both = [cost.bill(door) for door in doors]
    return "\n\n".join((cost.table(both), cost.counts(doors), cost.prices()))


def price() -> None:
    """Print the cost model."""
    built = artifact.build()
    print(_costs(measures.doors(built, BATCH_SIZE)))


def bench() -> None:
    """Measure everything; rewrite the page's figures and its plots."""
    _say("building")
    built = artifact.build()
    if not built.version.startswith(artifact.RUNTIME):
        _say(f"no Python {artifact.RUNTIME} here: measuring on {built.version}")
    rows = _told(sizes(built))
    _say("the provider's client")
    found = measures.batches(built)
    rows += _told(exchanges(found))
    rows += _told(sends(built))
    _say("counts")
    doors = measures.doors(built, BATCH_SIZE)
    rows += _told(writes(doors) + bills(doors))
    rows += _told(starts(built))
    _say("imports")
    imports = measures.where_init_goes(built)
    _say("memory sizes")
    sizes_of_memory = _memory(measures.memory_sizes(built))
    print(sizes_of_memory, flush=True)
    rows += _told(drains())
    table = ["| what | found | goal | met |", "|---|---|---|---|", *(r.markdown() for r in rows)]
    results = "\n".join([_machine(built), "", *table])
    _page("results", results)
    _page("beneath", _beneath(found))
    _page("memory", sizes_of_memory)
    _page("cost", _costs(doors))
    _draw(imports, found)
    print(f"\n{results}\n\n{_costs(doors)}\n\nWritten to {PAGE.relative_to(ROOT)}.")


def _draw(imports: Mapping[str, Mapping[str, float]], found: Batches) -> None:
    svg = plots.init_bars(imports, "Where a function's start goes (plain: built from source only)")
    PAGE.with_name("performance-init.svg").write_text(svg, encoding="utf-8")
    rate = [
        (number, exchange.MESSAGES / statistics.median(s for s, _ in found[str(number)]))
        for number in sorted(measures.IN_FLIGHT)
    ]
    bounds = [(number, exchange.MESSAGES / measures.bound(number)) for number, _ in rate]
    svg = plots.throughput(rate, bounds, "Batches of 100 over HTTPS, provider at 100 ms")
    PAGE.with_name("performance-sends.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["cost"]:
        price()
    else:
        bench()
