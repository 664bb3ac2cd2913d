"""A function under AWS's Runtime Interface Emulator, as Lambda would run it."""

import os
import platform
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import samcli.local.rapid
import urllib3

from benchmarks.throttle import throttled

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
RIE = Path(samcli.local.rapid.__path__[0]) / f"aws-lambda-rie-{ARCHITECTURE}"
INVOCATION = "/2015-03-31/functions/function/invocations"
START_TIMEOUT = 30.0  # seconds

INIT_REPORT = r"INIT RTDONE\(status: success\)\n.*INIT REPORT\(durationMs: ([0-9.]+)\)"


class EmulatorError(Exception):
    """The function did not start or did not answer as it should."""


@dataclass(frozen=True)
class Invocation:
    """What one invocation answered and took."""

    answer: bytes
    milliseconds: float
    cpu_milliseconds: float


class Function:
    """A function in a process of its own: started by the first invocation, ended with the block."""

    def __init__(
        self,
        python: Path,
        code: Path,
        *,
        layer: Path | None = None,
        environment: Mapping[str, str],
        timeout: int = 300,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the function
        self._port, api_port = _free_ports(2)
        self._http = urllib3.PoolManager(retries=False, timeout=timeout)
        path = os.pathsep.join(str(part) for part in (code, layer) if part)
        self._process = subprocess.Popen(
            [
                *(str(RIE), "--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"),
                *("--runtime-api-address", f"127.0.0.1:{api_port}"),
                *(str(python), "-m", "awslambdaric", "app.handler"),
            ],
            cwd=code,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "PYTHONPATH": path,
                "PYTHONDONTWRITEBYTECODE": "1",  # a function's own folder is read-only
                "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "benchmark",
                "AWS_SECRET_ACCESS_KEY": "benchmark",
                "AWS_SESSION_TOKEN": "benchmark",
                **environment,
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__(None, None, None)
                    raise EmulatorError(self.log()[-800:]) from None
                time.sleep(0.01)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._http.clear()

    def start(self) -> float:
        """Start the function's environment by an event of no kind; return INIT's milliseconds."""
        self._post(b"{}")
        if not (found := re.search(INIT_REPORT, self.log())):
            raise EmulatorError(self.log()[-800:])
        return float(found[1])

    def invoke(self, event: bytes = b"{}") -> Invocation:
        """Invoke the function; raise EmulatorError if it fails."""
        cpu = self._cpu()
        began = time.perf_counter()
        response = self._post(event)
        milliseconds = (time.perf_counter() - began) * 1000
        if b"errorMessage" in response.data or response.status != 200:
            raise EmulatorError(f"{response.data[:500]!r}\n{self.log()[-800:]}")
        return Invocation(response.data, milliseconds, self._cpu() - cpu)

    def _post(self, event: bytes) -> urllib3.BaseHTTPResponse:
        return self._http.request("POST", f"http://127.0.0.1:{self._port}{INVOCATION}", body=event)

    def throttled(self, share: float) -> AbstractContextManager[None]:
        """Give the started runtime this share of a processor only, until the block ends."""
        return throttled(self._runtime().pid, share)

    def log(self) -> str:
        """Return everything the emulator and the function have printed."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def logged_bytes(self) -> int:
        """Return the bytes of the lines of JSON that the function itself has logged."""
        lines = self.log().splitlines()
        return sum(len(line.encode()) + 1 for line in lines if line.startswith("{"))

    def billed_milliseconds(self) -> list[float]:
        """Return each invocation's own duration in the runtime, as the emulator reports it."""
        return [float(d) for d in re.findall(r"INVOKE RTDONE\(.*duration: ([0-9.]+)ms", self.log())]

    def peak_megabytes(self) -> float:
        """Return the runtime's peak resident memory."""
        status = Path(f"/proc/{self._runtime().pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def _runtime(self) -> psutil.Process:
        children = psutil.Process(self._process.pid).children()
        if not children:
            raise EmulatorError(self.log()[-800:])
        return children[0]

    def _cpu(self) -> float:
        """Return the runtime's CPU time so far in milliseconds; 0 before it has started."""
        try:
            times = self._runtime().cpu_times()
        except EmulatorError:
            return 0.0
        return float(times.user + times.system) * 1000


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
