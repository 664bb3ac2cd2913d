"""Messages through every door, some of them faulty, and a check of what became of them."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from relay.messages.states import TERMINAL, State
from scenarios.progress import progress
from tests.support.deployment import Deployment
from tests.support.sandbox import Sandbox
from tests.support.verifier import Evidence, Reader, Sent, violations

CHATS = 400
"""Chats that the messages go to in turn: so many that none of them is at its pace."""
GROUP = 10
"""Messages that go through a door together."""
END_TIMEOUT = 300.0  # seconds
QUICK = {
    "BackoffMin": "1",
    "BackoffMax": "3",
    "ProviderTimeout": "3",
    "SenderTimeout": "20",
    "VisibilityTimeout": "120",
}
"""Parameters with which what is retried ends within seconds."""

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
"""The sandbox's faults, and the state in which a message that meets one must end."""


@dataclass(frozen=True)
class Planned:
    """A message to send, and the state in which it must end."""

    chat: str
    text: str
    ends: State

    @property
    def envelope(self) -> dict[str, str]:
        """Return what every door takes."""
        return {"subscriberId": self.chat, "text": self.text}


def chats(deployment: Deployment) -> list[str]:
    """Add a bot with subscribers of its own; return their ids."""
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    return [entry["id"] for entry in sandbox.add_subscribers(sandbox.add_bot("Traffic"), CHATS)]


def plan(name: str, numbers: range, to: Sequence[str], *, faulty_every: int) -> list[Planned]:
    """Return numbered messages to chats in turn, one in so many with the next of the faults."""
    faults = list(FAULTS.items())
    planned = []
    for n in numbers:
        chat = to[n % len(to)]
        if n % faulty_every:
            planned.append(Planned(chat, f"{name} {n}", State.SENT))
        else:
            fault, ends = faults[n // faulty_every % len(faults)]
            planned.append(Planned(chat, f"{name} {n} [[fault:{fault}]]", ends))
    return planned


class Doors:
    """The stack's doors; each takes a group of envelopes and returns the messages' ids."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sqs = deployment.client("sqs")
        self._lambda = deployment.client("lambda")

    def send(self, planned: Sequence[Planned], pool: Executor) -> dict[str, Planned]:
        """Send messages, each group through the next door; return them by their ids."""
        doors = cycle((self._http, self._http_batch, self._queue, self._notifier))
        groups = [planned[i : i + GROUP] for i in range(0, len(planned), GROUP)]
        answers = pool.map(lambda door, group: door([p.envelope for p in group]), doors, groups)
        ids = [id_ for answer in answers for id_ in answer]
        assert len(set(ids)) == len(planned), "each message has an id of its own"
        return dict(zip(ids, planned, strict=True))

    def _http(self, envelopes: list[dict[str, str]]) -> list[str]:
        return [self._deployment.call("POST", "/messages", one)["id"] for one in envelopes]

    def _http_batch(self, envelopes: list[dict[str, str]]) -> list[str]:
        answer = self._deployment.call("POST", "/messages/batch", {"messages": envelopes})
        return [result["id"] for result in answer["results"]]

    def _queue(self, envelopes: list[dict[str, str]]) -> list[str]:
        entries = [{"Id": str(i), "MessageBody": json.dumps(e)} for i, e in enumerate(envelopes)]
        url = self._deployment.facts["messagesQueueUrl"]
        answer = self._sqs.send_message_batch(QueueUrl=url, Entries=entries)
        sent = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
        return [sent[entry["Id"]] for entry in entries]

    def _notifier(self, envelopes: list[dict[str, str]]) -> list[str]:
        return [self._fire(envelope) for envelope in envelopes]

    def _fire(self, envelope: dict[str, str]) -> str:
        """Invoke the notifier as EventBridge Scheduler does when a schedule fires."""
        event = {
            "schedule": uuid.uuid4().hex,
            "time": "2026-12-01T10:00:00Z",
            "message": envelope,
        }
        name = self._deployment.facts["notifierFunction"]
        answer = self._lambda.invoke(FunctionName=name, Payload=json.dumps(event))
        return str(json.load(answer["Payload"])["id"])


def judge(deployment: Deployment, planned: Mapping[str, Planned]) -> list[str]:
    """Wait until all messages have ended; print what they became, return the broken promises."""
    reader = Reader(deployment.facts, deployment.home)
    seen = reader.told(at_rest(reader, len(planned)))
    states = Counter(str(record.state) for record in seen.records.values())
    times = Counter(entry["text"] for entry in seen.ledger)
    figures: dict[str, Any] = {
        **{state: states[state] for state in State if states[state]},
        "duplicates": sum(count - 1 for count in times.values()),
        "lost": len(planned.keys() - seen.records.keys()),
    }
    print(", ".join(f"{what} {count}" for what, count in figures.items()))
    sent = [Sent(id_, message.text) for id_, message in planned.items()]
    password = Sandbox.at(deployment.facts["sandboxUrl"]).password
    found = violations(seen, sent, secrets=[password, deployment.facts["secretAccessKey"]])
    for id_, message in planned.items():
        record = seen.records.get(id_)
        if record and record.state is not message.ends:
            found.append(f"{message.text!r} is {record.state}, not {message.ends}")
    return found


def at_rest(reader: Reader, messages: int) -> Evidence:
    """Return what the stack has when every message has ended, or when it is high time."""
    ends = time.monotonic() + END_TIMEOUT
    while True:
        seen = reader.read()
        ended = sum(record.state in TERMINAL for record in seen.records.values())
        progress(f"{ended} of {messages} messages have ended")
        rests = ended >= max(messages, len(seen.records)) and not seen.waiting
        if rests or time.monotonic() > ends:
            progress()
            return seen
        time.sleep(1.0)
