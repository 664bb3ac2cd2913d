"""Every route and every error of the HTTP API, from a real event to the answer."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from relay.broadcasts.model import BroadcastRecord, Command
from relay.broadcasts.service import FoundBroadcasts
from relay.directory import Directory
from relay.http.api import answer, api
from relay.messages.envelope import QueuedMessage, rfc3339
from relay.messages.lists import Found
from relay.messages.states import Rules, State
from relay.problems import MAX_BODY
from relay.validation import parse
from smsgold.account import Account
from smsgold.credentials import Credentials
from smsgold.errors import (
    CredentialsError,
    CredentialsRefusedError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from tests.support.world import MemoryQueues, Relay

EVENTS = Path(__file__).resolve().parents[2] / "events"
MESSAGE = {"subscriberId": "s-1", "text": "a text"}
REQUEST_ID = "0f5c1d4e-8f0b-4f3e-9a51-6f9d2b7c3e10"
Json = dict[str, Any]


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Lists:
    """The provider's lists, or the error that comes instead."""

    error: ProviderError | None = None
    calls: list[str] = field(default_factory=list)

    def bots(self, credentials: Credentials) -> list[dict[str, object]]:
        return self._answer("bots", credentials)

    def subscribers(self, credentials: Credentials, bot_id: str) -> list[dict[str, object]]:
        return self._answer(bot_id, credentials)

    def _answer(self, name: str, credentials: Credentials) -> list[dict[str, object]]:
        self.calls.append(f"{name} {credentials.password}")
        if self.error and credentials.password != "renewed":
            raise self.error
        return [{"id": "1", "name": "Ромашка", "more": {"kept": True}}]


class Keeper:
    """Credentials that can be out of reach, or be renewed."""

    def __init__(self) -> None:
        self.out_of_reach = False
        self.renewed: Credentials | None = None

    def get(self) -> Credentials:
        if self.out_of_reach:
            raise CredentialsError("the secret arn:… cannot be read: AccessDenied")
        return Credentials("10001", "first")

    def renew(self, refused: Credentials) -> Credentials | None:
        del refused
        return self.renewed


