"""The provider's client against real sockets that misbehave in every way a network can."""

import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
import urllib3

from smsgold import transport
from smsgold.client import Client, OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.errors import (
    CredentialsRefusedError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
)
from smsgold.responses import Outcome, Verdict
from tests.support.wire import Server, full_backlog, http, reset, until_closed

CREDENTIALS = Credentials("12345.6", 'p@ss w&rd"é+%/')
MESSAGE = OutgoingMessage("Привет", subscriber_id="5f3a")
SHORT = 0.4
SHORT_WITH_TLS = 1.5
"""Time for the handshake on a busy machine, and still shorter than a drip."""
LONG = 30.0
"""Seconds; no test takes as long, so that this deadline ends none of them."""


def send(url: str, deadline: float = LONG, pool: urllib3.PoolManager | None = None) -> Verdict:
    pool = pool or transport.pool_manager()
    try:
        return Client(url, http=pool, deadline=deadline).send(CREDENTIALS, MESSAGE)
    finally:
        pool.clear()


def answer(response: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(response)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> Iterator[urllib3.PoolManager]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    pool = transport.pool_manager(ssl_context=context)
    yield pool
    pool.clear()


# ---------------------------------------------------------------------------- what is sent


def test_a_message_is_sent_as_the_provider_documents_it() -> None:
    message = OutgoingMessage(
        "Текст Вашего сообщения",
        subscriber_id="X" * 24,
        buttons=(
            ("Текст на кнопке 1", "https://example.com/1"),
            ("Текст на кнопке 2", "https://example.com/2"),
        ),
    )
    with Server(answer(http("200 OK", b'{"id": 7}'))) as server:
        Client(f"{server.url}/v1/telegram/bot").send(CREDENTIALS, message)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines[1:])}
    assert lines[0] == "POST /v1/telegram/bot/sendMessage/ HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("smsgold-relay/")
    assert "transfer-encoding" not in headers
    expected = {
        "subscriberId": "X" * 24,
        "text": "Текст Вашего сообщения",
        "buttons": [
            {"text": "Текст на кнопке 1", "url": "https://example.com/1"},
            {"text": "Текст на кнопке 2", "url": "https://example.com/2"},
        ],
        "auth": {"user": "12345.6", "pass": 'p@ss w&rd"é+%/'},
    }
    assert json.loads(body) == expected
    assert list(json.loads(body)) == list(expected)


def test_a_message_to_a_number_names_the_bot() -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        Client(server.url).send(
            CREDENTIALS, OutgoingMessage("Привет", bot_id="bot", number="79990000000")
        )
    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert list(body) == ["botId", "number", "text", "auth"]
    assert (body["botId"], body["number"]) == ("bot", "79990000000")


def test_what_a_path_must_not_hold_is_encoded() -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        Client(f'{server.url}/"v1"').send(CREDENTIALS, MESSAGE)
    assert server.requests[0].startswith(b"POST /%22v1%22/sendMessage/ HTTP/1.1\r\n")


def test_a_long_message_arrives_whole() -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        Client(server.url).send(CREDENTIALS, OutgoingMessage("я" * 50_000, subscriber_id="5f3a"))
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2])["text"] == "я" * 50_000


def test_headers_and_body_leave_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    sendall = socket.socket.sendall

    def watched(sock: socket.socket, data: bytes) -> None:
        written.append(data)
        sendall(sock, data)

    monkeypatch.setattr(socket.socket, "sendall", watched)
    with Server(answer(http("200 OK", b"{}"))) as server:
        send(server.url)
    assert len([data for data in written if b"HTTP/1.1 200" not in data]) == 1


def test_lists_are_requested_with_the_credentials_in_the_query() -> None:
    with Server(answer(http("200 OK", b'{"items": [{"id": 5, "name": "Anna"}]}'))) as server:
        client = Client(f"{server.url}/v1/telegram/bot/")
        assert client.bots(CREDENTIALS) == [{"id": "5", "name": "Anna"}]
        assert client.subscribers(CREDENTIALS, "a/b&c") == [{"id": "5", "name": "Anna"}]
    targets = [urlsplit(request.split()[1].decode()) for request in server.requests]
    assert [request.split()[0] for request in server.requests] == [b"GET", b"GET"]
    assert [target.path for target in targets] == [
        "/v1/telegram/bot/bots/",
        "/v1/telegram/bot/subscribers/",
    ]
    credentials = {"user": ["12345.6"], "pass": ['p@ss w&rd"é+%/']}
    assert parse_qs(targets[0].query) == credentials
    assert parse_qs(targets[1].query) == credentials | {"botId": ["a/b&c"]}


