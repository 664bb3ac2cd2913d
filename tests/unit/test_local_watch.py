"""`make watch` shows each event on one line, and the file of events as it grows."""

import json
from pathlib import Path

import pytest

from local.aws import EVENTS_LOG
from local.watch import follow, shown

EVENTS = Path(__file__).resolve().parents[2] / "events"
MESSAGE, BROADCAST = (
    json.loads((EVENTS / f"outcome_{kind}.json").read_text(encoding="utf-8"))
    for kind in ("message", "broadcast")
)


def test_an_event_is_one_line() -> None:
    assert shown(MESSAGE) == (
        "07:54:31.046 message   rejected  2e50e8cb5ac7474eb2ed839d916e701f"
        " reason=http_400 reference=order-4711 version=3"
    )
    assert shown(BROADCAST) == (
        "07:54:31.000 broadcast completed b7c1f0e2 reference=autumn-sale version=3"
        " total=3 sent=2 rejected=1"
    )


@pytest.mark.parametrize("raw", [False, True])
def test_what_is_there_and_what_comes_is_shown_until_the_stack_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, raw: bool
) -> None:
    log = tmp_path / EVENTS_LOG
    log.write_text(json.dumps(MESSAGE) + "\n", encoding="utf-8")
    looks = iter((True, False))

    def goes_on() -> bool:
        if more := next(looks):
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(BROADCAST) + "\n")
        return more

    follow(tmp_path, raw=raw, while_=goes_on)

    first, second = capsys.readouterr().out.splitlines()
    assert (first, second) == (
        (json.dumps(MESSAGE), json.dumps(BROADCAST)) if raw else (shown(MESSAGE), shown(BROADCAST))
    )
