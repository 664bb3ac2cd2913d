"""The logs that `make run` shows: laid out for people, nothing lost, nothing garbled."""

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import live_logs
from local.live_logs import in_order, read, shown, wants_color

MOSCOW = timezone(timedelta(hours=3))


def function(message: Any = "message", level: str = "INFO", **fields: Any) -> str:
    """Return a line as a function of the relay writes it."""
    return json.dumps(
        {
            "level": level,
            "timestamp": "2026-11-24T21:33:12.135Z",
            "function": "sender",
            "message": message,
            **fields,
        }
    )


def metrics(**values: Any) -> str:
    """Return a line with metrics (EMF) as a function of the relay writes it."""
    units = {name: "Milliseconds" if name == "ProviderLatency" else "Count" for name in values}
    directive = {
        "Namespace": "smsgold-relay",
        "Dimensions": [["service"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in units.items()],
    }
    about = {"Timestamp": 1795555992135, "CloudWatchMetrics": [directive]}
    return function("batch", service="smsgold-relay-local", **values, _aws=about)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            function(message_id="k-1f", state="queued", later="http_503"),
            "sender    INFO     message  message_id=k-1f state=queued later=http_503",
        ),
        (
            function("request", function="api", request_id="r-1", method="GET", status=200, ms=6),
            "api       INFO     request  method=GET status=200 ms=6",
        ),
        (function("no fields"), "sender    INFO     no fields"),
        (
            function("table not readable", "WARNING", reason="Throttled: wait, please"),
            'sender    WARNING  table not readable  reason="Throttled: wait, please"',
        ),
        (
            function("accepted", ids=["a", "b"], none=[], replayed=False, empty="", half=0.5),
            'sender    INFO     accepted  ids=a,b none=[] replayed=false empty="" half=0.5',
        ),
        (
            function("accepted", ids=[f"m{n}" for n in range(100)]),
            "sender    INFO     accepted  ids=m0,m1,m2,m3,m4,+95",
        ),
        (function({"a": "ж"}, "CRITICAL"), 'sender    CRITICAL {"a": "ж"}'),
        (
            function("two\nlines", name="\x1b[2J", other="\x9b2J"),
            r"sender    INFO     two\nlines  name=\x1b[2J other=\x9b2J",
        ),
        (
            function("unforeseen", "ERROR", exception="Traceback\n  File x\nKeyError: 'a'"),
            """\
sender    ERROR    unforeseen
             Traceback
               File x
             KeyError: 'a'""",
        ),
        (
            function("from Lambda itself", "ERROR").replace('"function"', '"requestId"'),
            "functions ERROR    from Lambda itself  requestId=sender",
        ),
        (
            metrics(Sent=[1.0, 9.0], Attempts=[10], ProviderLatency=[2.0, 1.0, 7.5]),
            "sender    INFO     batch  Sent=10 Attempts=10 ProviderLatency=1-7.5ms",
        ),
        (
            metrics(Accepted=1, ProviderLatency=3),
            "sender    INFO     batch  Accepted=1 ProviderLatency=3ms",
        ),
        (
            function("batch", messages={"sent": ["k-1", "k-2"], "queued http_503": ["k-3"]}),
            "sender    INFO     batch  messages=sent:k-1,k-2 queued http_503:k-3",
        ),
    ],
)
def test_a_functions_line_is_laid_out(line: str, expected: str) -> None:
    assert shown(read("functions", line, MOSCOW), colored=False) == f"00:33:12.135 {expected}"


def test_a_line_of_the_sandbox_is_laid_out() -> None:
    line = "2026-11-24 21:33:12,117 POST /v1/telegram/bot/sendMessage/ fault='503' 0 ms"

    assert shown(read("sandbox", line), colored=False) == (
        "21:33:12.117 sandbox            POST /v1/telegram/bot/sendMessage/ fault='503' 0 ms"
    )


