"""Rewrite the parts of docs/ that follow from other files: `python -m tools.reference`."""

import re
from importlib import metadata
from pathlib import Path

from local.sandbox.faults import CATALOGUE, OPTIONS
from tools.translated import template

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
SANDBOX = ROOT / "docs" / "sandbox.md"
LICENCES = ROOT / "docs" / "licences.md"


def parameters() -> str:
    """Return the template's parameters as a table."""
    lines = ["| parameter | default | what it decides |", "|---|---|---|"]
    for name, parameter in template()["Parameters"].items():
        default = f"`{parameter['Default']}`" if parameter["Default"] != "" else "(empty)"
        allowed = parameter.get("AllowedValues", [])
        choice = f" One of {', '.join(f'`{v}`' for v in allowed)}." if allowed else ""
        text = parameter["Description"].rstrip(".")
        lines.append(f"| `{name}` | {default} | {text}.{choice} |".replace("`|`", "`\\|`"))
    return "\n".join(lines) + "\n"


def configuration(page: str) -> str:
    """Return docs/configuration.md with its table rewritten."""
    return _replaced(page, "parameters", parameters())


def faults() -> str:
    """Return the sandbox's faults and their options as two tables."""
    lines = ["| fault | the client sees | accepted | options |", "|---|---|---|---|"]
    for names, kind in CATALOGUE.items():
        fault = " ".join(word if word == "…" else f"`{word}`" for word in names.split())
        options = ", ".join(f"`{option}`" for option in kind.options)
        accepted = "yes" if kind.accepted else "no"
        lines.append(f"| {fault} | {kind.client_sees} | {accepted} | {options} |")
    lines += ["", "| option | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {option.does} |" for name, option in OPTIONS.items()]
    return "\n".join(lines) + "\n"


def sandbox(page: str) -> str:
    """Return docs/sandbox.md with its tables of faults rewritten."""
    return _replaced(page, "faults", faults())


def _replaced(page: str, name: str, text: str) -> str:
    marks = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
    return re.sub(marks, lambda _: text, page, count=1, flags=re.DOTALL)


def licences() -> str:
    """Return docs/licences.md: what the Lambda layer ships, and under which licences."""
    locked = (ROOT / "layers" / "relay" / "requirements.txt").read_text("utf-8")
    lines = [
        "# Licences of what the layer ships",
        "",
        "`make reference` writes this page from the packages' own metadata.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
    ]
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;]+)", locked, re.MULTILINE):
        lines.append(f"| {name} | {version} | {_licence(name)} |")
    return "\n".join(lines) + "\n"


def _licence(name: str) -> str:
    about = metadata.metadata(name)
    if expression := about.get_all("License-Expression"):
        return str(expression[0])
    classifiers: list[str] = about.get_all("Classifier") or []
    names = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License :: ")]
    return ", ".join(names or about.get_all("License") or ["unknown"])


if __name__ == "__main__":
    for path, rewritten in ((CONFIGURATION, configuration), (SANDBOX, sandbox)):
        path.write_text(rewritten(path.read_text("utf-8")), encoding="utf-8")
    LICENCES.write_text(licences(), encoding="utf-8")