class Api:
    """The API over a relay in memory; requests are the events of events/, changed."""

    def __init__(self) -> None:
        self.relay = Relay(Rules())
        self.lists = Lists()
        self.keeper = Keeper()
        self.now = 0.0
        self.broadcasts: Any = Mock()
        account = Account(self.lists, self.keeper)
        directory = Directory(lambda: account, clock=lambda: self.now)
        # test_broadcasts.py and test_schedules.py have the routes of these two.
        self._app = api(self.relay.service, self.broadcasts, Mock(), directory)

    def event(self, name: str, *, path: str | None = None, **headers: str) -> Json:
        event: Json = json.loads((EVENTS / f"api_{name}.json").read_text(encoding="utf-8"))
        event["path"] = path or event["path"]
        for header, value in headers.items():
            event["multiValueHeaders"][header.replace("_", "-")] = [value]
            event["headers"][header.replace("_", "-")] = value
        return event

    def answer(self, event: Json) -> Answered:
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 29_000)
        raw = answer(self._app, event, cast("LambdaContext", context))
        headers = {name: values[0] for name, values in raw.get("multiValueHeaders", {}).items()}
        headers |= raw.get("headers", {})
        return Answered(raw["statusCode"], headers, raw["body"])

    def post(self, body: object, path: str = "/messages", **headers: str) -> Answered:
        event = self.event("send", path=path)
        del event["headers"]["Idempotency-Key"], event["multiValueHeaders"]["Idempotency-Key"]
        for header, value in headers.items():
            event["headers"][header.replace("_", "-")] = value
            event["multiValueHeaders"][header.replace("_", "-")] = [value]
        event["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
        return self.answer(event)

    def get(self, path: str) -> Answered:
        return self.answer(self.event("state", path=path))

    def find(self, path: str, **parameters: str | list[str]) -> Answered:
        """Ask for a page of a list, as API Gateway passes parameters on."""
        event = self.event("state", path=path)
        many = {n: v if isinstance(v, list) else [v] for n, v in parameters.items()}
        event["multiValueQueryStringParameters"] = many or None
        event["queryStringParameters"] = {n: v[-1] for n, v in many.items()} or None
        return self.answer(event)

    def delete(self, path: str) -> Answered:
        return self.answer(self.event("cancel", path=path))


@pytest.fixture
def http() -> Api:
    return Api()


def is_problem(answered: Answered, status: int, name: str) -> Json:
    assert answered.status == status, answered.text
    assert answered.headers["Content-Type"] == "application/problem+json"
    body: Json = answered.json
    assert body["type"] == f"urn:smsgold-relay:problem:{name}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["requestId"] == REQUEST_ID
    return body


def id_at(answered: Answered) -> str:
    return str(answered.json["id"])


# ---------------------------------------------------------------------------------- POST /messages


def test_a_message_is_accepted(http: Api) -> None:
    answered = http.answer(http.event("send"))
    assert answered.status == 202
    assert answered.json == {"id": id_at(answered), "status": "queued"}
    assert answered.headers["Location"] == f"./messages/{id_at(answered)}"
    [copy] = http.relay.queues.messages
    assert parse(QueuedMessage, copy.body).id == id_at(answered)
    http.relay.settle_down()
    state = http.get(f"/messages/{id_at(answered)}").json
    assert state["status"] == "sent"
    assert state["reference"] == "order-4711"
    assert state["providerId"] == "p-1"
    assert state["tries"] == 1
    assert [attempt["outcome"] for attempt in state["attempts"]] == ["accepted"]


def test_a_repeat_is_answered_with_the_first_one_s_state(http: Api) -> None:
    first = http.answer(http.event("send"))
    assert "Idempotency-Replayed" not in first.headers
    http.relay.settle_down()
    again = http.answer(http.event("send"))
    assert again.status == 202
    assert again.json == {"id": id_at(first), "status": "sent"}
    assert again.headers["Idempotency-Replayed"] == "true"
    http.relay.settle_down()
    assert sum(http.relay.provider.posts.values()) == 1


@pytest.mark.parametrize(("one", "other"), [("a b", '"a b"'), (r'"a\"b"', r'"a\"b"')])
def test_a_key_is_the_same_bare_or_quoted(http: Api, one: str, other: str) -> None:
    first = http.post(MESSAGE, Idempotency_Key=one)
    assert id_at(http.post(MESSAGE, Idempotency_Key=other)) == id_at(first)


def test_a_key_belongs_to_its_caller(http: Api) -> None:
    event = http.event("send")
    mine = id_at(http.answer(event))
    event["requestContext"]["identity"]["apiKeyId"] = "another"
    assert id_at(http.answer(event)) != mine


def test_the_log_tells_which_key_made_a_request_and_not_the_key(
    http: Api, caplog: pytest.LogCaptureFixture
) -> None:
    event = http.event("send")
    event["requestContext"]["identity"] |= {"apiKeyId": "a1b2c3", "apiKey": "the key itself"}
    with caplog.at_level(logging.INFO):
        http.answer(event)
    [line] = [record for record in caplog.records if record.getMessage() == "request"]
    assert line.__dict__["caller"] == "key:a1b2c3"
    assert (line.__dict__["method"], line.__dict__["status"]) == ("POST", 202)
    assert "the key itself" not in str([record.__dict__ for record in caplog.records])


def test_a_request_is_one_line_that_says_what_became_of_it(
    http: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        accepted = http.post(MESSAGE)
        refused = http.post({"text": "to nobody"})
        http.get("/messages/unknown")

    first, second, third = (record.__dict__ for record in caplog.records)
    assert (first["id"], first["state"]) == (id_at(accepted), "queued")
    assert "request_id" not in first
    assert (second["problem"], second["request_id"]) == ("invalid", refused.json["requestId"])
    assert {"id", "state"} & {*second, *third} == set()


def test_no_answer_is_kept_by_a_cache(http: Api) -> None:
    sent = http.answer(http.event("send"))
    paths = ("/bots", "/bots/b-1/subscribers", f"/messages/{id_at(sent)}", "/nowhere")
    for answered in (sent, *map(http.get, paths)):
        assert answered.headers["Cache-Control"] == "no-store"


def test_a_role_s_sessions_are_one_caller(http: Api) -> None:
    ids = set()
    for session in ("one", "two"):
        event = http.event("send")
        arn = f"arn:aws:sts::123456789012:assumed-role/Backend/{session}"
        event["requestContext"]["identity"] |= {"apiKeyId": None, "userArn": arn}
        ids.add(id_at(http.answer(event)))
    assert len(ids) == 1


def test_the_same_key_with_another_body_is_refused(http: Api) -> None:
    http.post(MESSAGE, Idempotency_Key="k")
    answered = http.post({**MESSAGE, "text": "another"}, Idempotency_Key="k")
    is_problem(answered, 422, "idempotency-key-reused")
    assert len(http.relay.queues.messages) == 1


@pytest.mark.parametrize("key", ["k" * 255, f'"{"k" * 255}"', "~ !", r'"\\"'])
def test_a_key_at_the_edge(http: Api, key: str) -> None:
    assert http.post(MESSAGE, Idempotency_Key=key).status == 202


@pytest.mark.parametrize(
    "key",
    ["", '""', "k" * 256, f'"{"k" * 256}"', '"open', '"quoted" more', "ключ", "a\tb", '"\\x"'],
)
def test_a_key_that_is_none(http: Api, key: str) -> None:
    is_problem(http.post(MESSAGE, Idempotency_Key=key), 400, "malformed-request")
    assert not http.relay.queues.messages


def test_two_keys_are_none(http: Api) -> None:
    event = http.event("send")
    event["multiValueHeaders"]["Idempotency-Key"] = ["a", "b"]
    is_problem(http.answer(event), 400, "malformed-request")


def test_without_a_key_what_is_on_the_queue_is_accepted(http: Api) -> None:
    """Told 503, its caller would repeat it without a key, and it would be sent twice."""
    http.relay.world.next_writes = ["refused"] * 4
    assert http.post(MESSAGE).status == 202
    assert http.post(MESSAGE, Prefer="wait=1").status in (200, 202)
    [result] = http.post({"messages": [MESSAGE]}, path="/messages/batch").json["results"]
    assert result["status"] == "queued"
    http.relay.world.next_writes = ["refused"] * 2
    is_problem(http.post(MESSAGE, Idempotency_Key="k"), 503, "unavailable")
    keyed = {"messages": [{**MESSAGE, "id": "k-2"}]}
    [result] = http.post(keyed, path="/messages/batch").json["results"]
    assert result["error"]["status"] == 503
    http.relay.world.now += 60
    http.relay.settle_down()
    assert http.relay.provider.posts.total() == 5


# ---------------------------------------------------------------------------------- Prefer: wait


def test_a_message_is_sent_at_once(http: Api) -> None:
    answered = http.answer(http.event("send_and_wait"))
    assert answered.status == 200
    assert answered.json["status"] == "sent"
    assert answered.headers["Preference-Applied"] == "wait=10"
    assert answered.headers["Location"] == f"./messages/{id_at(answered)}"
    assert http.relay.queues.messages, "its copy is still held back"
    http.relay.settle_down()
    assert sum(http.relay.provider.posts.values()) == 1


@pytest.mark.parametrize(
    ("provider", "status"),
    [("refuses", "rejected"), ("times out", "unknown")],
)
def test_a_bad_end_is_an_end(http: Api, provider: str, status: str) -> None:
    http.relay.provider.next = [provider]
    answered = http.post(MESSAGE, Prefer="wait=5")
    assert answered.status == 200
    assert answered.json["status"] == status
    assert answered.json["reason"]
    assert len(http.relay.queues.dead) == 1


def test_what_is_not_final_in_time_goes_on_by_the_queue(http: Api) -> None:
    http.relay.provider.next = ["is busy"]
    answered = http.post(MESSAGE, Prefer="wait=1")
    assert answered.status == 202
    assert answered.json["status"] == "queued"
    assert answered.json["tries"] == 1
    http.relay.settle_down()
    assert http.get(f"/messages/{id_at(answered)}").json["status"] == "sent"
    assert sum(http.relay.provider.posts.values()) == 2


def test_a_retry_that_comes_in_time_is_waited_for(http: Api) -> None:
    http.relay.provider.next = ["is busy"]
    began = http.relay.world.now
    answered = http.post(MESSAGE, Prefer="wait=20")
    assert answered.status == 200
    assert answered.json["tries"] == 2
    assert http.relay.world.now - began <= 20


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=20", "wait=20"),
        ("wait=21", "wait=20"),
        ("wait=99999", "wait=20"),
        ("respond-async, WAIT = 3", "wait=3"),
        ('wait="7"; x=y', "wait=7"),
        ("wait=0", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("waits=5", None),
    ],
)
def test_how_long_is_waited(http: Api, prefer: str, applied: str | None) -> None:
    answered = http.post(MESSAGE, Prefer=prefer)
    assert answered.status == (200 if applied else 202)
    assert answered.headers.get("Preference-Applied") == applied


def test_a_repeat_watches_what_the_first_one_began(http: Api) -> None:
    http.post(MESSAGE, Idempotency_Key="k")
    began = http.relay.world.now
    answered = http.post(MESSAGE, Idempotency_Key="k", Prefer="wait=3")
    assert answered.status == 202, "it is not sent by a repeat"
    assert answered.json["status"] == "queued"
    assert http.relay.world.now - began == pytest.approx(3)
    http.relay.settle_down()
    assert http.post(MESSAGE, Idempotency_Key="k", Prefer="wait=3").status == 200
    assert sum(http.relay.provider.posts.values()) == 1


# ----------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body", ["{", "not json", '{"text": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '"\\ud8']
)
def test_a_body_that_is_no_json(http: Api, body: str) -> None:
    is_problem(http.post(body), 400, "malformed-request")


