"""The sandbox as a process: it stops at once, keeps secrets out of its log, says what is wrong."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import quote, quote_plus, urlsplit

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from tests.support.provider_calls import SUBSCRIBER, Caller
from tests.support.sandbox import ROOT, Sandbox

COMMAND = [sys.executable, "-m", "local.sandbox"]
SECRET = 'p@ss w&rd"é+%/'


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_with_connections_open(sent: signal.Signals) -> None:
    with Sandbox() as sandbox:
        caller = Caller(sandbox)
        for text in ("idle", "[[fault:hang-after]]", "[[fault:drip]]", "[[fault:endless]]"):
            with contextlib.suppress(HTTPError):
                caller.send(text, how={"timeout": 0.2, "preload_content": False})
        hanging = [_ask(sandbox, text) for text in ("[[fault:hang]]", "[[fault:drip]]")]
        events = urllib3.request("GET", f"{sandbox.url}/events", preload_content=False, timeout=5)
        process = sandbox.process
        assert process
        process.send_signal(sent)
        assert process.wait(10) == 0
        events.close()
        for connection in hanging:
            connection.close()
        assert "Traceback" not in sandbox.log()


def _ask(sandbox: Sandbox, text: str) -> socket.socket:
    """Send a message over a connection that is left waiting for its answer."""
    auth = {"user": "10001", "pass": "sandbox-password"}
    body = json.dumps({"subscriberId": SUBSCRIBER, "text": text, "auth": auth})
    address = urlsplit(sandbox.base_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    before = sandbox.requests()["total"]
    connection.sendall(
        f"POST {address.path}/sendMessage/ HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    while sandbox.requests()["total"] == before:
        pass
    return connection


def test_its_log_has_a_line_per_request_and_no_secret() -> None:
    with Sandbox(password=SECRET) as sandbox:
        caller = Caller(sandbox)
        caller.send("Секретный текст")
        caller.get("bots")
        caller.get("subscribers", botId="unknown")
        caller.get("nowhere")
        sandbox.arm("302", on="bots")
        caller.get("bots")
        caller.post(b"{" + SECRET.encode())
        _send_raw(sandbox, f"GET /v1/telegram/bot/bots/?pass={SECRET} HTTP/1.1\r\n\r\n".encode())
        _send_raw(sandbox, f"GET /x?pass={quote(SECRET)} HTTP/9\r\n\r\n".encode())
        _send_raw(sandbox, f"POST / HTTP/1.1\r\nContent-Length: {SECRET}\r\n\r\n".encode())
        log = sandbox.log()
    for line in (
        "POST /v1/telegram/bot/sendMessage/ 200",
        "GET /v1/telegram/bot/bots/ 200",
        "GET /v1/telegram/bot/subscribers/ 404",
        "GET /v1/telegram/bot/nowhere/ 404",
        "GET /v1/telegram/bot/bots/ fault='302'",
        "POST /v1/telegram/bot/sendMessage/ 400",
    ):
        assert line in log
    for secret in (SECRET, quote(SECRET), quote_plus(SECRET), "p@ss", "p%40ss", "Секрет"):
        assert secret not in log


def _send_raw(sandbox: Sandbox, request: bytes) -> None:
    address = urlsplit(sandbox.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_route_and_fault() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"SANDBOX_PASSWORD": SECRET},
    )  # fmt: skip
    for word in ("/ledger", "/elsewhere", "/credentials", "gzip-bomb", "--control-port", "times"):
        assert word in done.stdout
    assert "p@ss" not in done.stdout
