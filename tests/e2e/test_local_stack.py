"""The stack on one's own machine is what its users are told it is."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from local import processes
from tests.support.deployment import Deployment
from tests.support.poll import until

KEYS = [
    "apiUrl",
    "apiKey",
    "messagesQueueUrl",
    "orderedQueueUrl",
    "deadLetterQueueUrl",
    "tableName",
    "bucketName",
    "credentialsSecret",
    "eventBus",
    "publisherFunction",
    "notifierFunction",
    "senderFunction",
    "events",
    "awsEndpoint",
    "accessKeyId",
    "secretAccessKey",
    "sandboxUrl",
    "region",
]


def test_a_run_shows_a_message_being_sent_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "local.stack", "run", "--home", str(tmp_path)],
            env=os.environ
            | {name: str(processes.free_port()) for name in ("PORT", "SANDBOX_PORT")}
            | {"PROVIDER_BASE_URL": ""},
            stdout=file,
        )
    try:
        until(
            lambda: " messages=sent:" in output.read_text("utf-8"),
            "message in the logs",
            seconds=120,
        )
    finally:
        run.send_signal(signal.SIGINT)
        status = run.wait()

    assert status == 0
    assert output.read_text("utf-8").endswith("Stopping …\n")
    assert not processes.marked(f"{tmp_path}#")


def test_stack_json_says_where_everything_is(deployment: Deployment) -> None:
    path = deployment.home / "stack.json"

    facts = json.loads(path.read_text(encoding="utf-8"))

    assert list(facts) == KEYS
    assert all(facts.values())
    assert path.stat().st_mode & 0o077 == 0, "it holds keys: nobody else may read it"


def test_everything_listens_on_loopback_only(deployment: Deployment) -> None:
    addresses = {
        connection.laddr.ip
        for process in processes.marked(f"{deployment.home}#")
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert addresses == {"127.0.0.1"}


def test_the_secret_holds_the_sandboxs_account(deployment: Deployment) -> None:
    secret = deployment.aws(
        "secretsmanager",
        "get-secret-value",
        "--secret-id",
        deployment.facts["credentialsSecret"],
    )

    assert json.loads(secret["SecretString"]).keys() == {"user", "pass"}


def test_functions_get_their_roles_and_not_the_accounts_keys(deployment: Deployment) -> None:
    function = deployment.aws(
        "lambda",
        "get-function-configuration",
        "--function-name",
        deployment.facts["senderFunction"],
    )

    assert function["Role"].startswith("arn:aws:iam::")
    assert deployment.facts["secretAccessKey"] not in deployment.logs()


def test_the_stack_leaves_the_developers_aws_alone(deployment: Deployment) -> None:
    caller = deployment.aws("sts", "get-caller-identity")

    assert caller["Account"] == "000000000000"
    assert "AWS_ENDPOINT_URL" not in os.environ, "tests of other tiers would end up here"
