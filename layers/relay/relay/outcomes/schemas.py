"""The JSON schemas of the events: `GET /events.json`, docs/events.json."""

from typing import Any

from relay.outcomes.events import BROADCAST_CHANGED, MESSAGE_ENDED, SOURCE

DRAFT = "https://json-schema.org/draft/2020-12/schema"

TIME = {"type": "string", "format": "date-time"}
COUNT = {"type": "integer", "minimum": 0}
ENDS = ["sent", "rejected", "unknown", "failed", "expired", "canceled"]
STATUSES = ["preparing", "running", "paused", "stopped", "completed", "failed"]


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def _number(description: str, minimum: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "description": description}


MESSAGE: dict[str, Any] = {
    "id": _text("The message's id, as the API has it."),
    "status": {"enum": ENDS, "description": "How it ended."},
    "reason": _text("Why it was not sent; a stable code. Missing if it was."),
    "reference": _text("The caller's own reference, if there is one."),
    "door": _text(
        "How it came in: `http`, `sqs`, `hook` or `schedule`; `event` for what a rule handed to "
        "version 0.1.0."
    ),
    "broadcast": _text("The broadcast that it belongs to, if any."),
    "tries": _number("Attempts made."),
    "generation": _number("How often it was redriven."),
    "version": _number("Tells an event from its repeats, and the later of two ends.", 1),
    "acceptedAt": TIME,
    "endedAt": TIME,
}

BROADCAST: dict[str, Any] = {
    "id": _text("The broadcast's id, as the API has it."),
    "status": {"enum": STATUSES, "description": "Where it stands now."},
    "reason": _text("Why it is paused, stopped or failed; a stable code."),
    "reference": _text("The caller's own reference, if there is one."),
    "botId": _text("The bot whose subscribers get it."),
    "total": _number("How many get it, each counted once; 0 until they are listed."),
    **dict.fromkeys(ENDS, COUNT),
    "final": {
        "type": "boolean",
        "description": "The counts are made from the messages' records and complete.",
    },
    "version": _number("Tells an event from its repeats, and the later of two changes.", 1),
    "acceptedAt": TIME,
    "changedAt": {**TIME, "description": "When the status changed, to the second."},
    "finishedAt": TIME,
}

OPTIONAL = frozenset({"reason", "reference", "broadcast", "finishedAt"})


def document() -> dict[str, Any]:
    """Return the schema of every event, as EventBridge hands it to a rule's target."""
    return {
        "$schema": DRAFT,
        "title": "The events of smsgold-relay",
        "oneOf": [{"$ref": "#/$defs/MessageEnded"}, {"$ref": "#/$defs/BroadcastChanged"}],
        "$defs": {
            "MessageEnded": _event(MESSAGE_ENDED, "A message has ended.", MESSAGE),
            "BroadcastChanged": _event(
                BROADCAST_CHANGED, "A broadcast's status or final counts have changed.", BROADCAST
            ),
        },
    }


def _event(kind: str, description: str, detail: dict[str, Any]) -> dict[str, Any]:
    """Describe one kind of event; later releases may add to its detail."""
    return {
        "description": description,
        "type": "object",
        "required": ["id", "source", "detail-type", "detail"],
        "properties": {
            "id": _text("EventBridge's own id: a repeat of the event has another one."),
            "source": {"const": SOURCE},
            "detail-type": {"const": kind},
            "time": TIME,
            "detail": {
                "type": "object",
                "required": [name for name in detail if name not in OPTIONAL],
                "properties": detail,
            },
        },
    }
