"""What only the putting together of the parts decides."""

import logging
from typing import Any

import pytest

from relay import wiring
from smsgold.errors import CredentialsError
from tests.support.template import settings


@pytest.mark.parametrize(
    ("make", "secret"),
    [
        (wiring.credentials, '{"user": "10001", "pass": "a password"}'),
        (wiring.hook_secrets, '{"github": "a-long-enough-secret"}'),
    ],
    ids=["credentials", "hook secrets"],
)
def test_a_secret_that_cannot_be_read_anew_is_told(
    make: Any,
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

    monkeypatch.setattr(wiring, "_aws", lambda _: None)
    monkeypatch.setattr(wiring, "from_secrets_manager", lambda *_: fetch)
    make.cache_clear()
    source = make()
    held = source.get()
    with caplog.at_level(logging.WARNING):
        assert source.renew(held) is None
    make.cache_clear()

    assert source.get() == held
    [told] = caplog.records
    assert told.__dict__["reason"] == "the secret cannot be read: AccessDenied"
    assert "a password" not in caplog.text
