"""The webhook door: what it accepts, once, and what it answers to the rest."""

import json
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.hooks import app
from relay.broadcasts.model import BroadcastRecord, QueuedBroadcast, first_record_of
from relay.broadcasts.service import Reused, Started
from relay.messages.intake import scoped_id
from relay.messages.queues import QueueUnavailableError
from relay.messages.states import Rules, State
from relay.messages.store import StoreUnavailableError
from relay.problems import MAX_BODY, ProblemError
from relay.webhooks.hooks import load
from relay.webhooks.receiver import Handled, Receiver
from relay.webhooks.secrets import HookSecrets
from smsgold.errors import CredentialsError
from tests.support.webhooks import (
    PLAIN,
    SECRETS,
    SHIPPED,
    api_event,
    changed,
    payload,
    signed,
)
from tests.support.world import Relay, World

EXAMPLE = payload("hook_github_push.json")


class MemoryBroadcasts:
    """Starts broadcasts once per id, as the service does."""

    def __init__(self, world: World) -> None:
        self.started: dict[str, QueuedBroadcast] = {}
        self._world = world

    def start(self, broadcast: QueuedBroadcast) -> Started | Reused:
        if self._world.queue_down:
            raise QueueUnavailableError("down")
        record = first_record_of(broadcast, self._world.now)
        known = self.started.setdefault(broadcast.id, broadcast)
        if known.fingerprint != broadcast.fingerprint:
            return Reused(record)
        return Started(record, replayed=known is not broadcast)

    def get(self, id_: str) -> BroadcastRecord | None:
        known = self.started.get(id_)
        return first_record_of(known, self._world.now) if known else None


class Door:
    """A receiver with the shipped hooks, its own secret, and table and queues in memory."""

    def __init__(self, hooks: str = "", secrets: Mapping[str, Any] = SECRETS) -> None:
        self.relay = Relay(Rules())
        self.world = self.relay.world
        self.secret = json.dumps(secrets)
        self.fetches = 0
        self.broadcasts = MemoryBroadcasts(self.world)
        self.receiver = Receiver(
            load(hooks) if hooks else SHIPPED,
            HookSecrets(self._fetch, clock=self.world.clock),
            self.relay.intake,
            self.broadcasts,
            self.relay.queues,
            clock=self.world.clock,
        )

    def _fetch(self) -> str:
        self.fetches += 1
        if not self.secret:
            raise CredentialsError("the secret cannot be read")
        return self.secret

    def send(
        self, name: str, body: bytes = EXAMPLE, headers: Mapping[str, str] | None = None
    ) -> Handled | ProblemError:
        if headers is None:
            headers = signed(name, body, self.world.now)
        return self.receive(name, api_event(name, body, headers))

    def receive(self, name: str, event: Mapping[str, Any]) -> Handled | ProblemError:
        try:
            return self.receiver.receive(name, event)
        except ProblemError as problem:
            return problem

    def accepted(self) -> list[dict[str, Any]]:
        return [json.loads(copy.body) for copy in self.relay.queues.messages]


def status(answer: Handled | ProblemError) -> int:
    return 202 if isinstance(answer, Handled) else int(answer.kind.status)


@pytest.fixture
def door() -> Door:
    return Door()


def test_a_delivery_with_an_id_is_accepted_as_a_message(door: Door) -> None:
    answer = door.send("github")
    assert isinstance(answer, Handled)
    assert answer.status == "queued"
    [message] = door.accepted()
    assert message["id"] == answer.id
    record = door.relay.store.records[message["id"]]
    assert (record.door, record.reference, record.state) == ("hook", "github", State.QUEUED)
    assert record.caller == "hook:github"


def test_a_repeat_makes_no_second_message(door: Door) -> None:
    first = door.send("github")
    door.relay.run()
    second = door.send("github")
    assert isinstance(first, Handled)
    assert second == Handled("sent", first.id)
    door.relay.settle_down()
    assert door.relay.provider.posts.total() == 1


