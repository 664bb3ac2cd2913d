"""What a function writes reaches both MiniStack and the stack's own file."""

import os
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).parents[2] / "local" / "worker"


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(WORKER), **environment},
        capture_output=True,
        check=False,
        text=True,
    )


def test_a_functions_last_words_are_in_the_file(tmp_path: Path) -> None:
    log = tmp_path / "functions.log"
    program = "import os, sys; print('до свидания', file=sys.stderr); os._exit(3)"

    first = run(program, AWS_LAMBDA_FUNCTION_NAME="sender", FUNCTIONS_LOG=str(log))
    run(program, AWS_LAMBDA_FUNCTION_NAME="sender", FUNCTIONS_LOG=str(log))

    assert first.returncode == 3
    assert first.stderr == "до свидания\n"
    assert log.read_text(encoding="utf-8") == "до свидания\nдо свидания\n"


def test_a_traceback_is_in_the_file(tmp_path: Path) -> None:
    log = tmp_path / "functions.log"

    run("1 / 0", AWS_LAMBDA_FUNCTION_NAME="sender", FUNCTIONS_LOG=str(log))

    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")


def test_other_processes_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "functions.log"

    done = run("import sys; print('hello', file=sys.stderr)", FUNCTIONS_LOG=str(log))

    assert done.stderr == "hello\n"
    assert not log.exists()
