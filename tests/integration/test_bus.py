"""The bus speaks PutEvents over real connections, and tells every way in which a call can fail."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme
from botocore.credentials import Credentials

from local.processes import free_port
from relay.outcomes.bus import Bus, PutError, from_environment
from relay.outcomes.events import Event

EVENT = Event("Message Ended", 1_800_000_000.25, {"id": "m-1", "reference": "заказ", "version": 3})


class Server(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    answer: tuple[int, bytes] = (200, b'{"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]}')
    hangs_up = False
    breaks_off = False
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.peers: set[Any] = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((names, json.loads(body)))
        self.server.peers.add(self.client_address)
        if self.server.hangs_up:
            self.close_connection = True
            return
        status, content = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) + self.server.breaks_off))
        self.end_headers()
        self.close_connection = self.server.breaks_off
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def bus(server: Server) -> Bus:
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "EVENT_BUS": "stack",
    }
    return from_environment(variables)


def test_an_event_goes_to_the_bus_as_eventbridge_wants_it(server: Server, bus: Bus) -> None:
    assert bus.put([EVENT]) == [""]

    [(headers, body)] = server.asked
    assert headers["x-amz-target"] == "AWSEvents.PutEvents"
    assert headers["x-amz-security-token"] == "token"
    signed = headers["authorization"]
    assert "Credential=AKID/" in signed
    assert "/eu-central-1/events/aws4_request" in signed
    assert "x-amz-security-token;x-amz-target" in signed
    [entry] = body["Entries"]
    assert json.loads(entry.pop("Detail")) == EVENT.detail
    assert entry == {
        "EventBusName": "stack",
        "Source": "smsgold-relay",
        "DetailType": "Message Ended",
        "Time": 1_800_000_000.25,
    }


def test_a_part_that_is_not_taken_has_its_code(server: Server, bus: Bus) -> None:
    entries = [{"EventId": "e"}, {"ErrorCode": "ThrottlingException", "ErrorMessage": "slower"}]
    server.answer = (200, json.dumps({"FailedEntryCount": 1, "Entries": entries}).encode())
    assert bus.put([EVENT, EVENT]) == ["", "ThrottlingException"]


@pytest.mark.parametrize(
    ("status", "content", "why"),
    [
        (400, b'{"__type": "com.x#ThrottlingException"}', "400 ThrottlingException"),
        (500, b"<html>", "500 without a code"),
        (200, b"<html>", "the answer is not JSON"),
    ],
)
def test_a_call_that_fails_says_why(
    server: Server, bus: Bus, status: int, content: bytes, why: str
) -> None:
    server.answer = (status, content)
    with pytest.raises(PutError, match=why):
        bus.put([EVENT])


def test_the_connection_is_kept_and_made_anew_after_it_was_closed(server: Server, bus: Bus) -> None:
    bus.put([EVENT])
    bus.put([EVENT])
    assert len(server.peers) == 1
    server.hangs_up = True
    with pytest.raises(PutError, match="ConnectionClosedError"):
        bus.put([EVENT])
    server.hangs_up = False
    assert bus.put([EVENT]) == [""]
    assert len(server.peers) == 2


def test_after_an_answer_that_broke_off_the_next_call_is_made_on_a_connection_of_its_own(
    server: Server, bus: Bus
) -> None:
    server.breaks_off = True
    with pytest.raises(PutError, match="ConnectionClosedError"):
        bus.put([EVENT])
    server.breaks_off = False
    assert bus.put([EVENT]) == [""]


def test_nobody_there_is_an_error_too() -> None:
    nobody = Bus(f"http://127.0.0.1:{free_port()}", "b", "eu-central-1", Credentials("a", "b"))
    with pytest.raises(PutError, match="EndpointConnectionError"):
        nobody.put([EVENT])


def test_nobody_but_aws_gets_the_events(server: Server) -> None:
    stranger = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(stranger)
    server.socket = stranger.wrap_socket(server.socket, server_side=True)
    bus = Bus(f"https://localhost:{server.server_port}", "b", "eu-central-1", Credentials("a", "b"))
    with pytest.raises(PutError, match="SSLError"):
        bus.put([EVENT])
    assert not server.asked
