"""Delete a stack; its table, queues and bucket stay until you delete them yourself."""

import shlex
from collections.abc import Callable

from ops.stack import OperatorError, Stack


def remove(
    stack: Stack, ask: Callable[[str], str] = input, say: Callable[[str], None] = print
) -> None:
    """Delete a stack after its name was typed, and say how to delete what it leaves behind."""
    formation = stack.client("cloudformation")
    [described] = formation.describe_stacks(StackName=stack.name)["Stacks"]
    if described.get("EnableTerminationProtection"):
        raise OperatorError(
            f"{stack.name} is protected against deletion. To remove the protection: "
            f"{_aws(stack)} cloudformation update-termination-protection "
            f"--no-enable-termination-protection --stack-name {stack.name}"
        )
    if ask(f"To delete the stack, type its name ({stack.name}): ").strip() != stack.name:
        raise OperatorError("That is not its name. Nothing was deleted.")
    formation.delete_stack(StackName=stack.name)
    formation.get_waiter("stack_delete_complete").wait(
        StackName=stack.name, WaiterConfig={"Delay": 5}
    )
    say("Deleted. Its table, queues and bucket are still there, with all data. To delete them too:")
    for command in leftovers(stack):
        say(f"  {command}")


def leftovers(stack: Stack) -> list[str]:
    """Return the commands that delete the table, the queues and the bucket, where the stack was."""
    name = stack.outputs["TableName"]
    table = stack.client("dynamodb").describe_table(TableName=name)["Table"]
    option = f"--table-name {shlex.quote(name)}"
    commands = [f"dynamodb delete-table {option}"]
    if table.get("DeletionProtectionEnabled"):
        off = f"dynamodb update-table {option} --no-deletion-protection-enabled"
        commands[:0] = [off, f"dynamodb wait table-exists {option}"]  # until it is ACTIVE again
    commands += [
        f"sqs delete-queue --queue-url {shlex.quote(url)}"
        for logical, url in stack.resources.items()
        if logical.endswith("Queue")
    ]
    commands.append(f"s3 rb --force {shlex.quote('s3://' + stack.outputs['BucketName'])}")
    return [f"{_aws(stack)} {command}" for command in commands]


def _aws(stack: Stack) -> str:
    endpoint = f" --endpoint-url {stack.endpoint}" if stack.endpoint else ""
    return f"aws --region {stack.session.region_name}{endpoint}"
