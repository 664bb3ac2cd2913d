"""Every error the API answers with, as RFC 9457 problem details, and what becomes which."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from relay.message import InvalidMessageError, Location, NotJsonError, problems
from relay.queues import QueueUnavailableError
from relay.schedules import SchedulerUnavailableError
from relay.store import StoreUnavailableError
from smsgold.errors import (
    CredentialsError,
    CredentialsRefusedError,
    ProviderError,
    ProviderUnavailableError,
)

CONTENT_TYPE = "application/problem+json"

log = logging.getLogger(__name__)

Answer = Response[Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; docs/api.md lists them all by name."""

    name: str
    status: HTTPStatus
    title: str

    @property
    def type(self) -> str:
        """Return the URI that clients tell problems apart by; it never changes."""
        return f"urn:smsgold-relay:problem:{self.name}"


MALFORMED = Kind("malformed-request", HTTPStatus.BAD_REQUEST, "The request cannot be read")
NOT_FOUND = Kind("not-found", HTTPStatus.NOT_FOUND, "There is no such thing")
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The resource does not take this method"
)
IN_PROGRESS = Kind("in-progress", HTTPStatus.CONFLICT, "The first request is still in progress")
NOT_CANCELABLE = Kind("not-cancelable", HTTPStatus.CONFLICT, "The message is not waiting any more")
NOT_UNKNOWN = Kind("not-unknown", HTTPStatus.CONFLICT, "The message's outcome is not unknown")
NOT_STEERABLE = Kind("not-steerable", HTTPStatus.CONFLICT, "The broadcast has ended")
SCHEDULE_EXISTS = Kind(
    "schedule-exists", HTTPStatus.CONFLICT, "Another schedule has this name already"
)
TOO_LARGE = Kind("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind(
    "unsupported-media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON"
)
INVALID = Kind("invalid", HTTPStatus.UNPROCESSABLE_ENTITY, "The body breaks a rule")
KEY_REUSED = Kind(
    "idempotency-key-reused",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The idempotency key belongs to another message",
)
INTERNAL = Kind("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong inside")
PROVIDER_FAILED = Kind("provider-failed", HTTPStatus.BAD_GATEWAY, "The provider did not answer")
UNAVAILABLE = Kind("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Not possible right now")
PROVIDER_TIMEOUT = Kind(
    "provider-timeout", HTTPStatus.GATEWAY_TIMEOUT, "The provider took too long"
)


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    pointer: Annotated[
        str, Field(description="Where: a JSON pointer (RFC 6901) as a URI fragment.")
    ]
    detail: Annotated[str, Field(description="What to change.")]


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    type: Annotated[str, Field(description="The kind of problem; stable.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What to change.")]
    requestId: Annotated[str, Field(description="Quote it when asking for help.")] | None = None  # noqa: N815 - the contract's name
    errors: list[FieldProblem] | None = None
    state: Annotated[str, Field(description="The message's state, with a 409.")] | None = None
    reason: Annotated[str, Field(description="Why the provider failed.")] | None = None


class ProblemError(Exception):
    """Answer with a problem; `members` are added to its body, `logged` to its line in the log."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        logged: dict[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.logged = logged or {}
        self.members = members

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem's members."""
        return {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": int(self.kind.status),
            "detail": self.detail,
            **({"requestId": request_id} if request_id else {}),
            **self.members,
        }

    def raw(self, request_id: str) -> dict[str, Any]:
        """Return the answer as API Gateway takes it from a function."""
        return {
            "statusCode": int(self.kind.status),
            "headers": {"Content-Type": CONTENT_TYPE, **self.headers},
            "body": json.dumps(self.body(request_id), ensure_ascii=False),
        }

    def response(self, request_id: str) -> Answer:
        """Return the answer."""
        return Response(
            status_code=self.kind.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
            body=json.dumps(self.body(request_id), ensure_ascii=False),
        )


def invalid(found: Iterable[tuple[Location, str]], within: Location = ()) -> ProblemError:
    """Return the problem of a body with wrong fields; `within` leads to the part that was read."""
    errors = [{"pointer": pointer((*within, *where)), "detail": what} for where, what in found]
    return ProblemError(INVALID, "Change the fields that `errors` names.", errors=errors)


