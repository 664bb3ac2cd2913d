"""What a schedule may ask for, checked field by field before AWS is called."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field, StrictBool, field_validator

from relay.broadcasts.model import Broadcast, stray_braces
from relay.messages.envelope import Message, Time
from relay.messages.hours import zones
from relay.schedules.expressions import expression_problem, fires_once
from relay.validation import Location, model_config

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
"""The names that EventBridge Scheduler allows."""
MAX_EXPRESSION = 256
"""Characters of an expression, by the reference of CreateSchedule."""

Problems = list[tuple[Location, str]]


class ScheduleSpec(BaseModel):
    """When to send, and what: a message, or a broadcast to all of a bot's subscribers."""

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
        description="at(yyyy-mm-ddThh:mm:ss) fires once; cron(minutes hours day-of-month month "
        "day-of-week year) and rate(value unit) fire repeatedly.",
        examples=["at(2030-12-01T10:00:00)", "cron(0 9 ? * MON-FRI *)", "rate(12 hours)"],
    )
    timezone: Annotated[str, Field(max_length=64)] = Field(
        "UTC", description="The IANA time zone of `expression`.", examples=["Europe/Moscow"]
    )
    start: Time | None = Field(None, description="Nothing is sent before it; not with at(…).")
    end: Time | None = Field(None, description="Nothing is sent after it; not with at(…).")
    skip_if_late_by: Annotated[int, Field(ge=60, le=86400)] | None = Field(
        None,
        description="Seconds. A firing later than this is recorded, but not sent.",
    )
    paused: StrictBool = Field(default=False, description="While true, nothing is sent.")
    message: Message | None = None
    broadcast: Broadcast | None = None

    @field_validator("start", "end")
    @classmethod
    def _whole_seconds(cls, at: datetime | None) -> datetime | None:
        # EventBridge Scheduler drops fractions; what was asked for must equal what it returns.
        return at.replace(microsecond=0) if at else None


class Schedule(ScheduleSpec):
    """A schedule, under the name its owner gave it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="1 to 64 letters, digits and . _ -", examples=["monday-greeting"]
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list says of a schedule."""

    name: str
    paused: bool


def problems(spec: ScheduleSpec, now: datetime) -> Problems:
    """Return what is wrong with a schedule as (where, what to change), every field at once."""
    found: Problems = []
    if (spec.message is None) == (spec.broadcast is None):
        found.append((("message",), "give either message or broadcast, not both"))
    for name, content in (("message", spec.message), ("broadcast", spec.broadcast)):
        if content and content.send_at:
            found.append(((name, "sendAt"), "a schedule itself says when; leave it out"))
    zone = spec.timezone if spec.timezone in zones() else None
    if zone is None:
        found.append((("timezone",), "must be an IANA time zone, such as Europe/Moscow or UTC"))
    if spec.broadcast is not None:
        found += [(("broadcast", *where), what) for where, what in stray_braces(spec.broadcast)]
    if problem := expression_problem(spec.expression, ZoneInfo(zone) if zone else None, now):
        found.append((("expression",), problem))
    if fires_once(spec.expression):
        found += [
            ((name,), "cannot be combined with at(…); leave it out")
            for name, value in (("start", spec.start), ("end", spec.end))
            if value is not None
        ]
    elif spec.end is not None:
        if spec.end <= now:
            found.append((("end",), "is in the past; choose a later time, or leave it out"))
        elif spec.start is not None and spec.end <= spec.start:
            found.append((("end",), "must be later than start"))
    return found