@pytest.mark.parametrize("body", ["[]", "5", '"text"', "null", json.dumps([MESSAGE]), None])
def test_a_body_that_is_no_object(http: Api, body: str | None) -> None:
    is_problem(http.post(body), 422, "invalid")


def test_every_wrong_field_is_named_by_a_pointer_and_not_repeated(http: Api) -> None:
    secret = "+7 900 SECRET"
    body = {
        "botId": "b",
        "number": secret,
        "text": " ",
        "buttons": [{"text": "x", "url": secret}],
        "expiresAt": secret,
        "x/y~z": 1,
    }
    answered = http.post(body)
    errors = is_problem(answered, 422, "invalid")["errors"]
    assert {error["pointer"] for error in errors} == {
        "#/number",
        "#/text",
        "#/buttons/0/url",
        "#/expiresAt",
        "#/x~1y~0z",
    }
    assert all(error["detail"] for error in errors)
    assert "SECRET" not in answered.text


def test_half_an_address_names_the_other_half(http: Api) -> None:
    errors = is_problem(http.post({"botId": "b", "text": "x"}), 422, "invalid")["errors"]
    assert errors == [{"pointer": "#/number", "detail": "is required with botId"}]


def test_an_id_is_for_the_header(http: Api) -> None:
    errors = is_problem(http.post({**MESSAGE, "id": "k"}), 422, "invalid")["errors"]
    assert [error["pointer"] for error in errors] == ["#/id"]


