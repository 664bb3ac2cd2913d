"""Print template.yaml as SAM hands it to CloudFormation, in JSON: `python -m tools.translated`.

The scanners read it, and so do the tests of roles and alarms.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from samcli.lib.translate.sam_template_validator import SamTemplateValidator
from samcli.yamlhelper import yaml_parse

ROOT = Path(__file__).resolve().parent.parent


class _NoPolicies:
    """Stands in for SAM's list of AWS's managed policies: the template uses none."""

    def load(self) -> dict[str, str]:
        return {}


def template() -> dict[str, Any]:
    """Return template.yaml with its YAML anchors resolved."""
    return dict(yaml_parse((ROOT / "template.yaml").read_text("utf-8")))


def translated(**parameters: str) -> dict[str, Any]:
    """Return the template as SAM's transform leaves it, with these parameters."""
    validator = SamTemplateValidator(
        template(), _NoPolicies(), region="us-east-1", parameter_overrides=parameters
    )
    found = dict(yaml_parse(validator.get_translated_template_if_valid()))
    # SAM copies a function's metadata to the resources it generates, but not an API's to its stage.
    stage, api = found["Resources"]["RelayApiv1Stage"], found["Resources"]["RelayApi"]
    stage["Metadata"] = api["Metadata"]
    return found


if __name__ == "__main__":
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    json.dump(translated(), sys.stdout, indent=1)
