"""docs/sandbox.md tried out: its commands, and every fault of its table."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from urllib3.exceptions import HTTPError

from local.sandbox.faults import KINDS, parse
from tests.support.provider_calls import SUBSCRIBER, Caller
from tests.support.sandbox import ROOT, Sandbox

PAGE = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
ROW = re.compile(r"^\| (`.+`) \| .+ \| (yes|no) \| (.*) \|$", re.MULTILINE)


def table() -> Iterator[tuple[str, bool]]:
    """Yield each fault of the page's table as it can be armed, and whether it accepts."""
    for names, accepted, options in ROW.findall(PAGE):
        for name in re.findall(r"`([^`]+)`", names):
            yield name, accepted == "yes"
            if "`accepted`" in options:
                yield f"{name} accepted", True


FAULTS = list(table())


@pytest.fixture(scope="module")
def fresh() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl: apt-get install curl")
def test_the_commands_work_as_they_stand(fresh: Sandbox, tmp_path: Path) -> None:
    assert len(COMMANDS) > 25
    for line in COMMANDS:
        command = line.replace("http://127.0.0.1:4580", fresh.url)
        command = command.replace("http://127.0.0.1:4581", fresh.control_url)
        done = subprocess.run(  # noqa: S602 - the page's own lines
            command.replace("curl ", "curl -sS --max-time 30 ", 1),
            shell=True,
            check=False,
            capture_output=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, (line, done.stderr)
        answer = json.loads(done.stdout or "{}")
        # Only the message marked with a 503 gets an error.
        assert ("error" in answer) == ("[[fault:503" in line), (line, answer)
    assert len(fresh.ledger()) == 0  # emptied by the page
    assert fresh.faults() == []


@pytest.mark.parametrize(("spec", "accepted"), FAULTS)
def test_a_fault_of_the_table_can_be_armed_and_accepts_as_it_says(
    sandbox: Sandbox, spec: str, accepted: bool
) -> None:
    caller, auth = Caller(sandbox), {"user": "10001", "pass": "sandbox-password"}
    if spec == "ban":
        spec += f" chat={SUBSCRIBER} seconds=60"
    sandbox.arm(spec)
    if spec.endswith("-limit"):
        assert caller.send(auth=auth).status == 200
        for path in ("/ledger", "/requests"):
            caller.pool.request("DELETE", f"{sandbox.control_url}{path}")
    try:
        # A short time-out: some of these responses never come.
        response = caller.send(auth=auth, how={"timeout": 0.4, "preload_content": False})
        response.close()
        plain = response.status == 200 and not response.headers.get("Content-Length")
    except HTTPError:
        plain = False
    assert len(sandbox.ledger()) == accepted
    outcomes = sandbox.requests()["outcomes"]
    if spec.startswith("latency"):
        assert outcomes == {"accepted": 1}
    elif spec == "closed":
        assert outcomes == {}
    else:
        assert outcomes == {"fault": 1}
        assert not plain or parse(spec).name in {"endless", "cut-headers"}


def test_every_fault_is_in_the_table_that_was_tried() -> None:
    assert KINDS.keys() <= {spec for spec, _ in FAULTS}