def test_a_body_at_the_edge_of_its_size(http: Api) -> None:
    body = json.dumps(MESSAGE)
    assert http.post(body + " " * (MAX_BODY - len(body))).status == 202
    is_problem(http.post(body + " " * (MAX_BODY + 1 - len(body))), 413, "too-large")


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
)
def test_a_body_declared_as_something_else(http: Api, kind: str) -> None:
    is_problem(http.post(MESSAGE, Content_Type=kind), 415, "unsupported-media-type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_body_declared_as_json(http: Api, kind: str) -> None:
    assert http.post(MESSAGE, Content_Type=kind).status == 202


# ---------------------------------------------------------------------------- POST /messages/batch


def test_each_of_a_batch_is_accepted_or_refused_on_its_own(http: Api) -> None:
    items = [
        MESSAGE,
        {"text": "to nobody"},
        {**MESSAGE, "id": "a"},
        {**MESSAGE, "id": "a"},
        {**MESSAGE, "id": "a", "text": "another"},
        5,
    ]
    answered = http.post({"messages": items}, "/messages/batch")
    assert answered.status == 202
    results = answered.json["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result.get("status") for result in results] == [
        *("queued", None, "queued", "queued", None, None)
    ]
    assert results[3]["id"] == results[2]["id"]
    assert results[3]["replayed"]
    assert results[1]["error"]["errors"][0]["pointer"] == "#/messages/1/subscriberId"
    assert results[4]["error"]["type"] == "urn:smsgold-relay:problem:idempotency-key-reused"
    assert results[5]["error"]["errors"][0]["pointer"] == "#/messages/5"
    assert len(http.relay.queues.messages) == 2


def test_a_batch_repeated_under_its_key_is_the_same_batch(http: Api) -> None:
    def send() -> list[Json]:
        batch = {"messages": [MESSAGE, {**MESSAGE, "id": "a"}]}
        answered = http.post(batch, "/messages/batch", Idempotency_Key="night-run")
        return cast("list[Json]", answered.json["results"])

    first, again = send(), send()
    assert [result["id"] for result in again] == [result["id"] for result in first]
    assert all(result["replayed"] for result in again)
    http.relay.settle_down()
    assert sum(http.relay.provider.posts.values()) == 2


def test_an_item_s_id_is_the_same_key_as_the_header(http: Api) -> None:
    batch = {"messages": [{**MESSAGE, "id": "k"}]}
    [result] = http.post(batch, "/messages/batch").json["results"]
    assert id_at(http.post(MESSAGE, Idempotency_Key="k")) == result["id"]


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 202), (100, 202), (101, 422)])
def test_how_many_a_batch_may_hold(http: Api, count: int, status: int) -> None:
    assert http.post({"messages": [MESSAGE] * count}, "/messages/batch").status == status


