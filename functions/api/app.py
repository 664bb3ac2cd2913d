"""The HTTP API."""

from relay.startup import ready

import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.http.api import answer, api
from relay.logs import logger
from relay.schedules.scheduler import Schedules
from relay.settings import ScheduleSettings

log = logger("api")
app = api(
    wiring.messages(),
    wiring.broadcasts(),
    Schedules(wiring.scheduler, ScheduleSettings.read(os.environ)),
    wiring.directory(),
)


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one HTTP request."""
    log.append_keys(request_id=event["requestContext"]["requestId"])
    return answer(app, event, context)


ready()
