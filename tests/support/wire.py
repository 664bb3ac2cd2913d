"""A socket server that plays scripts, so that clients meet what real networks do to them."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Self

Script = Callable[[socket.socket], None]


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a complete response."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def read_request(sock: socket.socket) -> bytes:
    """Return one complete request, or nothing if the client has closed."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := sock.recv(65536)):
            return b""
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until_closed(sock: socket.socket) -> None:
    """Wait until the client has closed the connection."""
    with suppress(OSError):
        while sock.recv(65536):
            pass


class Server:
    """Serves each connection by running `after_request` after every request, or `talk` alone.

    For `busy_for` seconds its backlog is full, and each TLS handshake begins `handshake_after`
    seconds late.
    """

    def __init__(
        self,
        after_request: Script | None = None,
        *,
        talk: Script | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        busy_for: float = 0.0,
        handshake_after: float = 0.0,
    ) -> None:
        self.requests: list[bytes] = []
        self.times: list[float] = []
        """When each request had arrived."""
        self.connections = 0
        self._busy_for = busy_for
        self._handshake_after = handshake_after
        self._after_request = after_request
        self._talk = talk
        self._tls = tls
        self._listener = socket.create_server((host, port), backlog=0 if busy_for else None)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else host}:{self.port}"

    def __enter__(self) -> Self:
        fillers = _fill(self._listener) if self._busy_for else []
        self._start(self._accept, fillers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, fillers: list[socket.socket]) -> None:
        if fillers:
            time.sleep(self._busy_for)
            self.connections -= len(fillers) - 1  # the last one found no place
            for filler in fillers:
                filler.close()
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        # Many of these scripts make the client hang up in the middle.
        with closing(sock), suppress(OSError):
            if self._talk:
                self._talk(sock)
                return
            if self._tls:
                time.sleep(self._handshake_after)
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            with closing(sock):
                while request := read_request(sock):
                    self.requests.append(request)
                    self.times.append(time.time())
                    assert self._after_request
                    self._after_request(sock)


@contextmanager
def full_backlog(host: str = "127.0.0.1") -> Iterator[int]:
    """Yield a port whose backlog is full: it answers no further connection."""
    with closing(socket.socket()) as listener:
        listener.bind((host, 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = _fill(listener)
        try:
            yield port
        finally:
            for filler in waiting:
                filler.close()


def _fill(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that fill a backlog, and one more that finds no place in it."""
    fillers: list[socket.socket] = []
    while True:
        filler = socket.socket()
        fillers.append(filler)
        filler.settimeout(0.2)
        try:
            filler.connect(listener.getsockname())
        except TimeoutError:
            return fillers
