"""Version 0.1.0 with messages in every state, and this version deployed over it.

It fails if a message is lost, sent twice or ends otherwise than it should, if a repeat of a request
is not recognised, if a dead letter cannot be redriven, or if the verifier finds a broken promise.
The old version is taken from git's history.
"""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import requests

from local import ROOT
from local.stack import STACK_NAME, StackError
from ops.dead_letters import redrive
from ops.deploy import deploy
from ops.stack import Stack, describe
from relay.messages.states import TERMINAL, State
from scenarios.traffic import Planned, at_rest
from tests.support.deployment import Deployment
from tests.support.notifier import kill
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.verifier import Evidence, Reader, Sent, violations
from tests.support.webhooks import SECRETS, signed

OLD = "a9f82513842990066e5ea27212f99543199d50ae"
"""The commit of version 0.1.0."""

PARAMETERS = {
    "MessagesPerSecond": "25",
    "BackoffMin": "5",
    "BackoffMax": "10",
    "ProviderTimeout": "3",
    "SenderTimeout": "20",
    "VisibilityTimeout": "120",
}
"""The rest is as the template says: Events too, which 0.1.0 does not know."""

HOOK = "plain"
CALLERS = 4
"""Requests at a time."""
BROADCAST = 60
"""Subscribers of each broadcast."""
SCHEDULED_IN = 120
"""Seconds until the schedules fire: after the upgrade."""


def add_options(_parser: ArgumentParser) -> None:
    """Declare the scenario's options: there are none."""


