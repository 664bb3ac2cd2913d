"""A local AWS for tests that need one and nothing deployed on it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from local import ROOT, aws
from local.processes import free_port

KEY, SECRET = "testing", "made-up"
START_TIMEOUT = 30.0  # seconds


@contextmanager
def ministack(home: Path) -> Iterator[str]:
    """Run MiniStack on a free port; yield its address. It takes the key `KEY`."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (home / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.aws"],
            env=aws.environment(home, port, KEY, SECRET),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MiniStack did not start; see {home / 'ministack.log'}")
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(address: str) -> bool:
    try:
        return aws.get(f"{address}/_ministack/health", KEY, SECRET, timeout=5).ok
    except requests.RequestException:
        return False
