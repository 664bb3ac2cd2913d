"""Every end of a message is an event, whatever happens to the publisher, and events say no more."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local import ROOT
from ops import dead_letters
from ops.stack import Stack, find
from relay.messages.states import State
from relay.outcomes import schemas
from tests.support import verifier
from tests.support.chats import open_chats
from tests.support.consumer import Consumer, consumer
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.rest import ended
from tests.support.sabotage import kills, publisher_killed
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader, Sent


@pytest.fixture
def follower(deployment: Deployment) -> Iterator[Consumer]:
    with consumer(deployment, "follower") as follower:
        yield follower


def send(deployment: Deployment, chat: str, text: str, **fields: Any) -> Sent:
    envelope = {"subscriberId": chat, "text": text, **fields}
    return Sent(deployment.call("POST", "/messages", envelope)["id"], text)


def events(deployment: Deployment, id_: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in verifier.events_of(deployment.home).splitlines()]
    return [event for event in found if event["detail"]["id"] == id_]


def test_a_killed_publisher_loses_no_event_and_repeats_are_known_as_such(
    deployment: Deployment, reader: Reader, sandbox: Sandbox, follower: Consumer, tmp_path: Path
) -> None:
    chats = open_chats(sandbox, 30)
    faults = ("400", "html", "503 times=1")
    with publisher_killed(deployment, tmp_path):
        sent = [
            send(
                deployment,
                chat,
                f"killed {n} [[fault:{faults[n // 5 % 3]}]]" if n % 5 == 0 else f"killed {n}",
            )
            for n, chat in enumerate(chats)
        ]
        seen = ended(reader, sent, seconds=90)
        assert verifier.violations(seen, sent) == []
    assert kills(tmp_path) > 1, "the publisher was killed"
    told = [(e["detail"]["id"], e["detail"]["version"]) for e in seen.events]
    assert len(told) > len(set(told)), "some events came again"
    follower.read()
    assert {s.id: follower.status(s.id) for s in sent} == {
        s.id: str(seen.records[s.id].state) for s in sent
    }


def test_a_consumer_ends_with_the_tables_states(
    deployment: Deployment, reader: Reader, sandbox: Sandbox, follower: Consumer
) -> None:
    """After a redrive, a resolution and a cancellation: by id and version alone."""
    chats = open_chats(sandbox, 5)
    redriven = send(deployment, chats[0], "told [[fault:says-no times=1]]", reference="r-1")
    resolved = send(deployment, chats[1], "told [[fault:html]]")
    unresolved = send(deployment, chats[2], "told, too [[fault:html]]")
    canceled = send(deployment, chats[3], "told [[fault:429 retry-after=600]]")
    simple = send(deployment, chats[4], "told and nothing else")
    ended(reader, [redriven, resolved, unresolved, simple], seconds=60)
    deployment.call("POST", f"/messages/{resolved.id}/resolve", {"as": "sent"})
    until(lambda: deployment.call("GET", f"/messages/{canceled.id}")["tries"], "first try of it")
    until(lambda: deployment.call("GET", f"/messages/{canceled.id}")["status"] == "queued", "wait")
    deployment.call("DELETE", f"/messages/{canceled.id}")
    stack: Stack = find(None, deployment.home / "stack.json")
    redrive = partial(dead_letters.redrive, stack, queue="messages", most=None, apply=True)
    redrive(reason=reason_of(reader, redriven), say=lambda _: None)
    until(lambda: reader.read().records[redriven.id].state is State.SENT, "redriven message")

    sent = [redriven, resolved, unresolved, canceled, simple]
    ids = {s.id for s in sent}
    seen = reader.read().of(ids)  # the canceled one lies on its queue until its next try
    expected = {s.id: str(seen.records[s.id].state) for s in sent}
    assert list(expected.values()) == ["sent", "sent", "unknown", "canceled", "sent"]
    until(lambda: {s.id: follower.read().status(s.id) for s in sent} == expected, "states")
    assert [*verifier.untold(reader.told(reader.read().of(ids)))] == []
    first, second = events(deployment, redriven.id)
    assert first["detail"]["version"] < second["detail"]["version"]
    assert (first["detail"]["generation"], second["detail"]["generation"]) == (0, 1)
    assert second["detail"]["reference"] == "r-1"


def reason_of(reader: Reader, sent: Sent) -> str:
    return reader.read().records[sent.id].reason


def test_events_hold_no_text_no_number_and_no_name(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    bot = sandbox.add_bot("Имя бота")
    [entry] = sandbox.add_subscribers(bot, 1)
    number, name = entry["number"], entry.get("name") or entry.get("firstName") or "Имя бота"
    body = {"botId": bot, "number": number, "text": "Секрет 4711 [[fault:400]]"}
    id_ = deployment.call("POST", "/messages", body)["id"]
    until(lambda: events(deployment, id_), "its event")

    told = verifier.events_of(deployment.home)
    for secret in (number, name, "Секрет 4711", "Имя бота", sandbox.password):
        assert secret not in told


def test_a_broadcast_s_changes_are_events_in_order(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    bot = sandbox.add_bot("Told")
    sandbox.add_subscribers(bot, 3)
    body = {"botId": bot, "text": "to all of them", "reference": "b-ref"}
    id_ = deployment.call("POST", "/broadcasts", body)["id"]
    until(
        lambda: deployment.call("GET", f"/broadcasts/{id_}")["status"] == "completed", "end of it"
    )
    until(lambda: len(events(deployment, id_)) >= 3, "its events")

    details = [event["detail"] for event in events(deployment, id_)]
    by_version = {detail["version"]: detail for detail in details}
    assert [by_version[v]["status"] for v in (1, 2, 3)] == ["preparing", "running", "completed"]
    last = by_version[3]
    assert (last["total"], last["sent"], last["final"], last["botId"]) == (3, 3, True, bot)
    assert last["reference"] == "b-ref"
    told = reader.told(reader.read())
    assert [v for v in verifier.untold(told) if id_ in v] == []


def test_the_api_serves_the_events_schemas(deployment: Deployment) -> None:
    assert deployment.call("GET", "/events.json") == schemas.document()


def test_watch_shows_an_event_and_ends_with_ctrl_c(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    [chat] = open_chats(sandbox, 1)
    with subprocess.Popen(
        [sys.executable, "-m", "local.watch", "--home", str(deployment.home)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        sent = send(deployment, chat, "watched [[fault:400]]", reference="w-1")
        until(lambda: events(deployment, sent.id), "its event")
        assert watch.stdout
        line = next(line for line in watch.stdout if sent.id in line)
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=10)
    assert "rejected" in line
    assert "reference=w-1" in line
    assert watch.returncode == 0
    assert "Traceback" not in errors
