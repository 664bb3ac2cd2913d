"""The stack on one's own machine is what its users are told it is."""

import json
import os

import psutil

from local import processes
from tests.e2e.conftest import Deployment

KEYS = [
    "apiUrl",
    "apiKey",
    "messagesQueueUrl",
    "deadLetterQueueUrl",
    "tableName",
    "credentialsSecret",
    "notifierFunction",
    "senderFunction",
    "awsEndpoint",
    "accessKeyId",
    "secretAccessKey",
    "sandboxUrl",
    "region",
]


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
