"""Which package may import which: arrows run one way, and each wall stands for a reason.

CONTRIBUTING.md draws the walls, and walks from each door to the provider; both match the imports.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tools.translated import template

ROOT = Path(__file__).resolve().parents[2]
LAYER = ROOT / "layers" / "relay"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

MAY_IMPORT = {
    "smsgold": "",  # the provider's client: it knows nothing of AWS or of the relay
    "validation": "",
    "templates": "",
    "messages": "validation smsgold",  # they know no broadcast: the sender asks a gate
    "broadcasts": "messages templates validation smsgold",
    "schedules": "broadcasts messages validation",
    "problems": "validation",
    "webhooks": "broadcasts messages problems templates validation smsgold",
    "directory": "smsgold",
    "http": "schedules broadcasts messages directory outcomes problems validation smsgold",
    "logs": "smsgold",
    "metrics": "messages smsgold",
    "outcomes": "",  # nothing that takes long to import
    "settings": "messages",
    "startup": "",
    "wiring": "webhooks broadcasts messages directory logs metrics settings smsgold",
}
"""What each part of the layer may import beside itself, nearest first."""


def part(module: str) -> str | None:
    """Return the part of the layer that a module belongs to; None for another's module."""
    package, _, rest = module.partition(".")
    if package == "smsgold":
        return package
    return rest.partition(".")[0] if package == "relay" else None


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(LAYER.rglob("*.py")):
        if path.parts[len(LAYER.parts)] in ("relay", "smsgold"):
            yield ".".join(path.relative_to(LAYER).with_suffix("").parts), path


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, also those for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module, names, 0) if module:
                # `from relay import wiring` names a module, not something in one.
                found |= {module, *(f"{module}.{alias.name}" for alias in names)}
    return found


def crossings() -> Iterator[tuple[str, str, str]]:
    """Yield each import from one part of the layer to another: (module, its part, the other)."""
    for module, path in modules():
        own = part(module)
        for other in {part(name) for name in imported(path)} - {own, None}:
            if own and own != "__init__" and other:
                yield module, own, other


def test_every_part_has_its_row() -> None:
    assert {part(module) for module, _ in modules()} - {"", "__init__"} == MAY_IMPORT.keys()


def test_no_import_runs_through_a_wall() -> None:
    assert not [f"{m} imports {o}" for m, own, o in crossings() if o not in MAY_IMPORT[own].split()]


def test_no_row_allows_more_than_is_used() -> None:
    used = {(own, other) for _, own, other in crossings()}
    allowed = {(own, other) for own, others in MAY_IMPORT.items() for other in others.split()}
    assert not allowed - used


