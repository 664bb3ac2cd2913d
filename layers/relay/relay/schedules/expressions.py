"""Schedules: what may be asked for, checked before AWS is, and its form at EventBridge Scheduler.

The scheduler keeps them; nothing of them is in the table. Its rules of expressions are those of
its user guide, "Schedule types": at(yyyy-mm-ddThh:mm:ss), rate(value unit) and cron(six fields).
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Protocol
from zoneinfo import ZoneInfo

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, Field, field_validator

from relay.broadcasts.model import Broadcast
from relay.messages.envelope import Message, Time
from relay.validation import InvalidMessageError, Location, model_config, validate

if TYPE_CHECKING:
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient

MAX_EXPRESSION = 256
LONGEST_WINDOW = 1440  # minutes, EventBridge Scheduler's own limit
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
    flexible_minutes: Annotated[int, Field(ge=0, le=LONGEST_WINDOW)] = Field(
        0, description="Sent at any moment within so many minutes of its time."
    )
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
    kind, _, rest = terms.expression.partition("(")
    inside = rest.removesuffix(")")
    zone = terms.timezone if terms.timezone in zones() else None
    if zone is None:
        found.append((("timezone",), "is no IANA time zone; write it as in Europe/Moscow or UTC"))
    problem: str | None
    match kind if rest.endswith(")") else "":
        case "at":
            problem = _at_problem(inside, ZoneInfo(zone) if zone else None, now)
            found += [
                ((name,), "does not go with at(…); leave it out")
                for name, value in (("start", terms.start), ("end", terms.end))
                if value is not None
            ]
        case "rate":
            problem = _rate_problem(inside)
        case "cron":
            problem = _cron_problem(inside, now)
        case _:
            problem = "must be at(…), rate(…) or cron(…)"
    if problem:
        found.append((("expression",), problem))
    if kind != "at" and terms.end is not None:
        if terms.end <= now:
            found.append((("end",), "lies in the past; choose a later time, or leave it out"))
        elif terms.start is not None and terms.end <= terms.start:
            found.append((("end",), "must be later than start"))
    return found


@cache
def zones() -> frozenset[str]:
    """Return the names of the IANA time zones, as the tzdata package lists them."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


def _at_problem(text: str, zone: ZoneInfo | None, now: datetime) -> str | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", text, re.ASCII):
        return (
            "must be at(yyyy-mm-ddThh:mm:ss), such as at(2030-12-01T10:00:00); "
            "the zone goes into timezone"
        )
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return f"{text} is no date and time that exists"
    if zone is None:
        return None
    if not _exists(local, zone):
        return f"{text} does not exist in {zone.key}: the clocks go forward then; choose another"
    if local.replace(tzinfo=zone) <= now:
        return "lies in the past; choose a later time"
    return None


def _exists(local: datetime, zone: ZoneInfo) -> bool:
    """Tell whether a zone's clocks ever show a time; a switch to summer leaves out an hour."""
    there_and_back = local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return there_and_back.replace(tzinfo=None) == local


def _rate_problem(text: str) -> str | None:
    if not re.fullmatch(r"[1-9][0-9]{0,5} (minutes?|hours?|days?)", text):
        return "must be rate(value unit): a positive number and minutes, hours or days"
    return None


MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
LONGEST_MONTHS = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the six fields of a cron expression."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    special: str = ""
    """A pattern of what is allowed besides numbers, ranges and steps."""
    wraps: bool = False

    def values(self, text: str) -> set[int] | None:
        """Return the values a field allows, None where it cannot be said in numbers.

        Raises ValueError, with a sentence, if the field is not valid.
        """
        found: set[int] = set()
        says_all = True
        for part in text.split(","):
            if self.special and re.fullmatch(self.special, part):
                says_all = False
                continue
            found |= self._part(part)
        return found if says_all else None

    def _part(self, part: str) -> set[int]:
        span, slash, step = part.partition("/")
        if slash and not re.fullmatch("[1-9][0-9]{0,3}", step):
            raise ValueError(f"{self.name}: the step in {part!r} must be a positive number")
        if span == "*":
            first, last = self.least, self.most
        else:
            start, dash, stop = span.partition("-")
            first = self._number(start)
            last = self._number(stop) if dash else (self.most if slash else first)
        if first > last and self.wraps:
            return {*range(first, self.most + 1), *range(self.least, last + 1)}
        if first > last:
            raise ValueError(f"{self.name}: {span!r} runs backwards")
        return set(range(first, last + 1, int(step) if slash else 1))

    def _number(self, text: str) -> int:
        if text.upper() in self.names:
            return self.names.index(text.upper()) + self.least
        if re.fullmatch("[0-9]{1,4}", text) and self.least <= int(text) <= self.most:
            return int(text)
        allowed = f"{self.least} to {self.most}"
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        raise ValueError(f"{self.name}: {text[:20]!r} must be {allowed}{names}")


