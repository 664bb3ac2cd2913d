"""The HTTP door."""

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.intake import Accepted, fresh_id, queued
from relay.logs import logger
from relay.message import Message

log = logger("api")
app = APIGatewayRestResolver(enable_validation=True)
intake = wiring.intake()
provider = wiring.provider()
credentials = wiring.credentials()


@app.post("/messages", status_code=HTTPStatus.ACCEPTED)
def accept(message: Message) -> Response[dict[str, Any]]:
    """Accept a message."""
    id_ = fresh_id()
    match intake.accept([queued(message, id_)], door="http"):
        case [Accepted(record)]:
            return Response(
                status_code=HTTPStatus.ACCEPTED,
                content_type="application/json",
                body={"id": id_, "status": record.state},
                headers={"Location": f"/messages/{id_}"},
            )
        case _:
            return Response(
                status_code=HTTPStatus.SERVICE_UNAVAILABLE,
                content_type="application/problem+json",
                body={"title": "Not accepted; send it again", "status": 503},
            )


@app.get("/bots")
def bots() -> list[dict[str, Any]]:
    """List the connected bots."""
    return provider.bots(credentials.get())


@app.get("/bots/<bot_id>/subscribers")
def subscribers(bot_id: Annotated[str, Path()]) -> list[dict[str, Any]]:
    """List a bot's subscribers."""
    return provider.subscribers(credentials.get(), bot_id)


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request."""
    return app.resolve(event, context)