def test_a_broadcast_is_started_once(door: Door) -> None:
    body = payload("hook_news.json")
    first, second = door.send("news", body), door.send("news", body)
    assert first == second
    assert isinstance(first, Handled)
    assert first.status == "preparing"
    [broadcast] = door.broadcasts.started.values()
    assert (broadcast.id, broadcast.bot_id) == (first.id, "65f1c0a2b3d4e5f6a7b8c902")
    assert door.send("news", changed(body, text="otherwise")) == first
    door.world.queue_down = True
    assert status(door.send("news", body)) == 503


THREE = """
[plain]
verify = { scheme = "token" }
to = [
  { subscriberId = "s1" },
  { botId = "b1", number = "{{ phone }}" },
  { broadcast = "b1" },
]
delivery = "id"
messages = [{ text = "{{ text }}" }]
"""
TOKEN = {"Authorization": SECRETS["plain"]}


def test_one_of_three_recipients_that_cannot_be_rendered_is_one_dead_letter() -> None:
    for to in ('{ broadcast = "b1" }', '{ subscriberId = "s2" }'):
        door = Door(THREE.replace('{ broadcast = "b1" }', to))
        body = b'{"id": 1, "text": "t", "phone": "unknown"}'
        first = door.send("plain", body, TOKEN)
        assert isinstance(first, Handled)
        assert [result.status for result in first.results][1] == "failed"
        for _ in range(2):
            door.relay.settle_down()
            again = door.send("plain", body, TOKEN)
            assert isinstance(again, Handled)
            assert [r.id for r in again.results] == [r.id for r in first.results]
        sent = door.relay.provider.posts.total() + len(door.broadcasts.started)
        [letter] = door.relay.queues.dead
        assert (sent, letter.reason) == (2, "hook_template")
        assert "to.1: number" in letter.detail


def test_a_dead_letter_is_not_lost_to_a_crash_before_the_others_are_accepted() -> None:
    for moment in ("before the queue", "after the queue", "before a write", "after a write"):
        door = Door(THREE)
        send = partial(door.send, "plain", b'{"id": 1, "text": "t", "phone": "unknown"}', TOKEN)
        door.relay.crash_at(send, moment)
        assert status(send()) == 202
        door.relay.settle_down()
        assert door.relay.provider.posts.total() == 1
        assert door.relay.queues.dead


def test_a_repeat_that_names_another_recipient_tells_nobody_new() -> None:
    door = Door(THREE)
    answers = [
        door.send("plain", changed(b'{"id": 1, "text": "t"}', phone=phone), TOKEN)
        for phone in ("79160001001", "79160001002")
    ]
    assert answers[0] == answers[1]
    assert {m.get("number") for m in door.accepted()} == {None, "79160001001"}


def test_the_id_of_a_hooks_only_recipient_is_made_of_the_delivery_alone() -> None:
    """As in 0.1.0: a repeat after the upgrade adds nothing."""
    for to in ('{ subscriberId = "s1" }', '[{ subscriberId = "s1" }]'):
        hooks = PLAIN.replace('{ subscriberId = "s1" }', to).replace(
            "mess", 'delivery = "id"\nmess'
        )
        answer = Door(hooks).send("plain", b'{"id": "d-1", "text": "t"}', TOKEN)
        assert isinstance(answer, Handled)
        assert answer.id == scoped_id("hook", "plain", "d-1")


def test_another_delivery_of_the_same_body_is_another_message(door: Door) -> None:
    for delivery in ("d-1", "d-2"):
        door.send("github", EXAMPLE, signed("github", EXAMPLE, door.world.now, delivery=delivery))
    assert len({message["id"] for message in door.accepted()}) == 2


def test_hooks_do_not_share_delivery_ids() -> None:
    both = PLAIN.replace("messages", 'delivery = "id"\nmessages')
    door = Door(
        both + both.replace("[plain]", "[other]"), {"plain": "12345678", "other": "12345678"}
    )
    for name in ("plain", "other"):
        door.send(name, b'{"id": 1, "text": "t"}', {"Authorization": "12345678"})
    assert len(door.accepted()) == 2


