"""A message travels through every door, the provider's own example included."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.support.deployment import SCHEDULED_TEXT, Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.verifier import OnQueue, Reader

# The request that the provider's page prints, with a text and ids of this test's.
SUBSCRIBER = "XXXXXXXXXXXXXXXXXXXXXXXX"
BUTTONS = [
    {"text": "Текст на кнопке 1", "url": "https:// ссылка для кнопки 1"},
    {"text": "Текст на кнопке 2", "url": "https:// ссылка для кнопки 2"},
]
BOT = "65f1c0a2b3d4e5f6a7b8c901"


def example(door: str) -> dict[str, Any]:
    return {
        "subscriberId": SUBSCRIBER,
        "text": f"Текст Вашего сообщения {door}",
        "buttons": BUTTONS,
    }


@pytest.fixture(scope="module")
def sandbox(deployment: Deployment) -> Sandbox:
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    sandbox.add_subscribers(BOT, [{"id": SUBSCRIBER, "name": "Пример"}])
    return sandbox


def by_http(deployment: Deployment, message: dict[str, Any]) -> None:
    answer = post(deployment, message)
    assert answer.status_code == 202, answer.text


def by_queue(deployment: Deployment, message: dict[str, Any]) -> None:
    deployment.aws(
        *("sqs", "send-message", "--queue-url", deployment.facts["messagesQueueUrl"]),
        *("--message-body", json.dumps(message)),
    )


def by_schedule(deployment: Deployment, message: dict[str, Any]) -> None:
    function = deployment.aws(
        "lambda", "get-function", "--function-name", deployment.facts["notifierFunction"]
    )["Configuration"]
    roles = deployment.aws("iam", "list-roles")["Roles"]
    at = datetime.now(UTC) + timedelta(seconds=2)
    target = {
        "Arn": function["FunctionArn"],
        "RoleArn": next(r["Arn"] for r in roles if "SchedulerRole" in r["RoleName"]),
        "Input": json.dumps(
            {
                "schedule": "<aws.scheduler.schedule-arn>",
                "time": "<aws.scheduler.scheduled-time>",
                "message": message,
            }
        ),
    }
    deployment.aws(
        *("scheduler", "create-schedule", "--name", "example"),
        *("--schedule-expression", f"at({at:%Y-%m-%dT%H:%M:%S})"),
        *("--flexible-time-window", '{"Mode": "OFF"}', "--target", json.dumps(target)),
        *("--action-after-completion", "DELETE"),
    )


def post(
    deployment: Deployment, message: dict[str, Any], key: str | None = None
) -> requests.Response:
    return requests.post(
        f"{deployment.facts['apiUrl']}/messages",
        json=message,
        headers={"x-api-key": key or deployment.facts["apiKey"]},
        timeout=30,
    )


@pytest.mark.parametrize("door", [by_http, by_queue, by_schedule])
def test_the_providers_own_example_arrives_as_its_page_prints_it(
    deployment: Deployment,
    sandbox: Sandbox,
    door: Callable[[Deployment, dict[str, Any]], None],
) -> None:
    message = example(door.__name__)

    door(deployment, message)

    [entry] = until(lambda: sandbox.ledger(text=message["text"]), "message in the ledger")
    auth = {"user": sandbox.user, "pass": sandbox.password}
    assert json.loads(entry["raw"]) == {**message, "auth": auth}
    assert entry["headers"]["User-Agent"].startswith("smsgold-relay/")


def test_a_bot_and_a_number_are_an_address_too(deployment: Deployment, sandbox: Sandbox) -> None:
    number = next(s["number"] for s in sandbox.subscribers(BOT) if "number" in s)
    spelled = f"+{number[0]} ({number[1:4]}) {number[4:]}"
    text = "by bot and number"

    by_http(deployment, {"botId": BOT, "number": spelled, "text": text})

    [entry] = until(lambda: sandbox.ledger(text=text), "message in the ledger")
    sent = json.loads(entry["raw"])
    assert (sent["botId"], sent["number"]) == (BOT, number)


def test_the_templates_schedule_fires(sandbox: Sandbox) -> None:
    until(lambda: sandbox.ledger(text=SCHEDULED_TEXT), "scheduled message", seconds=120)


def test_a_refused_message_lies_in_the_dead_letter_queue_with_its_reason(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    message = {"subscriberId": "nobody", "text": "to nobody", "id": "refused-1"}

    by_queue(deployment, message)

    found = until(lambda: dead_letter(deployment, "refused-1"), "dead letter")
    assert found.attributes["reason"] == "http_404"
    assert "subscriberId" in found.attributes["detail"]
    assert found.attributes["attempts"] == "1"
    assert datetime.fromisoformat(found.attributes["failedAt"]) <= datetime.now(UTC)
    assert json.loads(found.body) == {**message, "generation": 1}
    assert sandbox.ledger(text="to nobody") == []


def test_a_wrong_api_key_gets_403(deployment: Deployment) -> None:
    assert post(deployment, example("stranger"), key="not-the-key").status_code == 403


def test_no_log_holds_the_password(deployment: Deployment, sandbox: Sandbox) -> None:
    logs = deployment.logs()

    assert "sender" in logs, "the functions' logs are not among the stack's"
    assert sandbox.password not in logs


def dead_letter(deployment: Deployment, id_: str) -> OnQueue | None:
    """Look at the DeadLetter queue, however full, without receiving from it."""
    letters = Reader(deployment.facts).queue(deployment.facts["deadLetterQueueUrl"])
    return next((letter for letter in letters if f'"{id_}"' in letter.body), None)
