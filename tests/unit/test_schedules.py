"""What is checked of a schedule before AWS sees it, and its form there and back."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from relay.messages.hours import zones
from relay.schedules.model import Schedule, ScheduleSpec, problems
from relay.schedules.scheduler import from_scheduler, to_scheduler
from relay.validation import InvalidMessageError, validate

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MESSAGE = {"subscriberId": "s-1", "text": "Good morning"}
TARGET = SimpleNamespace(
    group="group", function="arn:target", role="arn:role", dead_letter_queue="arn:dead"
)


def terms(expression: str, zone: str = "UTC", **more: Any) -> ScheduleSpec:
    return validate(
        ScheduleSpec,
        {"expression": expression, "timezone": zone, "message": MESSAGE, **more},
    )


def said(given: ScheduleSpec, now: datetime = NOW) -> dict[str, str]:
    return {".".join(map(str, where)): what for where, what in problems(given, now)}


@pytest.mark.parametrize("paused", [0, "false", "no", None])
def test_whether_it_is_paused_is_true_or_false(paused: object) -> None:
    with pytest.raises(InvalidMessageError, match="paused: must be a valid boolean"):
        terms("rate(1 hour)", paused=paused)


@pytest.mark.parametrize(
    "expression",
    [
        "at(2026-03-01T12:00:01)",
        "rate(1 minute)",
        "rate(1 minutes)",
        "rate(5 minutes)",
        "rate(1 hour)",
        "rate(7 days)",
        "cron(0 9 * * ? *)",
        "cron(0 9 ? * MON-FRI *)",
        "cron(0 9 ? * fri-mon *)",
        "cron(0/15 * * * ? *)",
        "cron(*/15 8-18/2 1,15 JAN,MAR-MAY ? 2026-2030)",
        "cron(0 0 L * ? *)",
        "cron(0 0 L-3 * ? *)",
        "cron(0 0 LW * ? *)",
        "cron(0 0 15W * ? *)",
        "cron(0 0 ? * 2#1 *)",
        "cron(0 0 ? * TUE#4 *)",
        "cron(0 0 ? * 6L *)",
        "cron(0 0 29 2 ? *)",
        "cron(15 10 ? * 6L 2026)",
    ],
)
def test_good_expressions_pass(expression: str) -> None:
    assert said(terms(expression)) == {}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("every day", "must be at(…), rate(…) or cron(…)"),
        ("at(2026-03-02T12:00:00", "must be at(…)"),
        ("AT(2026-03-02T12:00:00)", "must be at(…)"),
        ("at(2026-03-02)", "yyyy-mm-ddThh:mm:ss"),
        ("at(2026-03-02T12:00:00Z)", "put the zone in timezone"),
        ("at(2026-03-02T12:00:00+03:00)", "put the zone in timezone"),
        ("at(2026-02-29T12:00:00)", "is not a valid date and time"),
        ("at(2026-03-01T25:00:00)", "is not a valid date and time"),
        ("at(2026-03-01T12:00:00)", "is in the past"),
        ("at(1999-01-01T00:00:00)", "is in the past"),
        ("rate(0 minutes)", "positive number"),
        ("rate(-5 minutes)", "positive number"),
        ("rate(1.5 hours)", "positive number"),
        ("rate(5 seconds)", "minutes, hours or days"),
        ("rate(5minutes)", "minutes, hours or days"),
        ("cron(0 9 * * ?)", "needs six fields"),
        ("cron(0 9 * * * *)", "must have ? in exactly one of"),
        ("cron(0 9 ? * ? *)", "must have ? in exactly one of"),
        ("cron(60 9 * * ? *)", "minutes: '60' must be 0 to 59"),
        ("cron(0 24 * * ? *)", "hours: '24' must be 0 to 23"),
        ("cron(0 9 32 * ? *)", "day-of-month: '32' must be 1 to 31"),
        ("cron(0 9 0 * ? *)", "day-of-month: '0' must be 1 to 31"),
        ("cron(0 9 1 13 ? *)", "month: '13' must be 1 to 12 or JAN to DEC"),
        ("cron(0 9 ? * 8 *)", "day-of-week: '8' must be 1 to 7 or SUN to SAT"),
        ("cron(0 9 ? * MONDAY *)", "day-of-week: 'MONDAY' must be"),
        ("cron(0 9 ? * 2#6 *)", "day-of-week: '2#6' must be"),
        ("cron(0 9 * * ? 1969)", "year: '1969' must be 1970 to 2199"),
        ("cron(0 9 * * ? 2025)", "every year in it is in the past"),
        ("cron(*/0 9 * * ? *)", "the step in '*/0'"),
        ("cron(30-10 9 * * ? *)", "runs backwards"),
        ("cron(, 9 * * ? *)", "minutes: '' must be"),
        ("cron(0 0 31 2,4 ? *)", "none of its months has that day"),
    ],
)
def test_a_bad_expression_is_refused_with_the_reason(expression: str, why: str) -> None:
    found = said(terms(expression))
    assert list(found) == ["expression"]
    assert why in found["expression"]


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("at(0001-01-01T00:00:00)", "Europe/Moscow"),
        ("at(9999-12-31T23:59:59)", "America/New_York"),
    ],
)
def test_a_time_at_the_calendars_end_is_refused(expression: str, zone: str) -> None:
    assert "is out of range" in said(terms(expression, zone))["expression"]


@pytest.mark.parametrize(
    ("local", "zone", "problem"),
    [
        # Spring: an hour that no clock shows. On the continent 02:00 becomes 03:00, …
        ("2026-03-29T01:59:59", "Europe/Berlin", None),
        ("2026-03-29T02:00:00", "Europe/Berlin", "does not exist"),
        ("2026-03-29T02:59:59", "Europe/Berlin", "does not exist"),
        ("2026-03-29T03:00:00", "Europe/Berlin", None),
        # … in London 01:00 becomes 02:00, …
        ("2026-03-29T01:30:00", "Europe/London", "does not exist"),
        ("2026-03-29T02:30:00", "Europe/London", None),
        # … and in New York it is another day.
        ("2026-03-08T02:30:00", "America/New_York", "does not exist"),
        ("2026-03-29T02:30:00", "America/New_York", None),
        # Half an hour only, on Lord Howe Island; in its spring.
        ("2026-10-04T02:15:00", "Australia/Lord_Howe", "does not exist"),
        ("2026-10-04T02:30:00", "Australia/Lord_Howe", None),
        # Autumn: an hour that clocks show twice.
        ("2026-10-25T02:30:00", "Europe/Berlin", None),
        # No daylight saving time at all.
        ("2026-03-29T02:30:00", "Europe/Moscow", None),
        ("2026-03-29T02:30:00", "UTC", None),
        # Samoa left out a whole day once; long past, and so it says that it does not exist.
        ("2011-12-30T12:00:00", "Pacific/Apia", "does not exist"),
    ],
)
def test_a_time_that_no_clock_shows_is_refused(local: str, zone: str, problem: str | None) -> None:
    found = said(terms(f"at({local})", zone))
    assert (problem in found["expression"]) if problem else found == {}


@pytest.mark.parametrize(
    ("local", "zone", "past"),
    [
        # It is 12:00 in UTC.
        ("2026-03-01T14:59:59", "Europe/Moscow", True),
        ("2026-03-01T15:00:01", "Europe/Moscow", False),
        ("2026-03-01T06:59:59", "America/New_York", True),
        ("2026-03-01T07:00:01", "America/New_York", False),
        ("2026-03-02T01:59:59", "Pacific/Kiritimati", True),
        ("2026-03-01T17:30:01", "Asia/Kolkata", False),
        ("2026-03-01T17:29:59", "Asia/Kolkata", True),
    ],
)
def test_the_past_is_told_in_the_schedule_s_own_zone(local: str, zone: str, past: bool) -> None:
    assert ("is in the past" in said(terms(f"at({local})", zone)).get("expression", "")) is past


@pytest.mark.parametrize("zone", ["Europe/Moscow", "UTC", "America/Argentina/Buenos_Aires", "GMT"])
def test_known_zones_pass(zone: str) -> None:
    assert zone in zones()
    assert said(terms("rate(1 hour)", zone)) == {}


@pytest.mark.parametrize(
    "zone", ["", "Moscow", "europe/moscow", "Europe/Atlantis", "+03:00", "../etc/passwd", "MSK"]
)
def test_unknown_zones_are_refused(zone: str) -> None:
    assert list(said(terms("rate(1 hour)", zone))) == ["timezone"]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"end": "2026-02-28T00:00:00Z"}, ["end"]),
        ({"end": "2026-03-01T15:00:00+03:00"}, ["end"]),
        ({"start": "2026-04-01T00:00:00Z", "end": "2026-03-31T00:00:00Z"}, ["end"]),
        ({"start": "2026-04-01T00:00:00Z", "end": "2026-05-01T00:00:00Z"}, []),
        ({"start": "2020-01-01T00:00:00Z"}, []),
        ({"message": None}, ["message"]),
        ({"broadcast": {"botId": "b-1", "text": "x"}}, ["message"]),
        ({"message": None, "broadcast": {"botId": "b-1", "text": "x"}}, []),
    ],
)
def test_start_end_and_target_are_checked(more: dict[str, Any], wrong: list[str]) -> None:
    assert list(said(terms("rate(1 hour)", **more))) == wrong


def test_start_and_end_do_not_go_with_once() -> None:
    given = terms("at(2026-05-01T00:00:00)", start="2026-04-01T00:00:00Z")
    assert list(said(given)) == ["start"]


def test_several_mistakes_are_told_at_once() -> None:
    given = terms("rate(0 days)", "Mars/Base", end="2020-01-01T00:00:00Z", message=None)
    assert sorted(said(given)) == ["end", "expression", "message", "timezone"]


@pytest.mark.parametrize(
    "fields",
    [
        {"expression": "at(2030-12-01T10:00:00)", "message": MESSAGE},
        {
            "expression": "cron(0 9 ? * MON *)",
            "timezone": "Europe/Moscow",
            "start": "2026-04-01T00:00:00.750Z",
            "end": "2026-05-01T00:00:00+03:00",
            "skipIfLateBy": 120,
            "paused": True,
            "broadcast": {
                "botId": "b-1",
                "text": 'Say "<aws.scheduler.execution-id>" \\ and 👋',
                "buttons": [{"text": "Open", "url": "https://shop.example/"}],
                "onUnknown": "resend",
                "expiresAt": "2030-01-01T00:00:00Z",
                "reference": "spring",
            },
        },
    ],
)
def test_a_schedule_comes_back_from_the_scheduler_as_it_was(fields: dict[str, Any]) -> None:
    schedule = validate(Schedule, {"name": "mine", **fields})
    kept = to_scheduler(schedule, TARGET)
    assert from_scheduler(kept) == schedule


def test_what_the_scheduler_gets() -> None:
    once = validate(
        Schedule, {"name": "mine", "expression": "at(2030-12-01T10:00:00)", "message": MESSAGE}
    )
    kept = to_scheduler(once, TARGET)
    assert kept["GroupName"] == "group"
    assert kept["ActionAfterCompletion"] == "DELETE"
    assert kept["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert kept["Target"]["RoleArn"] == "arn:role"
    assert kept["Target"]["DeadLetterConfig"] == {"Arn": "arn:dead"}
    assert kept["Target"]["RetryPolicy"]["MaximumRetryAttempts"] > 0
    event = json.loads(kept["Target"]["Input"])
    assert event == {
        "kind": "event",
        "schedule": "<aws.scheduler.schedule-arn>",
        "time": "<aws.scheduler.scheduled-time>",
        "message": MESSAGE,
    }


def test_a_text_has_nothing_filled_in_by_the_scheduler() -> None:
    fields = {"subscriberId": "s-1", "text": "<aws.scheduler.scheduled-time>"}
    schedule = validate(Schedule, {"name": "mine", "expression": "rate(1 day)", "message": fields})
    text = to_scheduler(schedule, TARGET)["Target"]["Input"]
    assert text.count("<aws.scheduler.scheduled-time>") == 1
    assert json.loads(text)["message"] == fields


def test_a_schedule_with_a_window_of_version_0_1_0_is_still_read() -> None:
    fields = {"expression": "rate(1 day)", "skipIfLateBy": 86400}
    schedule = validate(Schedule, {"name": "mine", "message": MESSAGE, **fields})
    kept = to_scheduler(schedule, TARGET)
    kept["FlexibleTimeWindow"] = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 10}
    kept["Target"]["Input"] = kept["Target"]["Input"].replace("86400", "87000")
    assert from_scheduler(kept) == schedule


def test_a_schedule_s_message_may_have_hours_but_no_time_of_its_own() -> None:
    hours = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}
    good = terms("rate(1 hour)", message={**MESSAGE, "between": hours})
    assert said(good) == {}
    bad = terms("rate(1 hour)", message={**MESSAGE, "sendAt": "2026-03-02T10:00:00Z"})
    assert said(bad) == {"message.sendAt": "a schedule itself says when; leave it out"}


def test_a_schedules_broadcast_says_what_its_braces_mean() -> None:
    broadcast = {"botId": "b", "text": "Hello {{ name }}"}
    given = {"expression": "rate(1 hour)", "broadcast": broadcast}
    [(where, what)] = said(validate(ScheduleSpec, given)).items()
    assert where == "broadcast.text"
    assert "set template to true" in what
    broadcast["template"] = True  # type: ignore[assignment]
    assert said(validate(ScheduleSpec, given)) == {}
