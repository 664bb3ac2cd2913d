"""The HTTP API."""

from relay.startup import ready

import os
from typing import TYPE_CHECKING, Any

from relay import metrics, wiring
from relay.http.api import answer, api
from relay.logs import begin, logger
from relay.schedules.scheduler import Schedules
from relay.settings import ScheduleSettings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = logger("api")
app = api(
    wiring.messages(),
    wiring.broadcasts(),
    Schedules(wiring.scheduler, ScheduleSettings.read(os.environ)),
    wiring.directory(),
)


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Answer one HTTP request."""
    begin(event["requestContext"]["requestId"])
    return answer(app, event, context, counted=metrics.fields)


ready()
