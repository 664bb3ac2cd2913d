"""`make deploy` with a `sam` that only says what it was asked, and MiniStack for the rest.

Whether a first deployment that fails rolls back only an account on AWS could show: tests/unit holds
the template to it.
"""

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from samcli.lib.config.samconfig import SamConfig
from samcli.yamlhelper import yaml_parse

from ops import deploy as ops_deploy
from ops import doctor, indexes
from ops.remove import leftovers, remove
from ops.stack import OperatorError, Stack, describe, find
from tests.support.ministack import KEY, SECRET, ministack
from tests.support.table import definition
from tools.translated import template

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
MAKE = ("/usr/bin/env", "make")
DEFAULTS = {name: str(p["Default"]) for name, p in template()["Parameters"].items()}
TEMPLATE = {
    "Resources": {
        "RelayTable": {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "Retain",
            "Properties": definition(),
        },
        "MessagesQueue": {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain"},
    },
    "Outputs": {"TableName": {"Value": {"Ref": "RelayTable"}}},
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ministack(tmp_path_factory.mktemp("ministack")) as address:
        yield address


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return endpoint


@pytest.fixture
def sam(tmp_path: Path) -> Path:
    """Put a `sam` on the path that keeps its arguments, one run a line, and ends with $CODE."""
    program, asked = tmp_path / "bin" / "sam", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\nexit "${{CODE:-0}}"\n', "utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    asked.touch()
    return asked


def created(name: str, body: Any = TEMPLATE) -> Stack:
    session = boto3.Session(region_name=REGION)
    formation = session.client("cloudformation")
    formation.create_stack(StackName=name, TemplateBody=json.dumps(body))
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return describe(name, session, None)


def without_make() -> dict[str, str]:
    """Return the environment without what a `make` around the tests passes on."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def make(sam: Path, stage: str, stdin: int = subprocess.DEVNULL, **env: str) -> Any:
    """Run the recipe of `make deploy`, without its build."""
    installed = sam.with_name("installed")
    installed.touch()
    return subprocess.run(
        [
            *(*MAKE, "deploy", f"STAGE={stage}", "--old-file=build", f"INSTALLED={installed}"),
            f"PATH={sam.with_name('bin')}:{os.environ['PATH']}",
        ],
        cwd=ROOT,
        env=without_make() | env,
        stdin=stdin,
        capture_output=True,
        check=False,
        text=True,
    )


def shell(command: str) -> None:
    """Run what the operator is told to run."""
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - it is for a shell


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_that_was_not_compiled_is_built_anew(tmp_path: Path, compiled: bool) -> None:
    """A Python 3.13 may be there by now; SAM compares the sources alone."""
    bin_, cache = tmp_path / "bin", tmp_path / ".aws-sam" / "cache"
    layer = tmp_path / ".aws-sam" / "build" / "RelayLayer" / "python"
    for folder in (bin_, cache, layer):
        folder.mkdir(parents=True)
    (layer / ("urllib3.pyc" if compiled else "urllib3.py")).touch()
    for name in ("python", "sam"):
        (bin_ / name).write_text("#!/bin/sh\n", "utf-8")
        (bin_ / name).chmod(0o755)

    made = [f"--file={ROOT / 'Makefile'}", "--old-file=installed"]
    subprocess.run(
        [*MAKE, *made, "build", "BIN=bin", "INSTALLED=installed"],
        cwd=tmp_path,
        env=without_make(),
        check=True,
    )

    assert cache.exists() is compiled


def protected(stack: Stack) -> tuple[bool, bool]:
    """Return whether the stack and its table are protected against deletion."""
    described = stack.client("cloudformation").describe_stacks(StackName=stack.name)
    table = stack.client("dynamodb").describe_table(TableName=stack.outputs["TableName"])["Table"]
    return (
        bool(described["Stacks"][0].get("EnableTerminationProtection")),
        bool(table.get("DeletionProtectionEnabled")),
    )


@pytest.mark.usefixtures("aws")
def test_without_a_terminal_nothing_is_asked(sam: Path) -> None:
    done = make(sam, "dev")

    assert done.returncode == 0, done.stderr
    assert sam.read_text() == "deploy --config-env dev --no-confirm-changeset\n"


@pytest.mark.usefixtures("aws")
def test_in_a_terminal_the_first_deployment_asks_for_the_parameters(sam: Path) -> None:
    master, terminal = pty.openpty()
    try:
        assert make(sam, "dev", terminal).returncode == 0
        created("smsgold-relay-dev")
        assert make(sam, "dev", terminal).returncode == 0
    finally:
        os.close(master)
        os.close(terminal)

    assert sam.read_text().splitlines() == [
        "deploy --config-env dev --guided",
        "deploy --config-env dev",
    ]


def test_what_is_deployed_to_prod_is_protected_afterwards_until_it_is_removed(
    aws: str, sam: Path
) -> None:
    # An endpoint in the environment is not enough: version 1 of the AWS CLI ignores it for SQS.
    stack = replace(created("smsgold-relay-prod"), endpoint=aws)
    failed = make(sam, "prod", CODE="3")
    assert failed.returncode != 0
    assert "Not deployed" in failed.stderr
    assert protected(stack) == (False, False), "it has to be able to roll back"

    for _ in range(2):
        done = make(sam, "prod")
        assert done.returncode == 0, done.stderr
        assert protected(stack) == (True, True)

    with pytest.raises(OperatorError, match="is protected") as caught:
        remove(stack, lambda _: stack.name, lambda _: None)
    shell(str(caught.value).rpartition(": ")[2])
    said: list[str] = []
    remove(stack, lambda _: stack.name, said.append)

    commands = [line.strip() for line in said if line.startswith("  ")]
    for command in commands:
        shell(command)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        stack.client("dynamodb").describe_table(TableName=stack.outputs["TableName"])
    with pytest.raises(ClientError, match="NonExistentQueue"):
        stack.client("sqs").get_queue_attributes(QueueUrl=stack.resources["MessagesQueue"])


@pytest.mark.usefixtures("aws")
def test_what_a_stack_does_not_have_is_named_with_what_to_do() -> None:
    stack = created("older")

    with pytest.raises(OperatorError, match=r"older has no OrderedQueueUrl: .* Deploy it again"):
        _ = stack.outputs["OrderedQueueUrl"]
    with pytest.raises(OperatorError, match=r"older has no OrderedQueue: .* Deploy it again"):
        _ = stack.resources["OrderedQueue"]
    facts = doctor.examine(replace(stack, parameters=DEFAULTS))
    told = [finding.what for finding in doctor.findings(facts)]
    assert "the stack has no OrderedQueue: it is of another version than this doctor" in told


@pytest.mark.usefixtures("aws")
def test_what_is_left_of_a_stack_on_aws_is_deleted_in_its_region() -> None:
    commands = leftovers(created("unprotected"))

    assert [" ".join(command.split()[:5]) for command in commands] == [
        f"aws --region {REGION} dynamodb delete-table",
        f"aws --region {REGION} sqs delete-queue",
    ]


def test_the_region_of_the_guided_deployment_is_that_of_every_later_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the SAM CLI itself writes it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    shutil.copy(ROOT / "samconfig.toml", tmp_path)
    guided = SamConfig(str(tmp_path))
    guided.put(["deploy"], "parameters", "stack_name", "our-relay", env="prod")
    guided.put(["deploy"], "parameters", "region", "eu-central-1", env="prod")
    guided.flush()
    used: list[tuple[str, str]] = []

    def described(name: str, session: boto3.Session, endpoint: str | None) -> Stack:
        assert endpoint is None
        used.append((name, session.region_name))
        raise OperatorError

    monkeypatch.setattr("ops.stack.describe", described)
    monkeypatch.setattr("ops.deploy.describe", described)
    for name in ("our-relay", "smsgold-relay-dev", "another"):
        with pytest.raises(OperatorError):
            find(name, samconfig=tmp_path / "samconfig.toml")
    with pytest.raises(OperatorError):
        ops_deploy.protect("prod", tmp_path / "samconfig.toml", print)

    assert used == [
        ("our-relay", "eu-central-1"),
        ("smsgold-relay-dev", REGION),
        ("another", REGION),
        ("our-relay", "eu-central-1"),
    ]


# ------------------------------------------------------------------------------- missing indexes


def without_indexes() -> Any:
    """Return the template as it was before the table had an index."""
    old = json.loads(json.dumps(TEMPLATE))
    table = old["Resources"]["RelayTable"]["Properties"]
    del table["GlobalSecondaryIndexes"]
    table["AttributeDefinitions"] = table["AttributeDefinitions"][:1]
    return old


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
    stack = created("indexless", without_indexes())
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
    stack = replace(created("rolled-back", without_indexes()), endpoint=aws)
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


def waiting(*statuses: str) -> tuple[list[str], float]:
    """Return what is said, and the seconds waited, while an index has these statuses."""
    session: Any = Filling(*statuses)
    stack = Stack("a-stack", session, None, {}, {}, {"RelayTable": "Relay"})
    said: list[str] = []
    slept: list[float] = []
    indexes._await(stack, ["byListed"], said.append, slept.append)
    return said, sum(slept)


def test_no_index_is_added_before_the_last_one_is_filled() -> None:
    said, seconds = waiting("", *["CREATING"] * 20, "ACTIVE")
    assert seconds == 21 * indexes.POLL_SECONDS
    assert said == [
        "  byListed: not there yet after 0 s. Ctrl-C does no harm.",
        "  byListed: creating after 60 s. Ctrl-C does no harm.",
    ]


def test_an_index_that_never_comes_is_not_waited_for_for_ever() -> None:
    with pytest.raises(OperatorError, match="Look at the stack's events"):
        waiting("")


@pytest.mark.usefixtures("aws")
def test_a_deployment_adds_the_indexes_before_anything_else(tmp_path: Path) -> None:
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text('[dev.deploy.parameters]\nstack_name = "by-deploy"\n')
    created("by-deploy", without_indexes())
    sam = Sam("by-deploy")
    ran: list[int] = []

    def run(command: Sequence[str]) -> int:
        if "--template-file" in command:
            return sam(command)
        ran.append(len(sam.given))
        return 0

    ops_deploy.deploy("dev", terminal=False, run=run, samconfig=samconfig, say=lambda _: None)

    assert ran == [2]


def test_a_stage_that_is_none_is_named() -> None:
    with pytest.raises(OperatorError, match="no stack for the stage prdo"):
        ops_deploy.deploy("prdo", terminal=True, run=lambda _: 0)
