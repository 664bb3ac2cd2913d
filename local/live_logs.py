"""Print the logs of the functions and the sandbox as they grow, laid out for people."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

LOGS = ("functions", "sandbox")
"""The logs to follow: each is a file with this name in the stack's folder."""

UNSHOWN = frozenset(
    {
        *("level", "message", "timestamp", "function", "service", "exception", "request_id"),
        "_aws",
    }
)
"""Fields of a function's line that are shown in another place, or not at all."""

ITEMS_SHOWN = 5
"""How many items of a list are shown; the others are counted."""

UNREADABLE = (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What reading a line raises if it is not in the form expected of its log."""

RESET, BOLD, DIM = "\033[0m", "\033[1m", "\033[2m"
RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = (f"\033[{number}m" for number in range(31, 37))
LEVELS = {"INFO": GREEN, "WARNING": BOLD + YELLOW, "ERROR": BOLD + RED, "CRITICAL": BOLD + RED}
SOURCES = {
    **dict.fromkeys(("api", "hooks"), CYAN),
    **dict.fromkeys(("notifier", "publisher"), MAGENTA),
    "sender": BLUE,
    "canary": YELLOW,
}


@dataclass(frozen=True)
class Entry:
    """A line of a log, taken apart; a line in any other form is all message."""

    source: str
    message: str
    at: datetime | None = None
    level: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    traceback: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------- reading


def read(log: str, line: str, zone: tzinfo | None = None) -> Entry:
    """Take a line of this log apart; times are in this zone, or else in the local one."""
    try:
        if log == "sandbox":
            return _sandbox(line)
        content = json.loads(line)
        return _function(log, content, zone)
    except UNREADABLE:
        return Entry(log, line)


def _sandbox(line: str) -> Entry:
    date, clock, message = line.split(" ", 2)
    at = datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H:%M:%S,%f").astimezone()
    return Entry("sandbox", message, at)


def _function(log: str, content: Mapping[str, Any], zone: tzinfo | None) -> Entry:
    message = content["message"]
    units = _units(content.get("_aws"))
    return Entry(
        str(content.get("function", log)),
        _printable(message) if isinstance(message, str) else _value(message),
        datetime.fromisoformat(content["timestamp"]).astimezone(zone),
        str(content["level"]),
        {
            name: _total(value, units[name]) if name in units else _value(value)
            for name, value in content.items()
            if name not in UNSHOWN
        },
        tuple(_printable(part) for part in str(content.get("exception", "")).splitlines()),
    )


def _units(about: Any) -> Mapping[str, str]:
    """Return the units of those fields of a line that are metrics (EMF)."""
    if about is None:
        return {}
    return {m["Name"]: m["Unit"] for each in about["CloudWatchMetrics"] for m in each["Metrics"]}


def _total(values: Any, unit: str) -> str:
    values = values if isinstance(values, list) else [values]
    if unit != "Milliseconds":
        return f"{sum(values):g}"
    least, most = f"{min(values):g}", f"{max(values):g}"
    return f"{least}ms" if least == most else f"{least}-{most}ms"


def _value(value: Any) -> str:
    match value:
        case str() if value and not set(value) & set(" \"'=,"):
            return _printable(value)
        case [_, *_]:
            others = [f"+{len(value) - ITEMS_SHOWN}"] if len(value) > ITEMS_SHOWN else []
            return ",".join([*map(_value, value[:ITEMS_SHOWN]), *others])
        case dict() if value and all(isinstance(each, list) for each in value.values()):
            return " ".join(f"{_printable(name)}:{_value(each)}" for name, each in value.items())
        case _:
            return _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """Escape what would move the cursor or break the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --------------------------------------------------------------------------------------- showing


def shown(entry: Entry, *, colored: bool) -> str:
    """Lay an entry out as a line of columns, with its traceback below."""

    def paint(text: str, color: str) -> str:
        return f"{color}{text}{RESET}" if colored and color and text.strip() else text

    at = entry.at.isoformat(timespec="milliseconds")[11:23] if entry.at else ""
    level = LEVELS.get(entry.level, "")
    columns = [
        paint(f"{at:12}", DIM),
        paint(f"{entry.source:9}", SOURCES.get(entry.source, DIM)),
        paint(f"{entry.level:8}", level),
        paint(entry.message, "" if entry.level in ("", "INFO") else level),
    ]
    fields = "".join(f" {paint(f'{name}=', DIM)}{value}" for name, value in entry.fields.items())
    line = f"{' '.join(columns)}{' ' * bool(fields)}{fields}".rstrip()
    return "\n".join([line, *(f"{'':13}{part}" for part in entry.traceback)])


def in_order(new: Mapping[str, Iterable[str]]) -> list[Entry]:
    """Take the new lines of several logs apart and put them in order of time.

    A line without a time stays behind the one before it.
    """
    timed: list[tuple[datetime, Entry]] = []
    for log, lines in new.items():
        at = datetime.min.replace(tzinfo=UTC)
        for line in lines:
            entry = read(log, line)
            at = entry.at or at
            timed.append((at, entry))
    return [entry for _, entry in sorted(timed, key=itemgetter(0))]


def wants_color(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether the stream is a terminal that nobody wants plain."""
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return stream.isatty() and not plain


# ------------------------------------------------------------------------------------- following


def follow(home: Path, *, while_: Callable[[], bool], raw: bool, colored: bool) -> None:
    """Print what is added to the logs, as long as the condition holds.

    `raw` leaves the functions' lines as they were written: JSON.
    """
    logs = {log: appended(home / f"{log}.log") for log in LOGS}
    while while_():
        new = {log: list(takewhile(bool, lines)) for log, lines in logs.items()}
        if raw:
            for log, lines in new.items():
                for line in lines:
                    print(line if log == "functions" else f"{log} | {line}", end="")
        else:
            bare = {log: [line.rstrip("\r\n") for line in lines] for log, lines in new.items()}
            for entry in in_order(bare):
                print(shown(entry, colored=colored))
        time.sleep(0.3)


def appended(path: Path) -> Iterator[str]:
    """Yield the complete lines of a growing file, and an empty one when there is none yet."""
    while not path.exists():
        yield ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            start = file.tell()
            line = file.readline()
            if line.endswith("\n"):
                yield line
            else:
                file.seek(start)
                yield ""
