"""The API as a whole: all routes together, and one request answered."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from relay.broadcasts.service import Broadcasts
from relay.directory import Directory
from relay.http import (
    bots,
    broadcasts,
    contract,
    exception_handlers,
    lists,
    messages,
    notes,
    requests,
    schedules,
)
from relay.messages.service import Messages
from relay.outcomes import schemas
from relay.schedules.scheduler import Schedules
from relay.validation import read_json

log = logging.getLogger(__name__)


def api(
    single: Messages, many: Broadcasts, kept: Schedules, directory: Directory
) -> APIGatewayRestResolver:
    """Return the API over the services that do the work."""
    app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=read_json)
    exception_handlers.answer_with_problems(app)
    app.include_router(messages.routes(single))
    app.include_router(broadcasts.routes(many))
    app.include_router(broadcasts.reach_routes(many))
    app.include_router(lists.routes(single, many))
    app.include_router(schedules.routes(kept))
    app.include_router(bots.routes(directory))

    @app.get(
        "/openapi.json", operation_id="getContract", summary="Get this document", tags=["contract"]
    )
    def openapi() -> Response[Any]:
        compact = json.dumps(contract.document(app), ensure_ascii=False, separators=(",", ":"))
        return Response(200, "application/json", compact)

    @app.get(
        "/events.json",
        operation_id="getEventSchemas",
        summary="Get the JSON schemas of the events",
        tags=["contract"],
    )
    def event_schemas() -> Response[Any]:
        return Response(200, "application/schema+json", json.dumps(schemas.document()))

    return app


def answer(
    app: APIGatewayRestResolver,
    event: dict[str, Any],
    context: LambdaContext,
    *,
    counted: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Answer one request; log a line of it, with the metrics that were `counted` meanwhile.

    It tells who made the request, an API key's id or an IAM name, and never a key.
    """
    notes.taken()
    began = time.monotonic()
    answered = _answer(app, event, context)
    failed = answered["statusCode"] >= HTTPStatus.BAD_REQUEST
    log.info(
        "request",
        extra={
            "method": event["httpMethod"],
            "status": answered["statusCode"],
            "ms": round((time.monotonic() - began) * 1000),
            "caller": requests.caller(event),
            # A problem names its request: whoever asks about it has nothing else.
            **({"request_id": event["requestContext"]["requestId"]} if failed else {}),
            **notes.taken(),
            **counted(),
        },
    )
    return answered


def _answer(
    app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext
) -> dict[str, Any]:
    # Checked before Powertools reads the body: it takes forms for JSON, and not Application/JSON.
    if problem := requests.body_problem(event):
        notes.note(problem=problem.kind.name)
        return problem.raw(event["requestContext"]["requestId"])
    headers = event.get("headers") or {}
    known = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    answered: dict[str, Any] = app.resolve({**event, "headers": known}, context)
    # Lists, schedules and states hold personal data, or what is soon out of date.
    answered["multiValueHeaders"]["Cache-Control"] = ["no-store"]
    return answered
