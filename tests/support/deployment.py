"""The whole stack, deployed for one test session or one scenario on its own ports and files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests

from local import ROOT, processes
from local.stack import Settings, Stack

SCHEDULED_TEXT = "The template's own <aws.scheduler.schedule-arn> of ${AWS::Region}, 🕘"


@dataclass(frozen=True)
class Deployment:
    """What runs, and where; `facts` is what stack.json holds."""

    home: Path
    facts: Mapping[str, str]
    stack: Stack

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

    def client(self, service: str) -> Any:
        """Return a boto3 client of the stack's AWS, with the rights of its owner."""
        session = boto3.Session(self.facts["accessKeyId"], self.facts["secretAccessKey"])
        make: Any = session.client
        return make(
            service, endpoint_url=self.facts["awsEndpoint"], region_name=self.facts["region"]
        )

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Make a request to the API that must succeed, and return what it answers."""
        response = requests.request(
            method,
            self.facts["apiUrl"] + path,
            json=body,
            headers={"x-api-key": self.facts["apiKey"], **headers},
            timeout=60,
        )
        assert response.ok, f"{method} {path}: {response.status_code} {response.text[:300]}"
        return response.json()


@contextmanager
def deployed(
    home: Path,
    parameters: Mapping[str, str],
    *,
    provider_base_url: str = "",
    source: Path = ROOT,
) -> Iterator[Deployment]:
    """Build and deploy the stack, beside whatever else runs here; stop it afterwards."""
    stack = Stack(
        Settings(
            home=home,
            port=processes.free_port(),
            sandbox_port=processes.free_port(),
            provider_base_url=provider_base_url,
            parameters=parameters,
            source=source,
        )
    )
    facts = stack.up()
    try:
        yield Deployment(stack.home, facts, stack)
    finally:
        stack.stop()
