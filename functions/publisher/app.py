"""Puts on the event bus what became of messages and broadcasts, from the table's stream."""

from relay.startup import ready

import os
import time
from typing import Any

from relay.outcomes import bus
from relay.outcomes.publisher import log_line, publish

NAMESPACE = os.environ["POWERTOOLS_METRICS_NAMESPACE"]
SERVICE = os.environ["POWERTOOLS_SERVICE_NAME"]
stacks_bus = bus.from_environment(os.environ)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001
    """Publish a batch of the stream; answer with where it has to be taken up again."""
    published = publish(event["Records"], stacks_bus)
    print(log_line(published, NAMESPACE, SERVICE, time.time()))
    return published.answer


ready()
