"""Decide what the provider's responses mean. Every guess about them is in this module.

The provider documents only its requests. The status code decides first; the JSON body of a 2xx can
still be a refusal. `classify` decides; tests/unit/test_smsgold_responses.py is its table of cases.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from smsgold.echoes import Echoes
from smsgold.errors import (
    CredentialsRefusedError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    WithheldError,
    transport_error,
)

DETAIL_BYTES = 512
"""Maximum kept of the provider's words about a failure."""

ID_BYTES = 256
"""Maximum kept of the provider's id of a message."""

ERROR_KEYS = ("errorMessage", "error", "errors", "errorCode", "error_code")
"""A truthy value under any of these is a refusal; the first that holds words is the reason."""

TEXT_KEYS = ("message", "description", "detail", "reason")
"""Where a body that refuses by `ok`, `success` or `status` may give its reason."""

ID_KEYS = ("id", "messageId", "message_id")
NESTING_KEYS = ("result", "data")
LIST_KEYS = ("items", *NESTING_KEYS)
TIMEOUTS = frozenset({"connect_timeout", "read_timeout"})

Entry = dict[str, object]

NOTHING_SAID = Echoes()


class Outcome(StrEnum):
    """What became of a message, by what the caller does next."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    WITHHELD = "withheld"
    """The caller changed its mind before the first byte."""
    CREDENTIALS = "credentials"
    MISDIRECTED = "misdirected"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose status and headers arrived; `cut` says why its body is incomplete, if so."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one exchange, with no secret and nothing of the message: it may be stored."""

    outcome: Outcome
    reason: str
    """A short stable code, such as http_400, provider_said_no or read_timeout."""
    detail: str = ""
    """What the provider or the system said, at most `DETAIL_BYTES`; "" if it may be an echo."""
    provider_id: str | None = None
    retry_after: float | None = None
    """Seconds from now, as the provider asks; not capped."""
    status: int | None = None


def classify(
    result: Response | BaseException, now: float, echoes: Echoes = NOTHING_SAID
) -> Verdict:
    """Decide what became of a message, for any status, headers, body or exception.

    `now` is Unix time in seconds. `echoes` knows what the provider may repeat.
    """
    if isinstance(result, BaseException):
        error = transport_error(result, began=True)
        outcome = Outcome.UNKNOWN if error.maybe_sent else Outcome.NOT_SENT
        if isinstance(error, WithheldError):
            outcome = Outcome.WITHHELD
        return Verdict(outcome, error.reason, error.detail)
    if 200 <= result.status <= 299:
        return _success(result, echoes)
    outcome, reason = _failure(result.status)
    return Verdict(
        outcome,
        reason,
        _body_says(result.body, echoes),
        retry_after=retry_after(_header(result.headers, "retry-after"), now),
        status=result.status,
    )


def provider_error(verdict: Verdict) -> ProviderError:
    """Return the error to raise when a list was requested and this came back."""
    match verdict.outcome:
        case Outcome.REFUSED:
            return ProviderRefusedError(verdict.reason, verdict.detail)
        case Outcome.CREDENTIALS:
            return CredentialsRefusedError(verdict.reason, verdict.detail)
        case _:
            return ProviderUnavailableError(
                verdict.reason,
                verdict.detail,
                timeout=verdict.reason in TIMEOUTS,
                retry_after=verdict.retry_after,
            )


def bots(result: Response | BaseException, now: float) -> list[Entry]:
    """Return the bots that a response lists, each `id` as a string, or raise ProviderError.

    An entry without an id stays in the list without one.
    """
    return _entries(result, now, ("bots", *LIST_KEYS, "subscribers"))


def subscribers(result: Response | BaseException, now: float) -> list[Entry]:
    """Return the subscribers that a response lists, as `bots` does."""
    return _entries(result, now, ("subscribers", *LIST_KEYS, "bots"))


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for, or None if it is unusable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), 1e9)  # a number of any length stays finite
    try:
        date = parsedate_to_datetime(text)
        # HTTP dates are in UTC, so a date without a zone is too.
        moment = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# ------------------------------------------------------------------------------------- statuses


