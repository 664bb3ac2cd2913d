"""The sender and the publisher as they are deployed, with `saboteur` inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.deployment import Deployment

SUPPORT = Path(__file__).resolve().parent
WORKER = SUPPORT.parents[1] / "local" / "worker"

TIMEOUT = 8
"""Seconds of the sender's; what it claimed is given up 5 s later."""
SHORTER = {"PROVIDER_TIMEOUT": "2", "SENDER_TIMEOUT": str(TIMEOUT)}


def kills(marks: Path) -> int:
    """Return how often the publisher was killed."""
    return (len(list(marks.iterdir())) + 1) // 2


@contextmanager
def publisher_killed(deployment: Deployment, marks: Path) -> Iterator[None]:
    """Kill the publisher at every other group of events; `marks` gets a file for each group.

    See `kills`.
    """
    functions = deployment.client("lambda")
    name = deployment.facts["publisherFunction"]
    was = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    added = {"SABOTAGE_DIR": str(marks), "PYTHONPATH": f"{SUPPORT / 'saboteur'}:{WORKER}"}
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": was | added}
    )
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": was})


@contextmanager
def sabotaged(deployment: Deployment, marks: Path, queue: str) -> Iterator[None]:
    """Let messages order sabotage of the sender; `queue` is the URL of theirs.

    `marks` gets a file for each order that was carried out.
    """
    functions, sqs = deployment.client("lambda"), deployment.client("sqs")
    name = deployment.facts["senderFunction"]
    was = functions.get_function_configuration(FunctionName=name)
    variables = was["Environment"]["Variables"]
    added = {"SABOTAGE_DIR": str(marks), "PYTHONPATH": f"{SUPPORT / 'saboteur'}:{WORKER}"}
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(TIMEOUT + 2)})
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": variables | SHORTER | added}, Timeout=TIMEOUT
    )
    try:
        yield
    finally:
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables}, Timeout=was["Timeout"]
        )
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=attributes["Attributes"])
