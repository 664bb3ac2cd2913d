"""What is deployed to AWS is Lambda's, whatever Python and processor build it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pack import interpreter

ROOT = Path(__file__).parents[2]
AARCH64 = 183  # e_machine in an ELF header
PYTHON_3_13 = (3571).to_bytes(2, "little") + b"\r\n"  # a compiled file's first bytes


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
    assert "boto3" not in packages


def test_the_artifact_is_small(built: Path) -> None:
    layer = sum(path.stat().st_size for path in built.rglob("*") if path.is_file())
    functions = sum(path.stat().st_size for path in (ROOT / "functions").glob("*/*.py"))

    assert layer + functions < 12_000_000, "see layers/relay/pack.py for what it leaves out"


def test_the_layer_is_compiled_by_lambdas_python_or_not_at_all(built: Path) -> None:
    compiled = list((built / "RelayLayer").rglob("*.pyc"))
    layer = built / "RelayLayer" / "python"

    assert {path.read_bytes()[:4] for path in compiled} <= {PYTHON_3_13}, sys.version
    if interpreter("3.13") is None:
        pytest.skip("nothing is compiled without a Python 3.13; install one")
    unchecked_hash = (1).to_bytes(4, "little")
    assert {path.read_bytes()[4:8] for path in compiled} == {unchecked_hash}
    sources = {path.relative_to(layer).parts[0] for path in layer.rglob("*.py")}
    assert sources == {"relay", "smsgold"}, "libraries are shipped compiled alone"
    uncompiled = [
        path
        for path in layer.rglob("*.py")
        if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").exists()
    ]
    assert not uncompiled
