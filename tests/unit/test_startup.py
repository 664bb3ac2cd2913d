"""What a cold start pays for: the imports of each function, and the garbage collector meanwhile."""

import ast
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pack
from tests.support.template import settings

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))

ENVIRONMENT = {
    **settings(),
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}

LOOK = """
import gc, json, sys
import app
print(json.dumps([sorted(sys.modules), gc.isenabled(), gc.get_freeze_count()]))
"""

NOBODYS = {"boto3", "s3transfer", "requests", "aws_xray_sdk", "multiprocessing", "pydantic.v1"}
"""Modules that no function imports: each would cost every cold start milliseconds for nothing."""

ROUTERS = {"aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.data_classes"}
"""What only a function behind the REST API needs."""


@pytest.fixture(scope="module", params=FUNCTIONS)
def started(request: pytest.FixtureRequest) -> tuple[str, set[str], bool, int]:
    """Import a function as Lambda does, in a fresh process; return what that left behind."""
    name: str = request.param
    path = os.pathsep.join([str(ROOT / "functions" / name), str(ROOT / "layers" / "relay")])
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**ENVIRONMENT, "PYTHONPATH": path, "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modules, collecting, frozen = json.loads(done.stdout)
    return name, set(modules), collecting, frozen


def test_a_function_imports_only_what_it_uses(
    started: tuple[str, set[str], bool, int],
) -> None:
    name, modules, _, _ = started
    forbidden = NOBODYS if name == "api" else NOBODYS | ROUTERS

    assert "relay.wiring" in modules or name == "publisher"
    assert not modules & forbidden


def test_the_publisher_imports_no_model_and_no_client(
    started: tuple[str, set[str], bool, int],
) -> None:
    """It starts for a handful of events: docs/performance.md."""
    name, modules, _, _ = started
    heavy = {"botocore.client", "botocore.loaders", "pydantic", "aws_lambda_powertools"}
    assert bool(heavy & modules) is (name != "publisher")


def test_a_part_is_imported_by_the_functions_that_have_it(
    started: tuple[str, set[str], bool, int],
) -> None:
    name, modules, _, _ = started
    for part in ("sender", "dispatch"):
        assert (f"relay.messages.{part}" in modules) is (name == "sender")
    for part in ("broadcasts.fanout", "schedules.firings"):
        assert (f"relay.{part}" in modules) is (name == "notifier")
    for part in ("model", "scheduler"):
        assert (f"relay.schedules.{part}" in modules) is (name == "api")


def test_the_garbage_collector_starts_after_the_imports_and_past_them(
    started: tuple[str, set[str], bool, int],
) -> None:
    name, _, collecting, frozen = started

    assert collecting
    assert frozen > (1_000 if name == "publisher" else 10_000), (
        "what the imports made is frozen: no later collection looks at it"
    )


def test_what_every_first_message_needs_is_built_at_start_and_nothing_else() -> None:
    models = "Button Content Message KeyedMessage QueuedMessage"
    built = f"{{n for n in {models.split()} if getattr(envelope, n).__pydantic_complete__}}"
    done = subprocess.run(
        [sys.executable, "-c", f"from relay.messages import envelope; print({built})"],
        env={"PYTHONPATH": str(ROOT / "layers" / "relay"), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
        text=True,
    )
    assert ast.literal_eval(done.stdout) == {"QueuedMessage"}


def test_no_import_comes_before_the_one_that_stops_the_collector() -> None:
    for name in FUNCTIONS:
        source = (ROOT / "functions" / name / "app.py").read_text(encoding="utf-8")
        imports = [line for line in source.splitlines() if line.startswith(("import ", "from "))]

        assert imports[0] == "from relay.startup import ready", name


def test_what_is_trimmed_from_the_layer_is_imported_by_no_function(
    started: tuple[str, set[str], bool, int],
) -> None:
    name, modules, _, _ = started
    kept = {name.removesuffix(".py") for name in pack.POWERTOOLS_UTILITIES}
    utilities = {
        m.split(".")[2] for m in modules if m.startswith("aws_lambda_powertools.utilities.")
    }

    assert utilities <= kept, name


def test_a_service_loses_its_documentation_but_no_member_of_that_name() -> None:
    members = {"documentation": {"shape": "Text", "documentation": "Says more."}}
    service = {"documentation": "<p>Long.</p>", "shapes": {"Topic": {"members": members}}}
    packed = json.loads(gzip.decompress(pack.compressed(service)))
    emptied = {"documentation": {"shape": "Text", "documentation": ""}}
    assert packed == {"documentation": "", "shapes": {"Topic": {"members": emptied}}}
