"""Schedules by API on the deployed stack: they fire, pause, and disappear."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import requests

from ops.stack import find
from tests.support.deployment import SCHEDULED_TEXT, Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox

SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d201"


def call(deployment: Deployment, method: str, path: str, body: object = None) -> requests.Response:
    return requests.request(
        method,
        deployment.facts["apiUrl"] + path,
        json=body,
        headers={"x-api-key": deployment.facts["apiKey"]},
        timeout=60,
    )


def once(at: datetime, text: str) -> dict[str, Any]:
    return {
        "expression": f"at({at:%Y-%m-%dT%H:%M:%S})",
        "message": {"subscriberId": SUBSCRIBER, "text": text},
    }


def test_once_fires_once_and_disappears_unless_paused_or_deleted(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=12)
    for name in ("paused", "deleted", "fires"):
        created = call(
            deployment, "POST", "/schedules", {"name": name, **once(at, f"Once: {name}")}
        )
        assert created.status_code == 201, created.text
        assert created.headers["Location"] == f"./schedules/{name}"
    terms = once(at, "Once: paused")
    paused = call(deployment, "PUT", "/schedules/paused", {**terms, "paused": True})
    assert paused.json()["paused"] is True
    assert call(deployment, "DELETE", "/schedules/deleted").status_code == 200
    assert call(deployment, "GET", "/schedules/deleted").status_code == 404
    listed = call(deployment, "GET", "/schedules").json()["schedules"]
    assert {"name": "paused", "paused": True} in listed
    assert {"name": "fires", "paused": False} in listed

    until(lambda: sandbox.ledger(text="Once: fires"), "scheduled message", seconds=90)
    until(lambda: call(deployment, "GET", "/schedules/fires").status_code == 404, "disappearance")
    # All three were due when one of them fired.
    assert len(sandbox.ledger(text="Once: ")) == 1
    assert call(deployment, "DELETE", "/schedules/paused").status_code == 200


def test_the_same_schedule_twice_is_one_and_another_is_refused(deployment: Deployment) -> None:
    body = {"name": "same", **once(datetime(2036, 1, 1, tzinfo=UTC), "Far off")}
    assert call(deployment, "POST", "/schedules", body).status_code == 201
    assert call(deployment, "POST", "/schedules", body).status_code == 200
    other = call(deployment, "POST", "/schedules", {**body, "timezone": "Europe/Moscow"})
    assert other.status_code == 409
    assert other.json()["type"] == "urn:smsgold-relay:problem:schedule-exists"
    assert call(deployment, "DELETE", "/schedules/same").json()["name"] == "same"


def test_a_rate_fires_again_and_again(sandbox: Sandbox) -> None:
    """The template's own has run since the deployment: nothing is waited for in vain."""
    until(lambda: len(sandbox.ledger(text=SCHEDULED_TEXT)) >= 2, "second firing", seconds=180)


def aws(deployment: Deployment, service: str) -> Any:
    facts = deployment.facts
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=facts["awsEndpoint"],
        region_name=facts["region"],
        aws_access_key_id=facts["accessKeyId"],
        aws_secret_access_key=facts["secretAccessKey"],
    )


def fire(deployment: Deployment, event: dict[str, Any]) -> dict[str, Any]:
    """Invoke the notifier as EventBridge Scheduler on AWS does, with the placeholders filled in."""
    answer = aws(deployment, "lambda").invoke(
        FunctionName=deployment.facts["notifierFunction"], Payload=json.dumps(event).encode()
    )
    result: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "errorType" not in result, result
    return result


def test_a_firing_that_comes_twice_sends_once(deployment: Deployment, sandbox: Sandbox) -> None:
    event = {
        "schedule": "arn:aws:scheduler:us-east-1:000000000000:schedule/ours/twice",
        "time": "2026-03-01T09:00:00Z",
        "message": {"subscriberId": SUBSCRIBER, "text": "Fired twice"},
    }
    first = fire(deployment, event)
    until(lambda: sandbox.ledger(text="Fired twice"), "message of the firing")
    assert fire(deployment, event)["id"] == first["id"]
    assert fire(deployment, {**event, "time": "2026-03-08T09:00:00Z"})["id"] != first["id"]
    until(lambda: len(sandbox.ledger(text="Fired twice")) == 2, "message of the next firing")


def test_a_firing_that_cannot_be_sent_says_why_and_sends_when_it_is_moved_back_mended(
    deployment: Deployment,
    sandbox: Sandbox,
) -> None:
    # In between it lies on the notifier's dead-letter queue; on AWS only, the local one drops it.
    message = {"subscriberId": SUBSCRIBER}
    event = {
        "kind": "event",
        "schedule": "arn:aws:scheduler:us-east-1:000000000000:schedule/ours/without-a-text",
        "time": "2026-03-01T09:00:00Z",
        "content": {"message": message},
    }
    aws(deployment, "lambda").invoke(
        FunctionName=deployment.facts["notifierFunction"],
        InvocationType="Event",
        Payload=json.dumps(event).encode(),
    )
    until(lambda: "InvalidMessageError: message.text: is required" in deployment.logs(), "error")

    mended = {**event, "content": {"message": {**message, "text": "Mended"}}}
    queue = find(None, deployment.home / "stack.json").outputs["NotifierQueueUrl"]
    aws(deployment, "sqs").send_message(QueueUrl=queue, MessageBody=json.dumps(mended))
    until(lambda: sandbox.ledger(text="Mended"), "message of the mended firing")


def test_a_firing_that_comes_too_late_is_recorded_and_not_sent(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    event: dict[str, Any] = {
        "schedule": "arn:aws:scheduler:us-east-1:000000000000:schedule/ours/late",
        "time": "2026-03-01T09:00:00Z",
        "skipIfLateBy": 60,
    }
    message = {"subscriberId": SUBSCRIBER, "text": "Too late"}
    skipped = fire(deployment, {**event, "message": message})
    assert skipped["status"] == "expired"
    state = call(deployment, "GET", f"/messages/{skipped['id']}").json()
    assert (state["status"], state["reason"]) == ("expired", "late")

    broadcast = {"botId": "65f1c0a2b3d4e5f6a7b8c902", "text": "Too late"}
    event["schedule"] += "-broadcast"
    skipped = fire(deployment, {**event, "broadcast": broadcast})
    state = call(deployment, "GET", f"/broadcasts/{skipped['id']}").json()
    assert (state["status"], state["reason"], state["total"]) == ("stopped", "late", 0)
    assert sandbox.ledger(text="Too late") == []
