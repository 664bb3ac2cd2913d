"""Add the table's missing indexes to a deployed stack, one at a time, before anything else.

CloudFormation adds no two at once: "You can delete or add one global secondary index without
interruption. If you do both in the same update (for example, by changing the index's logical ID),
the update fails", and two in one update end with "Cannot perform more than one GSI creation or
deletion in a single update". Nor does it wait: "CloudFormation initiates the index creation and
then proceeds with the stack update. … You cannot use the index or update the table until the
index's status is ACTIVE." And "if you add or delete an index during an update, we recommend that
you don't update any other resources" (all from AWS::DynamoDB::Table in the CloudFormation User
Guide; the error is its own).

So each index is an update of its own, of the template that is deployed already. The table is in use
all the while. What is interrupted is taken up by the next `make deploy`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from samcli.yamlhelper import yaml_dump, yaml_parse

from ops.stack import OperatorError, Stack

Run = Callable[[Sequence[str]], int]
"""Runs a command; returns its exit code."""

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template.yaml"
STEP = ROOT / ".aws-sam" / "one-index-more.yaml"
"""The template of one such update, for `sam deploy` to read."""

TABLE = "RelayTable"
POLL_SECONDS = 5.0
SAY_SECONDS = 60.0
GRACE_SECONDS = 60.0
"""How long a table may not know an index yet that its stack says it has."""


def add_missing(
    stack: Stack,
    command: Sequence[str],
    *,
    run: Run,
    template: Path = TEMPLATE,
    step: Path = STEP,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Add what the template's table has and the stack's lacks; `command` is for `sam deploy`.

    Raises OperatorError where an index cannot be added, saying what to do.
    """
    if stack.status == "ROLLBACK_COMPLETE":
        return  # its first deployment failed: there is no table, and `sam deploy` says what to do
    wanted = _table(yaml_parse(template.read_text("utf-8")))
    deployed = _deployed(stack)
    if wanted is None or (table := _table(deployed)) is None:
        return
    missing = [index for name, index in _indexes(wanted).items() if name not in _indexes(table)]
    if not missing:
        return
    _refuse_strangers(stack, table)
    for n, index in enumerate(missing, start=1):
        name = index["IndexName"]
        _await(stack, list(_indexes(table)), say, sleep)
        say(f"Adding the index {name} to the table, {n} of {len(missing)}; the stack stays in use.")
        table.setdefault("GlobalSecondaryIndexes", []).append(index)
        # "AttributeDefinitions" may have no attribute that is no key.
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        known = {attribute["AttributeName"] for attribute in table["AttributeDefinitions"]}
        table["AttributeDefinitions"] += [
            attribute
            for attribute in wanted["AttributeDefinitions"]
            if attribute["AttributeName"] in keys - known
        ]
        step.parent.mkdir(parents=True, exist_ok=True)
        step.write_text(yaml_dump(deployed), "utf-8")
        if code := run([*command, "--template-file", str(step)]):
            raise OperatorError(
                f"The index {name} is not added: `sam deploy` ended with {code}. Nothing else has "
                "changed. Repeat `make deploy` once its reason above is out of the way."
            )
    _await(stack, list(_indexes(table)), say, sleep)


def _deployed(stack: Stack) -> Any:
    """Return the template that is deployed, as it was before SAM's transform."""
    body = stack.client("cloudformation").get_template(
        StackName=stack.name, TemplateStage="Original"
    )["TemplateBody"]
    return yaml_parse(body) if isinstance(body, str) else body


def _table(template: Any) -> Any:
    """Return the properties of a template's table, None if there is none."""
    return template.get("Resources", {}).get(TABLE, {}).get("Properties")


def _indexes(table: Mapping[str, Any]) -> dict[str, Any]:
    return {index["IndexName"]: index for index in table.get("GlobalSecondaryIndexes", [])}


def _refuse_strangers(stack: Stack, table: Mapping[str, Any]) -> None:
    """Raise OperatorError if the table has an index that its stack knows nothing of.

    "If your stack fails to update and is rolled back while adding a new index, you must manually
    delete the index" (as above).
    """
    name = stack.resources[TABLE]
    for index in statuses(stack, name).keys() - _indexes(table).keys():
        region = stack.session.region_name
        change = f'[{{"Delete":{{"IndexName":"{index}"}}}}]'
        raise OperatorError(
            f"The table has an index {index} that its stack does not know; an update that failed "
            "may have left it. Delete it, wait until it is gone, and repeat `make deploy`:\n"
            f"  aws --region {region} dynamodb update-table --table-name {name} "
            f"--global-secondary-index-updates '{change}'"
        )


def _await(
    stack: Stack, names: Sequence[str], say: Callable[[str], None], sleep: Callable[[float], None]
) -> None:
    """Wait until the table has these indexes, each of them filled."""
    waited = 0.0
    while True:
        there = statuses(stack, stack.resources[TABLE])
        status = {name: there.get(name, "not there yet") for name in names}
        behind = {name: what for name, what in status.items() if what != "ACTIVE"}
        if not behind:
            return
        name, what = next(iter(behind.items()))
        if name not in there and waited >= GRACE_SECONDS:
            raise OperatorError(
                f"The stack {stack.name} says that its table has an index {name}, and the table "
                "says that it has none. Look at the stack's events, and at its drift."
            )
        if waited % SAY_SECONDS == 0:
            say(f"  {name}: {what.lower()} after {waited:.0f} s. Ctrl-C does no harm.")
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS


def statuses(stack: Stack, table: str) -> dict[str, str]:
    """Return the status of each index that a table has."""
    answer = stack.client("dynamodb").describe_table(TableName=table)
    indexes = answer["Table"].get("GlobalSecondaryIndexes", [])
    return {index["IndexName"]: index.get("IndexStatus", "ACTIVE") for index in indexes}