def _failure(status: int) -> tuple[Outcome, str]:
    reason = f"http_{status}"
    match status:
        case 401 | 403:
            return Outcome.CREDENTIALS, reason
        case 408 | 425 | 429 | 503:
            return Outcome.NOT_SENT, reason
        case _ if 300 <= status <= 399:
            return Outcome.MISDIRECTED, "redirect"
        case _ if 400 <= status <= 499:
            return Outcome.REFUSED, reason
        case _:
            return Outcome.UNKNOWN, reason


def _success(response: Response, echoes: Echoes) -> Verdict:
    """Decide a 2xx: only a complete JSON object that is no refusal accepts the message."""
    if response.cut:
        return Verdict(Outcome.UNKNOWN, response.cut, status=response.status)
    found = _json(response.body)
    if not isinstance(found, dict):
        return Verdict(
            Outcome.UNKNOWN,
            "not_json" if found is _NOT_JSON else "not_an_object",
            _body_says(response.body, echoes),
            status=response.status,
        )
    if _refuses(found):
        return Verdict(
            Outcome.REFUSED,
            "provider_said_no",
            _body_says(response.body, echoes),
            status=response.status,
        )
    return Verdict(
        Outcome.ACCEPTED,
        "accepted",
        provider_id=_provider_id(found, echoes),
        status=response.status,
    )


# --------------------------------------------------------------------------------------- bodies

_NOT_JSON = object()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refuse_constant(name: str) -> None:
    """Reject NaN and Infinity, which Python's parser takes but JSON does not have."""
    raise ValueError(name)


def _refuses(found: Mapping[str, Any]) -> bool:
    status = found.get("status")
    return (
        any(found.get(key) for key in ERROR_KEYS)
        or found.get("success") is False
        or found.get("ok") is False
        or (isinstance(status, str) and status.lower() in {"error", "fail", "failed"})
    )


def _body_says(body: bytes, echoes: Echoes) -> str:
    """Return the provider's own words: the error text of a JSON object, or else the whole body.

    Nothing if they may repeat the message.
    """
    found = _json(body)
    text = body.decode("utf-8", errors="replace")
    if isinstance(found, dict):
        said = [found[key] for key in (*ERROR_KEYS, *TEXT_KEYS) if found.get(key)]
        # {"error": true, "message": "…"}: a flag or a number says less than a text.
        best = next((value for value in said if isinstance(value, str | dict | list)), None)
        if isinstance(best, str):
            text = best
        elif best:
            text = json.dumps(best, ensure_ascii=False)
    return _truncated(echoes.words(text), DETAIL_BYTES)


def _provider_id(found: Mapping[str, Any], echoes: Echoes) -> str | None:
    nested = (found.get(key) for key in NESTING_KEYS)
    for level in (found, *nested):
        if isinstance(level, dict):
            for key in ID_KEYS:
                if text := _id(level.get(key)):
                    return _truncated(echoes.id(text), ID_BYTES) or None
    return None


def _id(value: object) -> str:
    """Return an id as an opaque string; an empty one if this is not an id."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)


def _truncated(text: str, cap: int) -> str:
    return text.encode("utf-8", errors="replace")[:cap].decode("utf-8", errors="ignore")


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


# ---------------------------------------------------------------------------------------- lists


def _entries(result: Response | BaseException, now: float, keys: Iterable[str]) -> list[Entry]:
    verdict = classify(result, now)
    if isinstance(result, BaseException):
        raise provider_error(verdict)
    # A bare array is a list, though no answer to a message.
    if verdict.reason not in {"accepted", "not_an_object"}:
        # Half a list, or one behind a warning, is words with numbers and names in them.
        raise provider_error(replace(verdict, detail=""))
    found = _json(result.body)
    if isinstance(found, dict):
        found = next((found[key] for key in keys if isinstance(found.get(key), list)), None)
    if not isinstance(found, list):
        raise ProviderUnavailableError("not_a_list")
    return [_entry(item) for item in found]


def _entry(item: object) -> Entry:
    # An entry without an id cannot be addressed, but must not cost the caller the whole list:
    # it stays in, so that whoever sends to the others can report it as left out.
    fields = dict(item) if isinstance(item, dict) else {}
    found = _id(fields.pop("id", None))
    return {"id": found, **fields} if found else fields
