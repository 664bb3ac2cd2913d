"""The functions as they are deployed, but for this machine, and what they are set against."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pack import interpreter

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".local" / "benchmarks"
RUNTIME = "3.13"
"""The template's."""

BESIDE_THE_FUNCTIONS = ("awslambdaric", "boto3", "requests")
"""What Lambda brings, and the sequential reference's own HTTP library."""


@dataclass(frozen=True)
class Artifact:
    """Folders to start functions from."""

    python: Path
    version: str
    layer: Path
    """The layer as `make build` leaves it: trimmed and compiled."""
    plain: Path
    """The same packages as pip leaves them: whole, and in source only."""
    functions: Path

    @property
    def names(self) -> list[str]:
        """Return the functions' names."""
        return sorted(path.parent.name for path in self.functions.glob("*/app.py"))


def build() -> Artifact:
    """Build everything anew, by the runtime's own Python or, if there is none, by this one."""
    found = interpreter(RUNTIME) or sys.executable
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    environment = HOME / "python"
    python = environment / "bin" / "python"
    bin_ = Path(sys.executable).parent
    _run(str(bin_ / "uv"), "venv", "--quiet", "--seed", "--python", found, str(environment))
    pins = HOME / "requirements.txt"
    pins.write_text(_pins(ROOT / "requirements" / "dev.txt"), encoding="utf-8")
    _run(
        *(str(bin_ / "uv"), "pip", "install", "--quiet", "--python", str(python)),
        *("--compile-bytecode", "--constraint", str(pins), *BESIDE_THE_FUNCTIONS),
    )
    layer, plain = HOME / "layer", HOME / "plain"
    source = ROOT / "layers" / "relay"
    _run(
        *("make", "--silent", "-C", str(source), "build-RelayLayer"),
        *(f"ARTIFACTS_DIR={layer}", f"PYTHON={python}", "LAYER_TARGET=local"),
    )
    _run(
        *(str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"),
        *("--target", str(plain), "-r", str(source / "requirements.txt")),
    )
    for package in ("relay", "smsgold"):
        _copy(source / package, plain / package)
    functions = HOME / "functions"
    for path in (ROOT / "functions").glob("*/app.py"):
        _copy(path.parent, functions / path.parent.name)
    version = _run(str(python), "-c", "import platform; print(platform.python_version())").strip()
    return Artifact(python, version, layer / "python", plain, functions)


def size(*folders: Path) -> int:
    """Return the bytes of all files in these folders."""
    return sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())


def _pins(lock: Path) -> str:
    """Return a lock's versions without its hashes."""
    pin = r"^[a-z0-9][a-z0-9._-]*==[^ ;]+"
    return "\n".join(re.findall(pin, lock.read_text(encoding="utf-8"), re.MULTILINE))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _run(*command: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, env=inherited, capture_output=True, check=False, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
