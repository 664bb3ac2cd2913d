"""`make hook`: what a payload would become, and what is wrong with hooks.toml."""

import json
from pathlib import Path

import pytest

from local import hook
from tests.support.webhooks import PLAIN

EVENTS = Path(__file__).resolve().parents[2] / "events"


def test_the_shipped_file_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.main([]) == 0
    assert "github" in capsys.readouterr().out


def test_it_shows_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    file = EVENTS / "hook_github_push.json"
    headers = "X-GitHub-Event: push; X-GitHub-Delivery: d:1"
    assert hook.main(["github", str(file), "--headers", headers]) == 0
    out = capsys.readouterr().out
    assert "🔨 romashka/storefront: a-belova pushed to main" in out
    assert "The delivery's id: d:1" in out


def test_it_tells_what_is_ignored_and_what_is_a_dead_letter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = str(EVENTS / "hook_sentry.json")
    assert hook.main(["github", file]) == 0
    assert "Ignored" in capsys.readouterr().out
    assert hook.main(["plain", file]) == 1
    assert "hook_template" in capsys.readouterr().err


def test_it_shows_what_each_recipient_gets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, payload = tmp_path / "hooks.toml", tmp_path / "payload.json"
    customer = '{ botId = "b1", number = "{{ phone }}" }'
    to = f'[{{ subscriberId = "s1" }}, {customer}]'
    file.write_text(PLAIN.replace('{ subscriberId = "s1" }', to))
    for phone, code in (("+7 916 000 10 01", 0), ("", 1)):
        payload.write_text(json.dumps({"text": "t", "phone": phone}))
        assert hook.main(["plain", str(payload), "--file", str(file)]) == code
        said = capsys.readouterr()
        assert '"subscriberId": "s1"' in said.out
        assert ('"number": "79160001001"' in said.out) is (code == 0)
        assert ("dead letter (hook_template): plain: to.1: number: must" in said.err) is bool(code)


def test_it_names_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text('[a]\nverify = { scheme = "github" }\n')
    assert hook.main(["--file", str(file)]) == 1
    err = capsys.readouterr().err
    assert "a.to: is required" in err
    assert "a.messages: is required" in err


def test_it_needs_a_hook_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert hook.main(["nobody"]) == 1
    assert hook.main(["plain"]) == 1
    assert hook.main(["plain", "/nowhere"]) == 1
    assert "PAYLOAD=" in capsys.readouterr().err
