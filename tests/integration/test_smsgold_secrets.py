"""Search all that a client leaves behind for the password, in every encoding."""

import base64
import html
import io
import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest

from smsgold.client import Client, OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.errors import SmsGoldError
from tests.support.wire import Server, http, reset, until_closed

PASSWORD = 'p@ss w&rd"é+%/'
CREDENTIALS = Credentials("12345.6", PASSWORD)
NUMBER = "79991234567"
TEXT = "Ваш код: 4711, https://example.com/4711"
MESSAGE = OutgoingMessage(TEXT, bot_id="bot", number=NUMBER, buttons=(("Да", "https://a.b/c"),))


def spellings(text: str) -> set[str]:
    """Return a text as other programs encode it, made without the code under test."""
    return {
        text,
        quote(text),
        quote(text, safe=""),
        quote_plus(text),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        json.dumps(text)[1:-1].replace("/", "\\/"),
        repr(text)[1:-1],
        ascii(text)[1:-1],
        repr(text.encode())[2:-1],
        html.escape(text),
    }


def base64_parts(text: str) -> set[str]:
    """Return roughly the part of a text's base64 that does not depend on its neighbours."""
    return {
        encode(b"." * shift + form.encode())[4:-4].decode()
        for form in (text, quote(text, safe=""), json.dumps(text)[1:-1])
        for shift in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }


NEEDLES = spellings(PASSWORD) | base64_parts(PASSWORD)


def auth_in(request: bytes) -> str:
    head, _, body = request.partition(b"\r\n\r\n")
    return body.decode() or head.split()[1].decode()


def echo(status: str, render: Callable[[str], bytes]) -> Callable[[socket.socket], None]:
    """Respond with the request itself, as some gateways do."""

    def script(sock: socket.socket) -> None:
        sock.sendall(http(status, render(auth_in(servers[sock.getsockname()[1]].requests[-1]))))

    return script


servers: dict[int, Server] = {}


def answer(response: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(response)


def cut(response: bytes) -> Callable[[socket.socket], None]:
    def script(sock: socket.socket) -> None:
        sock.sendall(response)
        sock.close()

    return script


def spell_out(request: str) -> bytes:
    return json.dumps({"error": f"not allowed: {PASSWORD}", "request": request}).encode()


SCRIPTS: dict[str, Callable[[socket.socket], None]] = {
    "accepted": answer(http("200 OK", b'{"id": 7}')),
    "a list": answer(http("200 OK", b'[{"id": 7}]')),
    "refused": answer(http("400 Bad Request", b"no")),
    "wrong password": answer(http("401 Unauthorized", b"no")),
    "redirect": answer(http("302 Found", b"", "Location: /bots/?pass=" + quote(PASSWORD))),
    "busy": answer(http("503 Busy", b"", "Retry-After: 1")),
    "broken": answer(http("500 Oops")),
    "not json": answer(http("200 OK", b"<html>")),
    "header without a colon": answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno colon here\r\n\r\n{}"
    ),
    "a list among the headers": answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
        + b'Notice [{"number": "%s", "text": "%s"}]\r\n\r\n[]' % (NUMBER.encode(), TEXT.encode())
    ),
    "half a list": answer(http("503 Busy", f'[{{"number": "{NUMBER}"}}, {{"num'.encode())),
    "a list behind a notice": answer(
        http("200 OK", f'<b>Notice</b> [{{"number": "{NUMBER}"}}]'.encode())
    ),
    "two lengths": cut(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}"),
    "length and chunks": cut(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "not http": cut(b"hello\r\n\r\n"),
    "reset": reset,
    "cut": cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "no answer": until_closed,
    "accepted, echoed": echo(
        "200 OK", lambda request: json.dumps({"id": 7, "request": request}).encode()
    ),
    "accepted, echoed as it came": echo(
        "200 OK", lambda request: request.encode() if request.startswith("{") else b"{}"
    ),
    "refused, echoed as html": echo(
        "400 Bad Request", lambda request: html.escape(f"<p>{request}").encode()
    ),
    "refused, echoed as base64": echo(
        "400 Bad Request", lambda request: base64.b64encode(request.encode())
    ),
    "refused, echoed as a literal": echo(
        "400 Bad Request", lambda request: ascii(request).encode()
    ),
    "wrong password, spelled out": echo("403 Forbidden", spell_out),
    "an error in a 200, spelled out": echo("200 OK", spell_out),
    "unavailable, echoed": echo("503 Busy", lambda request: request.encode()),
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Capture every logger at DEBUG, without the relay's own formatter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)r"))
    loggers = [logging.getLogger(), logging.getLogger("urllib3"), logging.getLogger("smsgold")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    # On each of them, because another test may have turned their propagation off.
    own = [logger for logger in loggers if logger is loggers[0] or not logger.propagate]
    for logger in own:
        logger.addHandler(handler)
    yield stream
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for logger in own:
        logger.removeHandler(handler)


def leftovers(client: Client) -> str:
    """Call every operation once and return all that it leaves behind."""
    verdict = client.send(CREDENTIALS, MESSAGE)
    found = [repr(verdict), str(verdict), repr(client), repr(CREDENTIALS), repr(MESSAGE)]
    operations: list[Callable[[], object]] = [
        lambda: client.bots(CREDENTIALS),
        lambda: client.subscribers(CREDENTIALS, "bot"),
    ]
    for operation in operations:
        try:
            found.append(repr(operation()))
        except SmsGoldError as error:
            logging.getLogger("test").exception("logged by a caller")
            found += [str(error), repr(error), repr(vars(error)), repr(error.args)]
            found += traceback.format_exception(error)
            chained = error.__context__ or error.__cause__
            while chained:
                found += [repr(chained), repr(vars(chained))]
                chained = chained.__context__ or chained.__cause__
    return "\n".join(found)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_password_leaks_nowhere(
    name: str, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with Server(SCRIPTS[name]) as server:
        servers[server.port] = server
        left = leftovers(Client(f"{server.url}/v1", deadline=0.3))
    assert any(needle in auth_in(request) for request in server.requests for needle in NEEDLES)
    logged = log.getvalue()
    assert "Starting new HTTP connection" in logged
    shown = left + logged + "".join(capfd.readouterr())
    for needle in NEEDLES:
        assert needle not in shown
    assert NUMBER not in shown
    for needle in spellings(TEXT):
        assert needle not in shown


@pytest.mark.parametrize("url", ["https://nowhere.invalid", "http://127.0.0.1:1"])
def test_the_password_leaks_nowhere_when_nothing_answers(
    url: str, log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = leftovers(Client(url)) + log.getvalue() + "".join(capfd.readouterr())
    assert "connect_refused" in shown or "dns" in shown
    for needle in NEEDLES:
        assert needle not in shown
