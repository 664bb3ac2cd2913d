"""Schedules kept by EventBridge Scheduler, as moto plays it, and what the API answers of them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError
from moto import mock_aws

from relay.http.api import answer, api
from relay.schedules.scheduler import Schedules

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
ROLE = "arn:aws:iam::123456789012:role/scheduler"
TARGET = SimpleNamespace(
    group="ours",
    function="arn:aws:lambda:us-east-1:123456789012:function:notifier",
    role=ROLE,
    dead_letter_queue="arn:aws:sqs:us-east-1:123456789012:dead",
)
MONDAYS = {
    "name": "mondays",
    "expression": "cron(0 9 ? * MON *)",
    "timezone": "Europe/Moscow",
    "end": "2027-01-01T00:00:00Z",
    "skipIfLateBy": 600,
    "broadcast": {"botId": "b-1", "text": "Good morning"},
}
ONCE = {
    "name": "once",
    "expression": "at(2026-03-01T12:30:00)",
    "message": {"subscriberId": "s-1", "text": "Now"},
}


class Api:
    """The routes of schedules over moto's scheduler."""

    def __init__(self) -> None:
        self.aws: Any = boto3.client("scheduler", region_name="us-east-1")
        self.aws.create_schedule_group(Name="ours")
        schedules = Schedules(lambda: self.aws, TARGET, clock=lambda: NOW)
        self._app = api(Mock(), Mock(), schedules, Mock())

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        event = {
            "path": path,
            "httpMethod": method,
            "headers": {"Content-Type": "application/json"},
            "multiValueHeaders": {},
            "queryStringParameters": None,
            "multiValueQueryStringParameters": None,
            "requestContext": {"requestId": "r-1", "identity": {}},
            "body": json.dumps(body) if body else None,
            "isBase64Encoded": False,
        }
        answered = answer(self._app, event, cast("LambdaContext", SimpleNamespace()))
        return answered["statusCode"], json.loads(answered["body"])

    def kept(self, name: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.aws.get_schedule(Name=name, GroupName="ours"))


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield Api()


