"""The verifier: compare a stack's table, queues, ledger and logs with what the relay promises.

`make verify`, or `python -m tests.support.verifier [stack.json]`, reads a stack of this machine and
prints what it finds; every end-to-end fault test ends with it. `violations` is the pure part.
"""

import argparse
import base64
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import boto3
import requests

from local import aws
from relay.messages.envelope import QueuedMessage
from relay.messages.lists import INDEXES, OFF_THE_LIST, Index, keys_of
from relay.messages.states import KEPT_ATTEMPTS, REDRIVABLE, TERMINAL, DeadLetter, Record, State
from relay.messages.store import from_item
from relay.outcomes.events import SOURCE, status_of
from relay.validation import InvalidMessageError, parse

NO_MESSAGE = frozenset({"invalid", "id_reused", "not_sealed", "hook_payload", "hook_template"})
"""The reasons of dead letters that are no message of their own, and have no record."""

ROOT = Path(__file__).resolve().parents[2]

EVENTS_SECONDS = 20.0
"""How long the bus may stay silent while events are missing: after a killed run of the publisher
MiniStack waits a second and repeats the whole batch."""


@dataclass(frozen=True)
class OnQueue:
    """A message that lies on a queue; `attributes` as their names and texts."""

    id: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    queue: str = "Messages"

    @property
    def message(self) -> QueuedMessage | None:
        """The envelope, under the id that the relay knows it by; None if it is none."""
        try:
            message = parse(QueuedMessage, self.body)
        except InvalidMessageError:
            return None
        return message if message.id else message.model_copy(update={"id": self.id})


@dataclass(frozen=True)
class Evidence:
    """What a stack has at one moment."""

    records: Mapping[str, Record]
    waiting: Sequence[OnQueue] = ()
    """What is on the Ordered and the Messages queue."""
    dead: Sequence[OnQueue] = ()
    ledger: Sequence[Mapping[str, Any]] = ()
    elsewhere: Sequence[Mapping[str, Any]] = ()
    """The requests that followed a redirect."""
    written: Mapping[str, str] = field(default_factory=dict)
    """Everything that must hold no secret, by name: logs, the table, the queues."""
    lists: Mapping[str, Mapping[str, tuple[str, str]]] | None = None
    """The messages in each index, by its name: id, partition, place. None if nobody looked."""
    events: Sequence[Mapping[str, Any]] = ()
    """What was put on the event bus, repeats included."""
    told: str = "none"
    """The stack's parameter Events: none, problems or all."""
    broadcasts: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Each broadcast's status and version."""
    at: float = 0.0
    """When it was read."""

    def of(self, ids: Collection[str]) -> "Evidence":
        """Return what concerns these messages, and everything written."""

        def theirs(found: OnQueue) -> bool:
            return found.message is not None and found.message.id in ids

        return replace(
            self,
            records={id_: record for id_, record in self.records.items() if id_ in ids},
            waiting=[found for found in self.waiting if theirs(found)],
            dead=[found for found in self.dead if theirs(found)],
            events=[event for event in self.events if event["detail"]["id"] in ids],
            broadcasts={},
        )


@dataclass(frozen=True)
class Sent:
    """A message that the relay accepted, and what its sender knows of it."""

    id: str
    text: str
    resend: bool = False
    line: str = ""
    """The chat in whose line it stood, behind those of its line that were sent before it."""


def violations(
    seen: Evidence, sent: Iterable[Sent] = (), *, secrets: Collection[str] = ()
) -> list[str]:
    """Return every broken promise, once the stack has come to rest.

    `sent` are messages in the order of their acceptance, with texts of their own, by which the
    ledger tells them apart. Without them the ledger is compared by the provider's ids alone, and
    nobody knows what order it should have: a record does not say whether its message had a line.
    """
    sent = list(sent)
    return [
        *_unfinished(seen, sent),
        *_without_reason(seen),
        *_dead_letters(seen),
        *_provider_ids(seen),
        *_lists(seen),
        *_in_the_ledger(seen, sent),
        *_out_of_order(seen, sent),
        *untold(seen),
        *(f"a redirect was followed: {request}" for request in seen.elsewhere),
        *_leaks(seen, secrets, sent),
    ]


