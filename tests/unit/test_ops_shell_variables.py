"""`make -s env` gives a shell what the documentation's examples need."""

import shlex
import subprocess
from typing import Any

import boto3
import pytest

from ops.shell_variables import script
from ops.stack import OperatorError, Parts, Stack

KEY = "it's $(not) run"
OUTPUTS = {
    "ApiKeyId": "key-1",
    "ApiUrl": "https://abc.execute-api.eu-central-1.amazonaws.com/v1",
    "RestApiId": "abc",
    "MessagesQueueUrl": "https://sqs/messages",
    "OrderedQueueUrl": "https://sqs/ordered.fifo",
    "DeadLetterQueueUrl": "https://sqs/dead",
    "HookSecretsArn": "arn:hooks",
    "BucketName": "its-bucket",
    "EventBusName": "stack",
}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    class ApiGateway:
        def get_api_key(self, **request: Any) -> dict[str, str]:
            assert request == {"apiKey": "key-1", "includeValue": True}
            return {"value": KEY}

    session = boto3.Session("an-id", "a-secret", region_name="us-east-1")
    monkeypatch.setattr(session, "client", lambda *_, **__: ApiGateway())
    return session


def variables(lines: str) -> dict[str, str]:
    done = subprocess.run(
        ["bash", "-euc", f"{lines}\nenv -0"],  # noqa: S607 - the shell at hand
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (item.partition("=") for item in done.stdout.split("\0") if item)
    return {name: value for name, _, value in pairs if name.isupper()}


def test_a_stack_on_aws_keeps_the_shells_own_credentials(session: boto3.Session) -> None:
    stack = Stack("smsgold-relay-prod", session, None, OUTPUTS, {}, {})

    found = variables(script(stack))

    assert found["API_URL"] == OUTPUTS["ApiUrl"]
    assert found["API_KEY"] == KEY
    assert found["MESSAGES_QUEUE_URL"] == "https://sqs/messages"
    assert found["ORDERED_QUEUE_URL"] == "https://sqs/ordered.fifo"
    assert found["DEAD_LETTER_QUEUE_URL"] == "https://sqs/dead"
    assert found["HOOK_SECRETS_ARN"] == "arn:hooks"
    assert found["BUCKET"] == "its-bucket"
    assert found["EVENT_BUS"] == "stack"
    assert not [name for name in found if name.startswith("AWS")]


def test_the_local_stack_brings_its_address_its_credentials_and_its_aws(
    session: boto3.Session,
) -> None:
    stack = Stack("smsgold-relay-local", session, "http://127.0.0.1:4566", OUTPUTS, {}, {})

    found = variables(script(stack))

    assert found["API_URL"] == "http://127.0.0.1:4566/_aws/execute-api/abc/v1"
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("an-id", "a-secret")
    assert found["AWS_DEFAULT_REGION"] == "us-east-1"
    [function] = [line for line in script(stack).splitlines() if line.startswith("aws()")]
    assert shlex.split(function)[3:5] == ["--endpoint-url", "$AWS_ENDPOINT_URL"]


def test_a_stack_that_is_older_than_an_output_is_told_to_be(session: boto3.Session) -> None:
    older = {name: value for name, value in OUTPUTS.items() if name != "OrderedQueueUrl"}
    stack = Stack("smsgold-relay-prod", session, None, Parts("smsgold-relay-prod", older), {}, {})

    with pytest.raises(OperatorError, match=r"prod has no OrderedQueueUrl: .* Deploy it again"):
        script(stack)
