"""One deployment for all end-to-end tests: its own ports and files, whatever else runs here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import SCHEDULED_TEXT, Deployment, deployed
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader

PARAMETERS = {
    # Retries that a test can wait for.
    "BackoffMin": "1",
    "BackoffMax": "2",
    "Events": "all",
    "ScheduleExpression": "rate(1 minute)",
    "ScheduleMessage": json.dumps(
        {"message": {"subscriberId": "65f1c0a2b3d4e5f6a7b8d101", "text": SCHEDULED_TEXT}}
    ),
    # There, but not meddling with the tests: one of them invokes it.
    "CanarySchedule": "cron(0 0 1 1 ? 2099)",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, so that `-m "not e2e"` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Build and deploy once; stop it after the last test."""
    with deployed(tmp_path_factory.mktemp("stack"), PARAMETERS) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def sandbox(deployment: Deployment) -> Iterator[Sandbox]:
    """Return the deployment's provider; no fault outlasts the module."""
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    yield sandbox
    sandbox.clear()


@pytest.fixture(scope="module")
def reader(deployment: Deployment) -> Reader:
    """Return what reads the evidence of the deployment's promises."""
    return Reader(deployment.facts, deployment.home)