@pytest.mark.parametrize("package", ["smsgold", "relay"])
def test_imports_form_no_circle(package: str) -> None:
    graph = {m: imported(path) for m, path in modules() if m.startswith(package)}
    done: set[str] = set()

    def follow(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " imports ".join((*trail, module))
        if module in graph and module not in done:
            for name in sorted(graph[module]):
                follow(name, (*trail, module))
            done.add(module)

    for module in graph:
        follow(module, ())


# ------------------------------------------------------------------------------- the picture


def arrows() -> set[tuple[str, str]]:
    """Return the arrows of CONTRIBUTING.md's picture, from the importing part to the other."""
    [picture] = re.findall(r"^```mermaid\n.*?\n(.*?)^```$", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    lines = [line.split(" --> ") for line in picture.strip().splitlines()]
    return {(source.strip(), target) for source, ends in lines for target in ends.split(" & ")}


def beneath(part: str, graph: set[tuple[str, str]]) -> set[str]:
    """Return the parts that arrows lead to, directly or through others."""
    direct = {target for source, target in graph if source == part}
    return direct.union(*(beneath(target, graph) for target in direct))


def test_the_picture_shows_the_walls() -> None:
    functions = {part(name) for app in ROOT.glob("functions/*/app.py") for name in imported(app)}
    may_import = {name: set(others.split()) for name, others in MAY_IMPORT.items()}
    may_import["functions"] = {name for name in functions if name}
    drawn = arrows()

    assert {end for arrow in drawn for end in arrow} == may_import.keys()
    assert not [(a, b) for a, b in drawn if b not in may_import[a]], "drawn, but not allowed"
    for name, others in may_import.items():
        assert others <= beneath(name, drawn), f"{name}: allowed, but not drawn"


# --------------------------------------------------------------------------------- the walks


def walks() -> Mapping[str, list[str]]:
    """Return the steps of each of CONTRIBUTING.md's walks from a door to the provider."""
    _, _, section = CONTRIBUTING.partition("\n## From each door to the provider\n")
    section = section.partition("\n## ")[0]
    found = re.findall(r"^\*\*(\w+)\*\*\n\n((?:\d\. .*\n(?:   .*\n)*)+)", section, re.MULTILINE)
    return {door: re.split(r"^\d\. ", steps, flags=re.MULTILINE)[1:] for door, steps in found}


def invoked_by(resource: Mapping[str, object]) -> set[Path]:
    """Return the handlers of the functions that a resource of the template names."""
    text = json.dumps(resource)
    return {
        ROOT / function["Properties"]["CodeUri"] / "app.py"
        for name, function in template()["Resources"].items()
        if function["Type"] == "AWS::Serverless::Function" and re.search(rf'"{name}["\.]', text)
    }


def wired(app: Path) -> set[str]:
    """Return the modules of what a function gets from wiring: `wiring.sender()` is a Sender."""
    wiring = ast.parse((LAYER / "relay" / "wiring.py").read_text("utf-8"))
    homes: dict[str, str] = {}
    returned: dict[str, str] = {}
    for node in ast.walk(wiring):
        match node:
            case ast.ImportFrom(str(module), names):
                homes |= {alias.name: module for alias in names}
            case ast.FunctionDef(name, returns=ast.Name(kind)):
                returned[name] = kind
    calls = re.findall(r"\bwiring\.(\w+)\(\)", app.read_text("utf-8"))
    return {homes[returned[call]] for call in calls if returned.get(call) in homes}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(LAYER).with_suffix("").parts)


def test_there_is_a_walk_from_each_door() -> None:
    assert walks().keys() == {"HTTP", "SQS", "Schedule", "Webhook", "Broadcast"}


@pytest.mark.parametrize("door", ["HTTP", "SQS", "Schedule", "Webhook", "Broadcast"])
def test_a_walk_leads_from_its_door_to_the_provider(door: str) -> None:
    """A function's files are each imported by an earlier one, or wired; a resource invokes it."""
    resources = template()["Resources"]
    names = re.findall(r"`([\w/]+(?:\.py)?)`", "".join(walks()[door]))
    reached: set[str] = set()
    # An event comes first: any function may be its door.
    invocable = set(ROOT.glob("functions/*/app.py"))
    assert len(walks()[door]) == 5
    assert "smsgold/client.py" in names
    for name in names:
        if name in resources:
            invocable = invoked_by(resources[name])
        elif name.startswith("functions/"):
            path = ROOT / name
            assert path in invocable, f"nothing named before {name} invokes it"
            reached, invocable = imported(path) | wired(path), set()
        elif name.endswith(".py"):
            path = LAYER / name if name.startswith("smsgold/") else LAYER / "relay" / name
            assert path.is_file(), name
            assert module_of(path) in reached, f"nothing named before {name} imports it"
            reached |= imported(path)


def test_tests_import_neither_one_another_nor_the_benchmarks() -> None:
    """What two of them need lives in tests/support; conftest modules only hold fixtures."""
    root = LAYER.parents[1]
    folders = ("tests.unit", "tests.integration", "tests.e2e", "benchmarks")
    found = [
        f"{path.relative_to(root)} imports {name}"
        for path in sorted((root / "tests").rglob("*.py"))
        for name in imported(path)
        if name.startswith(folders)
    ]
    assert not found
