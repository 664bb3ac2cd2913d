"""The account's pace with 2, 5 and 10 concurrent senders.

Each sender is a process that delivers batches of ten, one after the other, as Lambda does. All
share one table, and one account at the sandbox, whose ledger says when each message arrived. It
fails if any second holds more than the rate and its documented burst, or if the senders together
use less than 95 % of the rate.
"""

import os
import signal
import tempfile
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import boto3

from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import GRACE
from relay.messages.results import Received
from tests.support.ministack import ministack
from tests.support.sandbox import Sandbox
from tests.support.template import settings

RATE = 25.0
SENDERS = (2, 5, 10)
WARM_UP = 3.0  # seconds until every sender has its connections
BATCH = 10
LATENCY = "latency ms=100 jitter=100"
AWS = {
    "AWS_ACCESS_KEY_ID": "scenario",
    "AWS_SECRET_ACCESS_KEY": "scenario",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of senders")


def run(given: Namespace) -> list[str]:
    """Measure each number of senders; return what is not as promised."""
    problems = []
    with (
        tempfile.TemporaryDirectory() as home,
        ministack(Path(home)) as endpoint,
        Sandbox() as sandbox,
    ):
        os.environ |= {**AWS, "AWS_ENDPOINT_URL": endpoint}
        functions = settings(endpoint)
        boto3.client("secretsmanager").create_secret(
            Name=functions["PROVIDER_CREDENTIALS"],
            SecretString='{"user": "10001", "pass": "sandbox-password"}',
        )
        for senders in SENDERS:
            sandbox.forget()
            sandbox.arm(LATENCY)
            environment = {
                **functions,
                "MESSAGES_PER_SECOND": f"{RATE:g}",
                "PROVIDER_BASE_URL": sandbox.base_url,
                "RELAY_TABLE": _table(f"pacing-{senders}"),
            }
            _send(senders, given.seconds, environment)
            problems += _judge(senders, given.seconds, sandbox)
    return problems


def _table(name: str) -> str:
    boto3.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    return name


def _send(senders: int, seconds: float, environment: Mapping[str, str]) -> None:
    """Let so many senders send for a while."""
    context = get_context("spawn")
    ready = context.Barrier(senders)
    given = (environment, ready, WARM_UP + seconds + 1.0)
    processes = [context.Process(target=_be_sender, args=given) for _ in range(senders)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0, "a sender failed"
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()


def _be_sender(environment: Mapping[str, str], ready: Barrier, seconds: float) -> None:
    """Deliver batch after batch with the sender that the deployed function has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.environ |= environment
    from relay import wiring  # noqa: PLC0415 - it reads the settings as it is imported

    sender = wiring.sender()
    ready.wait()
    ends_at = time.time() + seconds
    while (now := time.time()) < ends_at:
        batch = [
            Received(
                QueuedMessage(
                    id=uuid.uuid4().hex, subscriberId="65f1c0a2b3d4e5f6a7b8d101", text="pace"
                ),
                door="sqs",
                sent_at=now,
            )
            for _ in range(BATCH)
        ]
        sender.deliver(batch, ends_at=now + 60.0)


def _judge(senders: int, seconds: float, sandbox: Sandbox) -> list[str]:
    """Print when the messages came, and return what is not as promised."""
    times = sorted(float(entry["time"]) for entry in sandbox.ledger(fields="time"))
    start = times[0] + WARM_UP
    seen = [at for at in times if start <= at < start + seconds]
    throughput = len(seen) / seconds / RATE
    busiest = max(sum(first <= at < first + 1 for at in times) for first in times)
    allowed = RATE * (1 + GRACE) + 1
    gap = max(b - a for a, b in pairwise(seen))
    print(
        f"{senders:2} senders: {throughput:6.1%} of {RATE:g}/s; busiest second {busiest} messages, "
        f"{allowed:g} allowed; longest gap {gap:.2f} s",
        flush=True,
    )
    problems = []
    if busiest > allowed:
        problems.append(f"{senders} senders: {busiest} messages in one second")
    if throughput < 0.95:
        problems.append(f"{senders} senders: only {throughput:.1%} of the rate")
    return problems