@pytest.mark.parametrize("log", ["functions", "sandbox"])
@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '  File "app.py", line 3, in handler',
        "2026-11-24 21:33:12 INFO [ministack] Ready",
        "2026-11-24 21:33:12",
        "2026-99-99 21:33:12,117 no such day",
        "REPORT RequestId: 327639b4\tDuration: 102.25 ms",
        "\x1b[31mred\x1b[0m",
        '{"time": "2026-11-24T21:33:12Z", "type": "platform.start", "record": {"version": "1"}}',
        '{"level": "INFO", "message": "no time"}',
        '{"level": "INFO", "message": "wrong time", "timestamp": "yesterday"}',
        '{"level": "INFO", "message": "wrong time", "timestamp": 5}',
        '{"level": "INFO", "message": "cut off", "timestam',
        '{"_aws": {"Timestamp": 1795555992058}}',
        '{"_aws": 5}',
        metrics(ProviderLatency=[]),
        metrics(Sent=["many"]),
        "[" * 100_000,
        '"_aws"',
        "5",
        "null",
    ],
)
def test_a_line_in_another_form_is_shown_as_it_is(log: str, line: str) -> None:
    assert shown(read(log, line), colored=False) == f"{'':12} {log:9} {'':8} {line}"


@given(st.sampled_from(["functions", "sandbox"]), st.text(st.characters(exclude_categories=["C"])))
def test_no_line_is_lost(log: str, line: str) -> None:
    assert line.rstrip() in shown(read(log, line), colored=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
TIMES = st.datetimes().map(datetime.isoformat)
LINES = st.fixed_dictionaries(
    {"level": JSON, "message": JSON, "timestamp": TIMES | JSON, "more": JSON},
    optional={"_aws": JSON, "exception": JSON},
)


@given(LINES)
def test_no_json_breaks_it(content: dict[str, Any]) -> None:
    assert shown(read("functions", json.dumps(content)), colored=False)


def test_colors_only_add_escape_sequences() -> None:
    for line in (function(state="sent"), function("failed", "ERROR"), metrics(Sent=1), "raw"):
        entry = read("functions", line)
        colored = shown(entry, colored=True)
        for code in ("\033[0m", "\033[1m", "\033[2m", *(f"\033[{n}m" for n in range(31, 37))):
            colored = colored.replace(code, "")

        assert colored == shown(entry, colored=False)
    assert "\033[31m" in shown(read("functions", function("failed", "ERROR")), colored=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: "not empty"
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colors_are_for_terminals_that_want_them(
    stream: io.StringIO, environment: dict[str, str], expected: bool
) -> None:
    assert wants_color(stream, environment) is expected


def test_several_logs_are_put_in_order_of_time() -> None:
    at = datetime(2026, 11, 24, 21, 33, 12, tzinfo=UTC)
    moments = [(at + timedelta(seconds=n)).astimezone() for n in range(4)]
    first, second, third, fourth = moments

    entries = in_order(
        {
            "functions": [
                "from before",
                function("second", timestamp=second.isoformat()),
                "Traceback of the second",
                function("fourth", timestamp=fourth.isoformat()),
            ],
            "sandbox": [f"{m:%Y-%m-%d %H:%M:%S},000 sandbox" for m in (first, third)],
        }
    )

    assert [entry.message for entry in entries] == [
        *("from before", "sandbox", "second", "Traceback of the second", "sandbox", "fourth")
    ]


def followed(home: Path, monkeypatch: pytest.MonkeyPatch, *, raw: bool, steps: list[str]) -> None:
    """Follow functions.log while each step is added to it."""
    left = iter(["", *steps, ""])

    def goes_on() -> bool:
        if (step := next(left, None)) is None:
            return False
        if step:
            with (home / "functions.log").open("a", encoding="utf-8") as file:
                file.write(step)
        return True

    monkeypatch.setattr("time.sleep", lambda _: None)
    live_logs.follow(home, while_=goes_on, raw=raw, colored=False)


def test_logs_are_followed_as_they_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = function("three")

    followed(
        tmp_path, monkeypatch, raw=False, steps=["one\r\ntw", "o\n", line[:50], line[50:] + "\n"]
    )

    words = [shown_line.split() for shown_line in capsys.readouterr().out.splitlines()]
    assert words[:2] == [["functions", "one"], ["functions", "two"]]
    assert words[2][1:] == ["sender", "INFO", "three"]
    assert len(words) == 3


def test_raw_logs_are_the_functions_own_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sandbox.log").write_text("2026-11-24 21:33:12,117 GET /bots 200 0 ms\n")
    lines = [function(state="sent"), metrics(Sent=1), "Traceback"]

    followed(tmp_path, monkeypatch, raw=True, steps=["\n".join(lines) + "\n"])

    assert capsys.readouterr().out.splitlines() == [
        "sandbox | 2026-11-24 21:33:12,117 GET /bots 200 0 ms",
        *lines,
    ]
