"""Plain requests to a sandbox's provider endpoints, made without the relay's client."""

import json
from typing import Any

import urllib3

from tests.support.sandbox import Sandbox

SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d101"  # the first one of a fresh sandbox
BOT, NUMBER = "65f1c0a2b3d4e5f6a7b8c901", "79160001001"  # the same one

Json = Any


class Caller:
    """Calls a sandbox's provider endpoints; retries nothing, follows no redirect."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pool = urllib3.PoolManager(retries=False, timeout=10, maxsize=4)

    def auth(self) -> dict[str, str]:
        """Return the credentials that are valid now."""
        return {"user": self.sandbox.user, "pass": self.sandbox.password}

    def get(self, operation: str, **query: str) -> urllib3.BaseHTTPResponse:
        """GET a list; with valid credentials, unless `query` has others."""
        return self.pool.request(
            "GET",
            f"{self.sandbox.base_url}/{operation}/",
            fields=self.auth() | query,
            redirect=False,
        )

    def send(
        self, text: str = "Здравствуйте!", *, how: Json = None, **fields: Json
    ) -> urllib3.BaseHTTPResponse:
        """POST a valid message to the first subscriber, with some fields replaced.

        A field that is None is left out; `how` holds options for the pool's request.
        """
        body: dict[str, Json] = {"subscriberId": SUBSCRIBER, "text": text, "auth": self.auth()}
        body |= fields
        return self.post(
            {name: value for name, value in body.items() if value is not None}, **(how or {})
        )

    def post(
        self,
        body: Json,
        content_type: str = "application/json",
        **how: Json,
    ) -> urllib3.BaseHTTPResponse:
        """POST any body: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept-Encoding": "identity"}
        url = f"{self.sandbox.base_url}/sendMessage/"
        return self.pool.request(
            "POST", url, body=raw, headers=headers, redirect=False, decode_content=False, **how
        )
