"""A personal broadcast to 10,000, the notifier killed twice, and single messages beside it.

It fails unless every subscriber gets their own text once, as a dry run renders it, and the counts
are right. It prints how
long the broadcast takes and how long single messages wait, with and without it.
"""

import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from relay.broadcasts.audience import Personal
from relay.broadcasts.model import Broadcast
from relay.validation import validate
from scenarios.progress import progress
from tests.support.deployment import Deployment
from tests.support.notifier import kill_notifier
from tests.support.sandbox import Sandbox

PARAMETERS = {"MessagesPerSecond": "25"}
TEXT = "{{ name }} ({{ city || '?' }}), number {{ number }}, good news!"
IDLE_MESSAGES = 10
MOST_SINGLE = 100
WARM_UP = 60  # subscribers of a broadcast for which Lambda starts all the senders that it needs
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
    # Each to a chat of its own: a chat gets one message a second.
    apart = sandbox.add_subscribers(sandbox.add_bot("One by one"), 2 * MOST_SINGLE)
    chats = iter([entry["id"] for entry in apart])
    bot = sandbox.add_bot("Everybody")
    entries = sandbox.add_subscribers(bot, subscribers)
    request = {"botId": bot, "template": True, "text": TEXT}
    personal = Personal(validate(Broadcast, request))
    expected = {
        (entry["id"], str(personal.content(personal.values(entry))["text"])) for entry in entries
    }
    _warm_up(deployment, sandbox, chats)
    idle = [_single(deployment, next(chats)) for _ in range(IDLE_MESSAGES)]

    began = time.monotonic()
    tried = deployment.call("POST", "/broadcasts", {**request, "dryRun": True})
    id_ = deployment.call("POST", "/broadcasts", request)["id"]
    kills = [subscribers // 4, subscribers // 2]
    state, beside = _follow(deployment, id_, chats, kills, (subscribers / given.rate) / MOST_SINGLE)
    print(f"{subscribers} subscribers in {time.monotonic() - began:.0f} s")
    for name, waits in (("without", idle), ("beside", beside)):
        if waits:
            print(
                f"{len(waits)} single messages {name} the broadcast: "
                f"median {median(waits):.2f} s, longest {max(waits):.2f} s"
            )
    ledger = sandbox.ledger(fields="botId,subscriberId,text")
    got = Counter((e["subscriberId"], e["text"]) for e in ledger if e["botId"] == bot)
    problems = []
    if kills:
        problems.append("the notifier was not killed twice")
    if got != Counter(expected):
        missed, repeated = len(expected - got.keys()), got.total() - len(got)
        problems.append(f"{missed} texts came to nobody, {repeated} messages came once more")
    samples = {(sample["subscriberId"], sample["text"]) for sample in tried["samples"]}
    if tried["total"] != state["total"] or not samples <= expected:
        problems.append(f"the dry run said {tried}")
    if state["status"] != "completed" or not state["sent"] == state["total"] == subscribers:
        problems.append(f"the broadcast ended as {state}")
    return problems


def _warm_up(deployment: Deployment, sandbox: Sandbox, chats: Iterator[str]) -> None:
    """Start the functions: on two busy cores that takes seconds, and on AWS a cold start."""
    bot = sandbox.add_bot("Warm-up")
    sandbox.add_subscribers(bot, WARM_UP)
    id_ = deployment.call("POST", "/broadcasts", {"botId": bot, "text": "Warm-up"})["id"]
    while deployment.call("GET", f"/broadcasts/{id_}")["status"] != "completed":
        _single(deployment, next(chats))


def _follow(
    deployment: Deployment, id_: str, chats: Iterator[str], kills: list[int], every: float
) -> tuple[dict[str, Any], list[float]]:
    """Watch a broadcast to its end, and send single messages beside it, `every` so many seconds.

    The notifier is killed as each number of `kills` is enqueued. Returns the broadcast's last state
    and the seconds that the single messages took.
    """
    table, name = deployment.client("dynamodb"), deployment.facts["tableName"]
    key = {"pk": {"S": f"broadcast#{id_}"}}
    beside: list[float] = []
    next_single = 0.0
    killed_at = -1  # a run that is only starting is no run that works
    while True:
        state = deployment.call("GET", f"/broadcasts/{id_}")
        item = table.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]
        enqueued = int(item["enqueued"]["N"])
        progress(f"{enqueued} enqueued, {state['sent']} sent of {state['total']}")
        due = kills and enqueued >= kills[0] and enqueued > killed_at
        if due and kill_notifier(deployment.home, deployment.facts):
            progress()
            killed_at = enqueued
            print(f"killed the notifier at {enqueued} enqueued", flush=True)
            kills.pop(0)
        if state["status"] not in ("preparing", "running"):
            return state, beside
        busy = 0 < state["sent"] < state["total"]
        if busy and len(beside) < MOST_SINGLE and time.monotonic() > next_single:
            next_single = time.monotonic() + every
            beside.append(_single(deployment, next(chats)))
        time.sleep(0.05)


def _single(deployment: Deployment, subscriber: str) -> float:
    """Send one message and return the seconds from its acceptance to `sent`."""
    body = {"subscriberId": subscriber, "text": "A single message"}
    id_ = deployment.call("POST", "/messages", body)["id"]
    accepted = time.monotonic()
    while deployment.call("GET", f"/messages/{id_}")["status"] != "sent":
        if time.monotonic() > accepted + SINGLE_TIMEOUT:
            raise TimeoutError(f"a single message was not sent within {SINGLE_TIMEOUT:g} s")
        time.sleep(0.05)
    return time.monotonic() - accepted
