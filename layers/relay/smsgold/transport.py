"""Make one HTTP exchange: no redirects, no retries, one overall deadline, a capped body.

urllib3 applies a timeout to each socket call, so a peer that sends a byte now and then can hold a
thread for hours. The connections here turn it into one deadline for connecting, sending and reading
together. Only DNS resolution cannot be interrupted; the rest gets what time it leaves.
"""

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from smsgold.errors import TransportError, WithheldError, transport_error
from smsgold.responses import Response

MAX_IDLE = 4.0
"""Seconds after which an idle connection is not reused. Servers close theirs after 5 s or more, and
the outcome of a request sent at that moment is unknown. A thawed Lambda environment also holds
connections that the network has long dropped."""

Withhold = Callable[[], str | None]
"""Says why a request must not be sent any more, or None while it may."""

READ_BYTES = 64 * 1024
SEND_BYTES = 15 * 1024
"""One TLS record, headers included; the deadline is checked between records."""


def pool_manager(
    connections: int = 32, ssl_context: ssl.SSLContext | None = None
) -> urllib3.PoolManager:
    """Return a pool whose connections keep deadlines and share one verifying SSLContext.

    urllib3 would make a context for each connection and load the CA bundle each time: five times
    slower for the first batch. Threads beyond `connections` do not wait; the extra connections that
    they open are closed after use.
    """
    pool = urllib3.PoolManager(
        maxsize=connections, ssl_context=ssl_context or ssl.create_default_context()
    )
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


def exchange(
    pool: "Pool",
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    deadline: float,
    max_body: int,
    withhold: Withhold | None = None,
) -> Response | TransportError:
    """Make one request and return its response, or the error if there is none.

    `target` is the URL's path and query; `deadline` is in seconds from now. `withhold` is asked
    when there is a connection, right before the first byte: connecting can take seconds. A
    connection that came too late for this request is there for the next one. The error is returned,
    not raised: raising it would chain the exception it came from, which may hold the URL.
    """
    connection: _HttpConnection | None = None
    try:
        with pool.lent(deadline) as connection:
            if withhold and (reason := withhold()):
                return WithheldError(reason)
            with suppress(BrokenPipeError, ConnectionResetError):
                # The provider may have answered before the end of the request.
                connection.request(
                    method, target, body, headers, preload_content=False, decode_content=False
                )
            response = connection.getresponse()
            received, cut = _read(response, max_body)
            if cut:
                connection.close()
            return Response(response.status, response.headers, received, cut)
    except Exception as error:  # noqa: BLE001 - let no foreign exception out: it may hold the URL
        return transport_error(error, began=connection is not None and connection.began)


def connect(pool: "Pool", deadline: float) -> TransportError | None:
    """Have an open connection in the pool, or return why there is none.

    While one thread makes one, the others do not wait for it.
    """
    if not pool.connecting.acquire(blocking=False):
        return None
    try:
        with pool.lent(deadline):
            return None
    except Exception as error:  # noqa: BLE001 - as in `exchange`
        return transport_error(error, began=False)
    finally:
        pool.connecting.release()


def _read(response: urllib3.BaseHTTPResponse, max_body: int) -> tuple[bytes, str | None]:
    """Read up to `max_body` bytes; if that is not all, say why."""
    body = bytearray()
    try:
        while chunk := response.read1(READ_BYTES):
            body += chunk
            if len(body) > max_body:
                return bytes(body[:max_body]), "body_too_large"
            if response.length_remaining == 0:
                break  # without a last, empty read
    except Exception as error:  # noqa: BLE001 - as in `exchange`
        return bytes(body), transport_error(error, began=True).reason
    return bytes(body), None


def hide_content() -> None:
    """Keep URLs' queries and what the provider sends out of urllib3's logs.

    The provider takes the password in the query; of headers that are none, a connection logs the
    URL and the text.
    """
    logging.getLogger("urllib3.connection").addFilter(_CONTENT_FILTER)


class _ContentFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_content, record.args))
        record.exc_info = None
        return True


def _without_content(arg: object) -> object:
    if isinstance(arg, BaseException):
        return type(arg).__name__
    return arg.partition("?")[0] if isinstance(arg, str) else arg


_CONTENT_FILTER = _ContentFilter()


class _HttpConnection(HTTPConnection):
    """A connection with one deadline for the whole exchange."""

    ends = 0.0
    """The deadline of the exchange under way, by the monotonic clock."""
    began = False
    """Whether a byte of the request may have left: an exception before proves that none has."""
    _used_at = 0.0
    _has_answered = False
    _awaits_body = False
    _headers = b""

    @property
    def is_connected(self) -> bool:
        # Wall clock: the monotonic one may stop while the Lambda environment is frozen.
        idle = time.time() - self._used_at
        if not 0 <= idle <= MAX_IDLE:
            return False
        return super().is_connected if self._has_answered else self._is_silent()

    def _is_silent(self) -> bool:
        """Tell a server that sent only TLS session tickets from one that has closed.

        They come after the handshake and make the socket readable, which urllib3 takes for a closed
        connection. Reading takes them in.
        """
        if self.sock is None:
            return False
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def connect(self) -> None:
        super().connect()
        self._has_answered = False
        self._used_at = time.time()

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers, giving each a share of the time left.

        urllib3 would give each address the whole timeout. Its own subclasses override this method
        too, to connect in other ways.
        """
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        failure: OSError = OSError("no address")
        for waiting, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                sock = create_connection(
                    (address, self.port),
                    _left(self.ends) / waiting,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
            else:
                sock.settimeout(max(0.001, self.ends - time.monotonic()))
                return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "timed out") from failure
        raise NewConnectionError(self, "no connection") from failure

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        self._awaits_body = bool(body)
        self._headers = b""
        super().request(method, url, body, *args, **options)

    def send(self, data: Any) -> None:
        if self._awaits_body:
            # Send the headers with the body: a separate write costs a tenth of an exchange's CPU.
            self._headers, self._awaits_body = data, False
            return
        data, self._headers = self._headers + data, b""
        for start in range(0, len(data), SEND_BYTES):
            self.sock.settimeout(_left(self.ends))
            self.began = True
            super().send(data[start : start + SEND_BYTES])

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        self.response_class = self._response  # type: ignore[assignment]
        self._used_at = time.time()
        self._has_answered = True
        return super().getresponse()

    def _response(self, sock: socket.socket, *args: Any, **options: Any) -> HTTPResponse:
        # Of a socket, it only wants a file.
        return HTTPResponse(_Reader(sock, self.ends), *args, **options)  # type: ignore[arg-type]


class _Reader(io.RawIOBase):
    """What http.client reads of a socket; no read outlasts the deadline."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock = sock
        self._ends = ends
        self._bytes = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._ends))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


def _left(ends: float) -> float:
    """Return the seconds left, or raise TimeoutError if there are none."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    """The same over TLS."""


class Pool(urllib3.HTTPConnectionPool):
    """The connections to one host; `pool_manager` makes it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connecting = threading.Lock()

    @contextmanager
    def lent(self, seconds: float) -> Iterator[_HttpConnection]:
        """Lend an open connection for so many seconds; close it after an exception."""
        connection: Any = self._get_conn()
        try:
            connection.ends = time.monotonic() + seconds
            connection.began = False
            if connection.is_closed:
                connection.connect()
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self._put_conn(connection)


class _HttpPool(Pool):
    ConnectionCls = _HttpConnection


class _HttpsPool(Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
