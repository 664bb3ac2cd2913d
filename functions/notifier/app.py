"""Accepts the messages that schedules send."""

from relay.startup import ready

from datetime import datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.intake import Accepted, KeyReused, queued, scoped_id
from relay.logs import logger
from relay.message import Message, validate

log = logger("notifier")
intake = wiring.intake()


class NotAcceptedError(Exception):
    """The table or the queue is out of order; the schedule's own retry brings the event again."""


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Accept a schedule's message, once for each planned time."""
    message = validate(Message, event.get("message"))
    id_ = scoped_id("schedule", event["schedule"], firing(event["time"], context.aws_request_id))
    match intake.accept([queued(message, id_)], door="schedule"):
        case [Accepted(record) | KeyReused(record)]:
            log.info("accepted", extra={"message_id": id_, "state": record.state})
            return {"id": id_, "status": record.state}
        case answer:
            raise NotAcceptedError(str(answer))


def firing(planned: str, invocation: str) -> str:
    """Return what tells one firing from the next: its planned time.

    Where the scheduler left the time's placeholder as it is, as local ones do, it is the
    invocation, whose id stays the same over Lambda's own retries.
    """
    try:
        return datetime.fromisoformat(planned).isoformat()
    except ValueError:
        return invocation


ready()