def test_what_the_queue_does_not_take_is_told_by_item(http: Api) -> None:
    class HalfDown(MemoryQueues):
        def enqueue(self, messages: Any, delays: Any = ()) -> list[str | None]:
            super().enqueue(messages[:1], delays[:1])
            return [None, *["InternalError"] * (len(messages) - 1)]

    http.relay.intake._queues = HalfDown(http.relay.world)
    results = http.post({"messages": [MESSAGE, MESSAGE]}, "/messages/batch").json["results"]
    assert results[0]["status"] == "queued"
    assert results[1]["error"]["type"] == "urn:smsgold-relay:problem:unavailable"
    assert len(http.relay.store.records) == 1, "the other one is not recorded"


# --------------------------------------------------------------------------------- sendAt, between


def in_seconds(http: Api, seconds: float) -> str:
    return rfc3339(http.relay.world.now + seconds)


def test_a_message_for_later_is_queued_and_says_when(http: Api) -> None:
    body = {**MESSAGE, "sendAt": in_seconds(http, 1200)}
    id_ = id_at(http.post(body))
    shown = http.get(f"/messages/{id_}").json
    assert shown["status"] == "queued"
    assert shown["nextTryAt"] == in_seconds(http, 1200)
    assert shown["deadline"] == in_seconds(http, 1200 + Rules().retry_window)
    answered = http.delete(f"/messages/{id_}").json
    assert answered["status"] == "canceled"
    assert "nextTryAt" not in answered
    http.relay.settle_down()
    assert not http.relay.provider.posts


def test_what_goes_at_once_says_no_time(http: Api) -> None:
    assert "nextTryAt" not in http.get(f"/messages/{id_at(http.post(MESSAGE))}").json


def test_waiting_for_the_state_of_a_message_for_later(http: Api) -> None:
    body = {**MESSAGE, "sendAt": in_seconds(http, 1200)}
    answered = http.post(body, Prefer="wait=5")
    assert answered.status == 202
    assert answered.json["status"] == "queued"
    assert answered.json["nextTryAt"] == rfc3339(http.relay.world.now + 1200 - 5)


MOSCOW = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"between": {**MOSCOW, "timezone": "Mars/Base"}}, "#/between/timezone", "IANA time zone"),
        ({"between": {**MOSCOW, "from": "9:00"}}, "#/between/from", "from 00:00 to 23:59"),
        ({"between": {**MOSCOW, "to": "09:00"}}, "#/between/to", "must differ"),
        ({"between": {"from": "09:00", "to": "21:00"}}, "#/between/timezone", "is required"),
        ({"sendAt": "tomorrow"}, "#/sendAt", "RFC 3339"),
        ({"sendAt": "2027-02-01T00:00:00Z"}, "#/sendAt", "POST /schedules"),
        (
            {"sendAt": "2027-01-16T00:00:00Z", "expiresAt": "2027-01-15T00:00:00Z"},
            "#/expiresAt",
            "later than sendAt",
        ),
    ],
)
def test_a_wrong_time_is_named_with_its_field(
    http: Api, fields: Json, pointer: str, detail: str
) -> None:
    body = is_problem(http.post({**MESSAGE, **fields}), 422, "invalid")
    assert [error["pointer"] for error in body["errors"]] == [pointer]
    assert detail in body["errors"][0]["detail"]
    [result] = http.post({"messages": [{**MESSAGE, **fields}]}, "/messages/batch").json["results"]
    assert result["error"]["errors"][0]["pointer"] == pointer.replace("#", "#/messages/0")
    assert not http.relay.store.records


def test_no_message_for_later_is_accepted_while_too_many_wait(http: Api) -> None:
    http.relay.queues.room_to_wait = False
    later = {**MESSAGE, "sendAt": in_seconds(http, 1200)}
    answered = http.post(later)
    is_problem(answered, 503, "too-many-waiting")
    assert answered.headers["Retry-After"] == "600"
    results = http.post({"messages": [later, MESSAGE]}, "/messages/batch").json["results"]
    assert results[0]["error"]["type"] == "urn:smsgold-relay:problem:too-many-waiting"
    assert results[1]["status"] == "queued"
    assert len(http.relay.store.records) == 1


# ------------------------------------------------------------------------- state, cancel, resolve


def test_a_message_nobody_knows(http: Api) -> None:
    for answered in (
        http.get("/messages/unknown"),
        http.delete("/messages/unknown"),
        http.post({"as": "sent"}, "/messages/unknown/resolve"),
        http.get("/messages/" + "x" * 65),
        http.get("/messages/a%20b"),
    ):
        is_problem(answered, 404, "not-found")


