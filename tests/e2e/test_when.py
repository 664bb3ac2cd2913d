"""A message for later is sent at its time, in its hours, and holds up nobody meanwhile."""

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.messages.envelope import rfc3339
from relay.messages.states import State
from tests.support.chats import accept, arrived, open_chats
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.rest import at_rest
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader


@dataclass(frozen=True)
class ForLater:
    """A broadcast, what it says and when it may begin."""

    id: str
    text: str
    at: float


@pytest.fixture(scope="module")
def for_later(deployment: Deployment, sandbox: Sandbox) -> ForLater:
    """Order a broadcast that is sent in 20 seconds."""
    bot = sandbox.add_bot("In 20 seconds")
    sandbox.add_subscribers(bot, 3)
    at, text = time.time() + 20.0, f"{bot} to all"
    order = {"botId": bot, "text": text, "sendAt": rfc3339(at)}
    return ForLater(deployment.call("POST", "/broadcasts", order)["id"], text, at)


def in_two_hours() -> dict[str, str]:
    """Return hours that begin within two hours, whatever the time is."""
    hour = datetime.now(UTC).hour
    return {"from": f"{(hour + 2) % 24:02}:00", "to": f"{(hour + 3) % 24:02}:00", "timezone": "UTC"}


@pytest.mark.usefixtures("for_later")  # both wait at the same time
def test_a_message_is_sent_in_40_seconds_and_its_chat_goes_on(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    [chat] = open_chats(sandbox, 1)
    at = time.time() + 40.0
    later = replace(accept(deployment, chat, f"{chat} later", sendAt=rfc3339(at)), line="")
    shown = deployment.call("GET", f"/messages/{later.id}")
    assert (shown["status"], shown["nextTryAt"]) == ("queued", rfc3339(at))
    now = accept(deployment, chat, f"{chat} now")

    at_rest(reader, [now])
    assert arrived(sandbox, chat) == [now.text]
    records = at_rest(reader, [later], seconds=90.0)

    assert records[later.id].state is State.SENT
    [attempt] = records[later.id].attempts
    assert at <= attempt.at <= at + 10.0
    assert arrived(sandbox, chat) == [now.text, later.text]


def test_a_message_out_of_its_hours_waits_and_can_be_canceled(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    [chat] = open_chats(sandbox, 1)
    hours = in_two_hours()
    waits = accept(deployment, chat, f"{chat} at night", between=hours)
    shown = deployment.call("GET", f"/messages/{waits.id}")
    assert shown["status"] == "queued"
    assert shown["nextTryAt"][11:] == f"{hours['from']}:00.000Z"
    canceled = deployment.call("DELETE", f"/messages/{waits.id}")
    assert canceled["status"] == "canceled"


def test_a_producer_s_message_leaves_the_line_in_which_it_would_wait(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    [chat] = open_chats(sandbox, 1)
    sqs, url = deployment.client("sqs"), deployment.facts["orderedQueueUrl"]
    for id_, fields in ((f"{chat}-1", {"between": in_two_hours()}), (f"{chat}-2", {})):
        body = {"id": id_, "subscriberId": chat, "text": f"{chat} {id_}", **fields}
        sqs.send_message(
            QueueUrl=url,
            MessageBody=json.dumps(body),
            MessageGroupId=chat,
            MessageDeduplicationId=id_,
        )

    until(lambda: arrived(sandbox, chat) == [f"{chat} {chat}-2"], "message past the waiting one")
    shown = deployment.call("GET", f"/messages/{chat}-1")
    assert shown["status"] == "queued"
    assert shown["nextTryAt"]
    deployment.call("DELETE", f"/messages/{chat}-1")


def test_a_broadcast_waits_for_its_time(
    deployment: Deployment, sandbox: Sandbox, for_later: ForLater
) -> None:
    def done() -> Any:
        found = deployment.call("GET", f"/broadcasts/{for_later.id}")
        return found if found["status"] == "completed" else None

    found = until(done, "end of the broadcast", seconds=120.0, every=0.5)
    assert found["sent"] == found["total"] == 3
    assert found["startedAt"] >= rfc3339(for_later.at)
    ledger = sandbox.ledger(text=for_later.text, fields="time")
    assert all(entry["time"] >= for_later.at for entry in ledger)
