"""The routes that find messages and broadcasts, a page of a list at a time."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import Field

from relay import problems
from relay.broadcasts.service import Broadcasts
from relay.http import cursors
from relay.http.broadcasts import BroadcastState, Id
from relay.http.contract import Body, answer
from relay.http.messages import MessageState
from relay.messages.envelope import MAX_REFERENCE, Time
from relay.messages.lists import Found, that_ended, with_reference
from relay.messages.service import Messages
from relay.messages.states import State
from relay.problems import ProblemError

MAX_PAGE = 100
PAGE = 25
"""Entries of a list in one answer: the most, and without a `limit`."""

WRONG = answer("A parameter is unknown, missing or wrong, or the cursor another list's.")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many, at the most.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=256,
        description="Where to go on: the last answer's `cursor`, with its other parameters.",
    ),
]
Reference = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_REFERENCE,
        description="Those with this reference, the latest accepted first.",
    ),
]
BadEnd = Annotated[
    Literal["rejected", "unknown", "failed", "expired"] | None,
    Query(description="Those that have ended so, the latest to end first."),
]
Since = Annotated[
    Time | None,
    Query(description="Only those accepted since, with `reference`; or that ended since."),
]
AnyState = Annotated[State | None, Query(description="Only those that are so now.")]

NextCursor = Annotated[
    str,
    Field(
        description="Pass it on to get the next ones; without one the list has ended. There may be "
        "fewer entries than `limit`, or none, before that."
    ),
]


class MessageList(Body):
    """Some messages of a list."""

    messages: list[MessageState]
    cursor: NextCursor | None = None

    @classmethod
    def of(cls, found: Found, query: cursors.Query) -> "MessageList":
        """Return what was found as callers see it."""
        return cls(
            messages=[MessageState.of(record) for record in found.records],
            cursor=cursors.cursor(query, found.after),
        )


class BroadcastList(Body):
    """Some of the broadcasts."""

    broadcasts: list[BroadcastState]
    cursor: NextCursor | None = None


def routes(messages: Messages, broadcasts: Broadcasts) -> Router:
    """Return the routes of the lists."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.get(
        "/messages",
        operation_id="findMessages",
        summary="Find messages by their reference, or by how they ended",
        tags=["messages"],
        responses={
            200: answer("Some of them, newest first.", MessageList),
            400: WRONG,
        },
    )
    def find(
        reference: Reference = None,
        status: BadEnd = None,
        since: Since = None,
        limit: Limit = PAGE,
        cursor: Cursor = None,
    ) -> Response[Any]:
        query = cursors.query(
            router.current_event.raw_event, {"reference", "status", "since", "limit", "cursor"}
        )
        after = cursors.place(query, cursor)
        earliest = since.timestamp() if since else 0.0
        if (reference is None) == (status is None):
            raise ProblemError(problems.MALFORMED, "Give either `reference` or `status`.")
        if reference is not None:
            listing = with_reference(reference, earliest)
        else:
            listing = that_ended(State(str(status)), earliest)
        found = messages.find(listing, limit=limit, after=after)
        return MessageList.of(found, query).response(HTTPStatus.OK)

    @router.get(
        "/broadcasts",
        operation_id="listBroadcasts",
        summary="List the broadcasts",
        tags=["broadcasts"],
        responses={
            200: answer("Some of them, newest first.", BroadcastList),
            400: WRONG,
        },
    )
    def list_all(limit: Limit = PAGE, cursor: Cursor = None) -> Response[Any]:
        query = cursors.query(router.current_event.raw_event, {"limit", "cursor"})
        found = broadcasts.find(limit=limit, after=cursors.place(query, cursor))
        return BroadcastList(
            broadcasts=[BroadcastState.of(each, broadcasts.rate) for each in found.broadcasts],
            cursor=cursors.cursor(query, found.after),
        ).response(HTTPStatus.OK)

    @router.get(
        "/broadcasts/<id>/messages",
        operation_id="findBroadcastMessages",
        summary="Find a broadcast's messages",
        tags=["broadcasts"],
        responses={
            200: answer("Some of them, in the order of the bot's list.", MessageList),
            400: WRONG,
        },
    )
    def find_messages(
        id: Id,  # noqa: A002 - the contract's name
        status: AnyState = None,
        limit: Limit = PAGE,
        cursor: Cursor = None,
    ) -> Response[Any]:
        query = cursors.query(router.current_event.raw_event, {"status", "limit", "cursor"})
        after = cursors.place(query, cursor)
        if (broadcast := broadcasts.get(id)) is None:
            raise ProblemError(problems.NOT_FOUND, "No broadcast has this id.")
        found = broadcasts.messages(broadcast, status, limit=limit, after=after)
        return MessageList.of(found, query).response(HTTPStatus.OK)

    return router
