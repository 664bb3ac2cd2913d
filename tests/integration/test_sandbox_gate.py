"""Pages of other sites use neither of the sandbox's ports."""

import json
from collections.abc import Mapping

import pytest
import urllib3

from tests.support.provider_calls import SUBSCRIBER
from tests.support.sandbox import Sandbox

PAGES = [
    {"Host": "rebound.example:4580"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
MESSAGE = {
    "subscriberId": SUBSCRIBER,
    "text": "from a page",
    "auth": {"user": "10001", "pass": "sandbox-password"},
}


@pytest.mark.parametrize("headers", PAGES)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", None),
        ("GET", "/ledger", None),
        ("GET", "/credentials", None),
        ("PUT", "/credentials", {"passwords": ["taken over"]}),
        ("DELETE", "/ledger", None),
        ("POST", "/faults", {"fault": "outage"}),
        ("POST", "/bots", {"name": "A bot of the page's"}),
        ("POST", "/v1/telegram/bot/sendMessage/", MESSAGE),
        ("GET", "/nowhere", None),
    ],
)
def test_a_page_reads_nothing_and_does_nothing(
    sandbox: Sandbox, headers: Mapping[str, str], method: str, path: str, body: object
) -> None:
    before = sandbox.requests(), sandbox.bots(), sandbox.elsewhere()

    for port in (sandbox.url, sandbox.control_url):
        answer = urllib3.request(
            method,
            port + path,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": "application/json", **headers},
        )
        assert answer.status == 403
        assert "The sandbox refused this request" in answer.json()["error"]
        assert "Access-Control-Allow-Origin" not in answer.headers

    assert (sandbox.requests(), sandbox.bots(), sandbox.elsewhere()) == before
    assert sandbox.faults() == sandbox.ledger() == []
    assert sandbox.password == "sandbox-password"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_its_own_pages_use_it_under_either_name(sandbox: Sandbox, name: str) -> None:
    host = sandbox.url.removeprefix("http://").replace("127.0.0.1", name)
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}

    answer = urllib3.request("DELETE", f"{sandbox.url}/ledger", headers=own)

    assert answer.status == 200, answer.data
