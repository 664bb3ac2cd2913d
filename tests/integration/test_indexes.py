"""`make deploy` adds a table's missing indexes one by one, into MiniStack."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from samcli.yamlhelper import yaml_parse

from ops import deploy as ops_deploy
from ops import indexes
from ops.stack import OperatorError, Stack, describe
from tests.support.table import definition

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"


def shell(command: str) -> None:
    """Run what the operator is told to run."""
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - it is for a shell


def without_indexes() -> Any:
    """Return the keys of the table as it was before it had an index."""
    table = definition()
    del table["GlobalSecondaryIndexes"]
    table["AttributeDefinitions"] = table["AttributeDefinitions"][:1]
    return table


def created(name: str) -> Stack:
    """Deploy a stack of the time before its table had an index."""
    table = {"Type": "AWS::DynamoDB::Table", "Properties": without_indexes()}
    body = {
        "Resources": {"RelayTable": table},
        "Outputs": {"TableName": {"Value": {"Ref": "RelayTable"}}},
    }
    session = boto3.Session(region_name=REGION)
    formation = session.client("cloudformation")
    formation.create_stack(StackName=name, TemplateBody=json.dumps(body))
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return describe(name, session, None)


class Sam:
    """Updates a stack of the tests, by SAM's own program or in its place; keeps the templates."""

    def __init__(self, name: str, *, real: bool = False) -> None:
        self._name = name
        self._real = real
        self.given: list[Any] = []
        self.fails_at = -1

    def __call__(self, command: Sequence[str]) -> int:
        step = yaml_parse(Path(command[-1]).read_text("utf-8"))
        self.given.append(step["Resources"]["RelayTable"]["Properties"])
        if len(self.given) - 1 == self.fails_at:
            return 1
        if not self._real:
            formation = boto3.Session(region_name=REGION).client("cloudformation")
            formation.update_stack(StackName=self._name, TemplateBody=json.dumps(step))
            waiter = formation.get_waiter("stack_update_complete")
            waiter.wait(StackName=self._name, WaiterConfig={"Delay": 1})
            return 0
        program = Path(sys.executable).with_name("sam")
        return subprocess.call([str(program), *command[1:], "--stack-name", self._name], cwd=ROOT)


DEPLOY = ("sam", "deploy", "--config-env", "dev", "--no-confirm-changeset")


def add(stack: Stack, sam: Sam, tmp_path: Path) -> list[str]:
    said: list[str] = []
    step = tmp_path / "aws-sam" / "step.yaml"
    indexes.add_missing(stack, DEPLOY, run=sam, step=step, say=said.append)
    return said


@pytest.mark.usefixtures("aws")
def test_missing_indexes_are_added_one_by_one_and_interrupted_again_from_there(
    tmp_path: Path,
) -> None:
    stack = created("indexless")
    tables, name = stack.client("dynamodb"), stack.outputs["TableName"]
    item = {"pk": {"S": "message#m-1"}, "listed": {"S": "failed"}, "listedPlace": {"S": "1#m-1"}}
    tables.put_item(TableName=name, Item=item)
    sam = Sam("indexless", real=True)
    sam.fails_at = 1

    with pytest.raises(OperatorError, match="byListed is not added: `sam deploy` ended with 1"):
        add(stack, sam, tmp_path)
    said = add(stack, sam, tmp_path)
    again = add(stack, sam, tmp_path)

    steps = [
        {index["IndexName"] for index in table["GlobalSecondaryIndexes"]} for table in sam.given
    ]
    assert steps == [{"byReference"}, {"byReference", "byListed"}, {"byReference", "byListed"}]
    for table in sam.given:
        keys = [*table["KeySchema"]]
        for index in table["GlobalSecondaryIndexes"]:
            keys += index["KeySchema"]
        defined = [attribute["AttributeName"] for attribute in table["AttributeDefinitions"]]
        assert sorted(defined) == sorted(key["AttributeName"] for key in keys)
    assert said == [
        "Adding the index byListed to the table, 1 of 1; the stack stays in use.",
    ]
    assert again == []
    listed = tables.scan(TableName=name, IndexName="byListed")["Items"]
    assert [found["pk"] for found in listed] == [item["pk"]], "nothing in the table is lost"


@pytest.mark.usefixtures("aws")
def test_an_index_that_a_failed_update_left_behind_is_to_be_deleted(
    tmp_path: Path, aws: str
) -> None:
    stack = replace(created("rolled-back"), endpoint=aws)
    tables, name = stack.client("dynamodb"), stack.outputs["TableName"]
    wanted = definition()
    tables.update_table(
        TableName=name,
        AttributeDefinitions=wanted["AttributeDefinitions"][:3],
        GlobalSecondaryIndexUpdates=[{"Create": wanted["GlobalSecondaryIndexes"][0]}],
    )
    sam = Sam("rolled-back")

    with pytest.raises(OperatorError, match="byReference that its stack does not know") as caught:
        add(stack, sam, tmp_path)
    assert sam.given == []
    shell(str(caught.value).rpartition("\n")[2])

    add(stack, sam, tmp_path)
    assert len(sam.given) == 2


@pytest.mark.usefixtures("aws")
def test_a_stack_whose_first_deployment_failed_has_no_table_to_add_to(tmp_path: Path) -> None:
    sam = Sam("never")
    add(replace(created("never"), status="ROLLBACK_COMPLETE"), sam, tmp_path)
    assert sam.given == []


class Filling:
    """A table of which one index is being filled, as a client sees it."""

    def __init__(self, *statuses: str) -> None:
        self._left = list(statuses)

    def client(self, service: str, **_: Any) -> Any:
        assert service == "dynamodb"
        return self

    def describe_table(self, **_: Any) -> Any:
        status = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        found = [{"IndexName": "byListed", "IndexStatus": status}] if status else []
        return {"Table": {"GlobalSecondaryIndexes": found}}


def wait(said: list[str], slept: list[float], *statuses: str) -> None:
    """Wait for an index that has these statuses, one after the other."""
    session: Any = Filling(*statuses)
    stack = Stack("a-stack", session, None, {}, {}, {"RelayTable": "Relay"})
    indexes._await(stack, ["byListed"], said.append, slept.append)


def test_no_index_is_added_before_the_last_one_is_filled() -> None:
    said: list[str] = []
    slept: list[float] = []
    wait(said, slept, "", *["CREATING"] * 20, "ACTIVE")
    assert sum(slept) == 21 * indexes.POLL_SECONDS
    assert said == [
        "  byListed: not there yet after 0 s. Ctrl-C does no harm.",
        "  byListed: creating after 60 s. Ctrl-C does no harm.",
    ]


def test_an_index_that_never_comes_is_not_waited_for_for_ever() -> None:
    slept: list[float] = []
    with pytest.raises(OperatorError, match="Look at the stack's events"):
        wait([], slept, "")
    assert sum(slept) == indexes.GRACE_SECONDS


@pytest.mark.usefixtures("aws")
def test_a_deployment_adds_the_indexes_before_anything_else(tmp_path: Path) -> None:
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text('[dev.deploy.parameters]\nstack_name = "by-deploy"\n')
    created("by-deploy")
    sam = Sam("by-deploy")
    ran: list[int] = []

    def run(command: Sequence[str]) -> int:
        if "--template-file" in command:
            return sam(command)
        ran.append(len(sam.given))
        return 0

    ops_deploy.deploy("dev", terminal=False, run=run, samconfig=samconfig, say=lambda _: None)

    assert ran == [2]
