"""What the integration tests share."""

from collections.abc import Iterator

import pytest

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
