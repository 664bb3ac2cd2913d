"""The account's pace with 2, 5 and 10 concurrent senders.

Each sender is a process that delivers batches of ten, one after the other, as Lambda does. All
share the stack's table and the account at the sandbox, whose ledger says when each message
arrived. It fails if any second holds more than the rate and its documented burst, or if the senders
together use less than 95 % of the rate.
"""

import os
import signal
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import GRACE
from relay.messages.results import Received
from scenarios.progress import progress
from scenarios.traffic import chats
from tests.support.deployment import Deployment
from tests.support.sandbox import Sandbox

PARAMETERS = {"MessagesPerSecond": "25"}
SENDERS = (2, 5, 10)
WARM_UP = 3.0  # seconds until every sender has its connections
BATCH = 10


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("--seconds", type=float, default=20.0, help="for each number of senders")


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Measure each number of senders; return what is not as promised."""
    facts, problems = deployment.facts, []
    sandbox = Sandbox.at(facts["sandboxUrl"])
    deployed = deployment.client("lambda").get_function_configuration(
        FunctionName=facts["senderFunction"]
    )
    environment = {
        **deployed["Environment"]["Variables"],
        "AWS_ACCESS_KEY_ID": facts["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": facts["secretAccessKey"],
        "AWS_DEFAULT_REGION": facts["region"],
        "AWS_ENDPOINT_URL": facts["awsEndpoint"],
    }
    to = chats(deployment)
    for senders in SENDERS:
        progress(f"{senders} senders for {given.seconds:g} seconds")
        sandbox.forget()
        sandbox.arm("latency ms=100 jitter=100")
        _send(senders, WARM_UP + given.seconds + 1.0, environment, to)
        times = sorted(float(entry["time"]) for entry in sandbox.ledger(fields="time"))
        problems += _judge(senders, given.rate, given.seconds, times)
    return problems


def _send(senders: int, seconds: float, environment: Mapping[str, str], to: Sequence[str]) -> None:
    """Let so many senders send for a while."""
    context = get_context("spawn")
    ready = context.Barrier(senders)
    # Each has chats of its own, or two of them would send to one at once.
    processes = [
        context.Process(target=_be_sender, args=(environment, ready, seconds, to[i::senders]))
        for i in range(senders)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0, "a sender failed"
    finally:
        for process in [process for process in processes if process.is_alive()]:
            process.kill()
            process.join()


def _be_sender(
    environment: Mapping[str, str], ready: Barrier, seconds: float, to: Sequence[str]
) -> None:
    """Deliver batch after batch, with the sender that the deployed function has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.environ |= environment
    from relay import wiring  # noqa: PLC0415 - it reads the settings as it is imported

    sender = wiring.sender()
    chat = cycle(to)
    ready.wait()
    ends_at = time.time() + seconds
    while (now := time.time()) < ends_at:
        messages = [
            QueuedMessage(id=uuid.uuid4().hex, subscriberId=next(chat), text="pace")
            for _ in range(BATCH)
        ]
        batch = [Received(message, door="sqs", sent_at=now) for message in messages]
        sender.deliver(batch, ends_at=now + 60.0)


def _judge(senders: int, rate: int, seconds: float, times: list[float]) -> list[str]:
    """Print how evenly the messages came, and return what is not as promised."""
    start = times[0] + WARM_UP
    seen = [at for at in times if start <= at < start + seconds]
    used = len(seen) / seconds / rate
    busiest = max(sum(first <= at < first + 1 for at in times) for first in times)
    allowed = rate * (1 + GRACE) + 1
    gap = max(b - a for a, b in pairwise(seen))
    progress()
    print(
        f"{senders:2} senders: {used:6.1%} of {rate}/s; busiest second {busiest} messages, "
        f"{allowed:g} allowed; longest gap {gap:.2f} s",
        flush=True,
    )
    problems = []
    if busiest > allowed:
        problems.append(f"{senders} senders: {busiest} messages in one second")
    if used < 0.95:
        problems.append(f"{senders} senders: only {used:.1%} of the rate")
    return problems
