"""The hours of a day, by the clocks of a zone."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.messages.hours import Hours, zone_of
from relay.validation import InvalidMessageError, validate


def hours(from_: str, to: str, timezone: str = "Europe/Berlin") -> Hours:
    return validate(Hours, {"from": from_, "to": to, "timezone": timezone})


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(when: float, zone: str = "Europe/Berlin") -> str:
    return datetime.fromtimestamp(when, zone_of(zone)).isoformat(timespec="seconds")


# ------------------------------------------------------------------------------ openings

MOSCOW = hours("09:00", "21:00", "Europe/Moscow")
NIGHT = hours("22:00", "06:00")


@pytest.mark.parametrize(
    ("open_hours", "when", "opening"),
    [
        (MOSCOW, "2026-07-01T08:59:59.500+03:00", "2026-07-01T09:00:00+03:00"),
        (MOSCOW, "2026-07-01T09:00:00+03:00", "2026-07-01T09:00:00+03:00"),
        (MOSCOW, "2026-07-01T20:59:59+03:00", "2026-07-01T20:59:59+03:00"),
        (MOSCOW, "2026-07-01T21:00:00+03:00", "2026-07-02T09:00:00+03:00"),
        (MOSCOW, "2026-12-31T23:00:00+03:00", "2027-01-01T09:00:00+03:00"),
        (NIGHT, "2026-07-01T21:59:59+02:00", "2026-07-01T22:00:00+02:00"),
        (NIGHT, "2026-07-01T23:30:00+02:00", "2026-07-01T23:30:00+02:00"),
        (NIGHT, "2026-07-02T05:59:59+02:00", "2026-07-02T05:59:59+02:00"),
        (NIGHT, "2026-07-02T06:00:00+02:00", "2026-07-02T22:00:00+02:00"),
        # The night in which 02:00 becomes 03:00.
        (hours("09:00", "21:00"), "2026-03-28T21:00:00+01:00", "2026-03-29T09:00:00+02:00"),
        (hours("02:30", "05:00"), "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        (hours("02:10", "02:50"), "2026-03-29T01:00:00+01:00", "2026-03-30T02:10:00+02:00"),
        # The night in which 03:00 becomes 02:00.
        (hours("09:00", "21:00"), "2026-10-24T21:00:00+02:00", "2026-10-25T09:00:00+01:00"),
        (hours("02:30", "05:00"), "2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        (hours("02:30", "05:00"), "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"),
        (hours("23:00", "02:30"), "2026-10-25T02:45:00+02:00", "2026-10-25T02:00:00+01:00"),
    ],
)
def test_the_next_opening(open_hours: Hours, when: str, opening: str) -> None:
    assert open_hours.opens_at(at(when)) == at(opening)


@pytest.mark.parametrize(
    ("open_hours", "when", "closing"),
    [
        (MOSCOW, "2026-07-01T09:00:00+03:00", "2026-07-01T21:00:00+03:00"),
        (NIGHT, "2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00"),
        (hours("01:00", "02:30"), "2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        (hours("02:30", "05:00"), "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"),
    ],
)
def test_the_next_closing(open_hours: Hours, when: str, closing: str) -> None:
    assert open_hours.closes_at(at(when)) == at(closing)


TIMES = st.integers(0, 1439).map(lambda m: f"{m // 60:02}:{m % 60:02}")
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]


@given(
    from_=TIMES,
    to=TIMES,
    zone=st.sampled_from(ZONES),
    day=st.sampled_from(["2026-02-14", "2026-03-08", "2026-03-21", "2026-03-28", "2026-04-04"])
    | st.sampled_from(["2026-10-03", "2026-10-24", "2026-11-01", "2026-07-01"]),
    minute=st.integers(0, 1439),
)
def test_it_is_the_first_minute_whose_wall_clock_is_within(
    from_: str, to: str, zone: str, day: str, minute: int
) -> None:
    if from_ == to:
        return
    start = at(f"{day}T00:00:00+00:00") + 60 * minute

    def within(when: float) -> bool:
        clock = shown(when, zone)[11:16]
        return from_ <= clock < to if from_ < to else clock >= from_ or clock < to

    expected = next(t for t in (start + 60 * i for i in range(4 * 1440)) if within(t))
    assert hours(from_, to, zone).opens_at(start) == expected


def test_seconds_within_the_hours_add_up_over_the_night() -> None:
    evening = at("2026-07-01T20:00:00+03:00")
    far = evening + 12 * 86400
    assert MOSCOW.after(evening, 3599, before=far) == at("2026-07-01T20:59:59+03:00")
    assert MOSCOW.after(evening, 6 * 3600, before=far) == at("2026-07-02T14:00:00+03:00")
    night = at("2026-07-01T22:00:00+03:00")
    assert MOSCOW.after(night, 3600, before=far) == at("2026-07-02T10:00:00+03:00")
    assert MOSCOW.after(night, 3600, before=night + 60) == night + 60
    assert MOSCOW.after(night, 90 * 86400, before=far) == far


# ---------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"timezone": "Europe/Moskva"}, "timezone: must be an IANA time zone, such as"),
        ({"timezone": "../etc/passwd"}, "timezone: must be an IANA time zone, such as"),
        ({"timezone": ""}, "timezone: must be an IANA time zone, such as"),
        ({"from": "9:00"}, "from: must be a time of day from 00:00 to 23:59"),
        ({"to": "24:00"}, "to: must be a time of day from 00:00 to 23:59"),
        ({"to": "21:00:00"}, "to: must be a time of day from 00:00 to 23:59"),
        ({"to": "09:00"}, "to: must differ from `from`"),
        ({"days": "Mon"}, "days: is not a known field; check its spelling"),
    ],
)
def test_a_mistake_is_named_with_its_field(change: dict[str, Any], problem: str) -> None:
    given_ = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow", **change}
    with pytest.raises(InvalidMessageError) as caught:
        validate(Hours, given_)
    assert str(caught.value).startswith(problem)


def test_every_field_is_required() -> None:
    with pytest.raises(InvalidMessageError) as caught:
        validate(Hours, {"from": "09:00"})
    assert str(caught.value) == "to: is required; timezone: is required"


def test_midnight_is_an_end_like_any_other() -> None:
    evening = hours("18:00", "00:00")
    midnight = at("2026-07-02T00:00:00+02:00")
    assert evening.are_at(midnight - 1)
    assert evening.opens_at(midnight) == midnight + timedelta(hours=18).total_seconds()
