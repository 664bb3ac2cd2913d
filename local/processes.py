"""Processes of a stack: started with a mark in their environment, found and stopped by it."""

import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

# Every process of a stack carries the stack's mark here and hands it to its own children, so that
# what a killed one leaves behind is found too, and never anything else.
MARK = "SMSGOLD_RELAY_STACK"
STOP_GRACE = 5.0  # seconds between asking to end and killing


def start(
    command: Sequence[str | Path], *, mark: str, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that may outlive this one, its output in a log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked(mark: str) -> list[psutil.Process]:
    """List the running processes whose mark begins like this."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            if process.environ().get(MARK, "").startswith(mark):
                found.append(process)
    return found


def stop(mark: str) -> int:
    """End every process whose mark begins like this; return how many there were."""
    stopped = 0
    while processes := marked(mark):  # again, should one have started another meanwhile
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
    """Tell whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
