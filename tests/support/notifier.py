"""Killing the notifier, or another function, in the middle of its work, as a crash would."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from local import processes


def kill_notifier(home: Path, facts: Mapping[str, str]) -> int:
    """Kill the processes in which a stack runs its notifier; return how many there were."""
    return kill(home, facts["notifierFunction"])


def kill(home: Path, function: str) -> int:
    """Kill the processes in which a stack runs a function; return how many there were."""
    killed = 0
    for process in processes.marked(f"{home.resolve()}#"):
        with suppress(psutil.NoSuchProcess):
            if process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == function:
                process.kill()
                killed += 1
    return killed