def test_a_repeat_that_renders_differently_returns_the_first_message(door: Door) -> None:
    first = door.send("github")
    second = door.send("github", changed(EXAMPLE, compare="https://elsewhere.example/"))
    assert first == second
    assert len(door.accepted()) == 1


def test_without_a_delivery_id_each_request_is_a_message(door: Door) -> None:
    for _ in range(2):
        assert status(door.send("plain", b'{"text": "again"}')) == 202
    assert len(door.accepted()) == 2


def test_without_a_delivery_id_what_is_on_the_queue_is_accepted(door: Door) -> None:
    """Else its sender would repeat it, and it would be sent twice."""
    door.world.next_writes = ["refused"]
    answer = door.send("plain", b'{"text": "again"}')
    assert isinstance(answer, Handled)
    door.relay.settle_down()
    assert door.relay.store.records[str(answer.id)].state is State.SENT


def test_a_base64_body_is_verified_over_its_decoded_bytes(door: Door) -> None:
    headers = signed("github", EXAMPLE, door.world.now)
    event = api_event("github", EXAMPLE, headers, encoded=True)
    assert status(door.receive("github", event)) == 202
    assert status(door.receive("github", {**event, "body": "not base64!"})) == 401
    assert status(door.receive("github", {**event, "isBase64Encoded": False})) == 401


@pytest.mark.parametrize("name", SECRETS)
def test_only_senders_with_the_secret_are_accepted(door: Door, name: str) -> None:
    body = b'{"text": "t"}'
    good = signed(name, body, door.world.now)
    for headers in ({}, {key: value[:-1] for key, value in good.items()}):
        assert status(door.send(name, body, headers)) == 401
    assert status(door.send(name, body, good)) == 202


def test_an_ignored_request_has_no_other_effect(door: Door) -> None:
    assert door.send("github", b'{"zen": "x"}') == Handled("ignored")
    assert not door.relay.world.log


def test_a_payload_that_makes_no_message_is_dead_lettered(door: Door) -> None:
    assert door.send("plain", b'{"no": "text"}') == Handled("failed")
    [letter] = door.relay.queues.dead
    assert letter.reason == "hook_template"
    assert letter.failed_at == door.world.now
    assert json.loads(letter.body) == {"hook": "plain", "payload": '{"no": "text"}'}


def test_an_unknown_hook_or_one_without_a_secret_is_404() -> None:
    door = Door(secrets={"unconfigured": "12345678"})
    for name in ("nobody", "", "unconfigured"):
        assert status(door.send(name, b"{}", {})) == 404
    assert door.fetches == 0  # probing costs no call
    assert status(door.send("github")) == 404