# ---------------------------------------------------------------------------- before sending


def test_refused_connection_is_not_sent() -> None:
    with Server() as server:
        pass
    verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "connect_refused")


def test_unresolvable_name_is_not_sent() -> None:
    verdict = send("https://nowhere.invalid")
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "dns")


def test_unanswered_connect_is_not_sent() -> None:
    with full_backlog() as port:
        verdict = send(f"http://127.0.0.1:{port}", SHORT)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "connect_timeout")


def test_an_unresponsive_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def both(host: str, *args: object, **options: object) -> object:
        if host != "localhost":
            return resolve(host, *args, **options)  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 0)) for n in (2, 1)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with (
        full_backlog("127.0.0.2") as port,
        Server(answer(http("200 OK", b"{}")), port=port),
    ):
        assert send(f"http://localhost:{port}", 2.0).outcome is Outcome.ACCEPTED


def test_unanswered_handshake_is_not_sent() -> None:
    with Server(talk=until_closed) as server:
        verdict = send(f"https://127.0.0.1:{server.port}", SHORT)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "connect_timeout")


def test_reset_handshake_is_not_sent() -> None:
    def hang_up(sock: socket.socket) -> None:
        # A reset before the handshake begins makes Python 3.11 forget to close its TLS socket.
        sock.recv(1)
        reset(sock)

    with Server(talk=hang_up) as server:
        verdict = send(f"https://127.0.0.1:{server.port}")
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "connection_lost")


def test_plain_http_behind_https_is_not_sent() -> None:
    with Server(talk=answer(http("400 Bad Request"))) as server:
        verdict = send(f"https://127.0.0.1:{server.port}")
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "tls")


def test_unknown_authority_is_not_sent(server_tls: ssl.SSLContext) -> None:
    with Server(answer(http("200 OK", b"{}")), tls=server_tls) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "tls")
    assert "unable to get local issuer certificate" in verdict.detail
    assert server.requests == []


def test_certificate_for_another_name_is_not_sent(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    with Server(answer(http("200 OK", b"{}")), tls=server_tls) as server:
        verdict = send(f"https://127.0.0.1:{server.port}", pool=trusting)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "tls")
    assert server.requests == []


def test_a_deadline_before_the_first_byte_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        client = Client(server.url)
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED

        def nothing_left(ends: float) -> float:
            raise TimeoutError(ends)

        monkeypatch.setattr(transport, "_left", nothing_left)
        verdict = client.send(CREDENTIALS, MESSAGE)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, "connect_timeout")
    assert len(server.requests) == 1


# ---------------------------------------------------------------------- at the first byte


