"""Every event of events/ is taken by the deployed function that it is for."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.deployment import Deployment

EVENTS = Path(__file__).resolve().parents[2] / "events"
API = {
    "api_contract": 200,
    "api_bots": 200,
    "api_subscribers": 200,
    "api_send": 202,
    "api_send_later": 202,
    "api_send_and_wait": 200,  # the same message once more, by its key
    "api_state": 200,
    "api_cancel": 409,  # it has been sent
    "api_resolve": 409,
    "api_batch": 202,
    "api_broadcast": 202,
    "api_schedule": 201,
}
NOTIFIER = (
    "schedule",
    "notifier_broadcast",
    "notifier_firing_moved_back",
    "notifier_queue",
)
SENDER = ("sqs_batch",)
PUBLISHER = ("stream",)
PUBLISHED = ("outcome_message", "outcome_broadcast")
"""What the publisher makes of its event, in order."""


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    for record in found.get("Records", []):
        # What has been on a queue since the file was written is past its time.
        if "attributes" in record:
            record["attributes"]["SentTimestamp"] = str(round(time.time() * 1000))
    return found


def invoked(deployment: Deployment, function: str, name: str, folder: Path) -> Any:
    functions = deployment.aws("lambda", "list-functions")["Functions"]
    [full_name] = [f["FunctionName"] for f in functions if f"-{function}-" in f["FunctionName"]]
    payload, answer = folder / "event.json", folder / "answer.json"
    payload.write_text(json.dumps(event(name)), encoding="utf-8")
    done = deployment.aws(
        *("lambda", "invoke", "--function-name", full_name),
        *("--payload", f"fileb://{payload}", str(answer)),
    )
    assert "FunctionError" not in done, answer.read_text(encoding="utf-8")
    return json.loads(answer.read_text(encoding="utf-8"))


def test_no_event_is_left_out() -> None:
    # Those of webhooks are bodies only; tests/e2e/test_hooks.py sends them signed.
    names = {path.stem for path in EVENTS.glob("*.json") if not path.stem.startswith("hook_")}
    assert names == {*API, *NOTIFIER, *SENDER, *PUBLISHER, *PUBLISHED}


def test_the_api_answers_its_events(deployment: Deployment, tmp_path: Path) -> None:
    answers = {name: invoked(deployment, "ApiFunction", name, tmp_path) for name in API}
    assert {name: answer["statusCode"] for name, answer in answers.items()} == API
    assert json.loads(answers["api_state"]["body"])["status"] == "sent"
    items = json.loads(answers["api_batch"]["body"])["results"]
    assert [item["status"] for item in items] == ["queued", "queued"]


@pytest.mark.parametrize("name", NOTIFIER)
def test_the_notifier_takes_its_events(deployment: Deployment, tmp_path: Path, name: str) -> None:
    answer = invoked(deployment, "NotifierFunction", name, tmp_path)
    if records := event(name).get("Records"):
        # A broadcast stays on the notifier's queue until its last message has ended.
        stays = [{"itemIdentifier": r["messageId"]} for r in records if name == "notifier_queue"]
        assert answer == {"batchItemFailures": stays}
    else:
        assert answer["status"] in {"queued", "preparing"}


@pytest.mark.parametrize("name", SENDER)
def test_the_sender_takes_its_events(deployment: Deployment, tmp_path: Path, name: str) -> None:
    answer = invoked(deployment, "SenderFunction", name, tmp_path)
    assert answer == {"batchItemFailures": []}


def test_the_publisher_takes_its_event(deployment: Deployment, tmp_path: Path) -> None:
    answer = invoked(deployment, "PublisherFunction", "stream", tmp_path)
    assert answer == {"batchItemFailures": []}