_FIELDS = (
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day-of-month", 1, 31, special=r"L(-[0-9]{1,2})?|LW|([1-9]|[12][0-9]|3[01])W"),
    _Field("month", 1, 12, MONTHS),
    _Field(
        "day-of-week", 1, 7, DAYS, special=r"([1-7]|[A-Z]{3})?L|([1-7]|[A-Z]{3})#[1-5]", wraps=True
    ),
    _Field("year", 1970, 2199),
)


def _cron_problem(text: str, now: datetime) -> str | None:
    parts = text.split()
    if len(parts) != len(_FIELDS):
        names = " ".join(field.name for field in _FIELDS)
        return f"cron(…) has six fields, {names}; this has {len(parts)}"
    day, weekday = parts[2], parts[4]
    if (day == "?") == (weekday == "?"):
        return "cron(…) must have ? for one of day-of-month and day-of-week, and not for both"
    try:
        values = [
            None if part == "?" and field in (_FIELDS[2], _FIELDS[4]) else field.values(part)
            for field, part in zip(_FIELDS, parts, strict=True)
        ]
    except ValueError as error:
        return str(error)
    days, months, years = values[2], values[3], values[5]
    # A day further on, it may be next year there already, and the zone's new year last.
    if years and max(years) < (now - timedelta(days=1)).year:
        return "all its years lie in the past"
    if days and months and min(days) > max(LONGEST_MONTHS[month] for month in months):
        return "none of its months has such a day"
    return None


# --------------------------------------------------------------------- the scheduler's own form


class Place(Protocol):
    """Where schedules live, and what they are made of: the group's name, and ARNs."""

    @property
    def group(self) -> str:
        """Return the name of the group that they are all in."""
        ...

    @property
    def target(self) -> str:
        """Return whom they invoke."""
        ...

    @property
    def role(self) -> str:
        """Return the role in which they do."""
        ...

    @property
    def dead_letter_queue(self) -> str:
        """Return where that ends which cannot be invoked."""
        ...


def to_scheduler(schedule: Schedule, place: Place) -> dict[str, Any]:
    """Return what CreateSchedule and UpdateSchedule take."""
    event: dict[str, Any] = {
        # The scheduler fills these in: together they name one firing.
        "schedule": "<aws.scheduler.schedule-arn>",
        "time": "<aws.scheduler.scheduled-time>",
    }
    if schedule.skip_if_late_by is not None:
        # Within its window a firing is not late.
        event["skipIfLateBy"] = schedule.skip_if_late_by + 60 * schedule.flexible_minutes
    event_text = json.dumps(event)
    content = schedule.model_dump(
        mode="json", include={"message", "broadcast"}, exclude_none=True, exclude_defaults=True
    )
    # A caller's text must not have anything filled in.
    content_text = json.dumps(content).replace("<aws.", "\\u003caws.")
    window: dict[str, Any] = {"Mode": "OFF"}
    if schedule.flexible_minutes:
        window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": schedule.flexible_minutes}
    once = schedule.expression.startswith("at(")
    return {
        "Name": schedule.name,
        "GroupName": place.group,
        "ScheduleExpression": schedule.expression,
        "ScheduleExpressionTimezone": schedule.timezone,
        **({"StartDate": schedule.start} if schedule.start else {}),
        **({"EndDate": schedule.end} if schedule.end else {}),
        "FlexibleTimeWindow": window,
        "State": "DISABLED" if schedule.paused else "ENABLED",
        "ActionAfterCompletion": "DELETE" if once else "NONE",
        "Target": {
            "Arn": place.target,
            "RoleArn": place.role,
            "Input": f"{event_text[:-1]}, {content_text[1:]}",
            "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400},
            "DeadLetterConfig": {"Arn": place.dead_letter_queue},
        },
    }


