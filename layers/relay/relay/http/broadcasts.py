"""The routes of broadcasts."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import Field, StrictBool

from relay import problems
from relay.broadcasts.audience import AudienceError, Trial
from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    Cause,
    Command,
    Status,
    eta,
    queued_broadcast,
    stray_braces,
)
from relay.broadcasts.reach import Page
from relay.broadcasts.service import Broadcasts, InvalidTransition, Reused
from relay.http import requests
from relay.http.contract import Body, answer
from relay.http.messages import Key, Time
from relay.http.notes import note
from relay.messages.envelope import ID_PATTERN, MAX_ID, Button, rfc3339
from relay.messages.intake import fresh_id, scoped_id
from relay.messages.refusals import SHARDS
from relay.messages.states import State
from relay.problems import ProblemError

TRIAL_SECONDS = 20.0
"""How long a dry run reads a list: API Gateway waits for 29 seconds."""

Marked = Annotated[
    str, Path(min_length=1, max_length=MAX_ID, description="A subscriber's id, or a chat.")
]
Cursor = Annotated[int, Query(ge=0, lt=SHARDS, description="The last answer's `next`.")]
Id = Annotated[str, Path(pattern=ID_PATTERN, description="The broadcast's id.")]


class Skipped(Body):
    """Entries of the list that get no message."""

    duplicates: Annotated[int, Field(description="Entries that repeat another's address.")]
    without_id: Annotated[int, Field(description="Entries without a usable id.")]
    filtered: Annotated[int, Field(description="`where` does not hold.")]
    excluded: Annotated[int, Field(description="`exclude` reached them, or may yet.")]
    unreachable: Annotated[int, Field(description="They refused the last two messages.")]
    unrenderable: Annotated[
        int,
        Field(description="`where` or a template fails, or what comes out breaks a rule."),
    ]

    @classmethod
    def of(cls, skipped: Mapping[Cause, int]) -> "Skipped":
        """Return the counts by cause."""
        return cls(**{cause.name.lower(): skipped.get(cause, 0) for cause in Cause})


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
    started_at: Annotated[Time, Field(description="When the recipients were listed.")] | None = None
    finished_at: Time | None = None
    eta: (
        Annotated[Time, Field(description="When the last message goes out, at the account's rate.")]
        | None
    ) = None
    total: Annotated[int, Field(description="How many get it, each counted once.")]
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
            skipped=Skipped.of(broadcast.skipped),
        )


class BroadcastOrder(Broadcast):
    """A broadcast, to be sent or only to be tried out."""

    dry_run: StrictBool = Field(
        default=False,
        description="Return what it would do: nothing is written, and nothing is sent.",
    )


class Sample(Body):
    """A message as one recipient would get it."""

    subscriber_id: str | None = None
    bot_id: str | None = None
    number: str | None = None
    text: str
    buttons: tuple[Button, ...] = ()


class Unrenderable(Body):
    """An entry that nothing can be rendered for."""

    who: Annotated[
        str, Field(description="The subscriber's id, or the recipient's place in the list, from 1.")
    ]
    problem: str


class DryRun(Body):
    """What a broadcast would do now."""

    dry_run: bool = True
    complete: Annotated[
        bool,
        Field(description="`false`: the list is so long that only a part of it was read."),
    ]
    total: Annotated[int, Field(description="How many would get it.")]
    skipped: Skipped
    eta: Annotated[Time, Field(description="When the last message would go out.")] | None = None
    samples: Annotated[list[Sample], Field(description="The first three messages.")]
    unrenderable: Annotated[
        list[Unrenderable], Field(description="The first ten that would not render.")
    ]

    @classmethod
    def of(cls, trial: Trial, begins_at: float, pace: float) -> "DryRun":
        """Return a trial as callers see it; `pace` is in messages a second, 0 for no limit."""
        known = trial.complete and pace
        return cls(
            complete=trial.complete,
            total=trial.total,
            skipped=Skipped.of(trial.skipped),
            eta=rfc3339(begins_at + trial.total / pace) if known else None,
            samples=[
                Sample.model_validate(message, from_attributes=True) for message in trial.samples
            ],
            unrenderable=[
                Unrenderable(who=skipped.who, problem=skipped.problem)
                for skipped in trial.unrenderable
            ],
        )


class Unreachable(Body):
    """Somebody who refused the last messages, in different broadcasts or one by one."""

    subscriber_id: str | None = None
    chat: Annotated[str, Field(description="A hash of the address; it tells no number.")]
    refused_at: Time


class UnreachableList(Body):
    """Those whom broadcasts leave out."""

    unreachable: list[Unreachable]
    next: Annotated[str, Field(description="Give it as `cursor` for the next ones.")] | None = None

    @classmethod
    def of(cls, page: Page) -> "UnreachableList":
        """Return a page as callers see it."""
        return cls(
            unreachable=[
                Unreachable(
                    subscriber_id=mark.subscriber_id or None,
                    chat=mark.chat,
                    refused_at=rfc3339(mark.refused_at),
                )
                for mark in page.marks
            ],
            next=None if page.next is None else str(page.next),
        )


class Cleared(Body):
    """What was cleared."""

    cleared: int
    complete: Annotated[bool, Field(description="`false`: there are more; repeat the request.")]


def reach_routes(broadcasts: Broadcasts) -> Router:
    """Return the routes under /unreachable."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.get(
        "/unreachable",
        operation_id="listUnreachable",
        summary="List those whom broadcasts leave out because they refused the last two messages",
        tags=["broadcasts"],
        responses={200: answer("Those who cannot be reached.", UnreachableList)},
    )
    def unreachable(cursor: Cursor = 0) -> Response[Any]:
        return UnreachableList.of(broadcasts.reach.page(cursor)).response(HTTPStatus.OK)

    @router.delete(
        "/unreachable",
        operation_id="clearAllUnreachable",
        summary="Forget all refusals: the next broadcast goes to everybody",
        tags=["broadcasts"],
        responses={200: answer("Forgotten.", Cleared)},
    )
    def clear_all() -> Response[Any]:
        ends_at = time.monotonic() + TRIAL_SECONDS
        cleared, complete = broadcasts.reach.clear_all(lambda: time.monotonic() < ends_at)
        return Cleared(cleared=cleared, complete=complete).response(HTTPStatus.OK)

    @router.delete(
        "/unreachable/<id>",
        operation_id="clearUnreachable",
        summary="Forget somebody's refusals, by subscriber id or chat",
        tags=["broadcasts"],
        responses={200: answer("Forgotten.", Cleared)},
    )
    def clear(id: Marked) -> Response[Any]:  # noqa: A002 - the contract's name
        if not broadcasts.reach.clear(id):
            raise ProblemError(problems.NOT_FOUND, "This subscriber or chat has refused nothing.")
        return Cleared(cleared=1, complete=True).response(HTTPStatus.OK)

    return router


