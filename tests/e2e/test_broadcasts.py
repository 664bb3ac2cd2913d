"""Broadcasts on the deployed stack: to everybody once, steered, and sensible about odd lists."""

import json
from collections import Counter
from functools import partial
from typing import Any

import pytest
import requests

from tests.support.deployment import Deployment
from tests.support.notifier import kill_notifier
from tests.support.poll import until
from tests.support.sandbox import Sandbox


class Broadcasts:
    """The stack's API for broadcasts, and the sandbox that gets them."""

    def __init__(self, deployment: Deployment) -> None:
        self._facts = deployment.facts
        self.sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
        self.home = deployment.home

    def call(self, method: str, path: str, body: object = None, key: str = "") -> Any:
        response = requests.request(
            method,
            self._facts["apiUrl"] + path,
            data=json.dumps(body) if body else None,
            headers={
                "x-api-key": self._facts["apiKey"],
                "Content-Type": "application/json",
                **({"Idempotency-Key": key} if key else {}),
            },
            timeout=60,
        )
        assert response.ok, response.text
        return response.json()

    def start(self, bot: str) -> str:
        return str(self.call("POST", "/broadcasts", {"botId": bot, "text": f"To {bot}"})["id"])

    def state(self, id_: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/broadcasts/{id_}"))

    def ended(self, id_: str) -> dict[str, Any] | None:
        state = self.state(id_)
        ended = state["status"] in ("completed", "stopped", "failed") and not state["queued"]
        return state if ended else None

    def got(self, bot: str) -> Counter[str]:
        entries = self.sandbox.ledger(text=f"To {bot}", fields="subscriberId")
        return Counter(entry["subscriberId"] for entry in entries)

    def kill_notifier(self) -> int:
        return kill_notifier(self.home, self._facts)


@pytest.fixture(scope="module")
def broadcasts(deployment: Deployment) -> Broadcasts:
    return Broadcasts(deployment)


def test_everybody_gets_it_once_though_the_notifier_is_killed(broadcasts: Broadcasts) -> None:
    sandbox = broadcasts.sandbox
    bot = sandbox.add_bot("Killed")
    entries = sandbox.add_subscribers(bot, 520)  # more than one chunk
    everybody = {entry["id"] for entry in entries}
    sandbox.add_subscribers(bot, [*entries[:7], {"name": "nobody"}, {"id": "", "name": "nobody"}])

    id_ = broadcasts.start(bot)
    until(lambda: broadcasts.state(id_)["total"], "snapshot", every=0.02)
    assert broadcasts.kill_notifier() >= 1
    state = until(lambda: broadcasts.ended(id_), "end of the broadcast", seconds=150, every=0.5)

    assert state["status"] == "completed"
    assert (state["sent"], state["total"]) == (520, 520)
    assert +Counter(state["skipped"]) == {"duplicates": 7, "withoutId": 2}
    assert broadcasts.got(bot) == dict.fromkeys(everybody, 1)


def test_pause_resume_and_stop(broadcasts: Broadcasts) -> None:
    bot = broadcasts.sandbox.add_bot("Steered")
    broadcasts.sandbox.add_subscribers(bot, 200)
    id_ = broadcasts.start(bot)
    until(lambda: broadcasts.got(bot), "first message", every=0.05)

    assert broadcasts.call("POST", f"/broadcasts/{id_}/pause")["status"] == "paused"
    # What a run had in hand when it last looked still goes out; then there is a standstill.
    seen = [-1, -2]

    def at_a_standstill() -> bool:
        seen.append(len(broadcasts.got(bot)))
        return len(set(seen[-6:])) == 1

    until(at_a_standstill, "standstill", every=0.5)
    held = seen[-1]
    assert 0 < held < 200
    assert broadcasts.state(id_)["reason"] == "requested"

    assert broadcasts.call("POST", f"/broadcasts/{id_}/resume")["status"] == "running"
    until(lambda: len(broadcasts.got(bot)) > held, "message after the pause", every=0.05)

    assert broadcasts.call("POST", f"/broadcasts/{id_}/stop")["status"] == "stopped"
    state = until(lambda: broadcasts.ended(id_), "end of the broadcast", every=0.5)
    assert state["canceled"] > 0
    assert state["sent"] + state["canceled"] == state["total"] == 200
    assert len(broadcasts.got(bot)) == state["sent"]


def test_too_many_refusals_pause_it(broadcasts: Broadcasts) -> None:
    bot = broadcasts.sandbox.add_bot("Blocked")
    broadcasts.sandbox.add_subscribers(bot, 60, blocked=True)
    id_ = broadcasts.start(bot)

    def paused() -> dict[str, Any] | None:
        state = broadcasts.state(id_)
        return state if state["status"] == "paused" else None

    state = until(paused, "pause", every=0.2)
    assert state["reason"] == "refusals"
    assert "were refused" in state["detail"]
    assert state["rejected"] >= 20
    broadcasts.call("POST", f"/broadcasts/{id_}/stop")


def test_an_empty_list_is_done_at_once_and_an_unknown_bot_fails(broadcasts: Broadcasts) -> None:
    empty = broadcasts.start(broadcasts.sandbox.add_bot("Lonely"))
    unknown = broadcasts.start("no-such-bot")

    state = until(lambda: broadcasts.ended(empty), "end of the empty broadcast")
    assert (state["status"], state["total"]) == ("completed", 0)
    state = until(lambda: broadcasts.ended(unknown), "end of the unknown bot's broadcast")
    assert (state["status"], state["reason"]) == ("failed", "http_404")
    assert not state.get("detail"), "the provider's words about a list are not kept"


def test_the_same_key_starts_one_broadcast(broadcasts: Broadcasts) -> None:
    bot = broadcasts.sandbox.add_bot("Twice")
    [entry] = broadcasts.sandbox.add_subscribers(bot, 1)
    order = {"botId": bot, "text": f"To {bot}"}
    first = broadcasts.call("POST", "/broadcasts", order, key=f"key-{bot}")
    again = broadcasts.call("POST", "/broadcasts", order, key=f"key-{bot}")
    assert first["id"] == again["id"]
    until(lambda: broadcasts.ended(first["id"]), "end of the broadcast")
    assert broadcasts.got(bot) == {entry["id"]: 1}


def test_each_gets_their_own_text_as_the_dry_run_shows_it(broadcasts: Broadcasts) -> None:
    bot = broadcasts.sandbox.add_bot("By name")
    entries = broadcasts.sandbox.add_subscribers(bot, 30)
    order = {"botId": bot, "template": True, "text": f"{{{{ name }}}}, {{{{ city }}}}: To {bot}"}
    tried = broadcasts.call("POST", "/broadcasts", {**order, "dryRun": True})
    expected = {e["id"]: f"{e['name']}, {e['city']}: To {bot}" for e in entries}
    assert {s["subscriberId"]: s["text"] for s in tried["samples"]}.items() <= expected.items()

    id_ = broadcasts.call("POST", "/broadcasts", order)["id"]
    state = until(lambda: broadcasts.ended(id_), "end of the broadcast")
    assert (state["total"], state["sent"]) == (tried["total"], 30) == (30, 30)
    ledger = broadcasts.sandbox.ledger(fields="botId,subscriberId,text")
    got = [(e["subscriberId"], e["text"]) for e in ledger if e["botId"] == bot]
    assert Counter(got) == Counter(expected.items())


def test_a_file_is_sent_to_those_it_names_and_a_broken_one_to_nobody(
    broadcasts: Broadcasts, deployment: Deployment
) -> None:
    bot = broadcasts.sandbox.add_bot("Listed")
    one, two = broadcasts.sandbox.add_subscribers(bot, 2)
    lines = [
        json.dumps({"subscriberId": one["id"], "data": {"n": 1}}),
        json.dumps({"number": two["number"], "data": {"n": 2}}),
    ]
    bucket, s3 = deployment.facts["bucketName"], deployment.client("s3")
    ended = []
    for name, body in (("good", lines), ("broken", [*lines, '{"number": "1"}'])):
        s3.put_object(Bucket=bucket, Key=f"recipients/{name}", Body="\n".join(body).encode())
        order = {
            "botId": bot,
            "template": True,
            "text": "{{ n }}: " + f"To {bot} {name}",
            "recipientsFrom": f"s3://{bucket}/recipients/{name}",
        }
        id_ = broadcasts.call("POST", "/broadcasts", order)["id"]
        ended.append(until(partial(broadcasts.ended, id_), "end of the broadcast"))
    assert (ended[0]["status"], ended[0]["sent"]) == ("completed", 2)
    assert (ended[1]["status"], ended[1]["reason"]) == ("failed", "recipients_invalid")
    assert ended[1]["detail"].startswith("line 3: number: must be a phone number")
    ledger = broadcasts.sandbox.ledger(fields="botId,subscriberId,text")
    got = {(e["subscriberId"], e["text"]) for e in ledger if e["botId"] == bot}
    assert got == {(one["id"], f"1: To {bot} good"), (two["id"], f"2: To {bot} good")}


def test_who_refuses_twice_is_left_out_until_a_message_reaches_them(broadcasts: Broadcasts) -> None:
    bot = broadcasts.sandbox.add_bot("Refused")
    others = broadcasts.sandbox.add_subscribers(bot, 10)
    blocked = broadcasts.sandbox.add_subscribers(bot, 2, blocked=True)
    totals = []
    for _ in range(3):
        id_ = broadcasts.start(bot)
        state = until(partial(broadcasts.ended, id_), "end of the broadcast")
        totals.append((state["total"], state["rejected"], state["skipped"]["unreachable"]))
    assert totals == [(12, 2, 0), (12, 2, 0), (10, 0, 2)]
    marked = broadcasts.call("GET", "/unreachable")["unreachable"]
    assert {entry["id"] for entry in blocked} <= {each["subscriberId"] for each in marked}
    assert not {entry["id"] for entry in others} & {each["subscriberId"] for each in marked}
    assert broadcasts.call("DELETE", f"/unreachable/{blocked[0]['id']}")["cleared"] == 1
    tried = broadcasts.call("POST", "/broadcasts", {"botId": bot, "text": "-", "dryRun": True})
    assert (tried["total"], tried["skipped"]["unreachable"]) == (11, 1)
