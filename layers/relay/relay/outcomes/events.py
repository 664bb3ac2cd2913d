"""From a change of the Relay table to the event that tells of it: decided, not done.

A message's event tells that it has ended, a broadcast's that its status has changed. Both hold ids,
states, counts and times, and never a text, a number or a name. A repeat of an event has the same
`id` and `version`; of two events with one id, the one with the higher version is the later.

The names of attributes and states are the table's. They stand here once more because the modules
that own them take longer to import than all of the publisher: a test compares them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

SOURCE = "smsgold-relay"
MESSAGE_ENDED = "Message Ended"
BROADCAST_CHANGED = "Broadcast Changed"

TERMINAL = frozenset({"sent", "rejected", "unknown", "failed", "expired", "canceled"})
"""The states in which a message has ended: relay.messages.states.TERMINAL."""

Image = Mapping[str, Mapping[str, Any]]
"""A table item as the stream has it, each attribute with its DynamoDB type."""

Detail = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Event:
    """What goes on the bus."""

    kind: str
    """EventBridge's detail-type."""
    at: float
    """When it happened, in seconds since the epoch."""
    detail: Detail


def event_of(record: Mapping[str, Any]) -> Event | None:
    """Return the event that a record of the table's stream stands for, if it stands for one.

    Raises KeyError, TypeError or ValueError for a record that this release cannot read.
    """
    change = record["dynamodb"]
    kind, _, id_ = change["Keys"]["pk"]["S"].partition("#")
    new: Image | None = change.get("NewImage")
    old: Image = change.get("OldImage") or {}
    if new is None:  # its time to live is over
        return None
    if kind == "message" and _ends(old, new):
        return Event(MESSAGE_ENDED, _number(new, "updatedAt"), _message(id_, new))
    if kind == "broadcast" and "order" in new and _version(old) != _version(new):
        at = float(change["ApproximateCreationDateTime"])
        return Event(BROADCAST_CHANGED, at, _broadcast(id_, new, at))
    return None


def _ends(old: Image, new: Image) -> bool:
    """Return whether a step ended a message, and did not only note something about an ended one.

    A redrive that comes too late ends it once more, in whatever state, under a new generation.
    """
    was = (_text(old, "state"), _number(old, "generation"))
    now = (_text(new, "state"), _number(new, "generation"))
    return now[0] in TERMINAL and now != was


def _message(id_: str, item: Image) -> Detail:
    detail: dict[str, str | int | bool] = {
        "id": id_,
        "status": _text(item, "state"),
        "reason": _text(item, "reason"),
        "reference": _text(item, "reference"),
        "door": _text(item, "door"),
        "broadcast": _text(item, "broadcast"),
        "tries": _count(item, "tries"),
        "generation": _count(item, "generation"),
        "version": _version(item),
        "acceptedAt": rfc3339(_number(item, "acceptedAt")),
        "endedAt": rfc3339(_number(item, "updatedAt")),
    }
    return {name: value for name, value in detail.items() if value != ""}


def _broadcast(id_: str, item: Image, at: float) -> Detail:
    status = status_of(item)
    finished_at = _number(item, "finishedAt")
    total = _count(item, "total")
    # Live counts can be below zero for a moment: see relay.broadcasts.model.
    counts = {state: max(0, _count(item, state)) for state in sorted(TERMINAL)}
    if _flag(item, "halted"):  # what was never enqueued counts as canceled, as in the API
        counts["canceled"] += total - _count(item, "enqueued")
    detail: dict[str, str | int | bool] = {
        "id": id_,
        "status": status,
        "reason": "" if status == "completed" else _text(item, "reason"),
        "reference": _text(item, "reference"),
        "botId": _text(item, "botId"),
        "total": total,
        **counts,
        "final": _flag(item, "final"),
        "version": _version(item),
        "acceptedAt": rfc3339(_number(item, "createdAt")),
        "changedAt": rfc3339(at),
        "finishedAt": rfc3339(finished_at) if finished_at else "",
    }
    return {name: value for name, value in detail.items() if value != ""}


def status_of(item: Image) -> str:
    """Return where the broadcast of an item stands, as BroadcastRecord.status does."""
    match _text(item, "order"):
        case "fail":
            return "failed"
        case "stop":
            return "stopped"
        case _ if _number(item, "finishedAt"):
            return "completed"
        case "pause":
            return "paused"
        case _:
            return "running" if _text(item, "snapshot") else "preparing"


def rfc3339(at: float) -> str:
    """Return an epoch time as the API shows it."""
    rounded = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(at * 1000))
    return rounded.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(item: Image, name: str) -> str:
    return str(item[name]["S"]) if name in item else ""


def _number(item: Image, name: str) -> float:
    return float(item[name]["N"]) if name in item else 0.0


def _count(item: Image, name: str) -> int:
    return int(_number(item, name))


def _flag(item: Image, name: str) -> bool:
    return name in item and bool(item[name]["BOOL"])


def _version(item: Image) -> int:
    return _count(item, "version")
