"""The HTTP door."""

from relay.startup import ready

import json
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.http import bots, contract, messages, problems, requests
from relay.logs import logger
from relay.message import read_json

log = logger("api")
app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=read_json)
problems.answer_with_problems(app)
app.include_router(messages.routes(wiring.desk()))
app.include_router(bots.routes(wiring.directory()))


@app.get(
    "/openapi.json", operation_id="getContract", summary="Get this document", tags=["contract"]
)
def openapi() -> Response[Any]:
    """Answer with the contract, made of the code."""
    return Response(200, "application/json", json.dumps(contract.document(app)))


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request."""
    request_id = event["requestContext"]["requestId"]
    log.append_keys(request_id=request_id)
    # Before anything reads the body: Powertools would take a form for JSON.
    if problem := requests.body_problem(event):
        log.info("problem", extra={"problem": problem.kind.name})
        return problem.raw(request_id)
    answer: dict[str, Any] = app.resolve(event, context)
    return answer


ready()
