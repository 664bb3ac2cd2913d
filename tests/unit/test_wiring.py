"""What only the putting together of the parts decides."""

import logging
from typing import Any

import pytest

from relay import wiring
from relay.messages.dispatch import RENEW_SECONDS, SETTLE_SECONDS
from relay.messages.store import TABLE_SECONDS
from smsgold.errors import CredentialsError
from tests.support.template import settings


@pytest.mark.parametrize(
    ("make", "arguments", "secret"),
    [
        (wiring.credentials, (), '{"user": "10001", "pass": "a password"}'),
        (wiring.hook_secrets, (frozenset({"github"}),), '{"github": "a-long-enough-secret"}'),
    ],
    ids=["credentials", "hook secrets"],
)
def test_a_secret_that_cannot_be_read_anew_is_told(
    make: Any,
    arguments: Any,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    answers = [secret]

    def fetch() -> str:
        if not answers:
            raise CredentialsError("the secret cannot be read: AccessDenied")
        return answers.pop()

    monkeypatch.setattr(wiring, "_aws", lambda *_: None)
    monkeypatch.setattr(wiring, "from_secrets_manager", lambda *_: fetch)
    make.cache_clear()
    source = make(*arguments)
    held = source.get()
    with caplog.at_level(logging.WARNING):
        assert source.renew(held) is None
    make.cache_clear()

    assert source.get() == held
    [told] = caplog.records
    assert told.__dict__["reason"] == "the secret cannot be read: AccessDenied"
    assert "a password" not in caplog.text


def test_the_name_of_a_secret_that_no_hook_has_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be a secret in the wrong place."""
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    secrets = '{"github": "a-long-enough-secret", "a-misplaced-secret": "x"}'
    monkeypatch.setattr(wiring, "_aws", lambda *_: None)
    monkeypatch.setattr(wiring, "from_secrets_manager", lambda *_: lambda: secrets)
    wiring.hook_secrets.cache_clear()
    with caplog.at_level(logging.DEBUG):
        wiring.hook_secrets(frozenset({"github"})).get()
    wiring.hook_secrets.cache_clear()

    [told] = caplog.records
    assert (told.getMessage(), told.__dict__["count"]) == ("secrets for unknown hooks", 1)
    assert "misplaced" not in str(told.__dict__)


def longest(config: Any) -> float:
    """Return what one call may take: each try's time-outs, and the waits between the tries.

    botocore's standard mode waits up to 1, 2, 4 … 20 s.
    """
    tries = config.retries["total_max_attempts"]
    waits = sum(min(2.0**i, 20.0) for i in range(tries - 1))
    return float(tries * (config.connect_timeout + config.read_timeout) + waits)


@pytest.mark.parametrize(
    ("client", "seconds"),
    [
        (wiring._dynamodb, TABLE_SECONDS),
        (lambda: wiring._aws("secretsmanager", wiring.SECRET_CONFIG), RENEW_SECONDS),
    ],
    ids=["the table", "a secret"],
)
def test_a_call_takes_no_longer_than_a_run_reckons_with(
    client: Any, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings().items():
        monkeypatch.setenv(name, value)
    assert longest(client().meta.config) <= seconds


def test_an_outcome_can_be_recorded_in_the_time_kept_for_it() -> None:
    assert TABLE_SECONDS <= SETTLE_SECONDS
