"""The webhooks' door: other systems' own JSON, verified and made into messages by hooks.toml."""

from relay.startup import ready

import json
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import hooks, wiring
from relay.logs import logger
from relay.receiver import Receiver, Taken

log = logger("hooks")
receiver = Receiver(
    hooks.load(Path(__file__).with_name("hooks.toml").read_text("utf-8")),
    wiring.hook_secrets(),
    wiring.intake(),
    wiring.broadcaster(),
    wiring.queues(),
)


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one webhook: 202 once it is done with, an RFC 9457 problem if it is not taken."""
    del context
    answer = receiver.receive(event["pathParameters"]["name"], event)
    body: dict[str, Any]
    if isinstance(answer, Taken):
        status, type_ = 202, "application/json"
        body = {"status": answer.status} | ({"id": answer.id} if answer.id else {})
    else:
        status, type_ = int(answer.status), "application/problem+json"
        body = {
            "type": f"urn:smsgold-relay:problem:{answer.problem}",
            "title": answer.status.phrase,
            "status": status,
            "detail": answer.detail,
            "requestId": event["requestContext"]["requestId"],
        }
    return {
        "statusCode": status,
        "headers": {"Content-Type": type_},
        "body": json.dumps(body),
    }


ready()
