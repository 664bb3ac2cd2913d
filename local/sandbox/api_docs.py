"""Serve the API's contract as a Swagger UI page, from the copy that Powertools brings along."""

from pathlib import Path

from aiohttp import web
from aws_lambda_powertools.event_handler.openapi import swagger_ui

CONTRACT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


async def page(_: web.Request) -> web.Response:
    """Return the page; it loads nothing from elsewhere."""
    contract = CONTRACT.read_text(encoding="utf-8")
    bundle = Path(swagger_ui.__file__).parent
    html = swagger_ui.generate_swagger_html(
        contract.replace("</", "<\\/"),
        (bundle / "swagger-ui-bundle.min.js").read_text(encoding="utf-8"),
        (bundle / "swagger-ui.min.css").read_text(encoding="utf-8"),
        "",
        None,
    )
    # Without "Try it out": the API refuses requests from pages of another origin.
    html = html.replace("withCredentials: true", "supportedSubmitMethods: []")
    html = html.replace("<head>", '<head><link rel="icon" href="data:,">', 1)
    return web.Response(text=html, content_type="text/html")