class NotAfter:
    """Withholds a message once so many seconds have passed, and counts how often it was asked."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.asked = 0

    def __call__(self) -> str | None:
        self.asked += 1
        return "too_late" if time.monotonic() > self.ends else None


def test_a_message_that_may_be_sent_is_sent() -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        verdict = Client(server.url).send(CREDENTIALS, MESSAGE, withhold=NotAfter(LONG))
    assert verdict.outcome is Outcome.ACCEPTED
    assert len(server.requests) == server.connections == 1


def withheld_and_then_sent(client: Client, server: Server, seconds: float = SHORT) -> None:
    """A first message is too late once there is a connection; the next one finds it open."""
    verdict = client.send(CREDENTIALS, MESSAGE, withhold=NotAfter(seconds))
    assert (verdict.outcome, verdict.reason) == (Outcome.WITHHELD, "too_late")
    assert server.requests == []

    verdict = client.send(CREDENTIALS, MESSAGE, withhold=NotAfter(LONG))
    assert verdict.outcome is Outcome.ACCEPTED
    assert (len(server.requests), server.connections) == (1, 1)


def test_what_a_slow_connect_made_too_late_is_not_sent() -> None:
    with Server(answer(http("200 OK", b"{}")), busy_for=SHORT) as server:
        withheld_and_then_sent(Client(server.url), server)


def test_what_a_slow_handshake_made_too_late_is_not_sent(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    script = answer(http("200 OK", b"{}"))
    with Server(script, tls=server_tls, handshake_after=2 * SHORT) as server:
        withheld_and_then_sent(Client(server.url, http=trusting), server)


def test_what_a_slow_resolver_made_too_late_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def slowly(*args: object, **options: object) -> object:
        time.sleep(2 * SHORT)
        return resolve(*args, **options)  # type: ignore[arg-type]

    with Server(answer(http("200 OK", b"{}"))) as server:
        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        withheld_and_then_sent(Client(server.url), server)


def test_nobody_takes_the_connection_of_a_message_that_is_being_judged() -> None:
    """Another one could take seconds, and the message would leave after its last moment."""
    asked: list[int] = []

    def withhold() -> str | None:
        asked.append(len(server.requests))
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED
        return None

    with Server(answer(http("200 OK", b"{}"))) as server:
        client = Client(server.url)
        assert client.send(CREDENTIALS, MESSAGE, withhold=withhold).outcome is Outcome.ACCEPTED
    assert asked == [0]
    assert (len(server.requests), server.connections) == (2, 2)


def test_a_connection_made_ahead_is_used(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    """TLS 1.3 servers send session tickets, which make a connection look dropped."""
    with Server(answer(http("200 OK", b"{}")), tls=server_tls) as server:
        client = Client(server.url, http=trusting)
        for _ in range(3):
            client.connect()
            time.sleep(0.1)  # for the tickets
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED
    assert (len(server.requests), server.connections) == (2, 1)


@pytest.mark.parametrize("end", [reset, lambda sock: sock.close(), answer(b"unasked")])
def test_a_connection_made_ahead_that_the_server_has_spoiled_is_replaced(
    end: Callable[[socket.socket], None],
) -> None:
    with Server(talk=end) as server:
        client = Client(server.url)
        client.connect()
        port = server.port
    with Server(answer(http("200 OK", b"{}")), port=port):
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED


def test_connecting_ahead_is_best_effort() -> None:
    with Server() as server:
        pass
    client = Client(server.url)
    client.connect()
    assert client.send(CREDENTIALS, MESSAGE).reason == "connect_refused"


# ----------------------------------------------------------------------------- after sending

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def test_a_trusted_certificate_is_accepted(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    with Server(answer(http("200 OK", b'{"id": "m-1"}')), tls=server_tls) as server:
        verdict = send(server.url, pool=trusting)
    assert (verdict.outcome, verdict.provider_id) == (Outcome.ACCEPTED, "m-1")


def test_no_response_is_unknown() -> None:
    with Server(until_closed) as server:
        verdict = send(server.url, SHORT)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "read_timeout")
    assert len(server.requests) == 1


def test_no_response_over_tls_is_unknown(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    with Server(until_closed, tls=server_tls) as server:
        verdict = send(server.url, SHORT_WITH_TLS, pool=trusting)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "read_timeout")


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"id": 7}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id": 7}\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"id"',
    ],
    ids=[
        "before the status",
        "in the status",
        "after the headers",
        "in the body",
        "before the first chunk",
        "between chunks",
        "in a chunk",
    ],
)
def test_a_cut_response_is_unknown(before: bytes, end: Callable[[socket.socket], None]) -> None:
    def cut(sock: socket.socket) -> None:
        sock.sendall(before)
        end(sock)

    with Server(cut) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "connection_lost")


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_response_cut_in_its_headers_is_unknown(end: Callable[[socket.socket], None]) -> None:
    def cut(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        end(sock)

    with Server(cut) as server:
        assert send(server.url).outcome is Outcome.UNKNOWN


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"id": 7}')
        sock.close()

    with Server(talk) as server:
        assert send(server.url).provider_id == "7"


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n{}",
    ],
    ids=["no http", "no status", "two lengths", "bad chunk", "many headers", "long header"],
)
def test_a_response_that_is_not_http_is_unknown(garbage: bytes) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(garbage)
        sock.close()

    with Server(talk) as server:
        verdict = send(server.url)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.reason == "connection_lost"


def drip(start: bytes, drop: bytes, end: bytes) -> Callable[[socket.socket], None]:
    """Send a good response slowly; without a deadline it would be accepted, far too late."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        for _ in range(100):
            sock.sendall(drop)
            time.sleep(0.02)
        sock.sendall(end)

    return script


DRIPS = {
    "in the body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 102\r\n\r\n{", b" ", b"}"),
    "in a chunked body": drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"1\r\n \r\n",
        b"1\r\n}\r\n0\r\n\r\n",
    ),
    "in the headers": drip(b"HTTP/1.1 200 OK\r\nX: ", b"y", b"\r\nContent-Length: 2\r\n\r\n{}"),
    "as interim answers": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"{}"),
}


