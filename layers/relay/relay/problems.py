"""The errors of both HTTP doors, as RFC 9457 problem details."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, Field

from relay.validation import Location

CONTENT_TYPE = "application/problem+json"

MAX_BODY = 256 * 1024
"""Bytes of a request's body, at both HTTP doors."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of problem; docs/api.md lists them all by name."""

    name: str
    status: HTTPStatus
    title: str

    @property
    def type(self) -> str:
        """The URI by which clients tell problems apart; it never changes."""
        return f"urn:smsgold-relay:problem:{self.name}"


MALFORMED = Kind("malformed-request", HTTPStatus.BAD_REQUEST, "The request cannot be read")
UNVERIFIED = Kind("unverified", HTTPStatus.UNAUTHORIZED, "The request is not verified")
NOT_FOUND = Kind("not-found", HTTPStatus.NOT_FOUND, "Not found")
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "The resource does not support this method"
)
NOT_CANCELABLE = Kind("not-cancelable", HTTPStatus.CONFLICT, "The message is no longer waiting")
NOT_UNKNOWN = Kind("not-unknown", HTTPStatus.CONFLICT, "The message's outcome is not unknown")
NOT_STEERABLE = Kind("not-steerable", HTTPStatus.CONFLICT, "The broadcast has ended")
SCHEDULE_EXISTS = Kind("schedule-exists", HTTPStatus.CONFLICT, "A schedule with this name exists")
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
UNAVAILABLE = Kind("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Not available right now")
TOO_MANY_WAITING = Kind(
    "too-many-waiting",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many messages wait for their time",
)
PROVIDER_TIMEOUT = Kind(
    "provider-timeout", HTTPStatus.GATEWAY_TIMEOUT, "The provider took too long"
)


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    pointer: Annotated[
        str, Field(description="The field: a JSON pointer (RFC 6901) as a URI fragment.")
    ]
    detail: Annotated[str, Field(description="What to change.")]


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    type: Annotated[str, Field(description="The type of problem; it never changes.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What to change.")]
    requestId: Annotated[str, Field(description="Quote this when you ask for help.")] | None = None  # noqa: N815 - the contract's name
    errors: list[FieldProblem] | None = None
    state: Annotated[str, Field(description="The message's state, in a 409.")] | None = None
    reason: Annotated[str, Field(description="Why the provider failed.")] | None = None


class ProblemError(Exception):
    """Answer with a problem; `members` go into its body, `logged` into its log line."""

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
        """Return the response that API Gateway expects from a function."""
        return {
            "statusCode": int(self.kind.status),
            "headers": {"Content-Type": CONTENT_TYPE, **self.headers},
            "body": json.dumps(self.body(request_id), ensure_ascii=False),
        }


def invalid(found: Iterable[tuple[Location, str]], within: Location = ()) -> ProblemError:
    """Return the problem of invalid fields; `within` is the place of the part they are in."""
    errors = [{"pointer": pointer((*within, *where)), "detail": what} for where, what in found]
    return ProblemError(INVALID, "Change the fields that `errors` names.", errors=errors)


def pointer(where: Location) -> str:
    """Return a place in the body as a JSON pointer in a URI fragment."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in where)
    return "#" + "".join(f"/{step}" for step in steps)


def unavailable(detail: str, cause: object = None) -> ProblemError:
    """Return the problem of a part of the relay that does not respond."""
    return ProblemError(
        UNAVAILABLE,
        f"{detail} Repeat the request in a moment, with the same Idempotency-Key.",
        headers={"Retry-After": "2"},
        logged={"reason": str(cause)} if cause else {},
    )