def test_a_canceled_message_is_never_sent(http: Api) -> None:
    id_ = id_at(http.post(MESSAGE))
    for _ in range(2):
        answered = http.delete(f"/messages/{id_}")
        assert answered.status == 200
        assert answered.json["status"] == "canceled"
    http.relay.settle_down()
    assert not http.relay.provider.posts


def test_what_is_sent_cannot_be_canceled(http: Api) -> None:
    id_ = id_at(http.post(MESSAGE, Prefer="wait=5"))
    body = is_problem(http.delete(f"/messages/{id_}"), 409, "not-cancelable")
    assert body["state"] == "sent"


def test_what_is_being_sent_cannot_be_canceled(http: Api) -> None:
    meanwhile: list[Answered] = []
    id_ = id_at(http.post(MESSAGE))
    http.relay.provider.meanwhile = lambda: meanwhile.append(http.delete(f"/messages/{id_}"))
    http.relay.settle_down()
    assert is_problem(meanwhile[0], 409, "not-cancelable")["state"] == "sending"


@pytest.mark.parametrize("found", ["sent", "failed"])
def test_an_unknown_outcome_is_resolved(http: Api, found: str) -> None:
    http.relay.provider.next = ["keeps and times out"]
    id_ = id_at(http.post(MESSAGE, Prefer="wait=5"))
    for _ in range(2):
        answered = http.post({"as": found}, f"/messages/{id_}/resolve")
        assert answered.status == 200
        assert answered.json["status"] == found
        assert answered.json["history"][-1]["what"] == f"resolved as {found}"
    other = "failed" if found == "sent" else "sent"
    body = is_problem(http.post({"as": other}, f"/messages/{id_}/resolve"), 409, "not-unknown")
    assert body["state"] == found


def test_only_what_is_unknown_is_resolved(http: Api) -> None:
    id_ = id_at(http.post(MESSAGE, Prefer="wait=5"))
    is_problem(http.post({"as": "sent"}, f"/messages/{id_}/resolve"), 409, "not-unknown")
    wrong = http.post({"as": "lost"}, f"/messages/{id_}/resolve")
    assert is_problem(wrong, 422, "invalid")["errors"][0]["pointer"] == "#/as"


# --------------------------------------------------------------------------- the provider's lists


@pytest.mark.parametrize("name", ["bots", "subscribers"])
def test_lists_are_passed_on_and_kept_for_a_moment(http: Api, name: str) -> None:
    answered = http.answer(http.event(name))
    assert answered.status == 200
    assert answered.json == [{"id": "1", "name": "Ромашка", "more": {"kept": True}}]
    http.now = 29.9
    http.answer(http.event(name))
    assert len(http.lists.calls) == 1
    http.now = 30.1
    http.answer(http.event(name))
    assert len(http.lists.calls) == 2


@pytest.mark.parametrize(
    ("error", "status", "name", "reason"),
    [
        (
            ProviderUnavailableError("http_500", "ha?user=1&pass=first"),
            *(502, "provider-failed", "http_500"),
        ),
        (
            ProviderUnavailableError("read_timeout", timeout=True),
            *(504, "provider-timeout", "read_timeout"),
        ),
        (ProviderRefusedError("http_404"), *(404, "not-found", "http_404")),
        (ProviderRefusedError("http_400"), *(502, "provider-failed", "http_400")),
        (CredentialsRefusedError("http_401"), *(502, "provider-failed", "http_401")),
    ],
)
def test_the_provider_s_trouble(
    http: Api, error: ProviderError, status: int, name: str, reason: str
) -> None:
    http.lists.error = error
    answered = http.answer(http.event("subscribers"))
    assert is_problem(answered, status, name)["reason"] == reason
    assert "first" not in answered.text
    assert "pass=" not in answered.text


def test_new_credentials_are_tried_once(http: Api) -> None:
    http.lists.error = CredentialsRefusedError("http_401")
    http.keeper.renewed = Credentials("10001", "renewed")
    assert http.answer(http.event("bots")).status == 200
    assert http.lists.calls == ["bots first", "bots renewed"]


def test_no_credentials(http: Api) -> None:
    http.keeper.out_of_reach = True
    answered = http.answer(http.event("bots"))
    assert is_problem(answered, 502, "provider-failed")["reason"] == "no_credentials"
    assert "arn:" not in answered.text


# ------------------------------------------------------------------------------ whatever goes wrong


def test_an_address_that_is_none(http: Api) -> None:
    is_problem(http.get("/"), 404, "not-found")
    is_problem(http.get("/message"), 404, "not-found")
    is_problem(http.get("/messages/a/b/c"), 404, "not-found")


