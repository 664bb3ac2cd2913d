"""`Events` can be changed on a running stack, and nothing to be told from then on is lost."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.stack import LOCAL_NAME
from tests.support import verifier
from tests.support.chats import open_chats
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox

Switch = Callable[[str], None]


@pytest.fixture
def switch(deployment: Deployment) -> Iterator[Switch]:
    """Return what updates the stack with another value of `Events`; the old one comes back."""
    formation = deployment.client("cloudformation")
    [stack] = formation.describe_stacks(StackName=LOCAL_NAME)["Stacks"]
    was = {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}

    def switch(value: str) -> None:
        formation.update_stack(
            StackName=LOCAL_NAME,
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value_}
                for name, value_ in (was | {"Events": value}).items()
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )

        def updated() -> bool:
            [now] = formation.describe_stacks(StackName=LOCAL_NAME)["Stacks"]
            return str(now["StackStatus"]) == "UPDATE_COMPLETE"

        until(updated, "update of the stack")

    yield switch
    [stack] = formation.describe_stacks(StackName=LOCAL_NAME)["Stacks"]
    if {"ParameterKey": "Events", "ParameterValue": was["Events"]} not in stack["Parameters"]:
        switch(was["Events"])


def sources(deployment: Deployment) -> list[Any]:
    name = deployment.facts["publisherFunction"]
    answer = deployment.client("lambda").list_event_source_mappings(FunctionName=name)
    found: list[Any] = answer["EventSourceMappings"]
    return found


def told(deployment: Deployment) -> set[str]:
    lines = verifier.events_of(deployment.home).splitlines()
    return {json.loads(line)["detail"]["id"] for line in lines}


def test_switching_loses_nothing(deployment: Deployment, sandbox: Sandbox, switch: Switch) -> None:
    chats = iter(open_chats(sandbox, 8))

    def ended(text: str, status: str) -> str:
        body = {"subscriberId": next(chats), "text": text}
        id_ = str(deployment.call("POST", "/messages", body)["id"])
        until(lambda: deployment.call("GET", f"/messages/{id_}")["status"] == status, status)
        return id_

    switch("none")
    assert sources(deployment) == []
    silent = ended("told to nobody [[fault:400]]", "rejected")
    fine = ended("told to nobody", "sent")
    switch("problems")
    assert len(sources(deployment)) == 1
    problem = ended("a problem [[fault:400]]", "rejected")
    solved = ended("no problem", "sent")
    until(lambda: {problem, silent} <= told(deployment), "the problems, also that of before")
    switch("all")
    at_last = ended("and now all", "sent")
    until(lambda: at_last in told(deployment), "its event")

    assert not {fine, solved} & told(deployment)
    assert len(sources(deployment)) == 1
