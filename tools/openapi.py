"""Write docs/openapi.json, the API's contract, and docs/events.json, the events' schemas.

Both are made from the code: `python -m tools.openapi`.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from relay.http.api import api
from relay.http.contract import document
from relay.outcomes import schemas

DOCS = Path(__file__).resolve().parent.parent / "docs"
PATH = DOCS / "openapi.json"
EVENTS_PATH = DOCS / "events.json"


def made() -> dict[str, Any]:
    """Return the contract; the routes alone make it, so their services are mocks."""
    return document(api(Mock(), Mock(), Mock(), Mock()))


if __name__ == "__main__":
    for path, document_ in ((PATH, made()), (EVENTS_PATH, schemas.document())):
        text = json.dumps(document_, indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
