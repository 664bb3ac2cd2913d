"""What a measured function finds around it: the stub and its settings."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from samcli.yamlhelper import yaml_parse

from benchmarks.artifact import HOME, ROOT

PROVIDER_PATH = "/v1/telegram/bot"
ACCOUNT = "123456789012"


def settings(aws: str = "http://127.0.0.1:9") -> dict[str, str]:
    """Return the environment variables that the template gives the functions, all of them.

    A parameter is its default; a queue's address lies at `aws`; of other resources it is the name.
    """
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    resources = template["Resources"]
    functions = [template["Globals"]["Function"], *(r["Properties"] for r in resources.values())]
    found: dict[str, str] = {}
    for function in functions:
        for name, value in function.get("Environment", {}).get("Variables", {}).items():
            found[name] = _value(value, template["Parameters"], resources, aws)
    return found


def _value(value: Any, parameters: Any, resources: Any, aws: str) -> str:
    if not isinstance(value, dict):
        return str(value)
    ((_, target),) = value.items()
    name = target[0] if isinstance(target, list) else str(target).partition(".")[0]
    if name in parameters:
        return str(parameters[name]["Default"])
    if resources.get(name, {}).get("Type") == "AWS::SQS::Queue" and "Ref" in value:
        return f"{aws}/{ACCOUNT}/{name}"
    return name


@dataclass(frozen=True)
class Stub:
    """A running stub."""

    provider: str
    aws: str
    certificate: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings of a function that talks to it."""
        return {
            **settings(self.aws),
            "PROVIDER_BASE_URL": f"{self.provider}{PROVIDER_PATH}",
            "AWS_ENDPOINT_URL": self.aws,
            "SSL_CERT_FILE": self.certificate,
        }

    def counts(self) -> dict[str, int]:
        """Return what it was asked for since the last reset."""
        return dict(self._get("GET", "/counts"))

    def bodies(self) -> list[str]:
        """Return the bodies that were put on the queue since this was last asked."""
        return list(self._get("GET", "/bodies"))

    def reset(self) -> None:
        """Forget the counts and the table's items."""
        self._get("POST", "/reset")

    def _get(self, method: str, path: str) -> Any:
        return urllib3.request(method, self.aws + path).json()


@contextmanager
def stub(*, provider: float = 0.1, aws: float = 0.005) -> Iterator[Stub]:
    """Run a stub with these latencies, in seconds."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.stub"),
            *("--provider-latency", str(provider), "--aws-latency", str(aws)),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        facts = json.loads(process.stdout.readline())
        yield Stub(facts["provider"], facts["aws"], str(_bundle(facts["certificate"])))
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _bundle(certificate: str) -> Path:
    """Add the stub's authority to the system's: a function loads all of them, as it would there."""
    system = ssl.get_default_verify_paths().cafile or os.devnull
    bundle = HOME / f"certificates-{Path(certificate).parent.name}.pem"
    HOME.mkdir(parents=True, exist_ok=True)
    content = Path(system).read_bytes() + Path(certificate).read_bytes()
    bundle.write_bytes(content)
    return bundle
