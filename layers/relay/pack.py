"""Make the layer small and quick to start: `python pack.py FOLDER [MAJOR.MINOR]`.

Lambda mounts the layer read-only: whatever it does not hold compiled is compiled again by every
cold start. The libraries are therefore left as compiled files alone, without their sources, and
the project's own packages as both, so that a traceback shows their lines. Only the runtime's own
version of Python (MAJOR.MINOR) can compile for it; where this machine has none, the sources stay.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OURS = ("relay", "smsgold")

AWS_SERVICES = ("dynamodb", "scheduler", "secretsmanager", "sqs")
"""What the functions call. botocore describes some 400 services, in 25 MB."""

POWERTOOLS_UTILITIES = ("__init__.py", "data_classes", "jmespath_utils", "typing")
"""What the functions import, and what the REST resolver and the logger import for it."""

UNUSED = (
    "*.dist-info",
    "bin",
    "**/*.pyi",
    "**/py.typed",
    "aws_lambda_powertools/event_handler/openapi/swagger_ui",
    "botocore/data/*/*/examples-1.json",
    "dateutil/zoneinfo",  # a copy of the system's time zones
    "pydantic/mypy.py",
    "pydantic/v1",  # version 1, for code that has not moved on
    "urllib3/contrib/emscripten",  # for browsers
)


def trim(layer: Path) -> None:
    """Remove what no function imports or reads."""
    unused = [path for pattern in UNUSED for path in layer.glob(pattern)]
    unused += _others(layer / "aws_lambda_powertools/utilities", POWERTOOLS_UTILITIES)
    data = layer / "botocore/data"
    unused += [path for path in _others(data, AWS_SERVICES) if path.is_dir()]
    for service in AWS_SERVICES:
        # An API's versions are dates; botocore uses the latest.
        unused += sorted((data / service).iterdir())[:-1]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    endpoints = data / "endpoints.json"
    known = json.loads(endpoints.read_bytes())
    for partition in known["partitions"]:
        services = partition["services"]
        partition["services"] = {s: services[s] for s in AWS_SERVICES if s in services}
    endpoints.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")


def _others(folder: Path, kept: tuple[str, ...]) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in kept]


def compile_all(layer: Path, python: str) -> None:
    """Compile every module; keep the sources of the project's own packages only."""
    ours = [layer / package for package in OURS]
    theirs = [path for path in layer.iterdir() if path.name not in OURS]
    # Hash-based and unchecked, because packing resets the files' times; -b puts a compiled file in
    # its source's place; -s leaves this machine's folder names out.
    base = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    base += ["-s", str(layer), "-p", "/opt/python"]
    subprocess.run([*base, *map(str, ours)], check=True)
    subprocess.run([*base, "-b", *map(str, theirs)], check=True)
    for path in theirs:
        for source in [path] if path.suffix == ".py" else list(path.rglob("*.py")):
            source.unlink()


def interpreter(version: str) -> str | None:
    """Return a Python of this version, or None if this machine has none.

    A candidate is tried by running it: pyenv leaves commands on PATH for Pythons that are not
    active, which it can name itself.
    """
    for candidate in _candidates(version):
        if _output(candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    yield f"python{version}"
    if prefix := _output("pyenv", "prefix", version):
        yield f"{prefix}/bin/python"
    if found := _output("uv", "python", "find", "--no-project", "--offline", version):
        yield found


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(folder: str, version: str = f"{sys.version_info[0]}.{sys.version_info[1]}") -> None:
    """Trim and compile a layer for a version of Python."""
    layer = Path(folder)
    trim(layer)
    if python := interpreter(version):
        compile_all(layer, python)
        return
    print(
        f"\nNo Python {version} on this machine: the layer is built without compiled files.\n"
        "It works, but a cold start takes more than twice as long. Install it\n"
        f"(pyenv install {version}, or uv python install {version}) and build again.\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