def changed(earlier: Evidence, later: Evidence) -> list[str]:
    """Return the terminal states that changed in between without a redrive or a resolution."""
    found = []
    for id_, was in earlier.records.items():
        now = later.records.get(id_)
        if was.state not in TERMINAL or (now and now.state is was.state):
            continue
        if now is None:
            found.append(f"{id_}: its record is gone")
        elif len(now.history) <= len(was.history):
            found.append(f"{id_} went from {was.state} to {now.state} without a redrive")
    return found


def _unfinished(seen: Evidence, sent: Sequence[Sent]) -> Iterator[str]:
    on_queue = {m.message.id for m in seen.waiting if m.message}
    stranded = {m.message.id for m in seen.dead if m.message and "reason" not in m.attributes}
    for message in sent:
        if message.id not in seen.records:
            yield f"{message.id} is lost: it has no record"
    for id_, record in seen.records.items():
        if record.state in TERMINAL:
            continue
        over = seen.at - record.deadline
        stands = f"{record.state}{f', {over:.0f} s past its deadline' if over > 0 else ''}"
        if id_ in stranded:
            yield f"{id_} is {stands}, and the queue's own net took it: redrive it"
        elif id_ in on_queue:
            yield f"{id_} is not finished: {stands}, on the queue: wait, or start the sender"
        else:
            yield f"{id_} is lost: {stands}, and on no queue: hand it in again under its id"
    for waiting in seen.waiting:
        known = seen.records.get(str(waiting.message.id)) if waiting.message else None
        if waiting.queue == "Ordered" and known and known.state in TERMINAL:
            yield f"{known.id} is {known.state}, and still on the Ordered queue before its chat's"
        else:
            yield f"{waiting.id} is still on the {waiting.queue} queue"


def _without_reason(seen: Evidence) -> Iterator[str]:
    for id_, record in seen.records.items():
        if record.state in TERMINAL - {State.SENT} and not record.reason:
            yield f"{id_} is {record.state} without a reason"
        if record.tries < len(record.attempts):
            yield f"{id_} has more attempts than tries"
        if record.state is State.REJECTED and not any(
            attempt.outcome == "refused" for attempt in record.attempts
        ):
            yield f"{id_} is rejected, and no answer of the provider's says so"


def _dead_letters(seen: Evidence) -> Iterator[str]:
    letters: Counter[str] = Counter()
    for letter in seen.dead:
        reason = letter.attributes.get("reason", "")
        if reason in NO_MESSAGE:
            continue
        message = letter.message
        record = seen.records.get(str(message.id)) if message else None
        if not reason:
            yield f"dead letter {letter.id} has no reason"
        if message is None or record is None:
            yield f"dead letter {letter.id} belongs to no record"
            continue
        letters[record.id] += 1
        if record.state not in REDRIVABLE:
            yield f"{record.id} is {record.state}, and a dead letter"
        elif message.generation != record.generation + 1:
            yield f"{record.id}: a redrive of its dead letter would do nothing"
        if reason and record.reason != reason:
            yield f"{record.id} is {record.state} for {record.reason}, its letter says {reason}"
        if missing := {"attempts", "failedAt"} - letter.attributes.keys():
            yield f"{record.id}: its dead letter lacks {', '.join(sorted(missing))}"
    for id_, record in seen.records.items():
        if record.state in REDRIVABLE and letters[id_] != 1:
            yield f"{id_} is {record.state} and has {letters[id_]} dead letters"
        if record.state in REDRIVABLE and record.dead_letter is not DeadLetter.WRITTEN:
            yield f"{id_}: its dead letter is not recorded"


def _provider_ids(seen: Evidence) -> Iterator[str]:
    times = Counter(str(entry["id"]) for entry in seen.ledger)
    owners: dict[str, list[str]] = defaultdict(list)
    for id_, record in seen.records.items():
        if record.state is State.SENT and record.provider_id:
            owners[record.provider_id].append(id_)
            if not times[record.provider_id]:
                yield f"{id_} is sent as {record.provider_id}, which the ledger does not have"
    for provider_id, ids in owners.items():
        if len(ids) > 1:
            yield f"{', '.join(ids)} share the provider's id {provider_id}"


