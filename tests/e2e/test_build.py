"""What is deployed to AWS is Lambda's, whatever Python and processor build it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AARCH64 = 183  # e_machine in an ELF header


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as `make build` does, into a folder of its own."""
    folder = tmp_path_factory.mktemp("aws")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("sam"), "build"),
            *("--build-dir", folder / "build", "--cache-dir", folder / "cache"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable, "LAYER_TARGET": "", "MAKEFLAGS": ""},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "build"


def test_the_layers_compiled_parts_are_for_lambdas_python_and_processor(built: Path) -> None:
    modules = list((built / "RelayLayer" / "python").rglob("*.so"))

    assert modules, "pydantic has a compiled core"
    for module in modules:
        assert module.name.endswith(".cpython-313-aarch64-linux-gnu.so")
        assert int.from_bytes(module.read_bytes()[18:20], "little") == AARCH64


def test_the_layer_holds_the_two_packages_and_what_they_stand_on(built: Path) -> None:
    packages = {entry.name for entry in (built / "RelayLayer" / "python").iterdir()}

    assert packages >= {"relay", "smsgold", "aws_lambda_powertools", "pydantic", "urllib3"}
    assert not packages & {"boto3", "botocore"}, "the Lambda runtime brings its own"


def test_no_file_compiled_by_another_python_is_shipped(built: Path) -> None:
    foreign = [path for path in built.rglob("*.pyc") if not path.name.endswith(".cpython-313.pyc")]

    assert not foreign, sys.version
