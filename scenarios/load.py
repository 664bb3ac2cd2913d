"""A load through all doors, a fifth of it faulty: `make load`.

It starts a stack of its own, sends a thousand messages by HTTP, one by one and in batches, by the
queue and by the notifier, waits until all have ended, and prints the figures. It fails if the
verifier finds a broken promise, or a message ends otherwise than its fault says.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests

from local import processes
from local.stack import Settings, Stack
from relay.messages.states import TERMINAL, State
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.verifier import Evidence, Reader, Sent, violations

MESSAGES = 1000
DOORS = ("http", "batch", "queue", "schedule")
SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d101"
PARAMETERS = {
    "MessagesPerSecond": "50",
    "BackoffMin": "1",
    "BackoffMax": "3",
    "ProviderTimeout": "3",
    "SenderTimeout": "20",
    "VisibilityTimeout": "120",
}

FAULTS = {
    "400": State.REJECTED,
    "says-no": State.REJECTED,
    "500": State.UNKNOWN,
    "500 accepted": State.UNKNOWN,
    "reset-after": State.UNKNOWN,
    "hang-after": State.UNKNOWN,
    "html": State.UNKNOWN,
    "503 times=1": State.SENT,
    "429 retry-after=1 times=1": State.SENT,
    "401 times=1": State.SENT,
}
"""A fault of the sandbox's, and how a message that meets it ends."""


@dataclass(frozen=True)
class Order:
    """A message to send, and how it must end."""

    number: int
    door: str
    text: str
    ends: State

    @property
    def envelope(self) -> dict[str, str]:
        """Return what every door takes."""
        return {"subscriberId": SUBSCRIBER, "text": self.text}


def orders() -> list[Order]:
    """Return the messages, every fifth of them faulty, spread over doors and faults."""
    faults = list(FAULTS)
    found = []
    for i in range(MESSAGES):
        fault = faults[i // 5 % len(faults)] if i % 5 == 0 else ""
        text = f"load {i} [[fault:{fault}]]" if fault else f"load {i}"
        found.append(Order(i, DOORS[i % 4], text, FAULTS.get(fault, State.SENT)))
    return found


class Doors:
    """The stack's doors; each method sends one message or more and returns their ids."""

    def __init__(self, facts: dict[str, str]) -> None:
        self._facts = facts
        session = boto3.Session(facts["accessKeyId"], facts["secretAccessKey"])
        where: dict[str, Any] = {
            "endpoint_url": facts["awsEndpoint"],
            "region_name": facts["region"],
        }
        self._sqs: Any = session.client("sqs", **where)
        self._functions: Any = session.client("lambda", **where)

    def send(self, work: tuple[str, list[Order]]) -> list[str]:
        """Send messages through a door."""
        door, given = work
        match door:
            case "http":
                return [self._post("/messages", order.envelope)["id"] for order in given]
            case "batch":
                answer = self._post("/messages/batch", {"messages": [o.envelope for o in given]})
                return [str(result["id"]) for result in answer["results"]]
            case "queue":
                entries = [
                    {"Id": str(i), "MessageBody": json.dumps(order.envelope)}
                    for i, order in enumerate(given)
                ]
                answer = self._sqs.send_message_batch(
                    QueueUrl=self._facts["messagesQueueUrl"], Entries=entries
                )
                sent = {entry["Id"]: str(entry["MessageId"]) for entry in answer["Successful"]}
                return [sent[str(i)] for i in range(len(given))]
            case _:
                return [self._fire(order) for order in given]

    def _post(self, path: str, body: object) -> Any:
        response = requests.post(
            f"{self._facts['apiUrl']}{path}",
            json=body,
            headers={"x-api-key": self._facts["apiKey"]},
            timeout=60,
        )
        if response.status_code != requests.codes.accepted:
            raise RuntimeError(f"POST {path}: {response.status_code} {response.text[:300]}")
        return response.json()

    def _fire(self, order: Order) -> str:
        event = {
            "schedule": f"load-{order.number}",
            "time": "2026-12-01T10:00:00Z",
            "message": order.envelope,
        }
        answer = self._functions.invoke(
            FunctionName=self._facts["notifierFunction"], Payload=json.dumps(event)
        )
        return str(json.loads(answer["Payload"].read())["id"])


def groups(given: Iterable[Order]) -> Iterable[tuple[str, list[Order]]]:
    """Return the messages in the order and portions in which they go through their doors."""
    waiting: dict[str, list[Order]] = {door: [] for door in DOORS}
    for order in given:
        waiting[order.door].append(order)
        if len(waiting[order.door]) == 10:
            yield order.door, waiting[order.door]
            waiting[order.door] = []
    yield from ((door, left) for door, left in waiting.items() if left)


def run(facts: dict[str, str], logs: Path) -> int:
    """Send the load, wait for its end, print the figures; return the number of problems."""
    sandbox = Sandbox.at(facts["sandboxUrl"])
    doors = Doors(facts)
    began = time.monotonic()
    portions = list(groups(orders()))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(doors.send, portions))
    accepted = time.monotonic() - began
    ends = {
        id_: order
        for (_, given), ids in zip(portions, answers, strict=True)
        for order, id_ in zip(given, ids, strict=True)
    }
    reader = Reader(facts, logs)

    def at_rest() -> Evidence | None:
        seen = reader.read()
        states = [record.state in TERMINAL for record in seen.records.values()]
        return seen if len(states) >= MESSAGES and all(states) and not seen.waiting else None

    seen = until(at_rest, "rest", seconds=300, every=1.0)
    took = time.monotonic() - began
    sent = [Sent(id_, order.text) for id_, order in ends.items()]
    found = violations(seen, sent, secrets=[sandbox.password, facts["secretAccessKey"]])
    for id_, order in ends.items():
        if id_ in seen.records and seen.records[id_].state is not order.ends:
            found.append(f"{order.text!r} is {seen.records[id_].state}, not {order.ends}")
    times = Counter(entry["text"] for entry in seen.ledger)
    states = Counter(record.state for record in seen.records.values())
    lost = len(ends.keys() - seen.records.keys()) + MESSAGES - len(ends)
    figures = {state: states[state] for state in State if states[state]}
    print(f"{MESSAGES} messages, accepted in {accepted:.1f} s, all ended after {took:.1f} s")
    print(", ".join(f"{state} {count}" for state, count in figures.items()), end="; ")
    print(f"duplicates {sum(count - 1 for count in times.values())}, lost {lost}")
    for problem in found:
        print(f"PROBLEM: {problem}")
    return len(found) + lost


def main() -> int:
    """Start a stack, load it, stop it; 1 if anything is wrong."""
    with tempfile.TemporaryDirectory(prefix="load-") as home:
        settings = Settings(
            home=Path(home),
            port=processes.free_port(),
            sandbox_port=processes.free_port(),
            parameters=PARAMETERS,
        )
        stack = Stack(settings)
        facts = stack.up()
        try:
            return 1 if run(facts, stack.home) else 0
        finally:
            stack.stop()


if __name__ == "__main__":
    sys.exit(main())
