"""A steady load with faults for as long as you like: `make soak MINUTES=30`.

It starts a stack of its own and sends through all doors at a steady rate, every eleventh message
faulty. It watches the memory, sockets and files of the functions' processes, which must not grow,
and ends with the verifier. Of MiniStack and the sandbox only files that are no sockets are judged:
they keep all they ever saw in memory, and their sockets are the other ends of the functions', whose
number grows as more of them were once needed at the same time.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from local import processes
from local.stack import Settings, Stack
from relay.messages.states import TERMINAL, State
from scenarios.load import DOORS, FAULTS, PARAMETERS, Doors, Order, groups
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.verifier import Evidence, Reader, Sent, violations

RATE = 8.0  # messages a second
PORTION = 40  # messages, spread over the doors
SAMPLE_SECONDS = 10.0
WARM_UP_SECONDS = 90.0
"""Until then connections are opened and workers started; it is not judged."""
MEMORY_GROWTH = 1.05
"""From the first to the last third of the time, at the most."""
HANDLES_GROWTH = 5
"""Sockets and files more in the last third than in the first, at the most."""


@dataclass(frozen=True)
class Sample:
    """What one kind of process held at one moment; memory in MB, summed over its processes."""

    kind: str
    at: float
    processes: int
    memory: float
    sockets: int
    files: int


def sample(mark: str, at: float) -> Iterator[Sample]:
    """Look at the stack's processes, by what they are."""
    found: dict[str, list[tuple[float, int, int]]] = {}
    for process in processes.marked(mark):
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            name = environment.get("AWS_LAMBDA_FUNCTION_NAME", "")
            kind = name.split("-")[-2] if name else process.cmdline()[2]
            found.setdefault(kind, []).append(
                (
                    process.memory_info().rss / 1e6,
                    len(process.net_connections("inet")),
                    process.num_fds(),
                )
            )
    for kind, held in sorted(found.items()):
        memory, sockets, files = (sum(column) for column in zip(*held, strict=True))
        yield Sample(kind, at, len(held), memory, int(sockets), int(files))


def growth(samples: Sequence[Sample]) -> list[str]:
    """Return what grew from the first third to the last, by kind of process.

    Per process, because there are as many of a function as its load needs. What came to life in
    between is not judged.
    """
    found = []
    for kind in sorted({s.kind for s in samples}):
        of_kind = [s for s in samples if s.kind == kind and s.at >= WARM_UP_SECONDS]
        third = len(of_kind) // 3
        if third < 3:
            continue
        first, last = of_kind[:third], of_kind[-third:]
        was, now = (median(s.memory / s.processes for s in part) for part in (first, last))
        if kind.endswith("Function") and now > was * MEMORY_GROWTH:
            found.append(f"{kind}: {was:.1f} MB became {now:.1f}")
        for what in ("sockets", "files"):
            was, now = (median(_handles(s, what) for s in part) for part in (first, last))
            if now > was + HANDLES_GROWTH:
                found.append(f"{kind}: {was:.0f} {what} became {now:.0f}")
    return found


def _handles(seen: Sample, what: str) -> float:
    """Return the sockets or the other files of a process, as far as they are its own."""
    if what == "files":
        return (seen.files - seen.sockets) / seen.processes
    return seen.sockets / seen.processes if seen.kind.endswith("Function") else 0.0


def orders(first: int, faults: Sequence[str]) -> list[Order]:
    """Return the next portion of messages, every eleventh of them faulty."""
    found = []
    for i in range(first, first + PORTION):
        fault = faults[i // 11 % len(faults)] if i % 11 == 0 else ""
        text = f"soak {i} [[fault:{fault}]]" if fault else f"soak {i}"
        found.append(Order(i, DOORS[i % len(DOORS)], text, FAULTS.get(fault, State.SENT)))
    return found


def run(stack: Stack, facts: dict[str, str], minutes: float) -> int:
    """Send, watch, verify, print; return the number of problems."""
    doors, mark = Doors(facts), f"{stack.home}#"
    faults = list(FAULTS)
    ends: dict[str, Order] = {}
    samples: list[Sample] = []
    began = time.monotonic()
    next_sample, number = began, 0
    with ThreadPoolExecutor(4) as pool:
        while (now := time.monotonic()) < began + minutes * 60:
            portions = list(groups(orders(number, faults)))
            number += PORTION
            for (_, given), ids in zip(portions, pool.map(doors.send, portions), strict=True):
                ends |= dict(zip(ids, given, strict=True))
            if now >= next_sample:
                samples += sample(mark, now - began)
                next_sample = now + SAMPLE_SECONDS
                print(f"\r{number} messages, {(now - began) / 60:.1f} minutes", end="", flush=True)
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
    sent_for = time.monotonic() - began
    reader = Reader(facts, stack.home)

    def at_rest() -> Evidence | None:
        seen = reader.read()
        states = [record.state in TERMINAL for record in seen.records.values()]
        return seen if len(states) >= number and all(states) and not seen.waiting else None

    seen = until(at_rest, "rest", seconds=300, every=2.0)
    secrets = [Sandbox.at(facts["sandboxUrl"]).password, facts["secretAccessKey"]]
    problems = violations(
        seen, [Sent(id_, order.text) for id_, order in ends.items()], secrets=secrets
    )
    problems += [
        f"{order.text!r} is {seen.records[id_].state}, not {order.ends}"
        for id_, order in ends.items()
        if id_ in seen.records and seen.records[id_].state is not order.ends
    ]
    problems += growth(samples)
    report(samples)
    states = Counter(str(record.state) for record in seen.records.values())
    print(f"\n{number} messages in {sent_for / 60:.1f} minutes: {dict(states)}")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"{len(problems)} problems")
    return len(problems)


def report(samples: Sequence[Sample]) -> None:
    """Print about ten moments of each kind of process."""
    print(f"\n{'process':18} {'s':>6} {'number':>6} {'MB':>8} {'sockets':>8} {'files':>6}")
    for kind in sorted({s.kind for s in samples}):
        of_kind = [s for s in samples if s.kind == kind]
        for s in of_kind[:: max(1, len(of_kind) // 10)]:
            print(
                f"{s.kind:18} {s.at:6.0f} {s.processes:6} {s.memory:8.1f} {s.sockets:8} {s.files:6}"
            )


def main() -> int:
    """Start a stack, load it for so many minutes, stop it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.soak", description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    minutes: float = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        settings = Settings(
            home=Path(home),
            port=processes.free_port(),
            sandbox_port=processes.free_port(),
            parameters=PARAMETERS,
        )
        stack = Stack(settings)
        facts = stack.up()
        try:
            return 1 if run(stack, facts, minutes) else 0
        finally:
            stack.stop()


if __name__ == "__main__":
    sys.exit(main())