def test_a_method_that_is_not_taken(http: Api) -> None:
    answered = http.delete("/messages")
    is_problem(answered, 405, "method-not-allowed")
    assert answered.headers["Allow"] == "GET, POST"
    assert http.delete("/bots").headers["Allow"] == "GET"
    assert http.post(None, "/messages/some-id").headers["Allow"] == "DELETE, GET"


def test_a_table_or_queue_out_of_order(http: Api) -> None:
    def down(what: str) -> None:
        http.relay.world.table_down = what == "table"
        http.relay.world.queue_down = what == "queue"

    requests: list[tuple[str, Callable[[], Answered]]] = [
        ("table", lambda: http.post(MESSAGE, Idempotency_Key="k")),
        ("table", lambda: http.post(MESSAGE, Idempotency_Key="k", Prefer="wait=3")),
        ("table", lambda: http.get("/messages/some-id")),
        ("table", lambda: http.delete("/messages/some-id")),
        ("queue", lambda: http.post(MESSAGE)),
        ("queue", lambda: http.post(MESSAGE, Prefer="wait=3")),
    ]
    for what, request in requests:
        down(what)
        answered = request()
        is_problem(answered, 503, "unavailable")
        assert answered.headers["Retry-After"]
    down("nothing")
    assert not http.relay.store.records
    assert not http.relay.provider.posts