def _lists(seen: Evidence) -> Iterator[str]:
    """Yield where an index and the table disagree."""
    if seen.lists is None:
        return
    for index in INDEXES:
        there = seen.lists[index.name]
        for id_, record in seen.records.items():
            keys = keys_of(record)
            due = (keys[index.partition], keys[index.place]) if index.partition in keys else None
            found = there.get(id_)
            if found and found[0] == OFF_THE_LIST:
                found = None
            if found != due:
                yield f"{id_} is {record.state}; {index.name} has it as {found}, not as {due}"


def _in_the_ledger(seen: Evidence, sent: Sequence[Sent]) -> Iterator[str]:
    times = Counter(entry["text"] for entry in seen.ledger)
    for message in sent:
        record = seen.records.get(message.id)
        if record is None:
            continue
        count = times[message.text]
        redrives = sum(event.what == "redriven" for event in record.history)
        allowed = 1 + redrives + (record.ambiguous if message.resend else 0)
        if count > allowed:
            yield f"{message.id} is in the ledger {count} times, {allowed} allowed"
        if record.state is State.SENT and not count:
            yield f"{message.id} is sent, and not in the ledger"
        untouched = not redrives and not record.ambiguous
        never = (State.REJECTED, State.FAILED, State.EXPIRED, State.CANCELED)
        if record.state in never and untouched and count:
            yield f"{message.id} is {record.state}, and in the ledger"


def _out_of_order(seen: Evidence, sent: Sequence[Sent]) -> Iterator[str]:
    """Yield the messages that came before all of an earlier one of their line had come."""
    came: dict[str, list[int]] = defaultdict(list)
    for place, entry in enumerate(seen.ledger):
        came[str(entry["text"])].append(place)
    latest: dict[str, tuple[int, str]] = {}
    for message in sent:
        record = seen.records.get(message.id)
        redriven = record and any(event.what == "redriven" for event in record.history)
        if not message.line or redriven or not (places := came[message.text]):
            continue
        last, before = latest.get(message.line, (-1, ""))
        if places[0] < last:
            yield f"{message.id} came before {before}, which was accepted earlier"
        latest[message.line] = max((last, before), (places[-1], message.id))


def _ends(record: Record, told: str) -> int:
    """Return how many ends of a message there are events of: each redrive or resolution left one.

    Beyond the steps that a record remembers it says too few.
    """
    if told == "problems" and record.state is State.SENT and not record.history:
        return 0
    return len(record.history) + (record.state in TERMINAL)


def _awaited(seen: Evidence) -> set[str]:
    """Return the ids of which the table knows more than the events that have come tell."""
    if seen.told == "none":
        return set()
    versions = Counter(id_ for id_, _ in {_named(event) for event in seen.events})
    due = {id_: _ends(record, seen.told) for id_, record in seen.records.items()}
    due |= {id_: version for id_, (_, version) in seen.broadcasts.items()}
    return {id_ for id_, count in due.items() if versions[id_] < count}


def _known(seen: Evidence) -> Collection[str]:
    """Return the ids that events may tell of: those of this evidence, and those it lacks."""
    return seen.records.keys() | seen.broadcasts.keys() | {e["detail"]["id"] for e in seen.events}


def _named(event: Mapping[str, Any]) -> tuple[str, int]:
    return event["detail"]["id"], event["detail"]["version"]