def pointer(where: Location) -> str:
    """Return a place in the body as a JSON pointer in a URI fragment."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in where)
    return "#" + "".join(f"/{step}" for step in steps)


def answer_with_problems(app: APIGatewayRestResolver) -> None:
    """Make every error of the app a problem."""

    def answering(problem_of: Callable[[Any], ProblemError]) -> Callable[[Exception], Answer]:
        def answer(error: Exception) -> Answer:
            problem = problem_of(error)
            log.info("problem", extra={"problem": problem.kind.name, **problem.logged})
            return problem.response(app.current_event.request_context.request_id)

        return answer

    mapping: dict[type[Exception], Callable[[Any], ProblemError]] = {
        ProblemError: lambda problem: problem,
        RequestValidationError: lambda error: of_validation(error.errors()),
        InvalidMessageError: of_invalid,
        NotFoundError: lambda _: of_no_route(app),
        StoreUnavailableError: lambda error: unavailable("The table does not answer.", error),
        QueueUnavailableError: lambda error: unavailable("The queue does not answer.", error),
        SchedulerUnavailableError: lambda error: unavailable(
            "The scheduler does not answer.", error
        ),
        ProviderError: of_provider,
        CredentialsError: of_credentials,
        # The outermost boundary: API Gateway would show an error's text.
        Exception: of_surprise,
    }
    for kind, problem_of in mapping.items():
        app.exception_handler(kind)(answering(problem_of))


def unavailable(detail: str, cause: object = None) -> ProblemError:
    """Return the problem of a part of the relay that does not answer now."""
    return ProblemError(
        UNAVAILABLE,
        f"{detail} Repeat the request in a moment, with the same Idempotency-Key.",
        headers={"Retry-After": "2"},
        logged={"reason": str(cause)} if cause else {},
    )


def of_validation(errors: Iterable[dict[str, Any]]) -> ProblemError:
    """Return the problem of a request that its route's types do not fit."""
    errors = list(errors)
    for error in errors:
        match error["loc"][0]:
            case "path":
                return ProblemError(NOT_FOUND, "Check the address: nothing can have this name.")
            case "body":
                continue
            case _:
                name = str(error["loc"][1])
                return ProblemError(MALFORMED, f"Check the header or parameter {name}.")
    found = [({**error, "loc": error["loc"][1:]}) for error in errors]
    return invalid(problems(found))


def of_invalid(error: InvalidMessageError) -> ProblemError:
    """Return the problem of a body that is no JSON object."""
    if isinstance(error, NotJsonError):
        return ProblemError(MALFORMED, f"{str(error).capitalize()}.")
    return invalid(error.problems)


def of_no_route(app: APIGatewayRestResolver) -> ProblemError:
    """Return the problem of a request that no route takes: the address, or the method only."""
    path = app.current_event.path
    # An address of its own, such as /messages/batch, is not also one of many.
    for routes in (app._static_routes, app._dynamic_routes):  # noqa: SLF001 - no public list
        if allowed := {route.method for route in routes if route.rule.match(path)}:
            break
    if not allowed:
        return ProblemError(NOT_FOUND, "Check the address; /openapi.json lists them all.")
    methods = ", ".join(sorted(allowed))
    return ProblemError(METHOD_NOT_ALLOWED, f"Use {methods}.", headers={"Allow": methods})


def of_provider(error: ProviderError) -> ProblemError:
    """Return the problem of a list that the provider did not give."""
    if isinstance(error, ProviderUnavailableError) and error.timeout:
        kind, detail = PROVIDER_TIMEOUT, "Repeat the request later."
    elif isinstance(error, CredentialsRefusedError):
        kind, detail = PROVIDER_FAILED, "The provider refuses the relay's user and password."
    elif error.reason == "http_404":
        kind, detail = NOT_FOUND, "The provider knows no such bot."
    else:
        kind, detail = PROVIDER_FAILED, "Repeat the request later."
    return ProblemError(kind, detail, logged={"reason": error.reason}, reason=error.reason)


def of_credentials(error: CredentialsError) -> ProblemError:
    """Return the problem of a relay that has no credentials for the provider."""
    return ProblemError(
        PROVIDER_FAILED,
        "The relay has no user and password for the provider; its operator must set the secret.",
        logged={"cause": str(error)},
        reason="no_credentials",
    )


def of_surprise(error: Exception) -> ProblemError:
    """Return the problem of an error that nobody foresaw; the log has the rest of it."""
    log.error("unforeseen", exc_info=error)
    return ProblemError(INTERNAL, "Repeat the request, with the same Idempotency-Key.")
