"""The routes of the provider's lists."""

import json
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Path
from pydantic import BaseModel, ConfigDict, RootModel

from relay.directory import Directory, Entries
from relay.http.contract import answer
from relay.messages.envelope import MAX_ID
from relay.problems import PROVIDER_FAILED, ProblemError

LONGEST_ANSWER = 5_500_000
"""Bytes; a function's response may have 6 MB, JSON escapes included."""

FAILURES = {
    502: answer("The provider did not give the list; `reason` says why."),
    504: answer("The provider took too long."),
}

BotId = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="The bot's id.")]


class Entry(BaseModel):
    """A bot or a subscriber as the provider lists it, with all of its fields."""

    model_config = ConfigDict(extra="allow")

    id: str


class EntryList(RootModel[list[Entry]]):
    """One of the provider's lists."""


def routes(directory: Directory) -> Router:
    """Return the routes under /bots."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.get(
        "/bots",
        operation_id="listBots",
        summary="List the connected bots",
        tags=["bots"],
        responses={200: answer("The bots.", EntryList), **FAILURES},
    )
    def bots() -> Response[Any]:
        return _list(directory.bots())

    @router.get(
        "/bots/<bot_id>/subscribers",
        operation_id="listSubscribers",
        summary="List a bot's subscribers",
        tags=["bots"],
        responses={200: answer("The subscribers.", EntryList), **FAILURES},
    )
    def subscribers(bot_id: BotId) -> Response[Any]:
        return _list(directory.subscribers(bot_id))

    return router


def _list(entries: Entries) -> Response[Any]:
    body = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    if len(body.encode()) > LONGEST_ANSWER:
        raise ProblemError(
            PROVIDER_FAILED, "The list is too long to pass on.", reason="list_too_long"
        )
    return Response(
        status_code=200,
        content_type="application/json",
        body=body,
    )
