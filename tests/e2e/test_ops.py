"""The operator's commands on a running stack, as the make targets call them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops import dead_letters, doctor
from ops.stack import Stack, find
from tests.support.deployment import Deployment
from tests.support.poll import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stack(deployment: Deployment) -> Stack:
    return find(None, deployment.home / "stack.json")


def say() -> tuple[list[str], Callable[[str], None]]:
    said: list[str] = []
    return said, said.append


def test_the_doctor_finds_the_stack_in_good_health(stack: Stack) -> None:
    facts = doctor.examine(stack)

    bad = [f.what for f in doctor.findings(facts) if f.level is doctor.Level.BAD]
    assert facts.unread == ()
    assert facts.bots
    assert bad == []


def test_the_doctor_notices_a_wrong_password_and_a_stopped_queue(stack: Stack) -> None:
    secrets, functions = stack.client("secretsmanager"), stack.client("lambda")
    arn = stack.outputs["ProviderCredentialsArn"]
    right = secrets.get_secret_value(SecretId=arn)["SecretString"]
    [source] = [
        m["UUID"]
        for m in functions.list_event_source_mappings(
            FunctionName=stack.resources["NotifierFunction"]
        )["EventSourceMappings"]
    ]
    wrong = json.dumps({"user": json.loads(right)["user"], "pass": "not-the-password"})
    secrets.put_secret_value(SecretId=arn, SecretString=wrong)
    functions.update_event_source_mapping(UUID=source, Enabled=False)
    try:
        found = [f.what for f in doctor.findings(doctor.examine(stack))]
    finally:
        secrets.put_secret_value(SecretId=arn, SecretString=right)
        functions.update_event_source_mapping(UUID=source, Enabled=True)

    assert any("http_401" in what for what in found), found
    assert any(what == "NotifierQueue: no function receives its messages" for what in found), found


def test_dead_letters_are_shown_and_one_reason_is_tried_again(
    deployment: Deployment, stack: Stack
) -> None:
    envelope: dict[str, Any] = {"subscriberId": "nobody-at-all", "text": "4711", "id": "ops-dead"}
    deployment.aws(
        *("sqs", "send-message", "--queue-url", deployment.facts["messagesQueueUrl"]),
        *("--message-body", json.dumps(envelope)),
    )

    def shown() -> str:
        said, tell = say()
        dead_letters.show(stack, 1000, tell)
        return "\n".join(said)

    until(lambda: "http_404" in shown(), "dead letter")
    assert "4711" not in shown()

    said, tell = say()
    dead_letters.redrive(
        stack, queue="messages", reason="http_404", most=None, apply=True, say=tell
    )

    assert "moved back" in said[-1]
    until(lambda: '"generation": 2' in shown(), "dead letter of the second generation")


def test_the_commands_say_what_they_need(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops", "doctor", "--stack", "no-such-stack"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}/layers/relay",
            "HOME": str(tmp_path),
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 1
    assert "AWS_PROFILE" in done.stderr
    assert "Traceback" not in done.stderr
