"""Checks that the provider answers, without sending anything."""

from relay.startup import ready

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from relay import wiring
from relay.logs import logger

log = logger("canary")
account = wiring.account()


class NoBotsError(Exception):
    """The account has no bot to send through."""


@log.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001
    """List the bots; any failure fails the function, which raises the alarm."""
    bots = account.bots()
    if not bots:
        raise NoBotsError
    log.info("provider answers", extra={"bots": len(bots)})
    return {"bots": len(bots)}


ready()
