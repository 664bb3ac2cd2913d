"""Turns every error into the problem that the API answers with."""

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from relay.http.notes import note
from relay.messages.queues import QueueUnavailableError
from relay.messages.store import StoreUnavailableError
from relay.problems import (
    CONTENT_TYPE,
    INTERNAL,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PROVIDER_FAILED,
    PROVIDER_TIMEOUT,
    ProblemError,
    invalid,
    unavailable,
)
from relay.schedules.scheduler import SchedulerUnavailableError
from relay.validation import InvalidMessageError, NotJsonError, field_problems
from smsgold.errors import (
    CredentialsError,
    CredentialsRefusedError,
    ProviderError,
    ProviderUnavailableError,
)

log = logging.getLogger(__name__)

Answer = Response[Any]


def answer_with_problems(app: APIGatewayRestResolver) -> None:
    """Make every error of the app a problem."""

    def answering(problem_of: Callable[[Any], ProblemError]) -> Callable[[Exception], Answer]:
        def answer(error: Exception) -> Answer:
            problem = problem_of(error)
            note(problem=problem.kind.name, **problem.logged)
            return response(problem, app.current_event.request_context.request_id)

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
        # The outermost boundary: API Gateway would show the error's text.
        Exception: of_surprise,
    }
    for kind, problem_of in mapping.items():
        app.exception_handler(kind)(answering(problem_of))


def response(problem: ProblemError, request_id: str) -> Answer:
    """Return a problem as a response of the app."""
    return Response(
        status_code=problem.kind.status,
        content_type=CONTENT_TYPE,
        headers=problem.headers,
        body=json.dumps(problem.body(request_id), ensure_ascii=False),
    )


def of_validation(errors: Iterable[dict[str, Any]]) -> ProblemError:
    """Return the problem of a request that does not match its route's types."""
    errors = list(errors)
    for error in errors:
        match error["loc"][0]:
            case "path":
                return ProblemError(NOT_FOUND, "Check the address: nothing can have this name.")
            case "body":
                continue
            case _:
                [((_, name, *_), problem)] = field_problems([error])
                return ProblemError(MALFORMED, f"The header or parameter {name} {problem}.")
    found = [({**error, "loc": error["loc"][1:]}) for error in errors]
    return invalid(field_problems(found))


def of_invalid(error: InvalidMessageError) -> ProblemError:
    """Return the problem of a body that is not a JSON object, or breaks a rule."""
    if isinstance(error, NotJsonError):
        return ProblemError(MALFORMED, f"{str(error).capitalize()}.")
    return invalid(error.problems)


def of_no_route(app: APIGatewayRestResolver) -> ProblemError:
    """Return the problem of a request without a route: a wrong address, or a wrong method."""
    path = app.current_event.path
    # Static routes first: /messages/batch is not also a /messages/<id>.
    for routes in (app._static_routes, app._dynamic_routes):  # noqa: SLF001 - no public list
        if allowed := {route.method for route in routes if route.rule.match(path)}:
            break
    if not allowed:
        return ProblemError(NOT_FOUND, "Check the address; /openapi.json lists them all.")
    methods = ", ".join(sorted(allowed))
    return ProblemError(METHOD_NOT_ALLOWED, f"Use {methods}.", headers={"Allow": methods})


def of_provider(error: ProviderError) -> ProblemError:
    """Return the problem of a list that the provider did not return."""
    if isinstance(error, ProviderUnavailableError) and error.timeout:
        kind, detail = PROVIDER_TIMEOUT, "Repeat the request later."
    elif isinstance(error, CredentialsRefusedError):
        kind, detail = PROVIDER_FAILED, "The provider refuses the relay's user and password."
    elif error.reason == "http_404":
        kind, detail = NOT_FOUND, "The provider has no such bot."
    else:
        kind, detail = PROVIDER_FAILED, "Repeat the request later."
    return ProblemError(kind, detail, logged={"reason": error.reason}, reason=error.reason)


def of_credentials(error: CredentialsError) -> ProblemError:
    """Return the problem of missing credentials for the provider."""
    return ProblemError(
        PROVIDER_FAILED,
        "The relay has no user and password for the provider; its operator must set the secret.",
        logged={"cause": str(error)},
        reason="no_credentials",
    )


def of_surprise(error: Exception) -> ProblemError:
    """Return the problem of an unexpected error; the log has its traceback."""
    log.error("unexpected error", exc_info=error)
    return ProblemError(INTERNAL, "Repeat the request, with the same Idempotency-Key.")
