"""EventBridge Scheduler, which keeps the schedules, and the form they have there."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.schedules.expressions import fires_once
from relay.schedules.model import Schedule, Summary, problems
from relay.validation import InvalidMessageError, validate

if TYPE_CHECKING:
    from mypy_boto3_scheduler.client import EventBridgeSchedulerClient


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
        event["skipIfLateBy"] = schedule.skip_if_late_by
    event_text = json.dumps(event)
    content = schedule.model_dump(
        mode="json", include={"message", "broadcast"}, exclude_none=True, exclude_defaults=True
    )
    # A caller's text must not have anything filled in.
    content_text = json.dumps(content).replace("<aws.", "\\u003caws.")
    return {
        "Name": schedule.name,
        "GroupName": place.group,
        "ScheduleExpression": schedule.expression,
        "ScheduleExpressionTimezone": schedule.timezone,
        **({"StartDate": schedule.start} if schedule.start else {}),
        **({"EndDate": schedule.end} if schedule.end else {}),
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "DISABLED" if schedule.paused else "ENABLED",
        "ActionAfterCompletion": "DELETE" if fires_once(schedule.expression) else "NONE",
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
    # Version 0.1.0 could give a schedule a window, and added it to what counts as late.
    window = 60 * answer["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0)
    late = event.get("skipIfLateBy")
    fields = {
        "name": answer["Name"],
        "expression": answer["ScheduleExpression"],
        "timezone": answer.get("ScheduleExpressionTimezone", "UTC"),
        "start": answer.get("StartDate"),
        "end": answer.get("EndDate"),
        "skipIfLateBy": None if late is None else late - window,
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
