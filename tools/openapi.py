"""Write docs/openapi.json, the API's contract, from the code: `python -m tools.openapi`."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from relay.http.api import api
from relay.http.contract import document

PATH = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def made() -> dict[str, Any]:
    """Return the contract; the routes alone make it, so their services are mocks."""
    return document(api(Mock(), Mock(), Mock(), Mock()))


if __name__ == "__main__":
    PATH.write_text(json.dumps(made(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
