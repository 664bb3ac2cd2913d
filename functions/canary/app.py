"""Checks that the provider answers, without sending anything."""

from relay.startup import ready

from typing import TYPE_CHECKING, Any

from relay import wiring
from relay.logs import begin, logger

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = logger("canary")
account = wiring.account()


class NoBotsError(Exception):
    """The account has no bot to send through."""


def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, int]:  # noqa: ARG001
    """List the bots; any failure fails the function, which raises the alarm."""
    begin(context.aws_request_id)
    bots = account.bots()
    if not bots:
        raise NoBotsError
    log.info("provider answers", extra={"bots": len(bots)})
    return {"bots": len(bots)}


ready()
