"""A thousand messages, a fifth of them faulty, with the publisher killed again and again.

It fails if an end has no event, if an event tells of none, if repeats differ, or if a consumer that
knows them by id and version does not end with the table's states. Then it measures how long after
its POST a message's event is on the bus.
"""

import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from relay.messages.states import TERMINAL
from scenarios.traffic import QUICK, Doors, chats, judge, plan
from tests.support.consumer import Consumer, consumer
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sabotage import kills, publisher_killed
from tests.support.verifier import Reader

PARAMETERS = {"MessagesPerSecond": "50", "Events": "all", **QUICK}


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("--messages", type=int, default=1000)


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Send everything, kill, wait, print the figures; return what is not as promised."""
    planned = plan("events", range(given.messages), chats(deployment), faulty_every=5)
    with consumer(deployment, "scenario") as follower, TemporaryDirectory() as marks:
        with publisher_killed(deployment, Path(marks)), ThreadPoolExecutor(8) as pool:
            ids = Doors(deployment).send(planned, pool)
            problems = judge(deployment, ids)
        killed = kills(Path(marks))
        problems += _differences(deployment, follower)
        print(f"the publisher was killed {killed} times; {follower.repeats} events came again")
        if not (killed and follower.repeats):
            problems.append("too few kills to show anything")
        _measure(deployment, follower)
    return problems


def _differences(deployment: Deployment, follower: Consumer) -> list[str]:
    """Return where the consumer does not know what the table knows."""
    follower.read()
    records = Reader(deployment.facts, deployment.home).read().records
    return [
        f"{id_} is {record.state}, and its consumer believes {follower.status(id_) or 'nothing'}"
        for id_, record in records.items()
        if record.state in TERMINAL and follower.status(id_) != record.state
    ]


def _measure(deployment: Deployment, follower: Consumer, count: int = 30) -> None:
    """Print how long after its POST a message's event has reached the consumer."""
    took = []
    for message in plan("timed", range(count), chats(deployment), faulty_every=count + 1)[1:]:
        began = time.monotonic()
        id_ = deployment.call("POST", "/messages", message.envelope)["id"]
        until(lambda id_=id_: follower.read().status(id_), "event", every=0.01)  # type: ignore[misc]
        took.append((time.monotonic() - began) * 1000)
    p90 = quantiles(took, n=10)[-1]
    print(
        f"from POST to event: median {median(took):.0f} ms, p90 {p90:.0f} ms, {len(took)} messages"
    )