@pytest.mark.parametrize("entry", ["short", [], 12345678, None, ["long enough", "short"]])
def test_an_unusable_secret_costs_its_hook_alone(
    entry: object, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(secrets={**SECRETS, "gitlab": entry, "a-misplaced-secret": "x"})
    for secret in ("short", "12345678", "", "long enough"):
        headers = {"X-Gitlab-Token": secret}
        assert status(door.send("gitlab", b"{}", headers)) == 503
    assert "gitlab must be a secret" in caplog.records[0].__dict__["reason"]
    assert status(door.send("github")) == 202
    told = str([record.__dict__ for record in caplog.records])
    for secret in ("short", "12345678", "misplaced"):
        assert secret not in told


def test_a_first_or_mended_secret_works_at_once() -> None:
    for before in ({}, {"gitlab": "short"}):
        door = Door(secrets={"plain": SECRETS["plain"], **before})
        assert status(door.send("plain", b'{"text": "t"}')) == 202
        door.secret = json.dumps(SECRETS)
        assert status(door.send("gitlab", b"{}")) == 202


@pytest.mark.parametrize("secret", ["whsec_AAAA", "whsec_", "AAAAAAA=", "whsec_MfKQ9r8GKQ"])
def test_a_secrets_length_is_that_of_its_key(secret: str) -> None:
    door = Door(secrets={"standard": secret})
    assert status(door.send("standard", b"{}", {})) == 503


def test_a_body_over_the_limit_is_413_without_verification(door: Door) -> None:
    body = json.dumps({"text": "x" * MAX_BODY}).encode()
    assert status(door.send("plain", body)) == 413
    body = b'{"text": "x"}'.ljust(MAX_BODY)
    assert status(door.send("plain", body)) == 202


def test_an_outage_is_503_and_a_retry_is_sent_once(door: Door) -> None:
    for trouble in ("table_down", "queue_down"):
        setattr(door.world, trouble, True)
        assert status(door.send("github")) == 503
        assert not door.relay.queues.messages
        setattr(door.world, trouble, False)
    door.world.queue_down = True
    assert status(door.send("plain", b"{}")) == 503  # nor is a dead letter lost
    door.world.queue_down = False
    assert status(door.send("github")) == 202
    door.relay.settle_down()
    assert door.relay.provider.posts.total() == 1


@pytest.mark.parametrize("fate", ["refused", "lost", "dies before", "dies after"])
@pytest.mark.parametrize("effect", ["write", "send"])
def test_what_is_answered_202_is_sent_whatever_became_of_the_request_before(
    door: Door, effect: str, fate: str
) -> None:
    """A sender that repeats a delivery may change its payload: a count, a time, a signature."""
    world = door.world
    if fate.startswith("dies"):
        moment = f"{fate.removeprefix('dies ')} {'a write' if effect == 'write' else 'the queue'}"
        door.relay.crash_at(lambda: door.send("github"), moment)
    else:
        (world.next_writes if effect == "write" else world.next_sends).append(fate)
        door.send("github")

    repeated = door.send("github", changed(EXAMPLE, compare="https://elsewhere.example/"))

    assert status(repeated) == 202
    door.relay.settle_down()
    assert door.relay.provider.posts.total() == 1
    assert not world.next_writes
    assert not world.next_sends
    [record] = door.relay.store.records.values()
    assert record.state is State.SENT


def test_an_unreadable_secret_is_503() -> None:
    door = Door()
    door.secret = ""
    assert status(door.send("github")) == 503


def test_a_new_secret_works_at_once_and_bad_requests_cause_few_fetches(door: Door) -> None:
    assert status(door.send("gitlab", b'{"text": "t"}')) == 202
    door.secret = json.dumps({**SECRETS, "gitlab": ["the new secret", SECRETS["gitlab"]]})
    for secret in ("the new secret", SECRETS["gitlab"]):
        headers = signed("gitlab", b"{}", door.world.now, secret=secret)
        assert status(door.send("gitlab", b"{}", headers)) == 202
    assert door.fetches == 2
    for _ in range(20):
        assert status(door.send("gitlab", b"{}", {})) == 401
    assert door.fetches == 2


def test_a_hook_whose_secret_was_removed_is_404(door: Door) -> None:
    assert status(door.send("gitlab", b"{}")) == 202
    door.secret = "{}"
    door.world.now += 301
    assert status(door.send("gitlab", b"{}")) == 404


# ------------------------------------------------------------------------------------- EventBridge

EVENT: dict[str, Any] = json.loads(payload("hook_alarm.json"))
ORDERS = """
[orders]
verify = { scheme = "eventbridge" }
to = [{ subscriberId = "s1" }, { botId = "b1", number = "{{ detail.customer.phone }}" }]
messages = [{ when = "source == 'shop'", text = "Order {{ detail.order }} is {{ detail.state }}" }]
"""
ORDER = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "Order",
    "source": "shop",
    "account": "123456789012",
    "time": "2026-11-23T17:04:40Z",
    "region": "us-east-1",
    "resources": [],
    "detail": {"order": 4711, "state": "paid", "customer": {"phone": "+79160001001"}},
}


