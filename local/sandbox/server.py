"""The sandbox's two ports: the provider's, which faults can close, and the control port."""

import asyncio
import logging
import signal
import socket
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType

from aiohttp import web

from local.sandbox.app import BASE_PATH, control_app, provider_app
from local.sandbox.effects import reset
from local.sandbox.faults import Switch
from local.sandbox.state import State

log = logging.getLogger("sandbox")


class _Reset(asyncio.Protocol):
    """A connection that is reset at its first byte.

    Reset any earlier, it would look refused to some clients.
    """

    def __init__(self, struck: Callable[[], None]) -> None:
        self._struck = struck
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        if self._transport:
            self._struck()
            reset(self._transport)
            self._transport = None


class Listener:
    """The provider's port: open, or closed or resetting connections by a fault."""

    def __init__(self, state: State, server: web.Server, sock: socket.socket) -> None:
        self._armed = state.armed
        self._requests = state.requests
        self._server = server
        self._sock = sock
        self._listening: asyncio.Server | None = None
        self._again: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Open or close the port as the armed faults demand, now and when they end."""
        async with self._moved:
            if self._again:
                self._again.cancel()
            closed = self._armed.longest("closed")
            if closed and closed.until is not None:
                # Slightly late, so that the switch has ended by then.
                later = closed.until - time.monotonic() + 0.01
                self._again = self._loop.call_later(later, self._follow_soon)
            if closed and self._listening:
                host, port = self._sock.getsockname()[:2]
                self._listening.close()
                self._listening = None
                self._sock = bound(host, port)  # keeps the port while connections are refused
            elif not closed and not self._listening:
                self._listening = await self._loop.create_server(self._protocol, sock=self._sock)

    def _follow_soon(self) -> None:
        self._task = self._loop.create_task(self.follow())

    def _protocol(self) -> asyncio.BaseProtocol:
        outage = self._armed.longest("outage")
        return _Reset(partial(self._count, outage)) if outage else self._server()

    def _count(self, outage: Switch) -> None:
        outage.struck += 1
        self._requests.add(
            time=time.time(),
            operation="connection",
            outcome="fault",
            status=None,
            fault=outage.fault.spec,
        )

    def close(self) -> None:
        """Stop listening for good."""
        if self._again:
            self._again.cancel()
        if self._listening:
            self._listening.close()
        self._sock.close()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to the port, not listening yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def origin(sock: socket.socket) -> str:
    """Return the HTTP origin of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(state: State, provider: socket.socket, control: socket.socket) -> None:
    """Run the sandbox on two bound sockets until SIGTERM or SIGINT."""
    state.origin, state.control_origin = origin(provider), origin(control)
    # handler_cancellation: a hanging response ends when its client leaves.
    runner, control_runner = (
        web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        for app in (provider_app(state), control_app(state))
    )
    await runner.setup()
    await control_runner.setup()
    assert runner.server is not None
    listener = Listener(state, runner.server, provider)
    state.faults_changed = listener.follow
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        await listener.follow()
        await web.SockSite(control_runner, control).start()
        log.info("provider: %s%s", state.origin, BASE_PATH)
        log.info("inbox: %s/", state.origin)
        log.info("control: %s (the control API, even during an outage)", state.control_origin)
        await stopped.wait()
    finally:
        listener.close()
        await asyncio.gather(runner.cleanup(), control_runner.cleanup())


class SafeFormatter(logging.Formatter):
    """Show where an error came from, but not its text: it may quote a URL with the password."""

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        """Return the stack and the error's class."""
        return "".join(traceback.format_tb(ei[2])) + (ei[0].__name__ if ei[0] else "")
