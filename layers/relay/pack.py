"""Make the layer small and quick to start: `python pack.py FOLDER [MAJOR.MINOR]`.

Lambda mounts the layer read-only, so every cold start compiles again what is not compiled in it.
Libraries therefore lose their sources and keep the compiled files; the project's own packages keep
both, so that tracebacks show their lines. Only the runtime's own version of Python (MAJOR.MINOR)
can compile for it; if this machine has none, the sources stay.
"""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OURS = ("relay", "smsgold")

AWS_SERVICES = ("dynamodb", "s3", "scheduler", "secretsmanager", "sqs")
"""The services that the functions call; botocore describes some 400, in 25 MB."""

POWERTOOLS_UTILITIES = ("__init__.py", "data_classes", "jmespath_utils", "typing")
"""What the functions import, directly or by the REST resolver and the logger."""

UNUSED = (
    "*.dist-info",
    "bin",
    "**/*.pyi",
    "**/py.typed",
    "aws_lambda_powertools/event_handler/openapi/swagger_ui",
    "botocore/data/*/*/examples-1.json",
    "botocore/stub.py",  # for tests
    "dateutil/rrule.py",
    "dateutil/zoneinfo",  # duplicates the system's time zones
    "pydantic/experimental",
    "pydantic/mypy.py",
    "pydantic/v1",  # version 1, for code that has not migrated
    "tzdata/zoneinfo/*.tab",  # lists for people who choose a zone
    "tzdata/zoneinfo/tzdata.zi",  # the zones' sources
    "urllib3/contrib/[ps]*.py",  # PyOpenSSL, SOCKS
    "urllib3/contrib/emscripten",  # for browsers
)


def trim(layer: Path) -> None:
    """Remove what no function imports or reads."""
    unused = [path for pattern in UNUSED for path in layer.glob(pattern)]
    unused += _others(layer / "aws_lambda_powertools/utilities", POWERTOOLS_UTILITIES)
    data = layer / "botocore/data"
    unused += [path for path in _others(data, AWS_SERVICES) if path.is_dir()]
    for service in AWS_SERVICES:
        # API versions are dates; botocore uses the latest.
        unused += sorted((data / service).iterdir())[:-1]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for described in data.glob("*/*/service-2.json.gz"):
        described.write_bytes(compressed(json.loads(gzip.decompress(described.read_bytes()))))
    endpoints = data / "endpoints.json"
    known = json.loads(endpoints.read_bytes())
    for partition in known["partitions"]:
        services = partition["services"]
        partition["services"] = {s: services[s] for s in AWS_SERVICES if s in services}
    endpoints.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")


def compressed(service: Any) -> bytes:
    """Return botocore's description of a service without what people would read in it."""
    text = json.dumps(_undocumented(service), separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)  # the same bytes from build to build


def _undocumented(value: Any) -> Any:
    match value:
        case dict():
            # botocore reads some of it, so it is there, and empty. A member may have its name.
            return {
                name: "" if name == "documentation" and isinstance(one, str) else _undocumented(one)
                for name, one in value.items()
            }
        case list():
            return [_undocumented(one) for one in value]
        case _:
            return value


def _others(folder: Path, kept: tuple[str, ...]) -> list[Path]:
    return [path for path in folder.iterdir() if path.name not in kept]


def compile_all(layer: Path, python: str) -> None:
    """Compile every module; keep the sources of the project's own packages only."""
    ours = [layer / package for package in OURS]
    theirs = [path for path in layer.iterdir() if path.name not in OURS]
    # Hash-based and unchecked, because packaging resets the files' times; -b writes a compiled file
    # where it works without its source; -s leaves out this machine's folders.
    base = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    base += ["-s", str(layer), "-p", "/opt/python"]
    subprocess.run([*base, *map(str, ours)], check=True)
    subprocess.run([*base, "-b", *map(str, theirs)], check=True)
    for path in theirs:
        for source in [path] if path.suffix == ".py" else list(path.rglob("*.py")):
            source.unlink()


def interpreter(version: str) -> str | None:
    """Return a Python of this version, or None if this machine has none.

    Candidates are tried by running them: pyenv puts commands on PATH for inactive versions too.
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
        f"\nThere is no Python {version} on this machine, so the layer is built without compiled\n"
        "files. It works, but cold starts take more than twice as long. Install that version\n"
        f"(pyenv install {version}, or uv python install {version}) and build again: with\n"
        "`make build`, or with `sam build --no-cached`.\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
