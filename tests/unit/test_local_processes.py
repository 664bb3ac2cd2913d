"""Processes of a stack are found and ended by their mark, and no others."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
# A parent whose child outlives it, as a killed server's function processes do.
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).wait()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.stop(f"{tmp_path}#")


def started(
    home: Path, program: str = SLEEPER, *, of: Path | None = None
) -> subprocess.Popen[bytes]:
    log = home / f"{time.monotonic_ns()}.log"
    process = processes.start(
        [sys.executable, "-c", program], mark=f"{of or home}#1", log=log, environment=os.environ
    )
    while not log.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_what_runs_is_listed_and_stopped(home: Path) -> None:
    first, second = started(home), started(home)

    assert {process.pid for process in processes.marked(f"{home}#")} == {first.pid, second.pid}
    assert processes.stop(f"{home}#") == 2
    for process in (first, second):
        process.wait()
    assert not processes.marked(f"{home}#")
    assert processes.stop(f"{home}#") == 0


def test_the_orphan_of_a_killed_process_is_stopped(home: Path) -> None:
    parent = started(home, PARENT)
    (child,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert child.is_running()

    assert processes.stop(f"{home}#") == 1

    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_will_not_end_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_GRACE", 0.2)
    deaf = started(home, DEAF)

    processes.stop(f"{home}#")

    assert deaf.wait() in {-signal.SIGKILL, 0}  # 0: its end was collected by psutil


def test_another_stacks_processes_are_left_alone(home: Path, tmp_path: Path) -> None:
    neighbour = started(home, of=tmp_path / "stack2")

    try:
        assert processes.stop(f"{tmp_path / 'stack'}#") == 0
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def test_a_port_is_free_until_something_listens_on_it() -> None:
    port = processes.free_port()
    assert processes.is_free(port)

    with socket.create_server(("127.0.0.1", port)):
        assert not processes.is_free(port)

    assert processes.is_free(port)


def test_a_port_taken_on_every_interface_is_taken_on_loopback() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - that is the point
        assert not processes.is_free(server.getsockname()[1])