def test_an_error_nobody_foresaw_is_told_in_the_log_alone(
    http: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("an inner detail")

    monkeypatch.setattr(http.relay.store, "load", fails)
    answered = http.get("/messages/some-id")
    is_problem(answered, 500, "internal")
    assert "inner detail" not in answered.text
    assert "an inner detail" in caplog.text


# --------------------------------------------------------------------------------------- the lists


def tagged(http: Api, count: int, reference: str = "order-1") -> list[str]:
    ids = []
    for n in range(count):
        http.relay.world.now += 1
        body = {"subscriberId": f"s-{n}", "text": f"m-{n}", "reference": reference}
        ids.append(id_at(http.post(body)))
    return ids


def ids(answered: Answered) -> list[str]:
    assert answered.status == 200, answered.text
    return [message["id"] for message in answered.json["messages"]]


def test_messages_are_found_by_reference_page_by_page(http: Api) -> None:
    mine = tagged(http, 5)
    tagged(http, 1, "order-2")

    first = http.find("/messages", reference="order-1", limit="2")
    second = http.find("/messages", reference="order-1", limit="2", cursor=first.json["cursor"])
    # Another size of the page is no other list.
    third = http.find("/messages", reference="order-1", limit="9", cursor=second.json["cursor"])

    assert [*ids(first), *ids(second), *ids(third)] == mine[::-1]
    assert "cursor" not in third.json
    assert first.json["messages"][0]["reference"] == "order-1"
    assert ids(http.find("/messages", reference="order-9")) == []


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00Z", "1970-01-01T03:00:00+03:00"])
def test_messages_are_found_by_a_bad_end(http: Api, since: str) -> None:
    http.relay.provider.next = ["refuses", "accepts", "refuses"]
    sent = []
    for n in range(3):
        http.relay.world.now += 1
        sent.append(id_at(http.post({"subscriberId": f"s-{n}", "text": f"m-{n}"})))
        http.relay.run()

    found = http.find("/messages", status="rejected", since=since)

    assert ids(found) == [sent[2], sent[0]]
    assert ids(http.find("/messages", status="failed")) == []
    assert ids(http.find("/messages", status="rejected", since="2999-01-01T00:00:00Z")) == []


def test_without_a_limit_there_are_twenty_five(http: Api) -> None:
    tagged(http, 30)
    assert len(ids(http.find("/messages", reference="order-1"))) == 25


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "either `reference` or `status`"),
        ({"reference": "a", "status": "failed"}, "either `reference` or `status`"),
        ({"reference": "a", "refrence": "b"}, "cursor, limit, reference, since, status"),
        ({"reference": ["a", "b"]}, "reference"),
        ({"reference": ""}, "reference"),
        ({"reference": "r" * 257}, "reference"),
        ({"status": "sent"}, "status"),
        ({"status": "queued"}, "status"),
        ({"reference": "a", "since": "yesterday"}, "since"),
        ({"reference": "a", "since": "2026-12-01T10:00:00"}, "since"),
        ({"reference": "a", "since": "1800000000"}, "since"),
        ({"reference": "a", "limit": ["1", "2"]}, "limit"),
        ({"status": "sent"}, "status must be 'rejected', 'unknown', 'failed' or 'expired'."),
        ({"reference": "a", "limit": "0"}, "limit must be greater than or equal to 1."),
        ({"reference": "a", "limit": "101"}, "limit"),
        ({"reference": "a", "limit": "ten"}, "limit"),
        ({"reference": "a", "cursor": ""}, "cursor"),
        ({"reference": "a", "cursor": "made-up"}, "cursor"),
        ({"reference": "a", "cursor": "Пыщ"}, "cursor"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(http: Api, parameters: Any, said: str) -> None:
    problem = is_problem(http.find("/messages", **parameters), 400, "malformed-request")
    assert said in problem["detail"]


def test_a_cursor_belongs_to_its_list(http: Api) -> None:
    tagged(http, 3)
    tagged(http, 3, "order-2")
    cursor = http.find("/messages", reference="order-1", limit="1").json["cursor"]
    others: list[Any] = [
        {"reference": "order-2", "cursor": cursor},
        {"reference": "order-1", "since": "1970-01-01T00:00:00Z", "cursor": cursor},
        {"status": "failed", "cursor": cursor},
        {"reference": "order-1", "cursor": cursor[:-1]},
        {"reference": "order-1", "cursor": f"{'B' if cursor[0] == 'A' else 'A'}{cursor[1:]}"},
        {"reference": "order-1", "cursor": f"{cursor}A"},
    ]
    for parameters in others:
        problem = is_problem(http.find("/messages", **parameters), 400, "malformed-request")
        assert "not one of this list" in problem["detail"]
    is_problem(http.find("/broadcasts", cursor=cursor), 400, "malformed-request")


def test_a_list_without_a_table(http: Api) -> None:
    http.relay.world.table_down = True
    is_problem(http.find("/messages", reference="order-1"), 503, "unavailable")


def test_broadcasts_and_their_messages_are_lists_of_their_own(http: Api) -> None:
    tagged(http, 2)
    broadcast = BroadcastRecord("x", "b-1", "f", 1.0, command=Command.FAIL)
    http.broadcasts.rate = 25.0
    http.broadcasts.find.return_value = FoundBroadcasts([broadcast], "place")
    http.broadcasts.get.return_value = broadcast
    http.broadcasts.messages.return_value = Found(list(http.relay.store.records.values()), "100")

    first = http.find("/broadcasts", limit="1")
    http.find("/broadcasts", limit="1", cursor=first.json["cursor"])
    found = http.find("/broadcasts/x/messages", status="queued")
    http.find("/broadcasts/x/messages", status="queued", cursor=found.json["cursor"])

    assert [each["id"] for each in first.json["broadcasts"]] == ["x"]
    assert http.broadcasts.find.call_args.kwargs == {"limit": 1, "after": "place"}
    assert len(ids(found)) == 2
    assert http.broadcasts.messages.call_args.args == (broadcast, State.QUEUED)
    assert http.broadcasts.messages.call_args.kwargs == {"limit": 25, "after": "100"}
    elsewhere = found.json["cursor"]
    for path, parameters in (
        ("/broadcasts/x/messages", {"status": "sent", "cursor": elsewhere}),
        ("/broadcasts/y/messages", {"status": "queued", "cursor": elsewhere}),
        ("/broadcasts/x/messages", {"status": "nowhere"}),
        ("/broadcasts/x/messages", {"state": "sent"}),
        ("/broadcasts", {"status": "sent"}),
    ):
        is_problem(http.find(path, **parameters), 400, "malformed-request")
    http.broadcasts.get.return_value = None
    is_problem(http.find("/broadcasts/z/messages"), 404, "not-found")


# --------------------------------------------------------------------------------------- the caller


@pytest.mark.parametrize(
    ("identity", "caller"),
    [
        ({"apiKeyId": "a1b2c3"}, "key:a1b2c3"),
        (
            {
                "apiKeyId": None,
                "userArn": "arn:aws:sts::123456789012:assumed-role/Backend/session",
            },
            "iam:arn:aws:sts::123456789012:assumed-role/Backend",
        ),
        ({"apiKeyId": None}, "http"),
    ],
)
@pytest.mark.parametrize("way", ["send", "send_and_wait", "batch"])
def test_the_state_tells_who_handed_a_message_in(
    http: Api, identity: Json, caller: str, way: str
) -> None:
    event = http.event(way)
    event["requestContext"]["identity"] |= identity
    assert http.answer(event).status in (200, 202)
    told = {record.caller for record in http.relay.store.records.values()}
    assert told == {caller}
    [id_, *_] = http.relay.store.records
    assert http.get(f"/messages/{id_}").json["caller"] == caller
