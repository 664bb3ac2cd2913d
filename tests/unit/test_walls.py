"""Which package may import which: arrows run one way, and each wall stands for a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYER = Path(__file__).parents[2] / "layers" / "relay"

MAY_IMPORT = {
    "smsgold": "",  # the provider's client: it knows nothing of AWS or of the relay
    "validation": "",
    "messages": "validation smsgold",  # they know no broadcast: the sender asks a gate
    "broadcasts": "messages smsgold",
    "schedules": "broadcasts messages validation",
    "problems": "validation",
    "webhooks": "broadcasts messages problems validation smsgold",
    "eventbridge": "broadcasts messages validation",
    "directory": "smsgold",
    "http": "schedules broadcasts messages directory problems validation smsgold",
    "logs": "smsgold",
    "metrics": "messages smsgold",
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
                found |= {f"{module}.{a.name}" if module == "relay" else module for a in names}
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
