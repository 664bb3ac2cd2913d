"""A web page, in a real browser, gets nothing done on this machine's stack and reads nothing."""

import base64
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.provider_calls import SUBSCRIBER
from tests.support.sandbox import Sandbox

REBOUND = "rebound.example"  # leads to 127.0.0.1 in the tests' browser
ATTACK = """
async requests => Promise.all(requests.map(async ([url, options]) => {
  try {
    const answer = await fetch(url, {...options, signal: AbortSignal.timeout(20000)});
    return answer.type === "opaque" ? "opaque" : `${answer.status} ${await answer.text()}`;
  } catch (error) {
    return error.name;
  }
}))
"""
Requests = list[tuple[str, dict[str, Any]]]


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """Serve an empty page on another port of this machine; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with closing(browser.new_page()) as page:
        yield page


def on_aws(deployment: Deployment, base: str) -> Requests:
    """Return requests that MiniStack alone would fulfil, and one that needs only the API's key."""
    scope = "20260101/us-east-1/{}/aws4_request"
    [role, *_] = (each["Role"] for each in deployment.aws("lambda", "list-functions")["Functions"])
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("page.py", "def handler(event, context): return 'run'")
    function = {
        "FunctionName": "from-a-page",
        "Runtime": "python3.13",
        "Handler": "page.handler",
        "Role": role,
        "Code": {"ZipFile": base64.b64encode(code.getvalue()).decode()},
    }
    signed = (
        f"AWS4-HMAC-SHA256 Credential=test/{scope.format('lambda')}, SignedHeaders=host, "
        f"Signature={'0' * 64}"
    )
    queue = quote(deployment.facts["messagesQueueUrl"], safe="")
    message = {"subscriberId": SUBSCRIBER, "text": "from a page"}
    send = urlencode(
        {
            "Action": "SendMessage",
            "QueueUrl": deployment.facts["messagesQueueUrl"],
            "MessageBody": json.dumps(message),
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"test/{scope.format('sqs')}",
            "X-Amz-Signature": "0" * 64,
        }
    )
    api = urlsplit(deployment.facts["apiUrl"]).path
    return [
        (
            f"{base}/2015-03-31/functions",
            {"method": "POST", "headers": {"Authorization": signed}, "body": json.dumps(function)},
        ),
        (f"{base}/?{send}", {"method": "POST", "mode": "no-cors"}),
        (
            f"{base}{api}/messages",
            {
                "method": "POST",
                "headers": {
                    "x-api-key": deployment.facts["apiKey"],
                    "content-type": "application/json",
                },
                "body": json.dumps(message),
            },
        ),
        (f"{base}/_ministack/sqs/messages?QueueUrl={queue}", {}),
        (f"{base}/_ministack/health", {}),
    ]


def on_the_sandbox(base: str) -> Requests:
    return [
        (f"{base}/ledger", {}),
        (f"{base}/credentials", {}),
        (f"{base}/ledger", {"method": "DELETE"}),
        (f"{base}/faults", {"method": "POST", "mode": "no-cors", "body": '{"fault": "outage"}'}),
        (f"{base}/bots", {"method": "POST", "mode": "no-cors", "body": '{"name": "a page\'s"}'}),
    ]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", REBOUND])
def test_a_page_of_another_site_does_nothing_and_reads_nothing(
    deployment: Deployment, sandbox: Sandbox, page: Page, site: int, name: str
) -> None:
    message = {"subscriberId": SUBSCRIBER, "text": f"before a page of {name}"}
    deployment.call("POST", "/messages", message)
    until(lambda: sandbox.ledger(text=message["text"]), "message")
    before = sandbox.bots(), sandbox.user, sandbox.password
    targets = {
        deployment.facts["awsEndpoint"]: lambda base: on_aws(deployment, base),
        sandbox.url: on_the_sandbox,
        sandbox.control_url: on_the_sandbox,
    }

    read = []
    for target, attack in targets.items():
        port = urlsplit(target).port
        # A page of the rebound site comes from the very address that it attacks.
        page.goto(f"http://{name}:{port if name == REBOUND else site}/")
        for host in {"127.0.0.1", "localhost", name}:
            read += page.evaluate(ATTACK, attack(f"http://{host}:{port}"))

    assert {answer for answer in read if "refused this request: " not in answer} <= {
        "TypeError",  # fetch's word for an answer that the page may not have
        "opaque",
    }
    assert (sandbox.bots(), sandbox.user, sandbox.password) == before
    assert sandbox.ledger(text=message["text"])
    assert sandbox.faults() == sandbox.ledger(text="from a page") == []
    functions = deployment.aws("lambda", "list-functions")["Functions"]
    assert "from-a-page" not in {function["FunctionName"] for function in functions}


def test_the_inbox_works_under_both_of_its_names(
    deployment: Deployment, sandbox: Sandbox, page: Page
) -> None:
    message = {"subscriberId": SUBSCRIBER, "text": "for the inbox under both names"}
    deployment.call("POST", "/messages", message)
    until(lambda: sandbox.ledger(text=message["text"]), "message")
    for name in ("127.0.0.1", "localhost"):
        page.goto(f"http://{name}:{urlsplit(sandbox.url).port}/")
        # Not by its name: after other tests there may be more chats than the inbox lists.
        page.locator(f".chat[data-key*='{SUBSCRIBER}']").wait_for()
        for method in ("GET", "DELETE"):
            [answer] = page.evaluate(ATTACK, [("/requests", {"method": method})])
            assert answer.startswith("200 ")
