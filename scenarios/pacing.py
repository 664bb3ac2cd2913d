"""Measure the account's pace: `python -m scenarios.pacing`.

So many senders, each a process with its own sender, share one table (MiniStack's) and one account
at the sandbox, whose ledger tells when each message arrived. Each sender takes a batch of ten, as
Lambda does, and the next one as soon as it is done. The command fails if a one-second window holds
more than the rate and the documented burst, or the throughput is below 95 % of the rate.
"""

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import boto3

from relay.messages.breaker import Breaker
from relay.messages.dead_letters import DeadLetters
from relay.messages.dispatch import Dispatcher
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import GRACE, TablePacer
from relay.messages.queues import SqsQueues
from relay.messages.results import Received
from relay.messages.sender import Sender
from relay.messages.states import Rules
from relay.messages.store import TableStore
from smsgold.client import Client
from smsgold.credentials import CredentialsSource
from tests.support.ministack import ministack
from tests.support.sandbox import Sandbox
from tests.support.world import MemoryGate, World

RATE = 25.0
SENDERS = (2, 5, 10)
SECONDS = 20.0
WARM_UP = 3.0  # seconds until every sender has its connections
BATCH = 10
CREDENTIALS = '{"user": "10001", "pass": "sandbox-password"}'
LATENCY = "latency ms=100 jitter=100"
ACCOUNT = boto3.Session("benchmark", "benchmark", region_name="us-east-1")


def send(endpoint: str, provider: str, table: str) -> None:
    """Be one sender: say when ready, be told until when, and deliver batch after batch."""
    dynamodb = ACCOUNT.client("dynamodb", endpoint_url=endpoint)
    sqs = ACCOUNT.client("sqs", endpoint_url=endpoint)
    urls = dict.fromkeys(("messages_url", "broadcast_url", "notifier_url", "dead_letter_url"), "")
    with ThreadPoolExecutor(32) as executor:
        store, pacer = TableStore(dynamodb, table), TablePacer(dynamodb, table, RATE)
        sender = Sender(
            store=store,
            gate=MemoryGate(World()),
            pacer=pacer,
            dispatcher=Dispatcher(
                provider=Client(provider),
                credentials=CredentialsSource(lambda: CREDENTIALS),
                breaker=Breaker(),
                pacer=pacer,
                executor=executor,
                provider_timeout=12.0,
                longest_hold=600.0,
            ),
            dead_letters=DeadLetters(store, SqsQueues(sqs, **urls)),
            rules=Rules(),
        )
        dynamodb.describe_table(TableName=table)
        print("ready", flush=True)
        ends_at = float(sys.stdin.readline())
        while (now := time.time()) < ends_at:
            batch = [
                Received(
                    QueuedMessage(
                        id=uuid.uuid4().hex, subscriberId="65f1c0a2b3d4e5f6a7b8d101", text="pace"
                    ),
                    "sqs",
                    now,
                )
                for _ in range(BATCH)
            ]
            sender.deliver(batch, ends_at=now + 60.0)


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin
    process.stdin.write(line)
    process.stdin.flush()


def measure(senders: int, endpoint: str, sandbox: Sandbox) -> bool:
    """Let so many senders send, print what came of it, and tell whether it is as promised."""
    table = f"pacing-{senders}"
    ACCOUNT.client("dynamodb", endpoint_url=endpoint).create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    sandbox.forget()
    sandbox.arm(LATENCY)
    command = [sys.executable, "-m", "scenarios.pacing", "--sender"]
    processes = [
        subprocess.Popen(
            [*command, endpoint, sandbox.base_url, table],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(senders)
    ]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    ends_at = f"{time.time() + WARM_UP + SECONDS + 3.0}\n"
    for process in processes:
        _tell(process, ends_at)
    failed = [process for process in processes if process.wait()]
    if failed:
        raise RuntimeError(f"{len(failed)} senders failed")
    times = sorted(float(entry["time"]) for entry in sandbox.ledger(fields="time"))
    first = times[0] + WARM_UP
    seen = [at for at in times if first <= at < first + SECONDS]
    most = max(len([1 for at in times if first <= at < first + 1]) for first in times)
    allowed = RATE * (1 + GRACE) + 1
    throughput = len(seen) / SECONDS / RATE
    gap = max(b - a for a, b in pairwise(seen))
    print(
        f"{senders:2} senders: {throughput:6.1%} of {RATE:g}/s; busiest second {most} messages, "
        f"{allowed:g} allowed; longest gap {gap:.2f} s",
        flush=True,
    )
    return most <= allowed and throughput >= 0.95


def main(arguments: Sequence[str]) -> int:
    """Measure each number of senders; 1 if one misses what is promised."""
    match arguments:
        case ["--sender", endpoint, provider, table]:
            send(endpoint, provider, table)
            return 0
    with (
        tempfile.TemporaryDirectory() as home,
        ministack(Path(home)) as endpoint,
        Sandbox() as sandbox,
    ):
        kept = [measure(senders, endpoint, sandbox) for senders in SENDERS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