def from_scheduler(answer: Mapping[str, Any]) -> Schedule:
    """Return the schedule that GetSchedule answers with."""
    event = json.loads(answer["Target"]["Input"])
    minutes = answer["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0)
    late = event.get("skipIfLateBy")
    fields = {
        "name": answer["Name"],
        "expression": answer["ScheduleExpression"],
        "timezone": answer.get("ScheduleExpressionTimezone", "UTC"),
        "start": answer.get("StartDate"),
        "end": answer.get("EndDate"),
        "flexibleMinutes": minutes,
        "skipIfLateBy": None if late is None else late - 60 * minutes,
        "paused": answer["State"] == "DISABLED",
        "message": event.get("message"),
        "broadcast": event.get("broadcast"),
    }
    return validate(Schedule, {name: value for name, value in fields.items() if value is not None})


# ----------------------------------------------------------------------------------- the doing


class SchedulerUnavailableError(Exception):
    """EventBridge Scheduler does not answer now, or refuses what is not to blame on the caller."""


class Schedules:
    """The schedules in the stack's own group."""

    def __init__(
        self,
        client: Callable[[], "EventBridgeSchedulerClient"],
        place: Place,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._place = place
        self._clock = clock

    def create(self, schedule: Schedule) -> tuple[Schedule, bool]:
        """Create a schedule; return the one of that name, and whether it is the new one.

        Raises InvalidMessageError, or SchedulerUnavailableError.
        """
        if known := self.get(schedule.name):
            return known, False
        schedule = self._checked(schedule)
        if self._call("create_schedule", **to_scheduler(schedule, self._place)) is None:
            known = self.get(schedule.name)
            return (known, False) if known else (schedule, True)
        return schedule, True

    def get(self, name: str) -> Schedule | None:
        """Return a schedule, or None if there is none of that name."""
        answer = self._call("get_schedule", Name=name, GroupName=self._place.group)
        return from_scheduler(answer) if answer else None

    def list(self, token: str | None) -> tuple[list[Summary], str | None]:
        """Return a page of schedules, and the token of the next one, if there is one."""
        answer = self._call(
            "list_schedules",
            GroupName=self._place.group,
            MaxResults=100,
            **({"NextToken": token} if token else {}),
        )
        found = answer["Schedules"] if answer else []
        summaries = [Summary(each["Name"], each["State"] == "DISABLED") for each in found]
        return summaries, answer.get("NextToken") if answer else None

    def replace(self, schedule: Schedule) -> Schedule | None:
        """Put another schedule in place of the one of that name; None if there is none."""
        schedule = self._checked(schedule)
        done = self._call("update_schedule", **to_scheduler(schedule, self._place))
        return schedule if done is not None else None

    def delete(self, name: str) -> bool:
        """Delete a schedule; tell whether there was one."""
        done = self._call("delete_schedule", Name=name, GroupName=self._place.group)
        return done is not None

    def _checked(self, schedule: Schedule) -> Schedule:
        if found := problems(schedule, datetime.fromtimestamp(self._clock(), UTC)):
            raise InvalidMessageError(found)
        return schedule

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Make a call; None where the name is not, or already, taken."""
        try:
            return getattr(self._client(), operation)(**arguments)
        except ClientError as error:
            match error.response["Error"]["Code"]:
                case "ResourceNotFoundException" | "ConflictException":
                    return None
                case "ValidationException":
                    # Its rules change without ours; its sentence is for whoever wrote the request.
                    said = error.response["Error"].get("Message", "")
                    raise InvalidMessageError([(("expression",), said or "is refused")]) from None
                case code:
                    raise SchedulerUnavailableError(code) from None
        except BotoCoreError as error:
            raise SchedulerUnavailableError(type(error).__name__) from None
