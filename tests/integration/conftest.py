"""What the integration tests share."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.support.fanned import Fanned
from tests.support.sandbox import Sandbox


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """Return the session's sandbox, as good as new except for added bots."""
    running_sandbox.forget()
    running_sandbox.set_passwords(["sandbox-password"], user="10001")
    return running_sandbox


@pytest.fixture
def fanned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fanned]:
    """Broadcasts and their fan-out on a table that is new."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield Fanned()
