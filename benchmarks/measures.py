"""The measurements: each runs its sides in turns and returns plain numbers."""

import json
import math
import os
import re
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from benchmarks import exchange
from benchmarks.artifact import HOME, ROOT, Artifact
from benchmarks.emulator import Function
from local import processes
from local.stack import Settings, Stack
from tests.support import events
from tests.support.stub import Stub, stub
from tests.support.template import settings

HERE = Path(__file__).parent
COLD_STARTS = 9
LATENCY = 0.1
"""The provider's, in seconds."""
IN_FLIGHT = (34, 4, 10, 17, 25, 50, 100)
"""relay.wiring's first."""
DRAIN_TIMEOUT = 600.0  # seconds
MEGABYTES = 512
"""The functions' MemorySize in template.yaml."""
WHOLE_PROCESSOR = 1769
"""Megabytes with which a function gets a whole processor; less get their share."""
NOT_WARM = 2
"""Invocations of a fresh environment that are not counted as warm."""


@dataclass(frozen=True)
class Spread:
    """A median of several runs, with their median absolute deviation."""

    median: float
    deviation: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize runs."""
        median = statistics.median(values)
        deviation = statistics.median(abs(value - median) for value in values)
        return cls(median, deviation, len(values))


def ratios(these: Sequence[float], those: Sequence[float]) -> Spread:
    """Return the ratio of two sides that took turns, round by round."""
    return Spread.of([this / that for this, that in zip(these, those, strict=True)])


def cold_starts(artifact: Artifact) -> dict[str, list[float]]:
    """Return INIT's milliseconds by side: `empty`, each function, and `NAME plain` for each."""
    sides: dict[str, tuple[Path, Path | None]] = {"empty": (HERE / "empty", None)}
    for name in artifact.names:
        sides[name] = (artifact.functions / name, artifact.layer)
        sides[f"{name} plain"] = (artifact.functions / name, artifact.plain)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(COLD_STARTS):
        for side, (code, layer) in sides.items():
            with Function(artifact.python, code, layer=layer, environment=settings()) as function:
                found[side].append(function.start())
    return dict(found)


