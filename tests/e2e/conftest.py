"""One deployment for all end-to-end tests: its own ports and files, whatever else runs here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from local import processes
from local.stack import Settings, Stack

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",  # a container's root has no user namespace to build one in
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
ALARM_RECIPIENT = "65f1c0a2b3d4e5f6a7b8d203"
SCHEDULED_TEXT = "The template's own <aws.scheduler.schedule-arn> of ${AWS::Region}, 🕘"
PARAMETERS = {
    # Retries that a test can wait for.
    "BackoffMin": "1",
    "BackoffMax": "2",
    "ScheduleExpression": "rate(1 minute)",
    "ScheduleMessage": json.dumps(
        {"message": {"subscriberId": "65f1c0a2b3d4e5f6a7b8d101", "text": SCHEDULED_TEXT}}
    ),
    "AlarmRecipientSubscriberId": ALARM_RECIPIENT,
    # There, but not meddling with the tests: one of them invokes it.
    "CanarySchedule": "cron(0 0 1 1 ? 2099)",
}


@dataclass(frozen=True)
class Deployment:
    """What runs, and where; `facts` is what stack.json holds."""

    home: Path
    facts: Mapping[str, str]

    def logs(self) -> str:
        """Return everything that any process of the stack has logged so far."""
        return "".join(
            log.read_text(encoding="utf-8", errors="replace")
            for log in sorted(self.home.glob("*.log"))
        )

    def aws(self, *arguments: str) -> Any:
        """Run the AWS CLI against the stack and return what it answers, None for nothing."""
        done = subprocess.run(
            [
                Path(sys.executable).with_name("aws"),
                *("--endpoint-url", self.facts["awsEndpoint"], "--output", "json"),
                *arguments,
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "LANG": "C.UTF-8",
                "AWS_ACCESS_KEY_ID": self.facts["accessKeyId"],
                "AWS_SECRET_ACCESS_KEY": self.facts["secretAccessKey"],
                "AWS_DEFAULT_REGION": self.facts["region"],
            },
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, so that `-m "not e2e"` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Build and deploy once; stop it after the last test."""
    stack = Stack(
        Settings(
            home=tmp_path_factory.mktemp("stack"),
            port=processes.free_port(),
            sandbox_port=processes.free_port(),
            parameters=PARAMETERS,
        )
    )
    facts = stack.up()
    try:
        yield Deployment(stack.home, facts)
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a real browser."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()
