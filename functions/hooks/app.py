"""The webhook door: requests and events, verified and rendered into messages by hooks.toml."""

from relay.startup import ready

import json
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.logs import logger
from relay.problems import ProblemError
from relay.webhooks import hooks
from relay.webhooks.receiver import Receiver

log = logger("hooks")
configured = hooks.load(Path(__file__).with_name("hooks.toml").read_text("utf-8"))
receiver = Receiver(
    configured,
    wiring.hook_secrets(frozenset(configured)),
    wiring.intake(),
    wiring.broadcasts(),
    wiring.queues(),
)


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one webhook: 202 once handled, otherwise an RFC 9457 problem; or take an event."""
    del context
    if "requestContext" not in event:  # API Gateway's own, which no caller can leave out
        return {name: handled.body() for name, handled in receiver.take(event).items()}
    try:
        handled = receiver.receive(event["pathParameters"]["name"], event)
    except ProblemError as problem:
        return problem.raw(event["requestContext"]["requestId"])
    return {
        "statusCode": 202,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(handled.body()),
    }


ready()
