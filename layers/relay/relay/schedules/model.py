"""Schedules: what may be asked for, and the checks made before AWS is asked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, field_validator

from relay.broadcasts.model import Broadcast
from relay.messages.envelope import Message, Time
from relay.schedules.expressions import expression_problem, fires_once, zones
from relay.validation import Location, model_config

MAX_EXPRESSION = 256
NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"

Problems = list[tuple[Location, str]]


class ScheduleSpec(BaseModel):
    """When something is sent, and what: a message, or a broadcast to a bot's subscribers."""

    model_config = {
        **model_config,
        "json_schema_extra": {
            "oneOf": [
                {
                    "title": "Of a message",
                    "required": ["message"],
                    "properties": {"message": {"type": "object"}, "broadcast": {"type": "null"}},
                },
                {
                    "title": "Of a broadcast",
                    "required": ["broadcast"],
                    "properties": {"message": {"type": "null"}, "broadcast": {"type": "object"}},
                },
            ],
            "examples": [
                {
                    "expression": "cron(0 9 ? * MON *)",
                    "timezone": "Europe/Moscow",
                    "skipIfLateBy": 3600,
                    "broadcast": {
                        "botId": "5f2b8c1d9e4a7b3c6d0e1f20",
                        "text": "Good morning! This week's offers are here.",
                    },
                }
            ],
        },
    }

    expression: Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION)] = Field(
        description="at(yyyy-mm-ddThh:mm:ss) for once; cron(minutes hours day-of-month month "
        "day-of-week year) or rate(value unit) for again and again.",
        examples=["at(2030-12-01T10:00:00)", "cron(0 9 ? * MON-FRI *)", "rate(12 hours)"],
    )
    timezone: Annotated[str, Field(max_length=64)] = Field(
        "UTC", description="The IANA time zone of `expression`.", examples=["Europe/Moscow"]
    )
    start: Time | None = Field(None, description="Nothing is sent before it; not with at(…).")
    end: Time | None = Field(None, description="Nothing is sent after it; not with at(…).")
    skip_if_late_by: Annotated[int, Field(ge=60, le=86400)] | None = Field(
        None,
        description="Seconds; a firing that comes later than that is recorded, but not sent.",
    )
    paused: bool = Field(default=False, description="Kept, but nothing is sent.")
    message: Message | None = None
    broadcast: Broadcast | None = None

    @field_validator("start", "end")
    @classmethod
    def _whole_seconds(cls, at: datetime | None) -> datetime | None:
        return at.replace(microsecond=0) if at else None  # the scheduler keeps no others


class Schedule(ScheduleSpec):
    """A schedule under the caller's own name for it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="1 to 64 letters, digits and . _ -", examples=["monday-greeting"]
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """A schedule in a list."""

    name: str
    paused: bool


# ------------------------------------------------------------------------------- the checks


def problems(terms: ScheduleSpec, now: datetime) -> Problems:
    """Return what is wrong with a schedule, field by field, as (where, what to change)."""
    found: Problems = []
    if (terms.message is None) == (terms.broadcast is None):
        found.append((("message",), "give either message or broadcast, and not both"))
    zone = terms.timezone if terms.timezone in zones() else None
    if zone is None:
        found.append((("timezone",), "is no IANA time zone; write it as in Europe/Moscow or UTC"))
    if problem := expression_problem(terms.expression, ZoneInfo(zone) if zone else None, now):
        found.append((("expression",), problem))
    if fires_once(terms.expression):
        found += [
            ((name,), "does not go with at(…); leave it out")
            for name, value in (("start", terms.start), ("end", terms.end))
            if value is not None
        ]
    elif terms.end is not None:
        if terms.end <= now:
            found.append((("end",), "lies in the past; choose a later time, or leave it out"))
        elif terms.start is not None and terms.end <= terms.start:
            found.append((("end",), "must be later than start"))
    return found
