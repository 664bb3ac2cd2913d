"""How large the functions are, how long they take to start, and where that time goes."""

import math
import re
import subprocess
from collections import defaultdict
from pathlib import Path

from benchmarks.artifact import EMPTY, FUNCTIONS, LAYER, PLAIN, PYTHON, size
from benchmarks.emulator import emulated, environment
from benchmarks.report import Report, ratio, say, table
from tests.support.template import settings

ROUNDS = 9
MEGABYTE = 1_000_000
GOALS = {
    "api": 7.0,
    "canary": 9.5,
    "hooks": 6.4,
    "notifier": 8.0,
    "publisher": 5.0,  # no model and no client
    "sender": 6.0,
}

PYTHONS_OWN, MADE = "Python's own", "made at start"
PACKAGES = {
    "pydantic": ("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
    "botocore": ("botocore", "dateutil", "jmespath", "six"),
    "Powertools": ("aws_lambda_powertools",),
    "urllib3": ("urllib3",),
    "relay, smsgold": ("relay", "smsgold"),
}


def measure(report: Report) -> None:
    """Measure sizes, INIT and imports."""
    whole, plain = (size(layer, FUNCTIONS) / MEGABYTE for layer in (LAYER, PLAIN))
    note = f" (the plain build: {plain:.1f} MB)"
    report.at_most("starts", "layer and functions, unzipped", whole, 12, unit=" MB", note=note)
    say("cold starts")
    names = sorted(path.parent.name for path in FUNCTIONS.glob("*/app.py"))
    measure_inits(report, names)
    say("imports")
    found = {name: _imports(name, LAYER) for name in names}
    found["sender, plain"] = _imports("sender", PLAIN)
    rows = [[name, *parts.values(), sum(parts.values())] for name, parts in found.items()]
    header = ["ms", PYTHONS_OWN, *PACKAGES, MADE, "all"]
    report.show("imports", table(header, [[str(n), *(f"{ms:.0f}" for ms in r)] for n, *r in rows]))


def measure_inits(report: Report, names: list[str]) -> None:
    """Measure INIT of these functions."""
    took = _cold_starts(names)
    for name in names:
        for other, against, goal in (
            ("empty", "an empty handler", GOALS[name]),
            (f"{name}, plain", "the plain build, source only", 0.45),
        ):
            what = f"INIT of `{name}` against {against}"
            report.at_most("starts", what, ratio(took[name], took[other]), goal)


def _cold_starts(names: list[str]) -> dict[str, list[float]]:
    """Return INIT's milliseconds: of `empty`, and of each function as deployed and plain."""
    sides: dict[str, tuple[Path, Path]] = {"empty": (EMPTY, LAYER)}
    for name in names:
        sides[name] = (FUNCTIONS / name, LAYER)
        sides[f"{name}, plain"] = (FUNCTIONS / name, PLAIN)
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for side, (code, layer) in sides.items():
            with emulated(code, settings(), layer) as function:
                took[side].append(function.start())
    return took


def _imports(name: str, layer: Path) -> dict[str, float]:
    """Return the milliseconds of importing a function, by what is imported.

    A module's own time is the least of three imports. What the function's module takes beyond its
    imports is what it makes: clients, TLS context, routes.
    """
    least: dict[str, float] = {}
    for _ in range(3):
        done = subprocess.run(
            [str(PYTHON), "-X", "importtime", "-c", "import app"],
            env=environment(FUNCTIONS / name, layer, settings()),
            capture_output=True,
            check=True,
            text=True,
        )
        for took, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr):
            least[module] = min(least.get(module, math.inf), int(took) / 1000)
    parts = dict.fromkeys((PYTHONS_OWN, *PACKAGES), 0.0)
    made = least.pop("app")
    for module, took in least.items():
        package = module.partition(".")[0]
        parts[next((p for p, names in PACKAGES.items() if package in names), PYTHONS_OWN)] += took
    return {**parts, MADE: made}
