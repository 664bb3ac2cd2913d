"""A consumer of events, as docs/events.md describes it: a rule, a queue, and a table of its own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.deployment import Deployment


@dataclass
class Consumer:
    """Keeps of each message what the latest version of its events says."""

    sqs: Any
    queue: str
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeats: int = 0

    def read(self) -> "Consumer":
        """Take in what is on the queue, in whatever order and however often it comes."""
        while received := self.sqs.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, WaitTimeSeconds=0
        ).get("Messages"):
            for message in received:
                self.take(json.loads(message["Body"])["detail"])
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return self

    def take(self, detail: dict[str, Any]) -> None:
        """Keep an event's detail unless a later one of its message is known."""
        known = self.known.get(detail["id"])
        if known is None or known["version"] < detail["version"]:
            self.known[detail["id"]] = detail
        else:
            self.repeats += 1

    def status(self, id_: str) -> str:
        """Return what became of a message, as far as events have told; "" for nothing yet."""
        return str(self.known.get(id_, {"status": ""})["status"])


@contextmanager
def consumer(deployment: Deployment, name: str) -> Iterator[Consumer]:
    """Follow a stack's events by a rule and a queue of this name."""
    sqs, events = deployment.client("sqs"), deployment.client("events")
    bus = deployment.facts["eventBus"]
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    pattern = json.dumps({"source": ["smsgold-relay"], "detail-type": ["Message Ended"]})
    events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)
    target = {"Id": "queue", "Arn": arn["Attributes"]["QueueArn"]}
    events.put_targets(Rule=name, EventBusName=bus, Targets=[target])
    try:
        yield Consumer(sqs, queue)
    finally:
        events.remove_targets(Rule=name, EventBusName=bus, Ids=["queue"])
        events.delete_rule(Name=name, EventBusName=bus)
        sqs.delete_queue(QueueUrl=queue)