def test_an_event_is_accepted_once_however_often_it_comes(door: Door) -> None:
    first = door.receiver.take(EVENT, invocation="r-1")
    door.relay.settle_down()
    second = door.receiver.take(EVENT, invocation="r-1")
    assert (first["alarms"].status, second["alarms"].status) == ("queued", "sent")
    assert first["alarms"].id == second["alarms"].id == scoped_id("hook", "alarms", EVENT["id"])
    door.receiver.take({**EVENT, "id": "another"}, invocation="r-1")
    door.relay.settle_down()
    assert door.relay.provider.posts.total() == 2


def test_an_event_reaches_no_hook_of_the_web(door: Door) -> None:
    assert door.receiver.take(EVENT, invocation="r-1").keys() == {"alarms"}
    forged = {**api_event("plain", b'{"text": "t"}', {}), **ORDER, "text": "t"}
    assert door.receiver.take(forged, invocation="r-1") == {"alarms": Handled("ignored")}
    assert len(door.relay.store.records) == 1


@pytest.mark.parametrize("secret", [None, "12345678"])
def test_no_request_reaches_a_hook_for_events(secret: str | None) -> None:
    """Nor if its name has a secret, by mistake."""
    door = Door(secrets={"alarms": secret} if secret else {})
    for headers in ({}, {"Authorization": "12345678"}):
        assert status(door.send("alarms", json.dumps(EVENT).encode(), headers)) == 404
    assert door.fetches == 0
    assert not door.relay.world.log


def test_an_event_goes_to_each_hook_whose_message_is_for_it() -> None:
    hooks = (
        ORDERS
        + ORDERS.replace("orders", "copies")
        + ORDERS.replace("orders", "x").replace("'shop'", "'other'")
    )
    door = Door(hooks)
    taken = door.receiver.take(ORDER, invocation="r-1")
    assert {name: len(handled.results) for name, handled in taken.items()} == {
        "orders": 2,
        "copies": 2,
        "x": 0,
    }
    assert {m["text"] for m in door.accepted()} == {"Order 4711 is paid"}


NASTY = (
    'paid", "subscriberId": "s2", "x": "',
    "}}, {{ detail.other }}",
    '<id> ${AWS::Region} \\ \\" \ud800 \x00',
    "paid\n✅ Order 4712 is paid\r\n\u2028forged",
    '{"subscriberId": "s2"}',
)


@pytest.mark.parametrize("nasty", NASTY)
def test_what_an_events_fields_hold_chooses_no_recipient_and_breaks_no_message(nasty: str) -> None:
    door = Door(ORDERS)
    detail = {"order": 4711, "state": nasty, "other": "s3", "customer": {"phone": "+79160001001"}}
    names = {"subscriberId": "s2", "to": [{"subscriberId": "s2"}], "message": {"text": "forged"}}
    door.receiver.take({**ORDER, "detail": {**detail, **names}, **names}, invocation="r-1")
    assert not door.relay.queues.dead
    sent = door.accepted()
    assert [(m.get("subscriberId"), m.get("number")) for m in sent] == [
        ("s1", None),
        (None, "79160001001"),
    ]
    for message in sent:
        assert message["text"].startswith("Order 4711 is ")
        assert len(message["text"].splitlines()) == 1
        assert {*message} <= {"id", "subscriberId", "botId", "number", "text", "reference"}


@pytest.mark.parametrize("nasty", NASTY)
def test_a_recipient_in_an_event_is_a_number_or_nobody(nasty: str) -> None:
    door = Door(ORDERS)
    event = {**ORDER, "detail": {"order": 1, "customer": {"phone": nasty}}}
    door.receiver.take(event, invocation="r-1")
    [message] = door.accepted()
    assert message["subscriberId"] == "s1"
    [letter] = door.relay.queues.dead
    assert letter.reason == "hook_template"


