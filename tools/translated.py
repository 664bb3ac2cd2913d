"""The template as CloudFormation sees it: `python -m tools.translated` prints it, as JSON.

SAM's transform, run here, for the scanners and for the tests of roles and alarms.
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
    """AWS's managed policies by name: the template names none."""

    def load(self) -> dict[str, str]:
        return {}


def template() -> dict[str, Any]:
    """Return template.yaml, its YAML anchors written out."""
    return dict(yaml_parse((ROOT / "template.yaml").read_text("utf-8")))


def translated(**parameters: str) -> dict[str, Any]:
    """Return what SAM makes of the template with these parameters."""
    validator = SamTemplateValidator(
        template(), _NoPolicies(), region="us-east-1", parameter_overrides=parameters
    )
    found = dict(yaml_parse(validator.get_translated_template_if_valid()))
    # SAM hands a function's metadata on to what it makes of it, but not an API's to its stage.
    stage, api = found["Resources"]["RelayApiv1Stage"], found["Resources"]["RelayApi"]
    stage["Metadata"] = api["Metadata"]
    return found


if __name__ == "__main__":
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    json.dump(translated(), sys.stdout, indent=1)
