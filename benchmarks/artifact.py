"""The functions as they are deployed, but built for this machine, and what they are set against."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT
from pack import interpreter

HOME = ROOT / ".local" / "benchmarks"
PYTHON = HOME / "python" / "bin" / "python"
"""The runtime's, with what Lambda brings."""
LAYER = HOME / "layer" / "python"
"""The layer as `make build` leaves it: trimmed and compiled."""
PLAIN = HOME / "plain"
"""The same packages as pip leaves them: whole, and in source only."""
FUNCTIONS = HOME / "functions"
EMPTY = HOME / "empty"
"""A function that does nothing: what the runtime itself takes to start."""

SOURCE = ROOT / "layers" / "relay"
RUNTIME = "3.13"
"""The template's."""
BESIDE_THE_FUNCTIONS = ("awslambdaric", "boto3", "requests", "aiohttp")
"""What Lambda brings, and the HTTP libraries of the sequential reference and of the peer."""


def build() -> str:
    """Build everything anew; return the version of the runtime's Python, or of what stands in."""
    shutil.rmtree(HOME, ignore_errors=True)
    uv, home = str(Path(sys.executable).with_name("uv")), PYTHON.parents[1]
    found = interpreter(RUNTIME) or sys.executable
    _run(uv, "venv", "--quiet", "--seed", "--python", found, str(home))
    lock = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    pins = HOME / "pins.txt"  # the lock without its hashes
    pins.write_text("\n".join(re.findall(r"^[a-z0-9][\w.-]*==[^ ;]+", lock, re.MULTILINE)), "utf-8")
    _run(
        *(uv, "pip", "install", "--quiet", "--python", str(PYTHON), "--compile-bytecode"),
        *("--constraint", str(pins), *BESIDE_THE_FUNCTIONS),
    )
    _run(
        *("make", "--silent", "-C", str(SOURCE), "build-RelayLayer", "LAYER_TARGET=local"),
        *(f"ARTIFACTS_DIR={LAYER.parent}", f"PYTHON={PYTHON}"),
    )
    _run(
        *(str(PYTHON), "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"),
        *("--target", str(PLAIN), "-r", str(SOURCE / "requirements.txt")),
    )
    for package in ("relay", "smsgold"):
        _copy(SOURCE / package, PLAIN / package)
    for path in (ROOT / "functions").glob("*/app.py"):
        _copy(path.parent, FUNCTIONS / path.parent.name)
    EMPTY.mkdir()
    (EMPTY / "app.py").write_text("def handler(event, context): pass\n", "utf-8")
    return _run(str(PYTHON), "-V").split()[1]


def size(*folders: Path) -> int:
    """Return the bytes of all files in these folders."""
    return sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _run(*command: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, env=inherited, capture_output=True, check=False, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
