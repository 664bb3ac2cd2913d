"""Delete a stack; its table and queues stay until you delete them yourself."""

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
            "aws cloudformation update-termination-protection "
            f"--no-enable-termination-protection --stack-name {stack.name}"
        )
    if ask(f"To delete the stack, type its name ({stack.name}): ").strip() != stack.name:
        raise OperatorError("That is not its name. Nothing was deleted.")
    formation.delete_stack(StackName=stack.name)
    formation.get_waiter("stack_delete_complete").wait(
        StackName=stack.name, WaiterConfig={"Delay": 5}
    )
    say("Deleted. Its table and queues are still there, with their data. To delete them too:")
    say(f"  aws dynamodb delete-table --table-name {stack.outputs['TableName']}")
    for name, url in stack.resources.items():
        if name.endswith("Queue"):
            say(f"  aws sqs delete-queue --queue-url {url}")
