"""The Makefile passes on what it is given as text: neither make nor the shell runs any of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
HOSTILE = (
    'it\'s "50 %" $(shell touch marker) `touch marker` $HOME ${HOME}; touch marker # <&|>, a) '
    "$$(touch marker) \\ $@ é"
)
STUB = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], dict(os.environ)]) + "\\n")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the Makefile, and with tools that write down how they are called."""
    shutil.copy(MAKEFILE, tmp_path)
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "sam", "aws", "uv"):
        tool = tools / name
        tool.write_text(STUB.format(python=sys.executable, calls=str(tmp_path / "calls")))
        tool.chmod(0o755)
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    for name in ("uv.txt", "dev.txt"):
        (requirements / name).touch()
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def called(
    project: Path, *arguments: str, **variables: str
) -> list[tuple[str, list[str], dict[str, str]]]:
    """Run make; return the calls of its tools: name, arguments, environment."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(project), **variables}
    done = subprocess.run(
        ["make", "-s", *arguments],  # noqa: S607 - the one on PATH, as people run it
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not (project / "marker").exists()
    return [json.loads(line) for line in (project / "calls").read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("target", "variable", "argument"),
    [
        ("hook", "NAME", "{}"),
        ("hook", "PAYLOAD", "{}"),
        ("hook", "HEADERS", "--headers={}"),
        ("broadcast", "TEXT", "--text={}"),
        ("broadcast", "MORE", "--more={}"),
        ("soak", "MINUTES", "{}"),
        ("deploy", "STAGE", "{}"),
        *((name, "STAGE", "--stack=smsgold-relay-{}") for name in ("env", "doctor", "remove")),
        *((name, "STACK", "--stack={}") for name in ("secret", "redrive", "dead-letters")),
        ("hook-secret", "STACK", "--stack={}"),
        ("hook-secret", "NAME", "--name={}"),
        ("hook-secret", "DROP_OLD", "--drop-old"),
        ("doctor", "THOROUGH", "--thorough"),
        ("run", "RAW", "--raw"),
        ("dead-letters", "MAX", "--max={}"),
        ("find", "REFERENCE", "--reference={}"),
        ("find", "STATUS", "--status={}"),
        ("find", "MAX", "--max={}"),
        ("find", "STACK", "--stack={}"),
        ("redrive", "QUEUE", "--queue={}"),
        ("redrive", "REASON", "--reason={}"),
        ("redrive", "MAX", "--max={}"),
        ("redrive", "APPLY", "--apply"),
    ],
)
def test_a_value_reaches_its_command_as_it_was_given(
    project: Path, target: str, variable: str, argument: str
) -> None:
    calls = called(project, target, f"{variable}={HOSTILE}")
    assert argument.replace("{}", HOSTILE) in [each for _, given, _ in calls for each in given]


@pytest.mark.parametrize(
    "variable", ["PORT", "SANDBOX_PORT", "PROVIDER_BASE_URL", "TEMPLATE_PARAMETERS"]
)
def test_the_local_stacks_settings_reach_it_as_they_were_given(
    project: Path, variable: str
) -> None:
    [(_, _, environment)] = called(project, "up", f"{variable}={HOSTILE}")
    assert environment[variable] == HOSTILE


def test_without_values_a_command_gets_none(project: Path) -> None:
    for target in ("hook", "broadcast", "soak", "doctor", "redrive", "up", "deploy"):
        called(project, target)
    calls = [given for _, given, _ in called(project, "env")]
    assert [" ".join(each[1:]) for each in calls[:6]] == [
        "local.hook --headers=",
        "local.broadcast",
        "scenarios soak",
        "ops doctor",
        "ops redrive",
        "local.stack up",
    ]
    assert ["-m", "ops", "deploy", "dev"] in calls


def test_a_stage_in_the_environment_chooses_no_stack(project: Path) -> None:
    """Only what is written on the command line may name a stack on AWS."""
    assert called(project, "env", STAGE="prod")[-1][1][-1] == "env"
    assert called(project, "env", "STAGE=prod")[-1][1][-1] == "--stack=smsgold-relay-prod"
    assert called(project, "env", "STAGE=prod", STACK="x")[-1][1][-1] == "--stack=x"


def test_the_audit_reads_every_lock_file(project: Path) -> None:
    names = {path.name for path in (MAKEFILE.parent / "requirements").glob("*.txt")}
    for name in names:
        (project / "requirements" / name).touch()
    (project / ".venv" / ".installed").touch()
    given = {arguments[-1] for _, arguments, _ in called(project, "audit")}
    assert given == {"layers/relay/requirements.txt", *(f"requirements/{name}" for name in names)}


def test_every_value_that_help_names_is_taken_as_text() -> None:
    text = MAKEFILE.read_text("utf-8")
    help_ = "\n".join(re.findall(r"^[a-z-]+:.*## .*", text, re.MULTILINE))
    named = set(re.findall(r"\b([A-Z_]+)=", help_))
    [given] = re.findall(r"^GIVEN := ((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert named - {"ARGS"} <= set(given.replace("\\", "").split())
