"""The hours of a day in which messages may be sent, by the clocks of a time zone.

The wall clock decides, whatever daylight saving time does to it. Hours that the clocks skip do not
come that day; hours that begin in what they skip begin when they jump; and hours that the clocks
show twice come twice, with whatever lies in between closed.
"""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from relay.validation import Matching, model_config

DAY = 86400


@cache
def zones() -> frozenset[str]:
    """Return the names of the IANA time zones, from the tzdata package."""
    from importlib import resources  # noqa: PLC0415 - needed only here

    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@cache
def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name."""
    # A Lambda runtime may lack the system's zones: "if no system time zone data is available, the
    # library will fall back to using the first-party tzdata package" (zoneinfo), which is in the
    # layer.
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few messages have hours

    return ZoneInfo(name)


def known_zone(name: str) -> str:
    """Return the name of a time zone; refuse, as pydantic does, what is none."""
    if name not in zones():
        raise PydanticCustomError("zone", "must be an IANA time zone, such as Europe/Moscow or UTC")
    return name


Zone = Annotated[str, Field(max_length=64, examples=["Europe/Moscow"]), AfterValidator(known_zone)]
"""The name of a time zone."""

Clock = Annotated[
    str, Matching("^([01][0-9]|2[0-3]):[0-5][0-9]$", "must be a time of day from 00:00 to 23:59")
]


class Hours(BaseModel):
    """Hours of the day, from `from` on and before `to`; over midnight if `to` is the earlier."""

    model_config = {
        **model_config,
        "json_schema_extra": {
            "examples": [{"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}]
        },
    }

    from_: Clock = Field(alias="from", description="When they begin: hours and minutes.")
    to: Clock = Field(description="When they end; on the next day if it is earlier than `from`.")
    timezone: Zone = Field(description="The IANA time zone whose clocks count.")

    @model_validator(mode="before")
    @classmethod
    def _some_of_the_day(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("from") and data.get("from") == data.get("to"):
            problem = {"field": "to", "problem": "must differ from `from`"}
            raise PydanticCustomError("hours", "{problem}", problem)
        return data

    def are_at(self, at: float) -> bool:
        """Return whether a moment, in seconds since the epoch, is within the hours."""
        return self._from_on(at) < (_seconds(self.to) - _seconds(self.from_)) % DAY

    def opens_at(self, at: float) -> float:
        """Return the first moment from `at` on that is within the hours."""
        while not self.are_at(at):
            at = int(at)
            opening = at + DAY - self._from_on(at)
            # Until the clocks change, the way to the opening is as long as they say.
            at = self._change(at, opening) or opening
        return at

    def closes_at(self, at: float) -> float:
        """Return the first moment from `at` on that is not within the hours."""
        return self._others.opens_at(at)

    def after(self, at: float, seconds: float, *, before: float) -> float:
        """Return when so many seconds within the hours have passed since `at`.

        Returns `before` if that is not later.
        """
        at = self.opens_at(at)
        while at < before and (closes := self.closes_at(at)) < at + seconds:
            seconds -= closes - at
            at = self.opens_at(closes)
        return min(at + seconds, before)

    @property
    def _others(self) -> Self:
        """The rest of the day."""
        return self.model_copy(update={"from_": self.to, "to": self.from_})

    def _from_on(self, at: float) -> int:
        """Return for how many seconds it has been `from`, or later, by the clocks on the wall."""
        wall = self._wall(at)
        seconds = (wall.hour * 60 + wall.minute) * 60 + wall.second
        return (seconds - _seconds(self.from_)) % DAY

    def _change(self, since: int, until: int) -> int | None:
        """Return when the clocks change after `since` and not after `until`, if they do."""
        offset = self._wall(since).utcoffset()
        if self._wall(until).utcoffset() == offset:
            return None
        while until - since > 1:
            middle = (since + until) // 2
            if self._wall(middle).utcoffset() == offset:
                since = middle
            else:
                until = middle
        return until

    def _wall(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, zone_of(self.timezone))


def _seconds(clock: str) -> int:
    """Return a time of day in seconds since midnight."""
    hours, minutes = clock.split(":")
    return (int(hours) * 60 + int(minutes)) * 60
