"""The routes of broadcasts: dry runs, what is refused by field, who cannot be reached."""

import json
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from relay.http.api import answer, api
from relay.messages.envelope import QueuedMessage
from relay.messages.states import State
from tests.support.fanned import Fanned
from tests.support.template import ROOT

Answered = tuple[int, Any]


class Api:
    """The API over broadcasts in memory."""

    def __init__(self, fanned: Fanned) -> None:
        self._app = api(Mock(), fanned.broadcasts, Mock(), Mock())

    def call(self, method: str, path: str, body: object = None, **query: str) -> Answered:
        event = json.loads((ROOT / "events" / "api_broadcast.json").read_text("utf-8"))
        event |= {
            "httpMethod": method,
            "path": path,
            "body": json.dumps(body) if body else None,
            "queryStringParameters": query or None,
            "multiValueQueryStringParameters": {n: [v] for n, v in query.items()} or None,
        }
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 29_000)
        raw = answer(self._app, event, cast("LambdaContext", context))
        return raw["statusCode"], json.loads(raw["body"])


@pytest.fixture
def http(fanned: Fanned) -> Api:
    fanned.listed = [
        {"id": "s-1", "name": "Anna"},
        {"id": "s-2", "name": "x" * 5000},
        {"id": "s-3", "name": "Boris"},
        {"name": "nobody"},
    ]
    return Api(fanned)


def test_a_dry_run_says_what_would_happen_and_leaves_nothing_behind(
    http: Api, fanned: Fanned
) -> None:
    button = {"text": "{{ name }}", "url": "https://shop.example/{{ id }}"}
    request = {
        "botId": "b-1",
        "template": True,
        "text": "Hello {{ name }}",
        "buttons": [button],
        "dryRun": True,
    }
    status, tried = http.call("POST", "/broadcasts", request)
    assert status == 200
    assert tried.pop("eta")
    assert tried == {
        "dryRun": True,
        "complete": True,
        "total": 2,
        "skipped": {
            "duplicates": 0,
            "withoutId": 1,
            "filtered": 0,
            "excluded": 0,
            "unreachable": 0,
            "unrenderable": 1,
        },
        "samples": [
            {
                "subscriberId": id_,
                "text": f"Hello {name}",
                "buttons": [{"text": name, "url": f"https://shop.example/{id_}"}],
            }
            for id_, name in (("s-1", "Anna"), ("s-3", "Boris"))
        ],
        "unrenderable": [
            {
                "who": "s-2",
                "problem": "text: string must have at most 4096 characters; "
                "buttons.0.text: string must have at most 256 characters",
            }
        ],
    }
    assert fanned.queued == []
    assert fanned.client.scan(TableName="Relay")["Items"] == []


def test_a_dry_run_knows_when_the_broadcast_would_begin(http: Api) -> None:
    request = {"botId": "b-1", "text": "Hello", "dryRun": True, "sendAt": "2040-01-01T10:00:00Z"}
    _, tried = http.call("POST", "/broadcasts", request)
    assert tried["eta"].startswith("2040-01-01T10:00:00.1")


@pytest.mark.parametrize("field", ["template", "includeUnreachable", "dryRun"])
def test_what_only_looks_like_a_boolean_is_refused(http: Api, field: str) -> None:
    request = {"botId": "b-1", "text": "Hello", field: "yes"}
    status, problem = http.call("POST", "/broadcasts", request)
    assert (status, problem["errors"][0]["pointer"]) == (422, f"#/{field}")


def test_a_long_list_is_tried_out_for_a_while(http: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.http.broadcasts.TRIAL_SECONDS", 0.0)
    request = {"botId": "b-1", "text": "Hello", "dryRun": True}
    _, tried = http.call("POST", "/broadcasts", request)
    assert (tried["complete"], tried["total"]) == (False, 1)
    assert "eta" not in tried


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({"text": "Hello {{ name }}"}, "#/text", "set template to true"),
        ({"text": "Hello {{ na me }}", "template": True}, "#/text", "is not JMESPath"),
        ({"exclude": "nothing"}, "#/exclude", "no broadcast has this id"),
        ({"recipientsFrom": "s3://other/recipients/x"}, "#/recipientsFrom", "s3://stack/"),
        ({"recipientsFrom": "s3://stack/recipients/x", "dryRun": True}, "#/recipientsFrom", "file"),
        ({"recipients": [{"number": "1"}]}, "#/recipients/0/number", "phone number"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_field(
    http: Api, given: dict[str, Any], pointer: str, detail: str
) -> None:
    status, problem = http.call("POST", "/broadcasts", {"botId": "b-1", "text": "Hi", **given})
    assert status == 422
    [error] = problem["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]


def test_the_unreachable_are_listed_and_cleared(http: Api, fanned: Fanned) -> None:
    def refuse(subscriber: str) -> None:
        for n in range(2):
            others = [(_to(f"other-{subscriber}-{n}-{i}"), State.SENT) for i in range(3)]
            fanned.refusals.note([*others, (_to(subscriber, f"m-{n}"), State.REJECTED)])

    for subscriber in ("s-1", "s-2", "s-3"):
        refuse(subscriber)
    status, listed = http.call("GET", "/unreachable")
    assert status == 200
    assert {each["subscriberId"] for each in listed["unreachable"]} == {"s-1", "s-2", "s-3"}
    assert http.call("GET", "/unreachable", cursor="x")[0] == 400
    assert http.call("DELETE", "/unreachable/s-1") == (200, {"cleared": 1, "complete": True})
    assert http.call("DELETE", "/unreachable/s-1")[0] == 404
    assert http.call("DELETE", "/unreachable") == (200, {"cleared": 2, "complete": True})
    assert http.call("GET", "/unreachable") == (200, {"unreachable": []})


def _to(subscriber: str, id_: str = "m") -> QueuedMessage:
    return QueuedMessage.model_construct(subscriber_id=subscriber, text="-", id=id_)
