"""What is not on a role's list is denied: tried as the role itself, from inside a function."""

import io
import json
import zipfile
from typing import Any

import pytest

from ops.stack import Stack, find
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.roles import ROLES, SECRET

PROBE = """
import boto3

def handler(event, context):
    answers = {}
    for name, (service, call, arguments) in event.items():
        try:
            getattr(boto3.client(service), call)(**arguments)
            answers[name] = "allowed"
        except Exception as error:
            answers[name] = getattr(error, "response", {}).get("Error", {}).get("Code", repr(error))
    return answers
"""
DENIED = ("AccessDenied", "AccessDeniedException", "AccessDenied.Exception")
Calls = dict[str, tuple[str, str, dict[str, Any]]]


def calls(stack: Stack) -> dict[tuple[str, str], tuple[str, str, dict[str, Any]]]:
    """Return harmless calls by the permission each needs: an action and a logical id."""
    table, secret = stack.outputs["TableName"], stack.outputs["ProviderCredentialsArn"]
    key = {"pk": {"S": "probe"}}
    found: dict[tuple[str, str], tuple[str, str, dict[str, Any]]] = {
        ("dynamodb:Scan", "RelayTable"): ("dynamodb", "scan", {"TableName": table}),
        ("dynamodb:GetItem", "RelayTable"): (
            "dynamodb",
            "get_item",
            {"TableName": table, "Key": key},
        ),
        ("dynamodb:DeleteItem", "RelayTable"): (
            "dynamodb",
            "delete_item",
            {"TableName": table, "Key": key},
        ),
        **{
            ("secretsmanager:GetSecretValue", name): (
                "secretsmanager",
                "get_secret_value",
                {"SecretId": stack.resources[name]},
            )
            for name in ("ProviderCredentials", "HookSecrets")
        },
        ("secretsmanager:PutSecretValue", "ProviderCredentials"): (
            "secretsmanager",
            "put_secret_value",
            {"SecretId": secret, "SecretString": "{}"},
        ),
        ("events:PutEvents", "EventBus"): (
            "events",
            "put_events",
            {
                "Entries": [
                    {
                        "EventBusName": stack.outputs["EventBusName"],
                        "Source": "probe",
                        "DetailType": "Probe",
                        "Detail": '{"id": "probe"}',
                    }
                ]
            },
        ),
        ("iam:ListRoles", "*"): ("iam", "list_roles", {}),
        ("s3:GetObject", "RelayBucket"): (
            "s3",
            "get_object",
            {"Bucket": stack.outputs["BucketName"], "Key": "snapshots/probe"},
        ),
        ("s3:PutObject", "RelayBucket"): (
            "s3",
            "put_object",
            {"Bucket": stack.outputs["BucketName"], "Key": "recipients/probe"},
        ),
        ("s3:ListAllMyBuckets", "*"): ("s3", "list_buckets", {}),
        ("lambda:ListFunctions", "*"): ("lambda", "list_functions", {}),
    }
    for name, url in stack.resources.items():
        if name.endswith("Queue"):
            found["sqs:SendMessage", name] = (
                "sqs",
                "send_message",
                {"QueueUrl": url, "MessageBody": "probe"},
            )
            found["sqs:ReceiveMessage", name] = (
                "sqs",
                "receive_message",
                {"QueueUrl": url, "VisibilityTimeout": 0},
            )
    return found


@pytest.fixture(scope="module")
def stack(deployment: Deployment) -> Stack:
    return find(None, deployment.home / "stack.json")


@pytest.mark.parametrize("role", [role for role in ROLES if role.endswith("FunctionRole")])
def test_what_is_not_on_the_list_is_denied(stack: Stack, role: str) -> None:
    possible = calls(stack)
    denied: Calls = {
        f"{action} on {name}": call
        for (action, name), call in possible.items()
        if action not in ROLES[role].get(name, ())
    }
    own = next(
        (
            ("secretsmanager:GetSecretValue", n)
            for n, actions in ROLES[role].items()
            if actions == SECRET
        ),
        ("events:PutEvents", "EventBus"),
    )
    allowed: Calls = {"its own": possible[own]}

    answers = as_role(stack, role, {**denied, **allowed})

    assert answers.pop("its own") == "allowed", "a probe that is denied everything shows nothing"
    assert len(denied) >= 8
    assert {what: code for what, code in answers.items() if code not in DENIED} == {}


def as_role(stack: Stack, role: str, wanted: Calls) -> dict[str, str]:
    """Make the calls from a function of this role; return what each met."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("probe.py", PROBE)
    functions, iam = stack.client("lambda"), stack.client("iam")
    name = f"probe-{role}"
    functions.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="probe.handler",
        Role=iam.get_role(RoleName=stack.resources[role])["Role"]["Arn"],
        Code={"ZipFile": code.getvalue()},
        Timeout=60,
    )
    try:
        until(
            lambda: functions.get_function_configuration(FunctionName=name)["State"] == "Active",
            "probe",
        )
        answer = functions.invoke(FunctionName=name, Payload=json.dumps(wanted))
        found: dict[str, str] = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, found
        return found
    finally:
        functions.delete_function(FunctionName=name)
