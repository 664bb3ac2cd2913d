"""A function under AWS's Runtime Interface Emulator, as Lambda would run it."""

import os
import platform
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import samcli.local.rapid
import urllib3

from benchmarks.artifact import LAYER, PYTHON
from local.processes import free_port, is_free
from tests.support.poll import until

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
RIE = Path(samcli.local.rapid.__path__[0]) / f"aws-lambda-rie-{ARCHITECTURE}"
INIT_REPORT = r"INIT RTDONE\(status: success\)\n.*INIT REPORT\(durationMs: ([0-9.]+)\)"
INVOKE_REPORT = r"INVOKE RTDONE\(.*duration: ([0-9.]+)ms"
INVOKE_TIMEOUT = 300  # seconds

WHOLE_PROCESSOR = 1769
"""Megabytes with which Lambda gives a function a whole processor; with less it gets a share."""
PERIOD = 0.02
"""Seconds in which a share is kept; what is left of it is not carried over."""
LOOK = 0.0005
"""Seconds between two looks at the processor time that was used."""


def environment(code: Path, layer: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that runs on the runtime's Python."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{code}{os.pathsep}{layer}",
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda's folders are read-only
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        **variables,
    }


@dataclass(frozen=True)
class Spent:
    """The milliseconds that an invocation took: billed, and of a processor."""

    billed: float
    cpu: float


@dataclass(frozen=True)
class Function:
    """A function in a process of its own."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    """What the emulator and the function print."""

    def start(self) -> float:
        """Start the runtime with an event of no kind; return INIT's milliseconds."""
        self._post(b"{}")
        return float(self._logged(INIT_REPORT))

    def warm_up(self, event: bytes) -> None:
        """Start the runtime and invoke the function twice: what comes then is warm."""
        self.start()
        for _ in range(2):
            self.invoke(event)

    def invoke(self, event: bytes, megabytes: int = WHOLE_PROCESSOR) -> Spent:
        """Invoke the function with a memory size's share of a processor."""
        pid = self._runtime().pid
        before = time.clock_gettime(_cpu_clock(pid))
        with _throttled(pid, megabytes / WHOLE_PROCESSOR):
            answer = self._post(event)
        cpu = time.clock_gettime(_cpu_clock(pid)) - before
        assert b"errorMessage" not in answer, answer[:500]
        return Spent(float(self._logged(INVOKE_REPORT)), cpu * 1000)

    def logged_bytes(self) -> int:
        """Return the bytes of the JSON lines that the function itself has logged."""
        return sum(len(line) for line in self.log.open("rb") if line.startswith(b"{"))

    def peak_megabytes(self) -> float:
        """Return the runtime's peak resident memory."""
        status = Path(f"/proc/{self._runtime().pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def _post(self, event: bytes) -> bytes:
        response = urllib3.request(
            "POST", self.url, body=event, retries=False, timeout=INVOKE_TIMEOUT
        )
        return response.data

    def _logged(self, pattern: str) -> str:
        """Return what the last line like this says."""
        log = self.log.read_text(encoding="utf-8", errors="replace")
        found: list[str] = re.findall(pattern, log)
        assert found, log[-800:]
        return found[-1]

    def _runtime(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]


@contextmanager
def emulated(code: Path, variables: Mapping[str, str], layer: Path = LAYER) -> Iterator[Function]:
    """Run a function; its first invocation starts the runtime."""
    port = free_port()
    lambdas = {
        "LAMBDA_TASK_ROOT": str(code),
        "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(INVOKE_TIMEOUT),
        "AWS_REGION": "us-east-1",
        "AWS_SESSION_TOKEN": "benchmark",
    }
    with tempfile.NamedTemporaryFile("ab") as log:
        process = subprocess.Popen(
            [
                *(str(RIE), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
                *("--runtime-api-address", f"127.0.0.1:{free_port()}"),
                *(str(PYTHON), "-m", "awslambdaric", "app.handler"),
            ],
            cwd=code,
            env={**environment(code, layer, variables), **lambdas},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
        try:
            until(lambda: not is_free(port), "emulator", every=0.01)
            yield Function(process, url, Path(log.name))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _cpu_clock(pid: int) -> int:
    """Return Linux's clock of another process's CPU time."""
    return ~pid << 3 | 2


@contextmanager
def _throttled(pid: int, share: float) -> Iterator[None]:
    """Stop and continue a process so that it uses no more than this share of a processor."""
    ended = threading.Event()
    thread = threading.Thread(target=_throttle, args=(pid, share, ended), daemon=True)
    if share < 1:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if share < 1:
            thread.join()


def _throttle(pid: int, share: float, ended: threading.Event) -> None:
    clock = _cpu_clock(pid)
    begins, left = time.monotonic(), share * PERIOD
    used = time.clock_gettime(clock)
    while not ended.wait(LOOK):
        now, was = time.clock_gettime(clock), used
        used = now
        left -= now - was
        if left <= 0:
            os.kill(pid, signal.SIGSTOP)
            while left <= 0:
                begins += PERIOD
                left += share * PERIOD
            ended.wait(max(0.0, begins - time.monotonic()))
            os.kill(pid, signal.SIGCONT)
        elif time.monotonic() >= begins + PERIOD:
            begins, left = time.monotonic(), share * PERIOD
