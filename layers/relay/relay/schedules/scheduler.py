"""EventBridge Scheduler: keeps the schedules, in a form of its own, and fires them."""

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


class SchedulerTarget(Protocol):
    """What the stack's schedules have in common: their group, and what they invoke."""

    @property
    def group(self) -> str:
        """The name of the schedule group."""
        ...

    @property
    def function(self) -> str:
        """The ARN of the function to invoke."""
        ...

    @property
    def role(self) -> str:
        """The ARN of the role that may invoke it."""
        ...

    @property
    def dead_letter_queue(self) -> str:
        """The ARN of the dead-letter queue."""
        ...


def to_scheduler(schedule: Schedule, target: SchedulerTarget) -> dict[str, Any]:
    """Return the arguments of CreateSchedule and UpdateSchedule."""
    event: dict[str, Any] = {
        "kind": "event",  # what it is if it ever lies on the notifier's queue
        # EventBridge Scheduler replaces both; together they identify one firing.
        "schedule": "<aws.scheduler.schedule-arn>",
        "time": "<aws.scheduler.scheduled-time>",
    }
    if schedule.skip_if_late_by is not None:
        event["skipIfLateBy"] = schedule.skip_if_late_by
    event_text = json.dumps(event)
    content = schedule.model_dump(
        mode="json", include={"message", "broadcast"}, exclude_none=True, exclude_defaults=True
    )
    # A caller's text must reach the subscriber as it is, even where it looks like a placeholder.
    content_text = json.dumps(content).replace("<aws.", "\\u003caws.")
    return {
        "Name": schedule.name,
        "GroupName": target.group,
        "ScheduleExpression": schedule.expression,
        "ScheduleExpressionTimezone": schedule.timezone,
        **({"StartDate": schedule.start} if schedule.start else {}),
        **({"EndDate": schedule.end} if schedule.end else {}),
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "DISABLED" if schedule.paused else "ENABLED",
        "ActionAfterCompletion": "DELETE" if fires_once(schedule.expression) else "NONE",
        "Target": {
            "Arn": target.function,
            "RoleArn": target.role,
            "Input": f"{event_text[:-1]}, {content_text[1:]}",
            # For a day: the most that the scheduler allows of both.
            "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86400},
            "DeadLetterConfig": {"Arn": target.dead_letter_queue},
        },
    }


def from_scheduler(answer: Mapping[str, Any]) -> Schedule:
    """Return the schedule in GetSchedule's response."""
    event = json.loads(answer["Target"]["Input"])
    # Version 0.1.0 knew flexible windows, and added the window to skipIfLateBy.
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


class SchedulerUnavailableError(Exception):
    """EventBridge Scheduler is unavailable, or refuses for a reason that is not the caller's."""


class _ConflictError(SchedulerUnavailableError):
    """The name is taken, or another call is at work on the schedule.

    AWS says no more of it than "Updating or deleting the resource can cause an inconsistent state"
    (EventBridge Scheduler's API reference, ConflictException of CreateSchedule, UpdateSchedule and
    DeleteSchedule). So only another look tells whether there is a schedule, and nothing was done.
    """


class Schedules:
    """The schedules in the stack's own group."""

    def __init__(
        self,
        client: Callable[[], "EventBridgeSchedulerClient"],
        target: SchedulerTarget,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._target = target
        self._clock = clock

    def create(self, schedule: Schedule) -> tuple[Schedule, bool]:
        """Create a schedule; return the one that has the name now, and whether it is new.

        Raises InvalidMessageError, or SchedulerUnavailableError.
        """
        if known := self.get(schedule.name):
            return known, False
        schedule = self._checked(schedule)
        try:
            done = self._call("create_schedule", **to_scheduler(schedule, self._target))
        except _ConflictError:
            if known := self.get(schedule.name):
                return known, False
            raise
        if done is None:
            raise SchedulerUnavailableError("the schedule group is missing")
        return schedule, True

    def get(self, name: str) -> Schedule | None:
        """Return the schedule with this name, or None."""
        answer = self._call("get_schedule", Name=name, GroupName=self._target.group)
        return from_scheduler(answer) if answer else None

    def list(self, token: str | None) -> tuple[list[Summary], str | None]:
        """Return a page of schedules, and the next page's token if there is one."""
        answer = self._call(
            "list_schedules",
            GroupName=self._target.group,
            MaxResults=100,
            **({"NextToken": token} if token else {}),
        )
        found = answer["Schedules"] if answer else []
        summaries = [Summary(each["Name"], each["State"] == "DISABLED") for each in found]
        return summaries, answer.get("NextToken") if answer else None

    def replace(self, schedule: Schedule) -> Schedule | None:
        """Replace the schedule that has this name; None if there is none."""
        schedule = self._checked(schedule)
        done = self._call("update_schedule", **to_scheduler(schedule, self._target))
        return schedule if done is not None else None

    def delete(self, name: str) -> bool:
        """Delete a schedule; return whether there was one."""
        done = self._call("delete_schedule", Name=name, GroupName=self._target.group)
        return done is not None

    def _checked(self, schedule: Schedule) -> Schedule:
        if found := problems(schedule, datetime.fromtimestamp(self._clock(), UTC)):
            raise InvalidMessageError(found)
        return schedule

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Call the scheduler; None if what it is about does not exist.

        Raises InvalidMessageError, SchedulerUnavailableError or _ConflictError.
        """
        try:
            return getattr(self._client(), operation)(**arguments)
        except ClientError as error:
            match error.response["Error"]["Code"]:
                case "ResourceNotFoundException":
                    return None
                case "ConflictException" as code:
                    raise _ConflictError(code) from None
                case "ValidationException":
                    # AWS may be stricter than these checks; its message says what to change.
                    said = error.response["Error"].get("Message", "")
                    raise InvalidMessageError(
                        [(("expression",), said or "was refused by EventBridge Scheduler")]
                    ) from None
                case code:
                    raise SchedulerUnavailableError(code) from None
        except BotoCoreError as error:
            raise SchedulerUnavailableError(type(error).__name__) from None
