"""What template.yaml gives its functions."""

from pathlib import Path
from typing import Any

from samcli.yamlhelper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]


def settings(aws: str = "http://127.0.0.1:9") -> dict[str, str]:
    """Return the environment variables of all functions.

    A parameter has its default value, a queue the address that it would have at `aws`, and any
    other resource its logical id.
    """
    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    resources = template["Resources"]
    functions = [template["Globals"]["Function"], *(r["Properties"] for r in resources.values())]
    return {
        name: _value(value, template["Parameters"], resources, aws)
        for function in functions
        for name, value in function.get("Environment", {}).get("Variables", {}).items()
    }


def _value(value: Any, parameters: Any, resources: Any, aws: str) -> str:
    if not isinstance(value, dict):
        return str(value)
    ((_, target),) = value.items()
    name = target[0] if isinstance(target, list) else str(target).partition(".")[0]
    if name in parameters:
        return str(parameters[name]["Default"])
    if "Ref" in value and resources.get(name, {}).get("Type") == "AWS::SQS::Queue":
        return f"{aws}/123456789012/{name}"
    return name
