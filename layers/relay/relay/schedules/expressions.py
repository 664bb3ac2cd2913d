"""The schedule expressions at(…), rate(…) and cron(…), checked without calling AWS.

The rules are those of EventBridge Scheduler's user guide, "Schedule types":
at(yyyy-mm-ddThh:mm:ss), rate(value unit) and cron(six fields).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def expression_problem(expression: str, zone: ZoneInfo | None, now: datetime) -> str | None:
    """Return what is wrong with an expression, or None.

    Without a zone, whether the time of at(…) exists and is still to come is not checked.
    """
    kind, _, rest = expression.partition("(")
    inside = rest.removesuffix(")")
    match kind if rest.endswith(")") else "":
        case "at":
            return _at_problem(inside, zone, now)
        case "rate":
            return _rate_problem(inside)
        case "cron":
            return _cron_problem(inside, now)
        case _:
            return "must be at(…), rate(…) or cron(…)"


def fires_once(expression: str) -> bool:
    """Return whether a schedule with this expression ends with its first firing."""
    return expression.startswith("at(")


def _at_problem(text: str, zone: ZoneInfo | None, now: datetime) -> str | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", text, re.ASCII):
        return (
            "must be at(yyyy-mm-ddThh:mm:ss), such as at(2030-12-01T10:00:00); "
            "put the zone in timezone"
        )
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return f"{text} is not a valid date and time"
    if zone is None:
        return None
    try:
        exists = _exists(local, zone)
    except OverflowError:  # so near to the calendar's end that UTC is beyond it
        return f"{text} is out of range; choose another time"
    if not exists:
        return f"{text} does not exist in {zone.key}, where the clocks go forward; choose another"
    if local.replace(tzinfo=zone) <= now:
        return "is in the past; choose a later time"
    return None


def _exists(local: datetime, zone: ZoneInfo) -> bool:
    """Return whether a zone's clocks ever show a time; going forward, they skip an hour."""
    there_and_back = local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return there_and_back.replace(tzinfo=None) == local


def _rate_problem(text: str) -> str | None:
    if not re.fullmatch(r"[1-9][0-9]{0,5} (minutes?|hours?|days?)", text):
        return "must be rate(value unit): a positive number, then minutes, hours or days"
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
    """A pattern for what else is allowed besides numbers, ranges and steps."""
    wraps: bool = False

    def values(self, text: str) -> set[int] | None:
        """Return the values that a field allows, or None if they depend on the month.

        Raises ValueError saying what is wrong with the field.
        """
        found: set[int] = set()
        complete = True
        for part in text.split(","):
            if self.special and re.fullmatch(self.special, part):
                complete = False
                continue
            found |= self._part(part)
        return found if complete else None

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
        return f"cron(…) needs six fields ({names}); this one has {len(parts)}"
    day, weekday = parts[2], parts[4]
    if (day == "?") == (weekday == "?"):
        return "cron(…) must have ? in exactly one of day-of-month and day-of-week"
    try:
        values = [
            None if part == "?" and field in (_FIELDS[2], _FIELDS[4]) else field.values(part)
            for field, part in zip(_FIELDS, parts, strict=True)
        ]
    except ValueError as error:
        return str(error)
    days, months, years = values[2], values[3], values[5]
    # Yesterday's year: west of UTC the old year may still have hours to go.
    if years and max(years) < (now - timedelta(days=1)).year:
        return "every year in it is in the past"
    if days and months and min(days) > max(LONGEST_MONTHS[month] for month in months):
        return "none of its months has that day"
    return None
