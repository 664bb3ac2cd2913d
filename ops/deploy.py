"""Deploy a stack with the SAM CLI, then protect what must outlive mistakes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.exceptions import ClientError, NoRegionError
from samcli.yamlhelper import yaml_parse

from ops import indexes
from ops.indexes import Run
from ops.stack import SAMCONFIG, OperatorError, configured, describe


def deploy(
    stage: str,
    *,
    terminal: bool | None = None,
    run: Run = subprocess.call,
    samconfig: Path = SAMCONFIG,
    say: Callable[[str], None] = print,
) -> None:
    """Deploy what was built, as the environment `stage` of samconfig.toml says.

    In a terminal the first deployment asks for the parameters, and later ones for a confirmation if
    samconfig.toml wants that. A stack whose table lacks indexes gets them first, each by an update
    of its own. Without a terminal nothing can be asked: SAM would end with "Aborted!" and
    leave a stack in REVIEW_IN_PROGRESS. What samconfig.toml sets and the template does not have is
    refused: SAM ignores it.
    """
    _refuse_unknown(stage, samconfig)
    command = ["sam", "deploy", "--config-env", stage]
    exists = _exists(stage, samconfig)
    if not (sys.stdin.isatty() if terminal is None else terminal):
        command.append("--no-confirm-changeset")
    elif not exists:
        command.append("--guided")
    if exists:
        place = configured(stage, samconfig)
        stack = describe(place.name, boto3.Session(region_name=place.region), None)
        indexes.add_missing(stack, command, run=run, say=say)
    if code := run(command):
        raise OperatorError(f"Not deployed: `{' '.join(command)}` ended with {code}.")
    if stage == "prod":
        protect(stage, samconfig, say)


def _refuse_unknown(stage: str, samconfig: Path) -> None:
    """Raise OperatorError for parameters of another version, or misspelled ones."""
    known = yaml_parse(indexes.TEMPLATE.read_text("utf-8"))["Parameters"]
    if unknown := sorted(set(configured(stage, samconfig).parameters) - set(known)):
        raise OperatorError(
            f"samconfig.toml sets {', '.join(unknown)} for {stage}, which template.yaml does not "
            "have. Take it out; docs/upgrading.md says what took the place of old parameters."
        )


def _exists(stage: str, samconfig: Path) -> bool:
    place = configured(stage, samconfig)
    try:
        formation = boto3.Session(region_name=place.region).client("cloudformation")
        [stack] = formation.describe_stacks(StackName=place.name)["Stacks"]
    except (ClientError, NoRegionError):
        return False
    return stack["StackStatus"] != "REVIEW_IN_PROGRESS"


def protect(stage: str, samconfig: Path, say: Callable[[str], None]) -> None:
    """Protect a stack, and its table, against deletion.

    Not in the template: a protected table "cannot be deleted by any user or process", says its
    documentation, and so not by a first deployment that fails and rolls back.
    """
    place = configured(stage, samconfig)  # --guided may just have written it
    session = boto3.Session(region_name=place.region)
    stack = describe(place.name, session, None)
    stack.client("cloudformation").update_termination_protection(
        StackName=place.name, EnableTerminationProtection=True
    )
    tables, name = stack.client("dynamodb"), stack.outputs["TableName"]
    if not tables.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
        tables.update_table(TableName=name, DeletionProtectionEnabled=True)
    say(f"{place.name} and its table are protected against deletion.")
