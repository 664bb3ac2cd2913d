"""Every error that the HTTP doors answer with, as RFC 9457 problem details."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, Field

from relay.validation import Location

CONTENT_TYPE = "application/problem+json"


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
UNVERIFIED = Kind("unverified", HTTPStatus.UNAUTHORIZED, "The request is not known to be genuine")
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


def invalid(found: Iterable[tuple[Location, str]], within: Location = ()) -> ProblemError:
    """Return the problem of a body with wrong fields; `within` leads to the part that was read."""
    errors = [{"pointer": pointer((*within, *where)), "detail": what} for where, what in found]
    return ProblemError(INVALID, "Change the fields that `errors` names.", errors=errors)


def pointer(where: Location) -> str:
    """Return a place in the body as a JSON pointer in a URI fragment."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in where)
    return "#" + "".join(f"/{step}" for step in steps)


def unavailable(detail: str, cause: object = None) -> ProblemError:
    """Return the problem of a part of the relay that does not answer now."""
    return ProblemError(
        UNAVAILABLE,
        f"{detail} Repeat the request in a moment, with the same Idempotency-Key.",
        headers={"Retry-After": "2"},
        logged={"reason": str(cause)} if cause else {},
    )
