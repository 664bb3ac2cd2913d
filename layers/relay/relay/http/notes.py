"""What the one log line of a request says: noted on the way, taken when it is answered.

A function's environment has one request at a time.
"""

from typing import Any

_noted: dict[str, Any] = {}


def note(**fields: object) -> None:
    """Have the request's log line say this; what is None or empty is left out."""
    _noted.update({name: value for name, value in fields.items() if value})


def taken() -> dict[str, Any]:
    """Return what was noted, and forget it."""
    fields = dict(_noted)
    _noted.clear()
    return fields
