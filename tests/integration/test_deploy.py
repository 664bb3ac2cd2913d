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
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from samcli.lib.config.samconfig import SamConfig

from ops import deploy as ops_deploy
from ops import doctor
from ops.remove import leftovers, remove
from ops.stack import OperatorError, Stack, describe, find
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
        "RelayBucket": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain"},
    },
    "Outputs": {
        "TableName": {"Value": {"Ref": "RelayTable"}},
        "BucketName": {"Value": {"Ref": "RelayBucket"}},
    },
}


@pytest.fixture
def sam(tmp_path: Path) -> Path:
    """Put a `sam` on the path that keeps its arguments, one run a line, and ends with $CODE."""
    program, asked = tmp_path / "bin" / "sam", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\nexit "${{CODE:-0}}"\n', "utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    asked.touch()
    return asked


def created(name: str) -> Stack:
    session = boto3.Session(region_name=REGION)
    formation = session.client("cloudformation")
    formation.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE))
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


@pytest.mark.parametrize(
    "overrides",
    [
        '["Stage=dev", "AlarmStates=\'ALARM,OK\'", "ScheduleText=a=b"]',
        '"Stage=dev AlarmStates=\\"ALARM,OK\\" ScheduleText=\\"a= Events=b\\""',
        '["ParameterKey=AlarmStates,ParameterValue=x", "ParameterKey=ScheduleText"]',
    ],
)
def test_a_parameter_that_the_template_does_not_have_is_refused(
    tmp_path: Path, overrides: str
) -> None:
    """SAM would ignore it, and alarms would reach nobody after an upgrade from 0.1.0."""
    config = tmp_path / "samconfig.toml"
    config.write_text(
        f'[dev.deploy.parameters]\nstack_name = "x"\nparameter_overrides = {overrides}\n', "utf-8"
    )
    ran: list[Any] = []

    with pytest.raises(OperatorError, match=r"sets AlarmStates, ScheduleText for dev"):
        ops_deploy.deploy("dev", terminal=False, run=ran.append, samconfig=config)  # type: ignore[arg-type]

    assert ran == []


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
        f"aws --region {REGION} s3 rb",
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


def test_a_stage_that_is_none_is_named() -> None:
    with pytest.raises(OperatorError, match="no stack for the stage prdo"):
        ops_deploy.deploy("prdo", terminal=True, run=lambda _: 0)
