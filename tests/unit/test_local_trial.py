"""Following logs: complete lines, each once, from files that may not be there yet."""

from pathlib import Path

import pytest

from local import trial


def test_logs_are_followed_as_they_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "functions.log"
    steps = iter(["", "one\ntw", "o\n", "three", "\n"])

    def goes_on() -> bool:
        if (step := next(steps, None)) is None:
            return False
        if step:
            with log.open("a") as file:
                file.write(step)
        return True

    monkeypatch.setattr("time.sleep", lambda _: None)

    trial.follow(tmp_path, while_=goes_on)

    assert capsys.readouterr().out.splitlines() == [
        "functions | one",
        "functions | two",
        "functions | three",
    ]


def test_the_guide_has_a_line_to_paste_even_without_the_sandbox() -> None:
    guide = trial.guide({"apiUrl": "http://127.0.0.1:1/v1", "apiKey": "key", "sandboxUrl": ""})

    assert "curl -sS http://127.0.0.1:1/v1/messages -H 'x-api-key: key'" in guide
    assert "inbox" not in guide
