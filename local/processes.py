"""Start a stack's processes with a mark in their environment; find and stop them by it."""

import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from local import ROOT

# The environment variable that holds the mark. Children inherit it, so the orphans of a killed
# process are found as well, and never a process of another program.
MARK = "SMSGOLD_RELAY_STACK"
STOP_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


def start(
    command: Sequence[str | Path], *, mark: str, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process in this checkout that may outlive this one; its output goes to a log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**environment, MARK: mark},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked(mark: str) -> list[psutil.Process]:
    """Return the running processes whose mark starts with this."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


def stop(mark: str) -> int:
    """Stop every process whose mark starts with this; return how many there were."""
    stopped = 0
    while processes := marked(mark):  # until none has started another in the meantime
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, stubborn = psutil.wait_procs(processes, timeout=STOP_GRACE)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=STOP_GRACE)
        stopped += len(processes)
    return stopped


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