@pytest.mark.parametrize("script", DRIPS.values(), ids=DRIPS)
def test_a_slow_drip_past_the_deadline_is_unknown(script: Callable[[socket.socket], None]) -> None:
    with Server(script) as server:
        verdict = send(server.url, SHORT)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "read_timeout")


def test_a_slow_drip_within_the_deadline_is_accepted() -> None:
    with Server(DRIPS["in the body"]) as server:
        assert send(server.url).outcome is Outcome.ACCEPTED


def test_a_slow_drip_over_tls_past_the_deadline_is_unknown(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    with Server(DRIPS["in the headers"], tls=server_tls) as server:
        verdict = send(server.url, SHORT_WITH_TLS, pool=trusting)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "read_timeout")


def test_a_peer_that_reads_the_body_too_slowly_is_unknown() -> None:
    def swallow(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while sock.recv(1024):
            time.sleep(0.02)

    with Server(talk=swallow) as server:
        message = OutgoingMessage("x" * 20_000_000, subscriber_id="5f3a")
        verdict = Client(server.url, deadline=SHORT).send(CREDENTIALS, message)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "read_timeout")


def test_an_endless_response_is_unknown() -> None:
    def endless(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n{")
        while True:
            sock.sendall(b" " * 65536)

    with Server(endless) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "body_too_large")


def test_a_compressed_response_is_not_decompressed() -> None:
    bomb = gzip.compress(b'{"id": 7}' + b" " * 50_000_000)
    with Server(answer(http("200 OK", bomb, "Content-Encoding: gzip"))) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "not_json")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_a_redirect_is_never_followed(status: int) -> None:
    with Server(answer(http("200 OK", b"{}"))) as elsewhere:
        redirect = http(f"{status} Elsewhere", b"", f"Location: {elsewhere.url}/sendMessage/")
        with Server(answer(redirect)) as server:
            verdict = send(server.url)
            with pytest.raises(ProviderUnavailableError, match="redirect"):
                Client(server.url).bots(CREDENTIALS)
        assert len(server.requests) == 2
    assert (verdict.outcome, verdict.reason) == (Outcome.MISDIRECTED, "redirect")
    assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [400, 401, 408, 425, 429, 500, 502, 503, 504])
def test_no_request_is_ever_retried(status: int) -> None:
    with Server(answer(http(f"{status} No", b"", "Retry-After: 0"))) as server:
        send(server.url)
        with pytest.raises(ProviderError):
            Client(server.url).bots(CREDENTIALS)
    assert [request.split()[0] for request in server.requests] == [b"POST", b"GET"]


def test_a_refusal_counts_even_if_its_body_is_cut() -> None:
    def cut(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nno such subscriber")
        sock.close()

    with Server(cut) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSED, "http_400")
    assert verdict.detail == "no such subscriber"


def test_a_response_before_the_end_of_the_request_counts() -> None:
    def hasty(sock: socket.socket) -> None:
        sock.recv(1024)
        sock.sendall(http("413 Content Too Large", b"too long", "Connection: close"))
        until_closed(sock)

    with Server(talk=hasty) as server:
        verdict = send(server.url)
    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSED, "http_413")


def test_a_response_before_a_reset_in_the_middle_of_the_request_counts() -> None:
    def hasty(sock: socket.socket) -> None:
        sock.recv(1024)
        sock.sendall(http("413 Content Too Large", b"too long", "Connection: close"))
        reset(sock)

    with Server(talk=hasty) as server:
        message = OutgoingMessage("x" * 20_000_000, subscriber_id="5f3a")
        verdict = Client(server.url).send(CREDENTIALS, message)
    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSED, "http_413")


# ------------------------------------------------------------------------------ connections


def test_connections_are_reused() -> None:
    with Server(answer(http("200 OK", b"{}"))) as server:
        client = Client(server.url)
        outcomes = {client.send(CREDENTIALS, MESSAGE).outcome for _ in range(5)}
    assert outcomes == {Outcome.ACCEPTED}
    assert server.connections == 1


def test_an_idle_connection_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_IDLE", -1.0)
    with Server(answer(http("200 OK", b"{}"))) as server:
        client = Client(server.url)
        outcomes = {client.send(CREDENTIALS, MESSAGE).outcome for _ in range(3)}
    assert outcomes == {Outcome.ACCEPTED}
    assert server.connections == 3


