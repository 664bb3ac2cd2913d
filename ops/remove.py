"""Deleting a stack; its table and queues stay until you delete them yourself."""

from collections.abc import Callable

from ops.stack import OperatorError, Stack


def remove(
    stack: Stack, ask: Callable[[str], str] = input, say: Callable[[str], None] = print
) -> None:
    """Delete a stack once its name was typed, and say what it leaves and how to delete that too."""
    formation = stack.client("cloudformation")
    [described] = formation.describe_stacks(StackName=stack.name)["Stacks"]
    if described.get("EnableTerminationProtection"):
        raise OperatorError(
            f"{stack.name} is protected. If you mean it: aws cloudformation "
            "update-termination-protection --no-enable-termination-protection "
            f"--stack-name {stack.name}"
        )
    if ask(f"Delete the stack? Its name, to be sure ({stack.name}): ").strip() != stack.name:
        raise OperatorError("Nothing was deleted.")
    formation.delete_stack(StackName=stack.name)
    formation.get_waiter("stack_delete_complete").wait(
        StackName=stack.name, WaiterConfig={"Delay": 5}
    )
    say("Deleted. Its messages and their states are still there; to delete them as well:")
    say(f"  aws dynamodb delete-table --table-name {stack.outputs['TableName']}")
    for name, url in stack.resources.items():
        if name.endswith("Queue"):
            say(f"  aws sqs delete-queue --queue-url {url}")