@pytest.mark.parametrize("own", ["", 'delivery = "detail.payment"\n'], ids=["", "its own"])
def test_an_event_in_which_a_hook_finds_no_id_is_accepted_once_though_lambda_repeats_it(
    own: str,
) -> None:
    """An input transformer made it, or the hook's own `delivery` is not in it."""
    door = Door(ORDERS.replace("messages =", f"{own}messages ="))
    event = ORDER if own else {name: value for name, value in ORDER.items() if name != "id"}
    for _ in range(2):
        door.receiver.take(event, invocation="r-1")
        door.relay.settle_down()
    assert door.relay.provider.posts.total() == 2
    door.receiver.take(event | {"id": "another"}, invocation="r-2")
    door.relay.settle_down()
    assert door.relay.provider.posts.total() == 4


def test_an_outage_fails_the_event_so_that_it_comes_again() -> None:
    for trouble in ("table_down", "queue_down"):
        door = Door(ORDERS)
        setattr(door.world, trouble, True)
        with pytest.raises((StoreUnavailableError, QueueUnavailableError)):
            door.receiver.take(ORDER, invocation="r-1")
        setattr(door.world, trouble, False)
        for _ in range(2):
            door.receiver.take(ORDER, invocation="r-1")
            door.relay.settle_down()
        assert door.relay.provider.posts.total() == 2


def test_a_hook_that_cannot_accept_an_event_keeps_it_from_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    news = """
    [news]
    verify = { scheme = "eventbridge" }
    to = { broadcast = "b-1" }
    [[news.messages]]
    text = "Order {{ detail.order }} is paid"
    """
    door = Door(news + ORDERS)

    def down(_: QueuedBroadcast) -> Started:
        raise QueueUnavailableError("down")

    monkeypatch.setattr(door.broadcasts, "start", down)
    with pytest.raises(QueueUnavailableError):
        door.receiver.take(ORDER, invocation="r-1")
    assert len(door.accepted()) == 2
    monkeypatch.undo()
    assert door.receiver.take(ORDER, invocation="r-1").keys() == {"news", "orders"}
    door.relay.settle_down()
    assert (len(door.broadcasts.started), door.relay.provider.posts.total()) == (1, 2)


CONTEXT: Any = SimpleNamespace(
    function_name="hooks",
    memory_limit_in_mb=512,
    invoked_function_arn="arn:aws:lambda:us-east-1:1:function:hooks",
    aws_request_id="r-1",
)


@pytest.mark.parametrize(("event", "answer"), [(EVENT, "alarms"), (None, 404)])
def test_the_function_tells_events_and_requests_apart(
    door: Door, monkeypatch: pytest.MonkeyPatch, event: dict[str, Any] | None, answer: object
) -> None:
    monkeypatch.setattr(app, "receiver", door.receiver)
    made = app.handler(event or api_event("alarms", json.dumps(EVENT).encode(), {}), CONTEXT)
    assert (answer in made) if event else (made["statusCode"] == answer)


# ------------------------------------------------------------------------------------- garbage

TEXT = st.text(max_size=40)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "body": st.none() | TEXT | st.text("=+/ab", max_size=8),
        "isBase64Encoded": st.none() | st.booleans(),
        "headers": st.none()
        | st.dictionaries(
            st.sampled_from([n for s in SECRETS for n in signed(s, b"{}", 1.8e9)]) | TEXT,
            st.none() | TEXT,
            max_size=5,
        ),
        "multiValueHeaders": st.none(),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(SECRETS)), event=EVENTS)
def test_garbage_is_401(door: Door, name: str, event: dict[str, Any]) -> None:
    assert status(door.receive(name, event)) == HTTPStatus.UNAUTHORIZED
    assert not door.accepted()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | TEXT.map(lambda t: json.dumps({"text": t}).encode()))
def test_any_signed_body_is_handled(door: Door, body: bytes) -> None:
    headers = signed("plain", body, door.world.now)
    event = api_event("plain", body, headers, encoded=True)
    assert isinstance(door.receive("plain", event), Handled)