def untold(seen: Evidence) -> Iterator[str]:
    """Yield every end that no event tells of, and every event that tells of none."""
    if seen.told == "none":
        return
    told: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for event in seen.events:
        detail = event["detail"]
        if told[detail["id"]].setdefault(detail["version"], detail) != detail:
            yield f"{detail['id']}: two events of version {detail['version']} differ"
    for id_, record in seen.records.items():
        versions = told.pop(id_, {})
        ends = _ends(record, seen.told)
        if len(versions) != ends and len(record.history) < KEPT_ATTEMPTS:
            yield f"{id_} has ended {ends} times, and {len(versions)} events tell of it"
        if versions and max(versions) > record.version:
            yield f"{id_}: an event tells of version {max(versions)}, which is not there"
        if versions and record.state in TERMINAL:
            last = versions[max(versions)]
            if (last["status"], last["generation"]) != (record.state, record.generation):
                yield f"{id_} is {record.state}, and its last event says {last['status']}"
    yield from _untold_broadcasts(seen, told)
    for id_ in told:
        yield f"an event tells of {id_}, which is not there"


def _untold_broadcasts(
    seen: Evidence, told: dict[str, dict[int, Mapping[str, Any]]]
) -> Iterator[str]:
    for id_, (status, version) in seen.broadcasts.items():
        versions = told.pop(id_, {})
        if sorted(versions) != [*range(1, version + 1)]:
            yield f"broadcast {id_} changed {version} times, its events are {sorted(versions)}"
        elif versions[version]["status"] != status:
            yield f"broadcast {id_} is {status}, its last event says {versions[version]['status']}"


def _leaks(seen: Evidence, secrets: Collection[str], sent: Sequence[Sent]) -> Iterator[str]:
    for name, text in seen.written.items():
        for secret in secrets:
            for encoding, spelled in encodings(secret):
                if spelled in text:
                    yield f"{name} holds a secret, {encoding}"
        if not name.endswith("queue"):
            for message in sent:
                if message.text in text:
                    yield f"{name} holds the text of {message.id}"


def encodings(secret: str) -> Iterator[tuple[str, str]]:
    """Yield the spellings of a secret that logs and bodies use, each with its name."""
    yield "as it is", secret
    yield "URL-quoted", quote(secret, safe="")
    yield "plus-quoted", quote_plus(secret)
    yield "in JSON", json.dumps(secret)[1:-1]
    yield "in JSON as UTF-8", json.dumps(secret, ensure_ascii=False)[1:-1]
    yield "in Python", repr(secret)[1:-1]
    for shift in range(3):
        # Without the characters at the ends, which the neighbours decide too.
        spelled = base64.b64encode(bytes(shift) + secret.encode()).decode().rstrip("=")
        yield f"in base64, {shift} on", spelled[(0, 2, 3)[shift] : -2]


# ------------------------------------------------------------------------------ reading a stack