def _tried(broadcasts: Broadcasts, broadcast: BroadcastOrder) -> Trial | None:
    """Check a broadcast, and try it out if it is only to be tried out."""
    if found := stray_braces(broadcast):
        raise problems.invalid(found)
    try:
        broadcasts.check(broadcast)
        if not broadcast.dry_run:
            return None
        queued = queued_broadcast(broadcast, "dry-run")
        return broadcasts.try_out(queued, seconds=TRIAL_SECONDS)
    except AudienceError as error:
        raise problems.invalid([((error.field,), error.detail)]) from None


def routes(broadcasts: Broadcasts) -> Router:
    """Return the routes under /broadcasts."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.post(
        "/broadcasts",
        operation_id="sendBroadcast",
        summary="Send a text to all of a bot's subscribers, or to some of them",
        tags=["broadcasts"],
        responses={
            200: answer("With `dryRun`: what it would do.", DryRun),
            202: answer(
                "Accepted.",
                BroadcastReceipt,
                Location="The address of its progress.",
                Idempotency_Replayed="`true` if an earlier request brought it.",
            ),
        },
    )
    def send(broadcast: BroadcastOrder, key: Key = None) -> Response[Any]:
        del key  # only documented by its type; `requests` reads repeated headers, too
        if trial := _tried(broadcasts, broadcast):
            begins_at = broadcast.may_go_at(time.time())
            pace = broadcast.pace(broadcasts.rate)
            return DryRun.of(trial, begins_at, pace).response(HTTPStatus.OK)
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
