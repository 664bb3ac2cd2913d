"""The relay's HTTP contract as a page: Swagger UI, whole in itself, from Powertools' own copy."""

import json
from pathlib import Path

from aiohttp import web
from aws_lambda_powertools.event_handler.openapi import swagger_ui

CONTRACT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
SERVER = {
    "url": "{address}",
    "description": "The API's address, as `make up` prints it",
    "variables": {"address": {"default": "http://127.0.0.1:4566/_aws/execute-api/…/v1"}},
}


async def page(_: web.Request) -> web.Response:
    """Answer with the page."""
    contract = json.loads(CONTRACT.read_text(encoding="utf-8")) | {"servers": [SERVER]}
    bundle = Path(swagger_ui.__file__).parent
    html = swagger_ui.generate_swagger_html(
        json.dumps(contract).replace("</", "<\\/"),
        (bundle / "swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        (bundle / "swagger-ui.min.css").read_text(encoding="utf-8"),
        "",
        None,
    )
    # The local API answers any origin, and so, by the browsers' rules, none with credentials.
    html = html.replace("withCredentials: true", "withCredentials: false")
    return web.Response(text=html, content_type="text/html")
