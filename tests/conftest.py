"""What all tiers share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# `make mutants` wants to know that a test fails, not the shortest way there.
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])

END_TO_END = Path(__file__).parent.name + "/e2e/"


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it ships no types
    """Hands the end-to-end tests, which share a deployment, to one process, and others by file."""

    def _split_scope(self, nodeid: str) -> str:
        return END_TO_END if nodeid.startswith(END_TO_END) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Say how `make test` shares the tests out between its processes.

    The end-to-end ones, which take longest, begin at once: it keeps the order of the folders.
    """
    return Scheduling(config, log)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Start a real browser; while it is there, nothing can call asyncio.run."""
    from tests.support.browser import CHROMIUM, chromium  # noqa: PLC0415 - slow, and for few tests

    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    with chromium() as browser:
        yield browser
