"""A deployed stack: where it is, what it is made of, its clients."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

LOCAL = Path(__file__).resolve().parent.parent / ".local" / "stack.json"
LOCAL_NAME = "smsgold-relay-local"


class OperatorError(Exception):
    """The command cannot continue; the text says why and what to do."""


@dataclass(frozen=True)
class Stack:
    """A stack's outputs and parameters by name, and its physical ids by logical id."""

    name: str
    session: boto3.Session
    endpoint: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    resources: Mapping[str, str]
    status: str = "CREATE_COMPLETE"

    @property
    def is_local(self) -> bool:
        """Return whether it runs on this machine."""
        return self.endpoint is not None

    @property
    def rate(self) -> float:
        """Return the account's messages per second; 0 means unlimited."""
        return float(self.parameters["MessagesPerSecond"])

    def client(self, service: str) -> Any:
        """Return a client for one AWS service where the stack runs."""
        return self.session.client(service, endpoint_url=self.endpoint)  # type: ignore[call-overload]


def find(name: str | None, local: Path = LOCAL) -> Stack:
    """Return the stack with this name on AWS, or without a name the one that `make up` started."""
    if name:
        return describe(name, boto3.Session(), None)
    try:
        facts = json.loads(local.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OperatorError(
            "No stack runs on this machine. Start one with `make up`, or name one on AWS with "
            "STAGE=prod or STACK=its-name."
        ) from None
    session = boto3.Session(
        facts["accessKeyId"], facts["secretAccessKey"], region_name=facts["region"]
    )
    return describe(LOCAL_NAME, session, facts["awsEndpoint"])


def describe(name: str, session: boto3.Session, endpoint: str | None) -> Stack:
    """Read the stack with this name."""
    try:
        formation = session.client("cloudformation", endpoint_url=endpoint)
        [stack] = formation.describe_stacks(StackName=name)["Stacks"]
        pages = formation.get_paginator("list_stack_resources").paginate(StackName=name)
        resources = {
            r["LogicalResourceId"]: r.get("PhysicalResourceId", "")
            for page in pages
            for r in page["StackResourceSummaries"]
        }
    except (ClientError, BotoCoreError) as error:
        raise OperatorError(
            f"Cannot read the stack {name}: {error}. Check that it is deployed, and that your AWS "
            "profile and region (AWS_PROFILE, AWS_REGION) are the ones it is deployed to."
        ) from None
    return Stack(
        name,
        session,
        endpoint,
        {o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", [])},
        {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])},
        resources,
        stack["StackStatus"],
    )
