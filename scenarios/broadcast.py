"""A broadcast to 10,000 with the notifier killed twice, and single messages sent meanwhile.

`make bench-broadcast` runs it on a stack of its own and prints what docs/broadcasts.md tells: that
every subscriber got it once, what a single message waits, and how fast the broadcast went.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import requests

from local import processes
from local.stack import REGION, Settings, Stack
from tests.support.notifier import kill_notifier
from tests.support.sandbox import Sandbox

RATE = 25
TEXT = "To everybody"
IDLE_MESSAGES = 10
PAUSE = 4.0  # seconds between two single messages


class Api:
    """The stack's API."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        self._facts = facts

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Make a request that must succeed."""
        response = requests.request(
            method,
            self._facts["apiUrl"] + path,
            json=body,
            headers={"x-api-key": self._facts["apiKey"]},
            timeout=60,
        )
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def single(api: Api, subscriber: str, n: str) -> float:
    """Send one message and return the seconds from its acceptance to its arrival."""
    id_ = api.call("POST", "/messages", {"subscriberId": subscriber, "text": f"single {n}"})["id"]
    accepted = time.monotonic()
    while api.call("GET", f"/messages/{id_}")["status"] != "sent":
        if time.monotonic() > accepted + 120:
            raise TimeoutError(f"single message {n} was not sent within two minutes")
        time.sleep(0.1)
    return time.monotonic() - accepted


def told(name: str, seconds: list[float]) -> str:
    """Describe a series of waits."""
    worst = max(seconds)
    return f"{name:28} median {statistics.median(seconds):5.2f} s, longest {worst:5.2f} s"


def run(stack: Stack, facts: Mapping[str, str], subscribers: int) -> bool:
    """Do the run and print what came of it; tell whether all is as promised."""
    api, sandbox = Api(facts), Sandbox.at(facts["sandboxUrl"])
    bot = sandbox.add_bot("Everybody")
    everybody = {entry["id"] for entry in sandbox.add_subscribers(bot, subscribers)}
    one = sandbox.subscribers(sandbox.bots()[0]["id"])[0]["id"]
    table = boto3.client(
        "dynamodb",
        endpoint_url=facts["awsEndpoint"],
        region_name=REGION,
        aws_access_key_id=facts["accessKeyId"],
        aws_secret_access_key=facts["secretAccessKey"],
    )
    single(api, one, "first")  # starts the functions
    idle = [single(api, one, f"idle {n}") for n in range(IDLE_MESSAGES)]

    began = time.monotonic()
    id_ = api.call("POST", "/broadcasts", {"botId": bot, "text": TEXT})["id"]
    kills = [subscribers // 4, subscribers // 2]
    waits: list[float] = []
    beside = 0.0
    while True:
        state = api.call("GET", f"/broadcasts/{id_}")
        item = table.get_item(
            TableName=facts["tableName"], Key={"pk": {"S": f"broadcast#{id_}"}}, ConsistentRead=True
        )["Item"]
        enqueued = int(item["enqueued"]["N"])
        print(
            f"\r{time.monotonic() - began:5.0f} s  enqueued {enqueued}, sent {state['sent']}"
            f" of {state['total']}",
            end="",
            flush=True,
        )
        if kills and enqueued >= kills[0]:
            kills.pop(0)
            killed = kill_notifier(stack.home, facts)
            print(f"\nkilled the notifier at {enqueued} enqueued ({killed} process)")
        if state["status"] == "completed":
            break
        if enqueued == subscribers and time.monotonic() > beside:
            waits.append(single(api, one, f"beside {len(waits)}"))
            beside = time.monotonic() + PAUSE
        time.sleep(0.2)
    took = time.monotonic() - began

    got = Counter(
        entry["subscriberId"] for entry in sandbox.ledger(text=TEXT, fields="subscriberId")
    )
    each_once = set(got) == everybody and set(got.values()) == {1}
    right = state["sent"] == state["total"] == subscribers and state["queued"] == 0
    print(f"\n\n{subscribers} subscribers in {took:.0f} s, the notifier killed twice")
    print(f"everybody got it once: {each_once}; the counts are right: {right}")
    print(told("single message, idle", idle))
    print(told("single message, beside it", waits))
    return each_once and right and not kills


def main() -> int:
    """Run it on a fresh stack; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=RATE)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(
            Settings(
                home=Path(home),
                port=processes.free_port(),
                sandbox_port=processes.free_port(),
                parameters={"MessagesPerSecond": str(given.rate)},
            )
        )
        facts = stack.up()
        try:
            return 0 if run(stack, facts, given.subscribers) else 1
        finally:
            stack.stop()


if __name__ == "__main__":
    raise SystemExit(main())
