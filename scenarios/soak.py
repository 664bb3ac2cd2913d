"""A steady load through all doors, one message in eleven faulty, for as long as you like.

It fails if the verifier finds a broken promise, or if the functions' processes keep growing in
memory, sockets or files. Of MiniStack and the sandbox only the files are judged: both keep all they
ever saw in memory, and their sockets are the other ends of the functions'.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import psutil

from local import processes
from scenarios.progress import progress
from scenarios.traffic import QUICK, Doors, Planned, chats, judge, plan
from tests.support.deployment import Deployment

PARAMETERS = {"MessagesPerSecond": "50", **QUICK}
STEADY_RATE = 8.0  # messages a second
PORTION = 40  # messages: a group for each door
SAMPLE_SECONDS = 10.0
WARM_UP_SECONDS = 90.0
"""Connections are opened and workers started; not judged."""
MEMORY_GROWTH = 1.05
"""At most, from the first third of the time to the last."""
HANDLES_GROWTH = 5
"""Sockets or files more, at most, from the first third of the time to the last."""


@dataclass(frozen=True)
class Sample:
    """What the processes of one kind held at one moment, in total; memory in MB."""

    kind: str
    at: float
    processes: int
    memory: float
    sockets: int
    files: int


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Send, watch, verify, print; return the broken promises."""
    planned, samples = _send(deployment, given.minutes * 60)
    _report(samples)
    return judge(deployment, planned) + growth(samples)


def _send(deployment: Deployment, seconds: float) -> tuple[dict[str, Planned], list[Sample]]:
    """Send at a steady rate; return the messages by their ids, and the samples taken meanwhile."""
    doors, mark, to = Doors(deployment), f"{deployment.home}#", chats(deployment)
    planned: dict[str, Planned] = {}
    samples: list[Sample] = []
    began = time.monotonic()
    next_sample = 0.0
    with ThreadPoolExecutor(4) as pool:
        while (at := time.monotonic() - began) < seconds:
            numbers = range(len(planned), len(planned) + PORTION)
            planned |= doors.send(plan("soak", numbers, to, faulty_every=11), pool)
            if at >= next_sample:
                samples += sample(mark, at)
                next_sample = at + SAMPLE_SECONDS
            progress(f"{len(planned)} messages in {at / 60:.1f} of {seconds / 60:g} minutes")
            time.sleep(max(0.0, began + len(planned) / STEADY_RATE - time.monotonic()))
    return planned, samples


def sample(mark: str, at: float) -> Iterator[Sample]:
    """Look at the stack's processes, by kind: a function's logical id, or the server's module."""
    found: dict[str, list[tuple[float, int, int]]] = {}
    for process in processes.marked(mark):
        with suppress(psutil.Error, OSError):
            function = process.environ().get("AWS_LAMBDA_FUNCTION_NAME", "")
            kind = function.split("-")[-2] if function else process.cmdline()[2]
            memory = process.memory_info().rss / 1e6
            sockets = len(process.net_connections("inet"))
            found.setdefault(kind, []).append((memory, sockets, process.num_fds() - sockets))
    for kind, held in sorted(found.items()):
        memory, sockets, files = (sum(column) for column in zip(*held, strict=True))
        yield Sample(kind, at, len(held), memory, int(sockets), int(files))


def growth(samples: Sequence[Sample]) -> list[str]:
    """Return what grew from the first third to the last, by kind of process and per process.

    There are as many processes of a function as its load needs; their number is not judged.
    """
    found = []
    for kind in sorted({s.kind for s in samples}):
        of_kind = [s for s in samples if s.kind == kind and s.at >= WARM_UP_SECONDS]
        third = len(of_kind) // 3
        if third < 3:
            continue
        for what in ("memory", "sockets", "files") if kind.endswith("Function") else ("files",):
            each = [getattr(s, what) / s.processes for s in of_kind]
            was, now = median(each[:third]), median(each[-third:])
            if now > (was * MEMORY_GROWTH if what == "memory" else was + HANDLES_GROWTH):
                found.append(f"{kind}: {what} grew from {was:.1f} to {now:.1f} a process")
    return found


def _report(samples: Sequence[Sample]) -> None:
    """Print about ten moments of each kind of process."""
    print(f"{'process':18} {'s':>6} {'number':>6} {'MB':>8} {'sockets':>8} {'files':>6}")
    for kind in sorted({s.kind for s in samples}):
        of_kind = [s for s in samples if s.kind == kind]
        for s in of_kind[:: max(1, len(of_kind) // 10)]:
            print(
                f"{kind:18} {s.at:6.0f} {s.processes:6} {s.memory:8.1f} {s.sockets:8} {s.files:6}"
            )
