"""What the routes read besides the body: the caller, the idempotency key, the wait."""

import re
from collections.abc import Mapping
from typing import Any

from relay.problems import MALFORMED, MAX_BODY, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, ProblemError

LONGEST_WAIT = 20
"""Seconds; whatever it is, no exchange begins that could take longer than API Gateway's 29."""

KEY_PATTERN = r'^(?:[!#-~][ -~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'
"""An idempotency key: printable ASCII, bare or as a string of RFC 8941, 1 to 255 characters."""

_KEY = re.compile(KEY_PATTERN)
_WAIT = re.compile(r'^\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?$', re.IGNORECASE)

Event = Mapping[str, Any]


def body_problem(event: Event) -> ProblemError | None:
    """Return the problem if the body is too large or not declared as JSON."""
    body = event.get("body")
    if not body:
        return None
    # base64 turns three bytes into four characters.
    size = len(body) * 3 // 4 if event.get("isBase64Encoded") else len(body.encode())
    if size > MAX_BODY:
        return ProblemError(TOO_LARGE, f"Send at most {MAX_BODY} bytes, or several requests.")
    types = header(event, "content-type")
    media_type = types[-1].partition(";")[0].strip().lower() if types else "application/json"
    if media_type != "application/json":
        return ProblemError(UNSUPPORTED_MEDIA_TYPE, "Send Content-Type: application/json.")
    return None


def header(event: Event, name: str) -> list[str]:
    """Return all values of a header, in the order they were sent."""
    many = event.get("multiValueHeaders") or {
        key: [value] for key, value in (event.get("headers") or {}).items()
    }
    return [value for key, values in many.items() if key.lower() == name for value in values]


def idempotency_key(event: Event) -> str | None:
    """Return the Idempotency-Key, unquoted, or None; raise ProblemError if it is no key."""
    values = header(event, "idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise ProblemError(
            MALFORMED,
            "Send one Idempotency-Key of 1 to 255 printable ASCII characters, bare or in quotes.",
        )
    key = values[0]
    return re.sub(r"\\(.)", r"\1", key[1:-1]) if key.startswith('"') else key


def wait(event: Event) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), at most the longest; 0 without it.

    As the RFC says, unknown preferences are ignored, and the first of two counts.
    """
    preferences = ",".join(header(event, "prefer")).split(",")
    for preference in preferences:
        if found := _WAIT.match(preference):
            return min(int(found[1]), LONGEST_WAIT)
    return 0


def caller(event: Event) -> str:
    """Return the caller: the API key's id, or the IAM user or role without its session."""
    identity = event["requestContext"].get("identity") or {}
    if key_id := identity.get("apiKeyId"):
        return f"key:{key_id}"
    if arn := identity.get("userArn"):
        # arn:…:assumed-role/Role/session: all sessions of a role are one caller.
        head, slash, rest = arn.partition(":assumed-role/")
        return f"iam:{head}{slash}{rest.partition('/')[0]}"
    return ""