def source(home: Path) -> Path:
    """Check version 0.1.0 out into a folder of its own; return it."""
    git = ("git", "-C", str(ROOT))
    try:
        packed = subprocess.run([*git, "archive", OLD], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise StackError(
            f"The commit of version 0.1.0, {OLD[:7]}, is not in this checkout's history. "
            "Fetch all of it: git fetch --unshallow"
        ) from None
    target = home / "0.1.0"
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")
    return target


@dataclass
class Old:
    """What was handed to version 0.1.0."""

    planned: dict[str, Planned] = field(default_factory=dict)
    """By id, in the order of acceptance, with the state that each must end in."""
    keyed: dict[str, dict[str, str]] = field(default_factory=dict)
    """The bodies that went with an Idempotency-Key, by key."""
    bodies: list[dict[str, str]] = field(default_factory=list)
    """The envelopes that were put on the queue with an id of their own."""
    deliveries: dict[str, bytes] = field(default_factory=dict)
    """The bodies of webhooks, by the id of their message."""
    scheduled: list[str] = field(default_factory=list)
    """The texts of schedules that are to fire yet."""
    everybody: dict[str, tuple[str, set[str]]] = field(default_factory=dict)
    """The broadcasts: text and subscribers, by id."""
    started: dict[str, dict[str, str]] = field(default_factory=dict)
    """The bodies of the broadcasts, by Idempotency-Key."""


class Filling:
    """Hands messages to version 0.1.0 by its doors."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.old = Old()
        self.sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
        bot = self.sandbox.add_bot("Upgrade")
        self._chats = iter(e["id"] for e in self.sandbox.add_subscribers(bot, 400))
        self._numbers = count(1)
        self._keys = count(1)

    def envelope(self, what: str, fault: str = "") -> dict[str, str]:
        """Return a message to a chat of its own, its text told apart from all others."""
        marker = f" [[fault:{fault}]]" if fault else ""
        text = f"upgrade {next(self._numbers)}: {what}{marker}"
        return {"subscriberId": next(self._chats), "text": text}

    def expect(self, id_: str, envelope: Mapping[str, str], ends: State) -> str:
        """Note what a message must become."""
        self.old.planned[id_] = Planned(envelope["subscriberId"], envelope["text"], ends)
        return id_

    def post(
        self, times: int, what: str, ends: State, *, fault: str = "", prefer: str = "", **more: str
    ) -> list[str]:
        """Send messages one by one over HTTP, each with a key."""
        prefers = {"Prefer": prefer} if prefer else {}
        envelopes = {}
        for _ in range(times):
            envelopes[f"key-{next(self._keys)}"] = {**self.envelope(what, fault), **more}
        self.old.keyed |= envelopes

        def send(key: str) -> str:
            headers = {"Idempotency-Key": key, **prefers}
            return str(self.deployment.call("POST", "/messages", envelopes[key], **headers)["id"])

        with ThreadPoolExecutor(CALLERS) as pool:
            ids = list(pool.map(send, envelopes))
        for id_, envelope in zip(ids, envelopes.values(), strict=True):
            self.expect(id_, envelope, ends)
        return ids

    def batch(self, times: int, what: str, ends: State) -> None:
        """Send messages in one request."""
        envelopes = [self.envelope(what) for _ in range(times)]
        answer = self.deployment.call("POST", "/messages/batch", {"messages": envelopes})
        for result, envelope in zip(answer["results"], envelopes, strict=True):
            self.expect(result["id"], envelope, ends)

    def put(
        self, times: int, what: str, ends: State, *, copies: int = 1, named: bool, expires: str = ""
    ) -> None:
        """Put messages on the Messages queue."""
        for _ in range(times):
            envelope = self.envelope(what)
            if expires:
                envelope["expiresAt"] = expires
            if named:
                envelope["id"] = f"own-{len(self.old.bodies)}"
                self.old.bodies.append(envelope)
            for _ in range(copies):
                sqs_id = put(self.deployment, json.dumps(envelope))
            self.expect(envelope.get("id", sqs_id), envelope, ends)

    def schedule(self, times: int) -> None:
        """Create schedules that fire once, after the upgrade."""
        at = datetime.now(UTC) + timedelta(seconds=SCHEDULED_IN)
        for n in range(times):
            envelope = self.envelope("scheduled")
            terms = {"name": f"old-{n}", "expression": f"at({at:%Y-%m-%dT%H:%M:%S})"}
            self.deployment.call("POST", "/schedules", {**terms, "message": envelope})
            self.old.scheduled.append(envelope["text"])

    def deliver(self, times: int) -> None:
        """Send webhooks to the example that takes a plain text."""
        outputs = _stack(self.deployment).outputs
        self.deployment.client("secretsmanager").put_secret_value(
            SecretId=outputs["HookSecretsArn"], SecretString=json.dumps({HOOK: SECRETS[HOOK]})
        )
        for n in range(times):
            text = f"upgrade {next(self._numbers)}: by webhook"
            body = json.dumps({"id": f"delivery-{n}", "text": text}).encode()
            id_ = _delivered(self.deployment, body)
            self.expect(id_, {"subscriberId": "", "text": text}, State.SENT)
            self.old.deliveries[id_] = body

    def broadcast(self, what: str) -> str:
        """Start a broadcast to subscribers of its own; return its id."""
        bot = self.sandbox.add_bot(what)
        everybody = {e["id"] for e in self.sandbox.add_subscribers(bot, BROADCAST)}
        body = {"botId": bot, "text": f"upgrade: {what}"}
        headers = {"Idempotency-Key": what.replace(" ", "-")}
        id_ = str(self.deployment.call("POST", "/broadcasts", body, **headers)["id"])
        self.old.started[headers["Idempotency-Key"]] = body
        self.old.everybody[id_] = (body["text"], everybody)
        return id_

    def await_states(self, ids: Collection[str], *states: State) -> None:
        """Wait until messages have one of these states."""

        def there() -> bool:
            known = _states(self.deployment)
            return all(known.get(id_) in states for id_ in ids)

        until(there, " or ".join(states), every=0.5)


def put(deployment: Deployment, body: str) -> str:
    """Put a body on the Messages queue; return SQS's id of it."""
    url = deployment.facts["messagesQueueUrl"]
    return str(deployment.client("sqs").send_message(QueueUrl=url, MessageBody=body)["MessageId"])


def _delivered(deployment: Deployment, body: bytes) -> str:
    """Send a webhook to its one recipient; return its message's id."""
    response = requests.post(
        f"{deployment.facts['apiUrl']}/hooks/{HOOK}",
        data=body,
        headers={"Content-Type": "application/json", **signed(HOOK, body, time.time())},
        timeout=60,
    )
    assert response.ok, response.text
    return str(response.json()["id"])


def _stack(deployment: Deployment) -> Stack:
    """Return the stack as the operator's commands see it."""
    facts = deployment.facts
    session = boto3.Session(
        facts["accessKeyId"], facts["secretAccessKey"], region_name=facts["region"]
    )
    return describe(STACK_NAME, session, facts["awsEndpoint"])


def run(deployment: Deployment, _given: Namespace) -> list[str]:
    """Fill 0.1.0, upgrade, judge; return what is not as promised."""
    filling = Filling(deployment)
    old, sandbox = filling.old, filling.sandbox
    began = time.monotonic()
    sources = _fill(filling)
    before = _states(deployment)
    _print(f"0.1.0, filled in {time.monotonic() - began:.0f} s", before)
    began = time.monotonic()
    deployment = _upgrade(deployment)
    print(f"upgraded in {time.monotonic() - began:.0f} s")
    _receive(deployment, sources, enabled=True)
    for id_ in old.everybody:
        if deployment.call("GET", f"/broadcasts/{id_}")["status"] == "paused":
            deployment.call("POST", f"/broadcasts/{id_}/resume")
    until(
        lambda: all(sandbox.ledger(text=text) for text in old.scheduled),
        "scheduled messages",
        seconds=SCHEDULED_IN + 60,
    )
    messages = len(old.planned) + len(old.scheduled) + BROADCAST * len(old.everybody)
    reader = Reader(deployment.facts, deployment.home)
    first = at_rest(reader, messages)
    _print("this version", {id_: str(record.state) for id_, record in first.records.items()})
    ended = {id_ for id_, state in before.items() if state in TERMINAL}
    return [
        *_judge(reader, first, old, ended, _secrets(deployment)),
        *_unexpected(first, old),
        *_broadcasts(deployment, sandbox, old),
        *_repeats(deployment, reader, old, first),
        *_redriven(deployment, reader, messages, old),
    ]


# ------------------------------------------------------------------------------- before


def _fill(filling: Filling) -> list[str]:
    """Leave messages in every state; return the sender's event sources, which are off."""
    deployment, sandbox = filling.deployment, filling.sandbox
    sent = filling.post(15, "sent", State.SENT)
    rejected = filling.post(10, "rejected", State.REJECTED, fault="400")
    again = filling.post(5, "rejected, redriven", State.SENT, fault="400 times=1")
    held = filling.post(10, "held", State.UNKNOWN, fault="hang-after")
    by_hand = [
        *filling.post(3, "held, then sent", State.SENT, fault="reset-after"),
        *filling.post(3, "held, then failed", State.FAILED, fault="reset times=1"),
    ]
    filling.await_states(
        [*sent, *rejected, *again, *held, *by_hand], State.SENT, State.REJECTED, State.UNKNOWN
    )
    for id_ in by_hand:
        as_ = str(filling.old.planned[id_].ends)
        deployment.call("POST", f"/messages/{id_}/resolve", {"as": as_})
    for _ in _taken(deployment, by_hand[:3]):
        pass  # their dead letters are to be deleted, says docs/operations.md
    filling.put(4, "expired", State.EXPIRED, named=True, expires="2026-11-01T00:00:00Z")
    filling.post(3, "waited for", State.SENT, prefer="wait=5")  # each leaves a copy on the queue
    # While nothing else is on its way, so that the kill breaks off nothing else.
    killed = filling.post(4, "claimed by a run that was killed", State.UNKNOWN, fault="hang")
    filling.await_states(killed[-1:], State.SENDING, State.UNKNOWN)  # too late is no failure
    kill(deployment.home, deployment.facts["senderFunction"])
    retried = filling.post(10, "retried", State.SENT, fault="503 times=2", reference="retried")
    filling.post(2, "throttled", State.SENT, fault="429 retry-after=10 times=1")
    until(lambda: not _tried(deployment).isdisjoint(retried), "retry", seconds=120, every=0.5)
    # Paused before the half one, whose first messages bring the sender to its end.
    paused = filling.broadcast("paused broadcast")
    deployment.call("POST", f"/broadcasts/{paused}/pause")
    filling.broadcast("half a broadcast")
    until(lambda: len(sandbox.ledger(text="half a broadcast")) > BROADCAST // 3, "half a broadcast")
    sources = _sources(deployment)
    _receive(deployment, sources, enabled=False)
    for body in _taken(deployment, set(again)):
        put(deployment, body)  # as SQS's own redrive does
    filling.post(30, "queued", State.SENT)
    filling.post(5, "queued, held later", State.UNKNOWN, fault="hang-after")
    filling.post(5, "queued, rejected later", State.REJECTED, fault="400")
    filling.batch(20, "queued in a batch", State.SENT)
    filling.put(20, "on the queue", State.SENT, named=True)
    filling.put(5, "on the queue twice", State.SENT, named=True, copies=2)
    filling.put(10, "on the queue without an id", State.SENT, named=False)
    for id_ in filling.post(4, "canceled", State.CANCELED):
        deployment.call("DELETE", f"/messages/{id_}")
    filling.deliver(3)
    filling.schedule(6)
    return sources


def _sources(deployment: Deployment) -> list[str]:
    """Return the sender's event sources."""
    name = deployment.facts["senderFunction"]
    found = deployment.client("lambda").list_event_source_mappings(FunctionName=name)
    return [source["UUID"] for source in found["EventSourceMappings"]]


def _receive(deployment: Deployment, sources: Sequence[str], *, enabled: bool) -> None:
    """Let the sender receive, or not; a run under way comes to its end."""
    functions = deployment.client("lambda")
    for source in sources:
        functions.update_event_source_mapping(UUID=source, Enabled=enabled)


def _taken(deployment: Deployment, ids: Collection[str]) -> Iterator[str]:
    """Take dead letters off their queue; yield their bodies before they are deleted."""
    sqs, dead = deployment.client("sqs"), deployment.facts["deadLetterQueueUrl"]
    left, others = set(ids), []
    while left:
        answer = sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for letter in answer.get("Messages", []):
            if (id_ := json.loads(letter["Body"])["id"]) in left:
                yield letter["Body"]
                sqs.delete_message(QueueUrl=dead, ReceiptHandle=letter["ReceiptHandle"])
                left.remove(id_)
            else:
                others.append(letter["ReceiptHandle"])
    for receipt in others:
        sqs.change_message_visibility(QueueUrl=dead, ReceiptHandle=receipt, VisibilityTimeout=0)


def _items(deployment: Deployment) -> dict[str, Mapping[str, Any]]:
    """Return the table's messages by id."""
    pages = deployment.client("dynamodb").get_paginator("scan")
    return {
        item["pk"]["S"].removeprefix("message#"): item
        for page in pages.paginate(TableName=deployment.facts["tableName"], ConsistentRead=True)
        for item in page["Items"]
        if item["pk"]["S"].startswith("message#")
    }


def _states(deployment: Deployment) -> dict[str, str]:
    """Return the state of every message in the table."""
    return {id_: item["state"]["S"] for id_, item in _items(deployment).items()}


def _tried(deployment: Deployment) -> set[str]:
    """Return the messages that were tried and wait for their next try."""
    return {
        id_
        for id_, item in _items(deployment).items()
        if item["state"]["S"] == "queued" and "tries" in item
    }


def _print(when: str, states: Mapping[str, str]) -> None:
    told = ", ".join(f"{state} {n}" for state, n in sorted(Counter(states.values()).items()))
    print(f"{when}: {told}", flush=True)


# ------------------------------------------------------------------------------- the upgrade


def _upgrade(deployment: Deployment) -> Deployment:
    """Deploy this version as `make deploy` does: the indexes one by one, then everything."""
    stack = deployment.stack
    stack.build(ROOT)

    def run_sam(command: Sequence[str]) -> int:
        one_more = "--template-file" in command  # an index: the last word is its template
        stack.deploy(Path(command[-1]) if one_more else None)
        return 0

    with _environment(stack.aws_environment):
        deploy("local", terminal=False, run=run_sam)
    return replace(deployment, facts=stack.describe())


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    was = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(was)


# ------------------------------------------------------------------------------- after


def _secrets(deployment: Deployment) -> list[str]:
    password = Sandbox.at(deployment.facts["sandboxUrl"]).password
    return [password, deployment.facts["secretAccessKey"]]


def _judge(
    reader: Reader, seen: Evidence, old: Old, ended: Collection[str], secrets: Collection[str]
) -> list[str]:
    """Return the broken promises.

    What had ended before the upgrade is in no index, and no event tells of it.
    """
    sent = [Sent(id_, message.text) for id_, message in old.planned.items()]
    found = violations(replace(seen, lists=None, told="none"), sent, secrets=secrets)
    after = reader.told(seen.of(seen.records.keys() - ended))
    return [*found, *(problem for problem in violations(after) if problem not in found)]


def _unexpected(seen: Evidence, old: Old) -> list[str]:
    found = []
    for id_, message in old.planned.items():
        record = seen.records.get(id_)
        if record and record.state is not message.ends:
            stands = f"{record.state} ({record.reason})"
            found.append(f"{message.text!r} is {stands}, not {message.ends}")
    times = Counter(entry["text"] for entry in seen.ledger)
    found += [f"{t!r} came {times[t]} times" for t in old.scheduled if times[t] != 1]
    return found


def _broadcasts(deployment: Deployment, sandbox: Sandbox, old: Old) -> list[str]:
    found = []
    for id_, (text, everybody) in old.everybody.items():
        got = Counter(e["subscriberId"] for e in sandbox.ledger(text=text, fields="subscriberId"))
        if got != Counter(everybody):
            missed, twice = len(everybody - got.keys()), got.total() - len(got)
            found.append(f"{text!r}: {missed} got nothing, {twice} came once more")
        state = deployment.call("GET", f"/broadcasts/{id_}")
        if (state["status"], state["sent"]) != ("completed", BROADCAST):
            found.append(f"{text!r} ended as {state}")
    return found


def _repeats(deployment: Deployment, reader: Reader, old: Old, first: Evidence) -> list[str]:
    """Repeat every request; return where a repeat is not recognised."""
    found: list[str] = []
    by_text = {message.text: id_ for id_, message in old.planned.items()}

    def repeat(key: str) -> str:
        envelope = old.keyed[key]
        again = _post(deployment, key, envelope)
        answer = again.json().get("id"), again.headers.get("Idempotency-Replayed")
        if answer != (by_text[envelope["text"]], "true"):
            return f"the repeat of {envelope['text']!r}: {again.status_code} {again.text}"
        other = _post(deployment, key, {**envelope, "text": "Something else"})
        if other.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
            return f"{key} with another body: {other.status_code} {other.text}"
        return ""

    with ThreadPoolExecutor(CALLERS) as pool:
        found += filter(None, pool.map(repeat, old.keyed))
    for id_, body in old.deliveries.items():
        if (repeated := _delivered(deployment, body)) != id_:
            found.append(f"the repeat of the webhook {id_} is {repeated}")
    for key, started in old.started.items():
        headers = {"Idempotency-Key": key}
        if (id_ := deployment.call("POST", "/broadcasts", started, **headers)["id"]) not in (
            old.everybody
        ):
            found.append(f"the repeat of the broadcast {key} is {id_}")
    for envelope in old.bodies:
        put(deployment, json.dumps(envelope))
    then = at_rest(reader, len(first.records))
    if len(then.ledger) != len(first.ledger):
        found.append(f"repeats: {len(then.ledger) - len(first.ledger)} messages were sent")
    if changed := [i for i, record in then.records.items() if record != first.records.get(i)]:
        found.append(f"repeats changed {changed}")
    return found


def _post(deployment: Deployment, key: str, body: Mapping[str, str]) -> requests.Response:
    return requests.post(
        f"{deployment.facts['apiUrl']}/messages",
        json=body,
        headers={"x-api-key": deployment.facts["apiKey"], "Idempotency-Key": key},
        timeout=60,
    )


def _redriven(deployment: Deployment, reader: Reader, messages: int, old: Old) -> list[str]:
    """Redrive the dead letters of both versions; return what did not go once more."""
    held = [id_ for id_, m in old.planned.items() if m.ends is State.UNKNOWN]
    deployment.call("POST", f"/messages/{held[0]}/resolve", {"as": "failed"})
    before = reader.read()
    letters = {str(letter.message.id) for letter in before.dead if letter.message}
    redrive(_stack(deployment), queue="messages", reason=None, most=None, apply=True)
    after = at_rest(reader, messages)
    sent = [Sent(id_, message.text) for id_, message in old.planned.items()]
    found = violations(replace(after, lists=None, told="none"), sent)
    for id_ in letters:
        was, now = before.records[id_], after.records[id_]
        if now.generation != was.generation + 1:
            found.append(
                f"{old.planned[id_].text!r} was {was.state}, and a redrive left it {now.state}"
            )
    return found
