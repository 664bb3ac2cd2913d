"""Tries the provider without sending anything."""

from relay.startup import ready

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.logs import logger

log = logger("canary")
provider = wiring.provider()
credentials = wiring.credentials()


class NoBotsError(Exception):
    """The account lists no bot: nothing can be sent for it."""


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001
    """List the bots; whatever goes wrong is an error of the function, and that is its alarm."""
    bots = provider.bots(credentials.get())
    if not bots:
        raise NoBotsError
    log.info("provider answers", extra={"bots": len(bots)})
    return {"bots": len(bots)}


ready()
