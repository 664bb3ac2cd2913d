"""How fast the provider's client and the whole sender are, and what they take."""

import json
import math
import statistics
import subprocess
from pathlib import Path

from benchmarks import exchange
from benchmarks.artifact import FUNCTIONS, LAYER, PLAIN, PYTHON
from benchmarks.emulator import emulated, environment
from benchmarks.report import Report, Spread, ratio, say, table
from tests.support import events
from tests.support.stub import stub

HERE = Path(__file__).parent
SENDER = FUNCTIONS / "sender"
LATENCY = 0.1
"""The provider's, in seconds."""
IN_FLIGHT = (34, 4, 10, 17, 25, 50, 100)
"""relay.wiring's number first."""


def measure(report: Report) -> None:
    """Measure the client alone, then the sender: beside the reference, its CPU, its memory."""
    say("the provider's client")
    _client(report)
    for size, rounds, goal in ((100, 3, 20), (10, 7, 7)):
        say(f"batches of {size}, beside the sequential reference")
        _beside_the_reference(report, size, rounds, goal)
    say("CPU")
    _cpu(report)
    say("memory")
    _memory(report)


def bound(in_flight: int) -> float:
    """Return the least seconds that a batch can take: its rounds of waiting for the provider."""
    return math.ceil(exchange.MESSAGES / in_flight) * LATENCY


def _client(report: Report) -> None:
    with stub(provider=LATENCY) as running:
        done = subprocess.run(
            [str(PYTHON), str(HERE / "exchange.py"), running.provider, *map(str, IN_FLIGHT)],
            env=environment(HERE, LAYER, running.environment()),
            capture_output=True,
            check=True,
            text=True,
        )
    found: dict[str, list[tuple[float, float]]] = json.loads(done.stdout)
    seconds = {side: [s for s, _ in rounds] for side, rounds in found.items()}
    cpu = {
        side: [c / exchange.MESSAGES * 1000 for _, c in rounds] for side, rounds in found.items()
    }
    n = IN_FLIGHT[0]
    report.at_most(
        "sending",
        f"100 sends, {n} in flight, provider at 100 ms, against the physical bound",
        Spread.of([s / bound(n) for s in seconds[str(n)]]),
        1.1,
    )
    report.at_most(
        "sending",
        "CPU of one exchange with the provider",
        Spread.of(cpu[str(n)]),
        0.35,
        unit=" ms",
        note=f", {ratio(cpu[str(n)], cpu['urllib3']).median:.2f}× urllib3 alone",
    )
    rows = []
    for number in sorted(IN_FLIGHT):
        took = statistics.median(seconds[str(number)])
        rates = [f"{exchange.MESSAGES / s:.0f}" for s in (took, bound(number))]
        rows.append([str(number), *rates, f"{took / bound(number):.2f}×"])
    header = ["in flight", "messages a second", "at the bound", "time against the bound"]
    report.show("flight", table(header, rows))
    sides = {
        "http.client": "Python's `http.client`, a connection for each thread",
        "urllib3": "urllib3's pool alone",
        str(n): "`smsgold`: deadline, capped body, outcome, redaction",
    }
    rows = [[text, Spread.of(cpu[side]).shown(" ms")] for side, text in sides.items()]
    report.show("exchange", table([f"{n} in flight, over TLS", "CPU of one exchange"], rows))


def _beside_the_reference(report: Report, size: int, rounds: int, goal: float) -> None:
    with (
        stub(provider=LATENCY) as running,
        emulated(SENDER, running.environment(rate=0)) as sender,
        emulated(HERE / "reference", running.environment(), PLAIN) as reference,
    ):
        sides = (sender, reference)
        for function in sides:
            function.warm_up(events.batch(10))
        took = [[f.invoke(events.batch(size)).billed for f in sides] for _ in range(rounds)]
    ours, theirs = zip(*took, strict=True)
    what = f"billed time a message, batches of {size}: sequential reference against ours"
    report.at_least("sending", what, ratio(theirs, ours), goal)


def _cpu(report: Report, environments: int = 3, batches: int = 6) -> None:
    """Measure batches of 100 in fresh environments, paced at 100 a second."""
    first, warm = [], []
    for _ in range(environments):
        with (
            stub(provider=LATENCY) as running,
            emulated(SENDER, running.environment(rate=100)) as function,
        ):
            function.start()
            took = [function.invoke(events.batch(100)).cpu for _ in range(batches)]
        first.append(took[0])
        warm += took[1:]
    each = statistics.median(warm)
    what = "CPU of a fresh environment's first batch of 100 against a warm one"
    report.at_most("sending", what, Spread.of([one / each for one in first]), 4)
    each_message = Spread.of([one / 100 for one in warm])
    report.at_most(
        "sending", "CPU of a message, everything included", each_message, 1.5, unit=" ms"
    )


def _memory(report: Report) -> None:
    """Measure the sender's peak memory after 1,000 messages and after 10,000."""
    peaks = []
    with (
        stub(provider=0.005, aws=0.0) as running,
        emulated(SENDER, running.environment(rate=0)) as function,
    ):
        function.start()
        for batches in (10, 90):
            for _ in range(batches):
                function.invoke(events.batch(100))
            peaks.append(function.peak_megabytes())
    early, late = peaks
    what = "peak memory of the sender, batches of 100, after 10,000 messages"
    report.at_most("sending", what, late, 110, unit=" MB")
    report.at_most("sending", f"{what}, against after 1,000", late / early, 1.1)
