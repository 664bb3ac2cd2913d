"""The routes of broadcasts."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Path
from pydantic import Field

from relay import problems
from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    Command,
    Status,
    eta,
    queued_broadcast,
)
from relay.broadcasts.service import Broadcasts, InvalidTransition, Reused
from relay.http import requests
from relay.http.contract import Body, answer
from relay.http.messages import Key, Time
from relay.http.notes import note
from relay.messages.envelope import ID_PATTERN, rfc3339
from relay.messages.intake import fresh_id, scoped_id
from relay.messages.states import State
from relay.problems import ProblemError

Id = Annotated[str, Path(pattern=ID_PATTERN, description="The broadcast's id.")]


class Skipped(Body):
    """Entries of the bot's list that get no message."""

    duplicates: Annotated[int, Field(description="Entries that repeat a subscriber's id.")]
    without_id: Annotated[int, Field(description="Entries without a usable id.")]


class BroadcastReceipt(Body):
    """A broadcast and its status."""

    id: str
    status: Status


class BroadcastState(BroadcastReceipt):
    """A broadcast's progress: `total` is the sum of the seven numbers after it."""

    bot_id: str
    reference: str | None = None
    reason: (
        Annotated[
            str,
            Field(description="Why it is paused, stopped or failed: requested, refusals, late, …"),
        ]
        | None
    ) = None
    detail: Annotated[str, Field(description="The same in words.")] | None = None
    accepted_at: Time
    started_at: Annotated[Time, Field(description="When the subscribers were listed.")] | None = (
        None
    )
    finished_at: Time | None = None
    eta: (
        Annotated[Time, Field(description="When the last message goes out, at the account's rate.")]
        | None
    ) = None
    total: Annotated[int, Field(description="The bot's subscribers, each once.")]
    queued: Annotated[int, Field(description="Waiting or being sent.")]
    sent: int
    rejected: int
    unknown: int
    failed: int
    expired: int
    canceled: int
    skipped: Skipped

    @classmethod
    def of(cls, broadcast: BroadcastRecord, rate: float) -> "BroadcastState":
        """Return a broadcast as callers see it."""
        now = time.time()
        shown = broadcast.shown
        counts = {state: shown.get(state, 0) for state in State}
        # Messages of a stopped broadcast that were never enqueued count as canceled, too.
        counts[State.CANCELED] += broadcast.total - broadcast.due
        due = eta(broadcast, rate, now)
        return cls(
            id=broadcast.id,
            status=broadcast.status,
            bot_id=broadcast.bot_id,
            reference=broadcast.reference or None,
            reason=broadcast.why or None,
            detail=broadcast.detail or None,
            accepted_at=rfc3339(broadcast.created_at),
            started_at=rfc3339(broadcast.started_at) if broadcast.started_at else None,
            finished_at=rfc3339(broadcast.finished_at) if broadcast.finished_at else None,
            eta=rfc3339(due) if due else None,
            total=broadcast.total,
            queued=max(0, broadcast.due - sum(shown.values())),
            sent=counts[State.SENT],
            rejected=counts[State.REJECTED],
            unknown=counts[State.UNKNOWN],
            failed=counts[State.FAILED],
            expired=counts[State.EXPIRED],
            canceled=counts[State.CANCELED],
            skipped=Skipped(duplicates=broadcast.duplicates, without_id=broadcast.without_id),
        )


def routes(broadcasts: Broadcasts) -> Router:
    """Return the routes under /broadcasts."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.post(
        "/broadcasts",
        operation_id="sendBroadcast",
        summary="Send one text to all of a bot's subscribers",
        tags=["broadcasts"],
        responses={
            202: answer(
                "Accepted.",
                BroadcastReceipt,
                Location="The address of its progress.",
                Idempotency_Replayed="`true` if an earlier request brought it.",
            )
        },
    )
    def send(broadcast: Broadcast, key: Key = None) -> Response[Any]:
        del key  # only documented by its type; `requests` reads repeated headers, too
        event = router.current_event.raw_event
        given = requests.idempotency_key(event)
        id_ = scoped_id("http-broadcast", requests.caller(event), given) if given else fresh_id()
        started = broadcasts.start(queued_broadcast(broadcast, id_))
        if isinstance(started, Reused):
            raise ProblemError(
                problems.KEY_REUSED,
                "This key was used with another body; choose a new key for a new broadcast.",
            )
        note(broadcast=id_, replayed=started.replayed)
        replayed = {"Idempotency_Replayed": "true"} if started.replayed else {}
        return BroadcastReceipt(id=id_, status=started.broadcast.status).response(
            HTTPStatus.ACCEPTED, Location=f"./broadcasts/{id_}", **replayed
        )

    @router.get(
        "/broadcasts/<id>",
        operation_id="getBroadcast",
        summary="Get a broadcast's progress",
        tags=["broadcasts"],
        responses={200: answer("Its progress.", BroadcastState)},
    )
    def look_up(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return state(broadcasts.get(id))

    def state(found: BroadcastRecord | InvalidTransition | None) -> Response[Any]:
        match found:
            case None:
                raise ProblemError(problems.NOT_FOUND, "No broadcast has this id.")
            case InvalidTransition(broadcast):
                status = broadcast.status
                raise ProblemError(
                    problems.NOT_STEERABLE,
                    f"The broadcast is {status}; GET it to learn more.",
                    state=status,
                )
        return BroadcastState.of(found, broadcasts.rate).response(HTTPStatus.OK)

    def steering(verb: str, summary: str, done: str) -> Callable[..., Any]:
        return router.post(
            f"/broadcasts/<id>/{verb}",
            operation_id=f"{verb}Broadcast",
            summary=summary,
            tags=["broadcasts"],
            responses={
                200: answer(done, BroadcastState),
                409: answer("It has ended already; `state` says how."),
            },
        )

    @steering("pause", "Pause a broadcast", "Paused.")
    def pause(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return state(broadcasts.command(id, Command.PAUSE))

    @steering("resume", "Resume a paused broadcast", "Resumed.")
    def resume(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return state(broadcasts.command(id, Command.RUN))

    @steering("stop", "Stop a broadcast for good", "Stopped.")
    def stop(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return state(broadcasts.command(id, Command.STOP))

    return router