def test_created_shown_listed_and_deleted(http: Api) -> None:
    status, created = http.call("POST", "/schedules", MONDAYS)
    assert status == 201
    assert created == http.call("GET", "/schedules/mondays")[1]
    # What comes back can be sent again.
    assert http.call("POST", "/schedules", created)[0] == 200
    kept = http.kept("mondays")
    assert kept["ScheduleExpressionTimezone"] == "Europe/Moscow"
    assert kept["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert kept["Target"]["Arn"] == TARGET.function
    assert kept["Target"]["RoleArn"] == ROLE
    assert kept["Target"]["DeadLetterConfig"]["Arn"] == TARGET.dead_letter_queue

    assert http.call("GET", "/schedules") == (
        200,
        {"schedules": [{"name": "mondays", "paused": False}]},
    )
    assert http.call("DELETE", "/schedules/mondays") == (200, created)
    assert http.call("DELETE", "/schedules/mondays")[0] == 404
    assert http.call("GET", "/schedules/mondays")[0] == 404


def test_once_deletes_itself(http: Api) -> None:
    assert http.call("POST", "/schedules", ONCE)[0] == 201
    assert http.kept("once")["ActionAfterCompletion"] == "DELETE"


def test_the_same_twice_is_one_and_another_of_the_name_is_refused(http: Api) -> None:
    assert http.call("POST", "/schedules", MONDAYS)[0] == 201
    assert http.call("POST", "/schedules", MONDAYS)[0] == 200
    status, problem = http.call("POST", "/schedules", {**MONDAYS, "paused": True})
    assert status == 409
    assert problem["type"] == "urn:smsgold-relay:problem:schedule-exists"
    assert http.kept("mondays")["State"] == "ENABLED"


def test_replaced_paused_and_resumed(http: Api) -> None:
    terms = {name: value for name, value in MONDAYS.items() if name != "name"}
    assert http.call("PUT", "/schedules/mondays", terms)[0] == 404
    http.call("POST", "/schedules", MONDAYS)
    status, replaced = http.call("PUT", "/schedules/mondays", {**MONDAYS, "paused": True})
    assert (status, replaced["paused"]) == (200, True)
    assert http.kept("mondays")["State"] == "DISABLED"
    assert http.call("GET", "/schedules")[1]["schedules"] == [{"name": "mondays", "paused": True}]
    http.call("PUT", "/schedules/mondays", terms)
    assert http.kept("mondays")["State"] == "ENABLED"


def test_a_name_in_the_body_must_be_the_address_s(http: Api) -> None:
    status, problem = http.call("PUT", "/schedules/other", MONDAYS)
    assert status == 422
    assert [error["pointer"] for error in problem["errors"]] == ["#/name"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_aws_is_not_asked_for_what_is_wrong(http: Api, method: str) -> None:
    if method == "PUT":
        http.call("POST", "/schedules", {**ONCE, "name": "bad"})
    body = {**ONCE, "name": "bad", "timezone": "Mars", "expression": "at(2026-03-01T12:00:00)"}
    path = "/schedules" if method == "POST" else "/schedules/bad"
    status, problem = http.call(method, path, body)
    assert status == 422
    assert [error["pointer"] for error in problem["errors"]] == ["#/timezone"]
    status, problem = http.call(method, path, {**body, "timezone": "Europe/Berlin"})
    assert status == 422
    assert problem["errors"] == [
        {"pointer": "#/expression", "detail": "is in the past; choose a later time"}
    ]


def test_unknown_fields_and_names_are_refused(http: Api) -> None:
    assert http.call("POST", "/schedules", {**ONCE, "tiemzone": "UTC"})[0] == 422
    assert http.call("POST", "/schedules", {**ONCE, "name": "with space"})[0] == 422
    assert http.call("GET", "/schedules/with%20space")[0] == 404


def test_the_scheduler_out_of_order_is_503(http: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "GetSchedule")
    monkeypatch.setattr(http, "aws", Mock(get_schedule=Mock(side_effect=throttled)))
    status, problem = http.call("GET", "/schedules/once")
    assert status == 503
    assert problem["type"] == "urn:smsgold-relay:problem:unavailable"


class Refusing:
    """EventBridge Scheduler, which answers one operation with an error."""

    def __init__(self, aws: Any, operation: str, code: str) -> None:
        self._aws = aws
        self._operation = operation
        self._error = ClientError({"Error": {"Code": code}}, operation)

    def __getattr__(self, operation: str) -> Any:
        if operation == self._operation:
            raise self._error
        return getattr(self._aws, operation)


CONFLICT, MISSING = "ConflictException", "ResourceNotFoundException"


@pytest.mark.parametrize("code", [CONFLICT, MISSING], ids=["conflict", "no group"])
def test_what_was_not_created_is_not_answered_as_created(http: Api, code: str) -> None:
    aws = http.aws
    http.aws = Refusing(aws, "create_schedule", code)
    assert http.call("POST", "/schedules", ONCE)[0] == 503
    http.aws = aws
    assert http.call("GET", "/schedules/once")[0] == 404
    assert http.call("POST", "/schedules", ONCE)[0] == 201


@pytest.mark.parametrize(("other", "status"), [({}, 200), ({"paused": True}, 409)])
def test_a_name_that_another_call_has_just_taken(
    http: Api, other: dict[str, Any], status: int
) -> None:
    aws = http.aws

    class Overtaken(Refusing):
        """Between this call's look and its creation another one creates the schedule."""

        def __getattr__(self, operation: str) -> Any:
            if operation == self._operation:
                http.aws = aws
                assert http.call("POST", "/schedules", {**ONCE, **other})[0] == 201
            return super().__getattr__(operation)

    http.aws = Overtaken(aws, "create_schedule", CONFLICT)
    assert http.call("POST", "/schedules", ONCE)[0] == status


@pytest.mark.parametrize(
    ("method", "operation"), [("PUT", "update_schedule"), ("DELETE", "delete_schedule")]
)
def test_a_conflict_is_to_be_repeated_and_does_not_mean_that_nothing_is_there(
    http: Api, method: str, operation: str
) -> None:
    http.call("POST", "/schedules", ONCE)
    aws = http.aws
    http.aws = Refusing(aws, operation, CONFLICT)
    status, problem = http.call(method, "/schedules/once", ONCE)
    assert (status, problem["type"]) == (503, "urn:smsgold-relay:problem:unavailable")
    http.aws = Refusing(aws, operation, MISSING)
    assert http.call(method, "/schedules/once", ONCE)[0] == (404 if method == "PUT" else 200)
