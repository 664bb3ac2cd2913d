"""Cursors: where the next page of a list begins, bound to the query that gave them.

A cursor is no secret and no proof: whoever makes one up reads a list from somewhere else. Its
checksum is for mistakes, such as a cursor that was cut off or belongs to another list.
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from relay.problems import MALFORMED, ProblemError

PAGING = frozenset({"limit", "cursor"})
"""The parameters that say nothing of which list it is."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks for, but for the page: its path and parameters."""

    path: str
    parameters: tuple[tuple[str, str], ...]


def query(event: Mapping[str, Any], allowed: Collection[str]) -> Query:
    """Return what a request asks for; raise ProblemError for an unknown parameter."""
    many = event.get("multiValueQueryStringParameters") or {
        name: [value] for name, value in (event.get("queryStringParameters") or {}).items()
    }
    if not many.keys() <= set(allowed):
        names = ", ".join(sorted(allowed))
        raise ProblemError(MALFORMED, f"A parameter is unknown; there are {names}.")
    # None is there twice: the routes' types refuse that.
    given = ((name, values[0]) for name, values in many.items() if name not in PAGING)
    return Query(event["path"], tuple(sorted(given)))


def cursor(query: Query, place: str) -> str | None:
    """Return the cursor of a place in the query's list; None for its end, which is ""."""
    if not place:
        return None
    text = f"{_checksum(query, place)}{place}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place(query: Query, cursor: str | None) -> str:
    """Return the place of a cursor, "" for none; raise ProblemError if it is not this query's."""
    if cursor is None:
        return ""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        text = ""
    found = text[_LENGTH:]
    if not found or text[:_LENGTH] != _checksum(query, found):
        raise ProblemError(
            MALFORMED,
            "The cursor is not one of this list: pass on the last answer's, whole, and with the "
            "same parameters.",
        )
    return found


_LENGTH = 16


def _checksum(query: Query, place: str) -> str:
    parts = (query.path, *(part for pair in query.parameters for part in pair), place)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_LENGTH]
