"""A deployed stack: where it is, what it is made of, its clients."""

import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

LOCAL = Path(__file__).resolve().parent.parent / ".local" / "stack.json"
LOCAL_NAME = "smsgold-relay-local"
SAMCONFIG = Path(__file__).resolve().parent.parent / "samconfig.toml"


class OperatorError(Exception):
    """The command cannot continue; the text says why and what to do."""


@dataclass(frozen=True)
class Place:
    """A stack's name, its region if samconfig.toml says one, and the parameters that it sets."""

    name: str
    region: str | None
    parameters: tuple[str, ...] = ()


class Parts(dict[str, str]):
    """Parts of a stack by name; OperatorError for one that it does not have."""

    def __init__(self, stack: str, parts: Mapping[str, str]) -> None:
        super().__init__(parts)
        self._stack = stack

    def __missing__(self, name: str) -> str:
        raise OperatorError(
            f"The stack {self._stack} has no {name}: it is of another version than this command. "
            "Deploy it again, or use the command of its own version."
        )


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


def configured(stage: str, samconfig: Path = SAMCONFIG) -> Place:
    """Return where an environment of samconfig.toml is deployed, as `sam deploy` reads it."""
    try:
        return _places(samconfig)[stage]
    except KeyError:
        raise OperatorError(f"samconfig.toml names no stack for the stage {stage}.") from None


def _places(samconfig: Path) -> dict[str, Place]:
    places = {}
    for stage, commands in tomllib.loads(samconfig.read_text(encoding="utf-8")).items():
        if isinstance(commands, dict):
            deploy = {**_parameters(commands, "global"), **_parameters(commands, "deploy")}
            if "stack_name" in deploy:
                given = _overridden(deploy.get("parameter_overrides", ()))
                places[stage] = Place(deploy["stack_name"], deploy.get("region"), given)
    return places


def _overridden(overrides: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names in `Name=value …`, as one text or a list, or in SAM's longer form."""
    items = shlex.split(overrides) if isinstance(overrides, str) else overrides
    names = (item.strip().removeprefix("ParameterKey=") for item in items)
    return tuple(re.split("[=,]", name, maxsplit=1)[0] for name in names)


def _parameters(commands: Mapping[str, Any], command: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = commands.get(command, {}).get("parameters", {})
    return found


def find(name: str | None, local: Path = LOCAL, samconfig: Path = SAMCONFIG) -> Stack:
    """Return the stack with this name on AWS, or without a name the one that `make up` started."""
    if name:
        # `sam deploy --guided` keeps the region that it asks for.
        regions = {place.name: place.region for place in _places(samconfig).values()}
        return describe(name, boto3.Session(region_name=regions.get(name)), None)
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
            "profile and region are the ones it is deployed to: AWS_PROFILE, and the `region` in "
            "samconfig.toml or AWS_REGION."
        ) from None
    return Stack(
        name,
        session,
        endpoint,
        Parts(name, {o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", [])}),
        {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])},
        Parts(name, resources),
        stack["StackStatus"],
    )