def test_a_connection_that_the_server_closed_is_replaced() -> None:
    closed = threading.Semaphore(0)

    def once(sock: socket.socket) -> None:
        sock.sendall(http("200 OK", b"{}"))
        sock.shutdown(socket.SHUT_WR)
        closed.release()
        until_closed(sock)

    with Server(once) as server:
        client = Client(server.url)
        for _ in range(3):
            assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.ACCEPTED
            closed.acquire()
    assert len(server.requests) == 3


def test_a_connection_with_an_unread_response_is_not_reused() -> None:
    late = b'{"id": "the first one\'s"}'
    answers = iter([b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n", http("200 OK", b'{"id": 2}')])

    def script(sock: socket.socket) -> None:
        first = next(answers)
        sock.sendall(first)
        if first.endswith(b"\r\n\r\n"):
            until_closed(sock)
            sock.sendall(late)

    with Server(script) as server:
        client = Client(server.url, deadline=SHORT)
        assert client.send(CREDENTIALS, MESSAGE).outcome is Outcome.UNKNOWN
        assert client.send(CREDENTIALS, MESSAGE).provider_id == "2"
    assert server.connections == 2


def test_many_threads_share_a_pool_and_one_tls_context(
    server_tls: ssl.SSLContext, trusting: urllib3.PoolManager
) -> None:
    with Server(answer(http("200 OK", b"{}")), tls=server_tls) as server:
        client = Client(server.url, http=trusting)
        with ThreadPoolExecutor(32) as threads:
            verdicts = list(threads.map(lambda _: client.send(CREDENTIALS, MESSAGE), range(200)))
        pool = trusting.connection_from_url(server.url).pool
        assert pool is not None
        contexts = {id(connection.ssl_context) for connection in pool.queue if connection}
    assert {verdict.outcome for verdict in verdicts} == {Outcome.ACCEPTED}
    assert len(server.requests) == 200
    assert server.connections <= 32
    assert len(contexts) == 1


def test_proxy_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answer(http("200 OK", b"{}"))) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        with Server(answer(http("200 OK", b"{}"))) as server:
            assert send(server.url).outcome is Outcome.ACCEPTED
    assert proxy.connections == 0


# ----------------------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("response", "error", "reason"),
    [
        (http("401 Unauthorized"), CredentialsRefusedError, "http_401"),
        (http("403 Forbidden"), CredentialsRefusedError, "http_403"),
        (http("404 Not Found", b"no such bot"), ProviderRefusedError, "http_404"),
        (http("200 OK", b'{"error": "no"}'), ProviderRefusedError, "provider_said_no"),
        (http("200 OK", b"<html>"), ProviderUnavailableError, "not_json"),
        (http("200 OK", b'{"id": 1}'), ProviderUnavailableError, "not_a_list"),
        (http("503 Busy"), ProviderUnavailableError, "http_503"),
        (http("500 Oops"), ProviderUnavailableError, "http_500"),
    ],
)
def test_a_refused_list_is_an_error_with_its_reason(
    response: bytes, error: type[ProviderError], reason: str
) -> None:
    with Server(answer(response)) as server, pytest.raises(error) as caught:
        Client(server.url).subscribers(CREDENTIALS, "1")
    assert caught.value.reason == reason


def test_a_list_that_does_not_arrive_is_a_timeout() -> None:
    with Server(until_closed) as server, pytest.raises(ProviderUnavailableError) as caught:
        Client(server.url, deadline=SHORT).bots(CREDENTIALS)
    assert caught.value.timeout
    with pytest.raises(ProviderUnavailableError) as caught:
        Client(server.url).bots(CREDENTIALS)
    assert not caught.value.timeout
    assert caught.value.reason == "connect_refused"


def test_an_endless_list_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smsgold.client.MAX_LIST", 1_000_000)

    def endless(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
        while True:
            sock.sendall(b'{"id": 1},' * 1000)

    with Server(endless) as server, pytest.raises(ProviderUnavailableError) as caught:
        Client(server.url).bots(CREDENTIALS)
    assert caught.value.reason == "body_too_large"


def test_a_large_list_is_read_whole() -> None:
    items = [{"id": str(number), "name": "я" * 20} for number in range(20_000)]
    with Server(answer(http("200 OK", json.dumps(items).encode()))) as server:
        assert Client(server.url).subscribers(CREDENTIALS, "1") == items
