"""The routes of single messages and batches."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Header, Path
from pydantic import BaseModel, Field, SkipValidation

from relay import problems
from relay.http import requests
from relay.http.contract import Body, answer
from relay.http.notes import note
from relay.messages.envelope import ID_PATTERN, KeyedMessage, Message, QueuedMessage, rfc3339
from relay.messages.intake import (
    Accepted,
    Answer,
    Full,
    KeyReused,
    TooFar,
    fresh_id,
    queued,
    scoped_id,
)
from relay.messages.service import Messages, Refused
from relay.messages.states import TERMINAL, Record, State
from relay.problems import Problem, ProblemError
from relay.validation import InvalidMessageError, Location, model_config, validate

MAX_BATCH = 100

ANSWER_SECONDS = 1.0
"""Seconds kept at an invocation's end for returning the answer."""

Id = Annotated[str, Path(pattern=ID_PATTERN, description="The message's id.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and body again mean the same message, not another one. "
        "1 to 255 printable ASCII characters, bare or in quotes.",
        json_schema_extra={"pattern": requests.KEY_PATTERN, "examples": ["order-4711-paid"]},
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N` sends at once and waits up to N seconds (20 at most) "
        "for the final state; see RFC 7240.",
        json_schema_extra={"examples": ["wait=10"]},
    ),
]


# ------------------------------------------------------------------------------- the bodies


class Batch(BaseModel):
    """Up to 100 messages, each accepted or refused on its own."""

    model_config = model_config

    # Validated one by one, so one bad item does not reject the others.
    messages: Annotated[
        list[SkipValidation[KeyedMessage]], Field(min_length=1, max_length=MAX_BATCH)
    ]


class Resolution(BaseModel):
    """What a person found out about a message whose outcome was unknown."""

    model_config = model_config

    as_: Annotated[
        Literal["sent", "failed"],
        Field(alias="as", description="Whether the subscriber got it.", examples=["sent"]),
    ]


# ------------------------------------------------------------------------------ the answers

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class MessageReceipt(Body):
    """A message and its status."""

    id: str
    status: State


class AttemptMade(Body):
    """One exchange with the provider."""

    at: Time
    outcome: str
    reason: str
    milliseconds: int


class EventNoted(Body):
    """A change other than an attempt, such as a redrive."""

    at: Time
    what: str


class MessageState(MessageReceipt):
    """All that the relay keeps of a message; its text, number and buttons are not kept."""

    accepted_at: Time
    updated_at: Time
    deadline: Annotated[Time, Field(description="No attempt starts after it.")]
    next_try_at: (
        Annotated[Time, Field(description="While it is queued: when it may be tried next.")] | None
    ) = None
    expires_at: Time | None = None
    reference: str | None = None
    caller: (
        Annotated[
            str,
            Field(
                description="Who handed it in: `key:` and an API key's id, `iam:` and a user or "
                "role, `hook:`, `schedule:` or `broadcast:` and its name or id; or the "
                "door, if that is all there is to know.",
                examples=["key:a1b2c3d4e5"],
            ),
        ]
        | None
    ) = None
    provider_id: Annotated[str, Field(description="The provider's id of the message.")] | None = (
        None
    )
    reason: Annotated[str, Field(description="Why it is not sent; a stable code.")] | None = None
    detail: (
        Annotated[str, Field(description="The reason in words, often the provider's.")] | None
    ) = None
    tries: Annotated[int, Field(description="Attempts made.")]
    ambiguous: Annotated[
        int, Field(description="Attempts with an unknown outcome that were repeated.")
    ]
    attempts: Annotated[list[AttemptMade], Field(description="The latest 20.")]
    history: list[EventNoted]

    @classmethod
    def of(cls, record: Record) -> "MessageState":
        """Return a record as callers see it."""
        return cls(
            id=record.id,
            status=record.state,
            accepted_at=rfc3339(record.accepted_at),
            updated_at=rfc3339(record.updated_at),
            deadline=rfc3339(record.deadline),
            next_try_at=rfc3339(record.lease)
            if record.state is State.QUEUED and record.lease
            else None,
            expires_at=rfc3339(record.expires_at) if record.expires_at else None,
            reference=record.reference or None,
            caller=record.caller or None,
            provider_id=record.provider_id or None,
            reason=record.reason or None,
            detail=record.detail or None,
            tries=record.tries,
            ambiguous=record.ambiguous,
            attempts=[
                AttemptMade(
                    at=rfc3339(attempt.at),
                    outcome=attempt.outcome,
                    reason=attempt.reason,
                    milliseconds=attempt.milliseconds,
                )
                for attempt in record.attempts
            ],
            history=[EventNoted(at=rfc3339(event.at), what=event.what) for event in record.history],
        )


class BatchResult(Body):
    """What became of one item: `id` and `status`, or `error`."""

    index: int
    id: str | None = None
    status: State | None = None
    replayed: Annotated[bool, Field(description="An earlier call brought it already.")] | None = (
        None
    )
    error: Problem | None = None


class BatchAnswer(Body):
    """What became of each item, in order."""

    results: list[BatchResult]


# ------------------------------------------------------------------------------- the routes


def routes(service: Messages) -> Router:
    """Return the routes under /messages."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.post(
        "/messages",
        operation_id="sendMessage",
        summary="Send a message",
        tags=["messages"],
        responses={
            200: answer(
                "With `Prefer: wait`, the message's final state.",
                MessageState,
                Location="The address of its state.",
                Preference_Applied="The seconds it may have waited.",
                Idempotency_Replayed="`true` if its key was known already.",
            ),
            202: answer(
                "Accepted. With `Prefer: wait`, it has not ended yet; the body is its state.",
                MessageReceipt,
                Location="The address of its state.",
                Preference_Applied="The seconds it may have waited.",
                Idempotency_Replayed="`true` if its key was known already.",
            ),
        },
    )
    def send(message: Message, key: Key = None, prefer: Prefer = None) -> Response[Any]:
        del key, prefer  # only documented by their types; `requests` reads repeated headers, too
        event = router.current_event.raw_event
        caller, given = requests.caller(event), requests.idempotency_key(event)
        id_ = scoped_id("http", caller, given) if given else fresh_id()
        fresh = () if given else (id_,)
        seconds = requests.wait(event)
        if not seconds:
            [result] = service.accept([queued(message, id_)], caller=caller, fresh=fresh)
            accepted = _accepted(result)
            return MessageReceipt(id=id_, status=accepted.record.state).response(
                HTTPStatus.ACCEPTED, **_headers(accepted)
            )
        time_left = router.lambda_context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
        accepted = _accepted(
            service.accept_and_wait(
                queued(message, id_),
                seconds=seconds,
                time_left=time_left,
                caller=caller,
                fresh=fresh,
            )
        )
        final = accepted.record.state in TERMINAL
        return MessageState.of(accepted.record).response(
            HTTPStatus.OK if final else HTTPStatus.ACCEPTED,
            **_headers(accepted),
            Preference_Applied=f"wait={seconds}",
        )

    @router.post(
        "/messages/batch",
        operation_id="sendMessages",
        summary="Send up to 100 messages",
        tags=["messages"],
        responses={202: answer("Each item's result says whether it is accepted.", BatchAnswer)},
    )
    def send_batch(batch: Batch, key: Key = None) -> Response[Any]:
        del key
        event = router.current_event.raw_event
        results = _accept_all(
            service, batch.messages, requests.caller(event), requests.idempotency_key(event)
        )
        return BatchAnswer(results=results).response(HTTPStatus.ACCEPTED)

    @router.get(
        "/messages/<id>",
        operation_id="getMessage",
        summary="Get a message's state",
        tags=["messages"],
        responses={200: answer("Its state.", MessageState)},
    )
    def look_up(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return _state(service.get(id), problems.INTERNAL)

    @router.delete(
        "/messages/<id>",
        operation_id="cancelMessage",
        summary="Cancel a waiting message",
        tags=["messages"],
        responses={
            200: answer("Canceled; it will never be sent.", MessageState),
            409: answer("It is no longer queued, or may have been sent; `state` says which."),
        },
    )
    def cancel(id: Id) -> Response[Any]:  # noqa: A002 - the contract's name
        return _state(service.cancel(id), problems.NOT_CANCELABLE)

    @router.post(
        "/messages/<id>/resolve",
        operation_id="resolveMessage",
        summary="Resolve an unknown message",
        tags=["messages"],
        responses={
            200: answer("Recorded.", MessageState),
            409: answer("Its outcome is not unknown; `state` says what it is."),
        },
    )
    def resolve(id: Id, resolution: Resolution) -> Response[Any]:  # noqa: A002 - the contract's name
        state: Literal[State.SENT, State.FAILED] = (
            State.SENT if resolution.as_ == "sent" else State.FAILED
        )
        return _state(service.resolve(id, state), problems.NOT_UNKNOWN)

    return router


def _accepted(result: Answer) -> Accepted:
    """Return the acceptance, or raise the problem."""
    if not isinstance(result, Accepted):
        raise _refusal(result)
    note(id=result.record.id, state=result.record.state, replayed=result.replayed)
    return result


def _refusal(result: Answer, within: Location = ()) -> ProblemError:
    match result:
        case TooFar(problem):
            return problems.invalid([problem], within)
        case Full():
            return ProblemError(
                problems.TOO_MANY_WAITING,
                "Nothing was accepted. Repeat the request later, or hand the message in when its "
                "time has come.",
                headers={"Retry-After": "600"},
            )
        case KeyReused():
            return ProblemError(
                problems.KEY_REUSED,
                "This key was used with another body; choose a new key for a new message.",
            )
        case _:
            return problems.unavailable("The message may have been accepted, or not.")


def _headers(accepted: Accepted) -> dict[str, str]:
    # Relative to the request's address, since the relay does not know the stage's or custom
    # domain's base path.
    location = {"Location": f"./messages/{accepted.record.id}"}
    return location | ({"Idempotency_Replayed": "true"} if accepted.replayed else {})


def _state(result: Record | Refused | None, refusal: problems.Kind) -> Response[Any]:
    """Return the response with a message's state, or raise the problem."""
    match result:
        case None:
            raise ProblemError(problems.NOT_FOUND, "No message has this id.")
        case Refused(record):
            raise ProblemError(
                refusal,
                f"The message is {record.state}; GET it to learn more.",
                state=record.state,
            )
    return MessageState.of(result).response(HTTPStatus.OK)


def _accept_all(
    service: Messages, items: Sequence[object], caller: str, key: str | None
) -> list[BatchResult]:
    """Accept each valid item; one without an id gets one made of the key, if there is one."""
    errors: dict[int, ProblemError] = {}
    envelopes: dict[int, QueuedMessage] = {}
    first: dict[str, int] = {}
    fresh: set[str] = set()
    for index, item in enumerate(items):
        try:
            message = validate(KeyedMessage, item)
        except InvalidMessageError as error:
            errors[index] = problems.invalid(error.problems, within=("messages", index))
            continue
        if message.id:
            id_ = scoped_id("http", caller, message.id)
        elif key:
            id_ = scoped_id("http", caller, key, str(index))
        else:
            id_ = fresh_id()
            fresh.add(id_)
        envelopes[index] = queued(message, id_)
        first.setdefault(id_, index)
    distinct = [envelopes[index] for index in first.values()]
    accepted = service.accept(distinct, caller=caller, fresh=fresh)
    answers = dict(zip(first, accepted, strict=True))

    results: list[BatchResult] = []
    for index in range(len(items)):
        if index in errors:
            results.append(_refused(index, errors[index]))
            continue
        envelope = envelopes[index]
        assert envelope.id
        result, earlier = answers[envelope.id], first[envelope.id]
        if isinstance(result, Accepted) and earlier != index:
            # The same id twice in a batch is a repeat like any other.
            same = envelopes[earlier].fingerprint == envelope.fingerprint
            result = Accepted(result.record, replayed=True) if same else KeyReused(result.record)
        results.append(_batch_result(index, result))
    note(ids=[r.id for r in results if r.id], refused=sum(r.error is not None for r in results))
    return results


def _batch_result(index: int, result: Answer) -> BatchResult:
    if not isinstance(result, Accepted):
        return _refused(index, _refusal(result, ("messages", index)))
    return BatchResult(
        index=index,
        id=result.record.id,
        status=result.record.state,
        replayed=True if result.replayed else None,
    )


def _refused(index: int, problem: ProblemError) -> BatchResult:
    return BatchResult(index=index, error=Problem.model_validate(problem.body()))