class Reader:
    """Reads a stack of this machine, as stack.json describes it, and changes nothing in it."""

    def __init__(self, facts: Mapping[str, str], logs: Path | None = None) -> None:
        self._facts = facts
        self._logs = logs
        # An outage of the sandbox's does not close its control port.
        self._sandbox = _get(f"{facts['sandboxUrl']}/health")["controlUrl"].rstrip("/")
        session = boto3.Session(facts["accessKeyId"], facts["secretAccessKey"])
        self._dynamodb = session.client(
            "dynamodb", endpoint_url=facts["awsEndpoint"], region_name=facts["region"]
        )

    def read(self) -> Evidence:
        """Return what the stack has now.

        The queues come first: what a message that is on none has left is then in the table.
        """
        waiting = [
            replace(found, queue=name)
            for name in ("Ordered", "Messages")
            for found in self.queue(self._facts[f"{name.lower()}QueueUrl"])
        ]
        dead = self.queue(self._facts["deadLetterQueueUrl"])
        items = self._items()
        events = self._events()
        written = {
            "the table": json.dumps(items, ensure_ascii=False),
            "the Ordered and the Messages queue": repr(waiting),
            "the DeadLetter queue": repr(dead),
            "the event bus": json.dumps(events, ensure_ascii=False),
        }
        for log in sorted(self._logs.glob("*.log")) if self._logs else []:
            written[log.name] = log.read_text(encoding="utf-8", errors="replace")
        records = (from_item(i) for i in items if i["pk"]["S"].startswith("message#"))
        return Evidence(
            records={record.id: record for record in records},
            events=events,
            told=self._facts["events"] if self._logs else "none",
            broadcasts={
                item["pk"]["S"].partition("#")[2]: (
                    status_of(item),
                    int(item.get("version", {"N": "0"})["N"]),
                )
                for item in items
                if item["pk"]["S"].startswith("broadcast#") and "order" in item
            },
            waiting=waiting,
            dead=dead,
            ledger=_get(f"{self._sandbox}/ledger?fields=id,text,time"),
            elsewhere=_get(f"{self._sandbox}/elsewhere"),
            written=written,
            lists={index.name: self._listed(index) for index in INDEXES},
            at=time.time(),
        )

    def _listed(self, index: Index) -> dict[str, tuple[str, str]]:
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._facts["tableName"], IndexName=index.name
        )
        return {
            item["pk"]["S"].partition("#")[2]: (item[index.partition]["S"], item[index.place]["S"])
            for page in pages
            for item in page["Items"]
            if item["pk"]["S"].startswith("message#")
        }

    def told(self, seen: Evidence) -> Evidence:
        """Return the evidence with the events that are there once none of its own is missing.

        They may take as long as any come: see EVENTS_SECONDS.
        """
        size, deadline = -1, 0.0
        while True:
            events = [e for e in self._events() if e["detail"]["id"] in _known(seen)]
            if len(events) > size:
                size, deadline = len(events), time.monotonic() + EVENTS_SECONDS
            complete = replace(seen, events=events)
            if not _awaited(complete) or time.monotonic() > deadline:
                return complete
            time.sleep(0.1)

    def _events(self) -> list[dict[str, Any]]:
        """Return what was put on the event bus so far."""
        text = events_of(self._logs) if self._logs else ""
        events = [json.loads(line) for line in text.splitlines()]
        return [event for event in events if event["source"] == SOURCE]

    def _items(self) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=self._facts["tableName"], ConsistentRead=True
        )
        return [dict(item) for page in pages for item in page["Items"]]

    def queue(self, url: str) -> list[OnQueue]:
        """Return what lies on a queue, hidden messages included, without receiving it."""
        facts = self._facts
        answer = aws.get(
            f"{facts['awsEndpoint']}/_ministack/sqs/messages?QueueUrl={quote(url, safe='')}",
            facts["accessKeyId"],
            facts["secretAccessKey"],
            timeout=30,
        )
        answer.raise_for_status()
        found = answer.json()
        return [
            OnQueue(
                m["MessageId"],
                m["Body"],
                {name: a.get("StringValue", "") for name, a in m["MessageAttributes"].items()},
            )
            for regions in found["messages"].values()
            for queues in regions.values()
            for messages in queues.values()
            for m in messages
        ]


def events_of(home: Path) -> str:
    """Return what was put on the event bus of a local stack, as JSON Lines."""
    path = home / aws.EVENTS_LOG
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _get(address: str) -> Any:
    response = requests.get(address, timeout=30)
    response.raise_for_status()
    return response.json()


def main(arguments: Sequence[str]) -> int:
    """Verify a running stack; 1 if it breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.verifier", description=__doc__)
    parser.add_argument("stack", nargs="?", type=Path, default=ROOT / ".local" / "stack.json")
    path: Path = parser.parse_args(arguments).stack
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"{path} is not there: start a stack with `make up`", file=sys.stderr)
        return 1
    if not facts["sandboxUrl"]:
        print("This stack has no sandbox: only its ledger can be compared", file=sys.stderr)
        return 1
    reader = Reader(facts, path.parent)
    seen = reader.told(reader.read())
    passwords = _get(f"{facts['sandboxUrl']}/credentials")["passwords"]
    found = violations(seen, secrets=[*passwords, facts["secretAccessKey"]])
    states = Counter(str(record.state) for record in seen.records.values())
    print(
        f"{len(seen.records)} messages: {dict(states)}; {len(seen.ledger)} in the ledger, ", end=""
    )
    print(f"{len(seen.waiting)} on the queues, {len(seen.dead)} dead letters")
    for violation in found:
        print(f"VIOLATION: {violation}")
    print(f"{len(found)} violations")
    if seen.waiting:
        print("What waits may be looked at again within two minutes: verify then.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
