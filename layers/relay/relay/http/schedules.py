"""The routes of schedules."""

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import Field

from relay import problems
from relay.http.contract import Body, answer
from relay.http.notes import note
from relay.problems import ProblemError
from relay.schedules.model import NAME_PATTERN, Schedule, ScheduleSpec
from relay.schedules.scheduler import Schedules
from relay.validation import InvalidMessageError

Name = Annotated[str, Path(pattern=NAME_PATTERN, description="The schedule's name.")]
Token = Annotated[
    str | None,
    Query(
        alias="nextToken",
        min_length=1,
        max_length=2048,
        description="The `nextToken` of the previous page.",
    ),
]


class ReplacementSpec(ScheduleSpec):
    """What replaces a schedule; `name` may be left out, or must be the one in the path."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None


class ScheduleEntry(Body):
    """A schedule in the list."""

    name: str
    paused: bool


class SchedulePage(Body):
    """Up to 100 schedules; with a `nextToken` if there are more."""

    schedules: list[ScheduleEntry]
    next_token: str | None = None


def routes(schedules: Schedules) -> Router:
    """Return the routes under /schedules."""
    router = Router()  # type: ignore[no-untyped-call] # Powertools' own

    @router.post(
        "/schedules",
        operation_id="createSchedule",
        summary="Create a schedule",
        tags=["schedules"],
        responses={
            200: answer("It exists already, with the same body.", Schedule),
            201: answer("Created.", Schedule, Location="Its address."),
            409: answer("Another schedule has this name."),
        },
    )
    def create(schedule: Schedule) -> Response[Any]:
        found, created = schedules.create(schedule)
        if found != schedule:
            raise ProblemError(
                problems.SCHEDULE_EXISTS,
                "Choose another name, or replace this schedule with PUT.",
            )
        note(schedule=schedule.name, new=created)
        status = HTTPStatus.CREATED if created else HTTPStatus.OK
        return _body(found, status, Location=f"./schedules/{schedule.name}")

    @router.get(
        "/schedules",
        operation_id="listSchedules",
        summary="List the schedules",
        tags=["schedules"],
        responses={
            200: answer("A page of schedules.", SchedulePage),
            400: answer("`nextToken` did not come from a page."),
        },
    )
    def list_(token: Token = None) -> Response[Any]:
        found, next_token = schedules.list(token)
        entries = [ScheduleEntry(name=each.name, paused=each.paused) for each in found]
        return SchedulePage(schedules=entries, next_token=next_token).response(HTTPStatus.OK)

    @router.get(
        "/schedules/<name>",
        operation_id="getSchedule",
        summary="Get a schedule",
        tags=["schedules"],
        responses={200: answer("The schedule.", Schedule)},
    )
    def get(name: Name) -> Response[Any]:
        return _body(_found(schedules.get(name)))

    @router.put(
        "/schedules/<name>",
        operation_id="replaceSchedule",
        summary="Replace, pause or resume a schedule",
        tags=["schedules"],
        responses={200: answer("The schedule as it is now.", Schedule)},
    )
    def replace(name: Name, spec: ReplacementSpec) -> Response[Any]:
        if spec.name not in (None, name):
            raise InvalidMessageError([(("name",), "must be the name in the path")])
        fields = {each: getattr(spec, each) for each in ScheduleSpec.model_fields}
        found = _found(schedules.replace(Schedule.model_construct(**fields, name=name)))
        note(schedule=name, paused=found.paused)
        return _body(found)

    @router.delete(
        "/schedules/<name>",
        operation_id="deleteSchedule",
        summary="Delete a schedule",
        tags=["schedules"],
        responses={200: answer("The schedule that was deleted.", Schedule)},
    )
    def delete(name: Name) -> Response[Any]:
        found = _found(schedules.get(name))
        schedules.delete(name)
        note(schedule=name)
        return _body(found)

    return router


def _found(schedule: Schedule | None) -> Schedule:
    if schedule is None:
        raise ProblemError(
            problems.NOT_FOUND,
            "No schedule has this name; one with at(…) is deleted once it has fired.",
        )
    return schedule


def _body(schedule: Schedule, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response[Any]:
    return Response(
        status_code=status,
        content_type="application/json",
        headers=headers,
        body=schedule.model_dump_json(exclude_none=True),
    )