GROUPS = {
    "pydantic": ("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
    "botocore": ("botocore", "dateutil", "jmespath", "six"),
    "Powertools": ("aws_lambda_powertools",),
    "urllib3": ("urllib3",),
    "relay, smsgold": ("relay", "smsgold"),
}


def where_init_goes(artifact: Artifact) -> dict[str, dict[str, float]]:
    """Return the milliseconds of importing each function by what is imported.

    Each module's own time is the least of several imports; what is left of a function's own module
    is its making: clients, TLS context, routes.
    """
    found = {}
    for name in artifact.names:
        found[name] = _imports(artifact, artifact.functions / name, artifact.layer)
    found["sender, plain"] = _imports(artifact, artifact.functions / "sender", artifact.plain)
    return found


def _imports(artifact: Artifact, code: Path, layer: Path) -> dict[str, float]:
    least: dict[str, float] = {}
    for _ in range(3):
        done = subprocess.run(
            [str(artifact.python), "-X", "importtime", "-c", "import app"],
            env=_environment(settings(), code, layer),
            capture_output=True,
            check=True,
            text=True,
        )
        for line in done.stderr.splitlines():
            if found := re.fullmatch(r"import time: +(\d+) \| +\d+ \| +(\S+)", line):
                took = int(found[1]) / 1000
                least[found[2]] = min(least.get(found[2], math.inf), took)
    groups = dict.fromkeys(("Python's own", *GROUPS, "made at start"), 0.0)
    for module, took in least.items():
        package = module.partition(".")[0]
        group = next((g for g, names in GROUPS.items() if package in names), "Python's own")
        groups["made at start" if module == "app" else group] += took
    return groups


def batches(artifact: Artifact) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and CPU seconds of a batch of sends, in rounds.

    By the number in flight, and at relay.wiring's number by what the client stands on.
    """
    with stub(provider=LATENCY) as running:
        done = subprocess.run(
            [
                *(str(artifact.python), "-m", "benchmarks.exchange"),
                *(running.provider, *map(str, IN_FLIGHT)),
            ],
            env=_environment(running.environment, ROOT, artifact.layer),
            capture_output=True,
            check=True,
            text=True,
        )
    return dict(json.loads(done.stdout))


def bound(number: int) -> float:
    """Return the least seconds a batch can take with so many in flight."""
    return math.ceil(exchange.MESSAGES / number) * LATENCY


@dataclass(frozen=True)
class Sending:
    """Warm batches of one size by the sender and by the sequential reference."""

    ours: list[float]
    """Billed milliseconds a message."""
    reference: list[float]


def sending(artifact: Artifact, size: int, rounds: int) -> Sending:
    """Measure the whole sender beside the sequential reference."""
    found: dict[str, list[float]] = {}
    with (
        stub(provider=LATENCY) as running,
        _function(artifact, running, "sender", rate="0") as ours,
        Function(
            artifact.python,
            HERE / "reference",
            layer=artifact.plain,
            environment=running.environment,
        ) as reference,
    ):
        for function in (ours, reference):
            function.start()
            for _ in range(NOT_WARM):
                function.invoke(_batch(10))
        before = {f: len(f.billed_milliseconds()) for f in (ours, reference)}
        for _ in range(rounds):
            for function in (ours, reference):
                function.invoke(_batch(size))
        found = {
            name: [ms / size for ms in function.billed_milliseconds()[before[function] :]]
            for name, function in (("ours", ours), ("reference", reference))
        }
    return Sending(found["ours"], found["reference"])


@dataclass(frozen=True)
class Cpu:
    """CPU milliseconds of batches of 100 in fresh environments: the first, and the warm ones."""

    first: list[float]
    warm: list[float]


def cpu(artifact: Artifact, environments: int = 3, batches_each: int = 6) -> Cpu:
    """Measure the CPU of the sender's batches, everything included, paced at 100 a second."""
    first, warm = [], []
    for _ in range(environments):
        with (
            stub(provider=LATENCY) as running,
            _function(artifact, running, "sender", rate="100") as function,
        ):
            function.start()
            took = [function.invoke(_batch(100)).cpu_milliseconds for _ in range(batches_each)]
        first.append(took[0])
        warm += took[1:]
    return Cpu(first, warm)


def memory(artifact: Artifact, messages: int = 10_000, size: int = 100) -> dict[int, float]:
    """Return the sender's peak megabytes after 1,000 messages and after all of them."""
    found = {}
    with (
        stub(provider=0.005, aws=0.0) as running,
        _function(artifact, running, "sender", rate="0") as function,
    ):
        function.start()
        for sent in range(size, messages + 1, size):
            function.invoke(_batch(size))
            if sent in {1000, messages}:
                found[sent] = function.peak_megabytes()
    return found


@dataclass(frozen=True)
class Memory:
    """Billed milliseconds with the share of the processor that a memory size brings."""

    megabytes: int
    took: dict[str, Spread]
    """By what was invoked: `api`, and batches of the sender by their size."""


def memory_sizes(
    artifact: Artifact, sizes: Sequence[int] = (256, 512, 1024, 1769), rounds: int = 7
) -> list[Memory]:
    """Measure warm functions at each memory size's share of a processor, in turns."""
    found: dict[int, dict[str, list[float]]] = {size: defaultdict(list) for size in sizes}
    with (
        stub(provider=0.2) as running,
        _function(artifact, running, "api", rate="100") as api,
        _function(artifact, running, "sender", rate="0") as sender,
    ):
        asked: dict[str, tuple[Function, Callable[[], bytes]]] = {
            "api": (api, lambda: events.http("/messages", events.envelope())),
            "10": (sender, lambda: _batch(10)),
            "100": (sender, lambda: _batch(100)),
        }
        for function, event in asked.values():
            for _ in range(NOT_WARM):
                function.invoke(event())
        for _ in range(rounds):
            for size in sizes:
                for name, (function, event) in asked.items():
                    with function.throttled(size / WHOLE_PROCESSOR):
                        function.invoke(event())
                    found[size][name].append(function.billed_milliseconds()[-1])
    return [
        Memory(size, {name: Spread.of(took) for name, took in by_name.items()})
        for size, by_name in found.items()
    ]


@dataclass(frozen=True)
class Door:
    """What messages by one door ask of AWS: each count measured, as a message's share."""

    name: str
    counts: dict[str, float]


def doors(artifact: Artifact, batch: int, rounds: int = 5) -> list[Door]:
    """Count what a message asks of the table, the queue and the functions, by each door.

    `batch` messages reach the sender together. Billed time is that of warm functions with their
    share of a processor, with the provider at 200 ms and pacing at work.
    """
    one_by_one = [events.http("/messages", events.envelope()) for _ in range(rounds * batch)]
    all_requests = {
        "POST /messages": one_by_one,
        "POST /messages/batch": [events.http_batch(100)],
        "SQS": [],
    }
    found = []
    with (
        stub(provider=0.2) as running,
        _function(artifact, running, "api", rate="100") as api,
        _function(artifact, running, "sender", rate="100") as sender,
    ):
        for function, event in (
            (api, one_by_one[0]),
            (sender, _batch(batch)),
        ):
            function.start()
            for _ in range(NOT_WARM):
                function.invoke(event)
        for name, requests in all_requests.items():
            running.reset()
            totals: Counter[str] = Counter()
            totals["log bytes"] = -api.logged_bytes() - sender.logged_bytes()
            for request in requests:
                with api.throttled(MEGABYTES / WHOLE_PROCESSOR):
                    api.invoke(request)
                totals["api requests"] += 1
                totals["api milliseconds"] += math.ceil(api.billed_milliseconds()[-1])
            bodies = running.bodies() or [events.envelope() for _ in range(rounds * batch)]
            for start in range(0, len(bodies), batch):
                with sender.throttled(MEGABYTES / WHOLE_PROCESSOR):
                    sender.invoke(events.sqs(bodies[start : start + batch]))
                totals["sender invocations"] += 1
                totals["sender milliseconds"] += math.ceil(sender.billed_milliseconds()[-1])
            totals["log bytes"] += api.logged_bytes() + sender.logged_bytes()
            totals.update(running.counts)
            counts = {what: count / totals["posts"] for what, count in totals.items()}
            found.append(Door(name, counts | {"largest item": running.counts["largest item"]}))
    return found


def drain(sizes: Sequence[int] = (*[100] * 9, *[1_000] * 3, *[10_000] * 2)) -> dict[int, float]:
    """Return the seconds in which the local stack delivers so many queued messages, pacing off.

    Until the queue is empty, and with it the last outcome written; the median of each size's runs.
    """
    found: dict[int, list[float]] = defaultdict(list)
    with stub(provider=0.02) as running:
        os.environ["SSL_CERT_FILE"] = running.certificates
        stack = Stack(
            Settings(
                home=HOME / "stack",
                port=processes.free_port(),
                provider_base_url=running.provider,
                parameters={"MessagesPerSecond": "0"},
            ),
            say=lambda _: None,
        )
        try:
            facts = stack.up()
            _drained(facts, running, sizes[0])  # warms everything up
            for size in sizes:
                found[size].append(_drained(facts, running, size))
        finally:
            stack.stop()
            del os.environ["SSL_CERT_FILE"]
    return {size: statistics.median(seconds) for size, seconds in found.items()}


def _drained(facts: Mapping[str, str], running: Stub, size: int) -> float:
    session = boto3.Session(
        facts["accessKeyId"], facts["secretAccessKey"], region_name=facts["region"]
    )
    endpoint = facts["awsEndpoint"]
    sqs = session.client("sqs", endpoint_url=endpoint)
    functions = session.client("lambda", endpoint_url=endpoint)
    name = facts["senderFunction"]
    sources = functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    for source in sources:
        functions.update_event_source_mapping(UUID=source["UUID"], Enabled=False)
    for start in range(0, size, 10):
        entries: list[Any] = [
            {"Id": str(i), "MessageBody": events.envelope()} for i in range(start, start + 10)
        ]
        sqs.send_message_batch(QueueUrl=facts["messagesQueueUrl"], Entries=entries)
    done = running.counts.get("posts", 0) + size
    for source in sources:
        functions.update_event_source_mapping(UUID=source["UUID"], Enabled=True)
    began = time.perf_counter()
    while running.counts.get("posts", 0) < done:
        if time.perf_counter() - began > DRAIN_TIMEOUT:
            raise TimeoutError(f"{size} messages were not delivered in {DRAIN_TIMEOUT} s")
        time.sleep(0.01)
    while _left(sqs, facts["messagesQueueUrl"]):
        time.sleep(0.01)
    return time.perf_counter() - began


def _left(sqs: Any, url: str) -> int:
    """Return how many messages are still on a queue, those under way included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(count) for count in found.values())


def _function(artifact: Artifact, running: Stub, name: str, *, rate: str) -> Function:
    return Function(
        artifact.python,
        artifact.functions / name,
        layer=artifact.layer,
        environment={**running.environment, "MESSAGES_PER_SECOND": rate},
    )


def _batch(size: int) -> bytes:
    return events.sqs([events.envelope() for _ in range(size)])


def _environment(variables: dict[str, str], code: Path, layer: Path) -> dict[str, str]:
    return {
        **variables,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(code), str(layer), str(ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
    }
