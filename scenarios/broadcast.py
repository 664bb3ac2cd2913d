"""A broadcast to 10,000 with the notifier killed twice, and single messages beside it.

It fails unless every subscriber gets the broadcast once and its counts are right. It prints how
long the broadcast takes and how long single messages wait, with and without it.
"""

import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from statistics import median
from typing import Any

from scenarios.progress import progress
from tests.support.deployment import Deployment
from tests.support.notifier import kill_notifier
from tests.support.sandbox import Sandbox

PARAMETERS = {"MessagesPerSecond": "25"}
TEXT = "To everybody"
IDLE_MESSAGES = 10
PAUSE = 4.0  # seconds between two single messages
SINGLE_TIMEOUT = 120.0  # seconds


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument(
        "--subscribers", type=int, default=10_000, help="2,000 at least, or it is over too soon"
    )


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Send the broadcast and print the figures; return what went wrong."""
    subscribers: int = given.subscribers
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    one = sandbox.subscribers(sandbox.bots()[0]["id"])[0]["id"]
    bot = sandbox.add_bot("Everybody")
    everybody = {entry["id"] for entry in sandbox.add_subscribers(bot, subscribers)}
    _single(deployment, one)  # starts the functions
    idle = [_single(deployment, one) for _ in range(IDLE_MESSAGES)]

    began = time.monotonic()
    id_ = deployment.call("POST", "/broadcasts", {"botId": bot, "text": TEXT})["id"]
    kills = [subscribers // 4, subscribers // 2]
    state, beside = _follow(deployment, id_, one, kills)
    print(f"{subscribers} subscribers in {time.monotonic() - began:.0f} s")
    for name, waits in (("without", idle), ("beside", beside)):
        if waits:
            print(
                f"single message {name} the broadcast: "
                f"median {median(waits):.2f} s, longest {max(waits):.2f} s"
            )
    got = Counter(e["subscriberId"] for e in sandbox.ledger(text=TEXT, fields="subscriberId"))
    problems = []
    if kills:
        problems.append("the notifier was not killed twice")
    if got != Counter(everybody):
        missed, repeated = len(everybody - got.keys()), got.total() - len(got)
        problems.append(f"{missed} subscribers got nothing, {repeated} messages came once more")
    if state["status"] != "completed" or not state["sent"] == state["total"] == subscribers:
        problems.append(f"the broadcast ended as {state}")
    return problems


def _follow(
    deployment: Deployment, id_: str, subscriber: str, kills: list[int]
) -> tuple[dict[str, Any], list[float]]:
    """Watch a broadcast to its end, and send single messages beside it once all are enqueued.

    The notifier is killed as each number of `kills` is enqueued. Returns the broadcast's last state
    and the seconds that the single messages took.
    """
    table, name = deployment.client("dynamodb"), deployment.facts["tableName"]
    key = {"pk": {"S": f"broadcast#{id_}"}}
    beside: list[float] = []
    next_single = 0.0
    while True:
        state = deployment.call("GET", f"/broadcasts/{id_}")
        item = table.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]
        enqueued = int(item["enqueued"]["N"])
        progress(f"{enqueued} enqueued, {state['sent']} sent of {state['total']}")
        if kills and enqueued >= kills[0] and kill_notifier(deployment.home, deployment.facts):
            progress()
            print(f"killed the notifier at {enqueued} enqueued", flush=True)
            kills.pop(0)
        if state["status"] not in ("preparing", "running"):
            return state, beside
        if enqueued == state["total"] and time.monotonic() > next_single:
            beside.append(_single(deployment, subscriber))
            next_single = time.monotonic() + PAUSE
        time.sleep(0.2)


def _single(deployment: Deployment, subscriber: str) -> float:
    """Send one message and return the seconds from its acceptance to `sent`."""
    body = {"subscriberId": subscriber, "text": "A single message"}
    id_ = deployment.call("POST", "/messages", body)["id"]
    accepted = time.monotonic()
    while deployment.call("GET", f"/messages/{id_}")["status"] != "sent":
        if time.monotonic() > accepted + SINGLE_TIMEOUT:
            raise TimeoutError(f"a single message was not sent within {SINGLE_TIMEOUT:g} s")
        time.sleep(0.1)
    return time.monotonic() - accepted
