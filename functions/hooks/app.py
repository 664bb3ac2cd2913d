"""The webhook door: requests and events, verified and rendered into messages by hooks.toml."""

from relay.startup import ready

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay import metrics, wiring
from relay.logs import begin, logger
from relay.problems import ProblemError
from relay.webhooks import hooks
from relay.webhooks.receiver import Receiver

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = logger("hooks")
configured = hooks.load(Path(__file__).with_name("hooks.toml").read_text("utf-8"))
receiver = Receiver(
    configured,
    wiring.hook_secrets(frozenset(configured)),
    wiring.intake(),
    wiring.broadcasts(),
    wiring.queues(),
)


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Answer one webhook: 202 once handled, otherwise an RFC 9457 problem; or take an event."""
    if "requestContext" not in event:  # API Gateway's own, which no caller can leave out
        begin(context.aws_request_id)
        taken = receiver.take(event, invocation=context.aws_request_id)
        bodies = {name: handled.body() for name, handled in taken.items()}
        about = {"event_id": event.get("id"), "hooks": bodies}
        log.info("event", extra={**about, **metrics.fields()})
        return bodies
    request_id = event["requestContext"]["requestId"]
    begin(request_id)
    name = event["pathParameters"]["name"]
    try:
        handled = receiver.receive(name, event)
    except ProblemError as problem:
        if counted := metrics.fields():  # some of its messages were accepted
            log.info("webhook", extra={"hook": name, "problem": problem.kind.name, **counted})
        return problem.raw(request_id)
    log.info("webhook", extra={"hook": name, **handled.body(), **metrics.fields()})
    return {
        "statusCode": 202,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(handled.body()),
    }


ready()
