"""What each fault does to the response."""

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from functools import cache

from aiohttp import web

from local.sandbox.faults import REDIRECTS, SHAPES, Fault, retry_after
from local.sandbox.provider import Json

HTML = "<!DOCTYPE html><title>SMS Gold</title><h1>Ведутся технические работы</h1>"
BOMB_MEGABYTES = 64
PIECE = b"x" * 65536


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with a RST, as a crashed peer or a firewall does."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.Transport):
        transport.abort()


async def act(
    fault: Fault, request: web.Request, reply: Json, control_origin: str
) -> web.StreamResponse:
    """Answer a request as the fault does; redirects lead to the control port's origin."""
    if fault.status in REDIRECTS:
        location = control_origin + str(request.rel_url)
        return web.Response(status=fault.status, headers={"Location": location})
    if fault.status is not None:
        return _status(fault.status, fault)
    return await _EFFECTS[fault.name](fault, request, reply)


def _status(status: int, fault: Fault) -> web.Response:
    reason = {401: "wrong user or pass", 403: "the account is locked", 429: "too many requests"}
    response = web.json_response({"error": reason.get(status, "an armed fault")}, status=status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = retry_after(fault.retry_after, time.time())
    return response


async def _says_no(fault: Fault, _request: web.Request, _reply: Json) -> web.StreamResponse:
    return web.json_response(SHAPES[fault.shape])


async def _hang(_fault: Fault, _request: web.Request, _reply: Json) -> web.StreamResponse:
    await asyncio.Event().wait()  # until the client leaves or the sandbox stops
    raise AssertionError("never set")


async def _reset(_fault: Fault, request: web.Request, _reply: Json) -> web.StreamResponse:
    if request.transport is not None:
        reset(request.transport)
    return web.Response()  # goes nowhere: the connection was reset


async def _cut(request: web.Request, start: bytes) -> web.StreamResponse:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.write(start)
        request.transport.close()
    return web.Response()  # goes nowhere: the connection is closed


async def _cut_headers(_fault: Fault, request: web.Request, _reply: Json) -> web.StreamResponse:
    return await _cut(request, b"HTTP/1.1 200 OK\r\nContent-Type: applica")


async def _cut_body(_fault: Fault, request: web.Request, reply: Json) -> web.StreamResponse:
    body = json.dumps(reply).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return await _cut(request, head.encode() + body[: len(body) // 2])


async def _drip(fault: Fault, request: web.Request, reply: Json) -> web.StreamResponse:
    body = json.dumps(reply).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    for position in range(len(body)):
        await response.write(body[position : position + 1])
        await asyncio.sleep(fault.every)
    return response


async def _endless(_fault: Fault, request: web.Request, _reply: Json) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id":"')
    while True:
        await response.write(PIECE)
        await asyncio.sleep(0.01)  # a few MB a second exceed any limit soon enough


async def _empty(_fault: Fault, _request: web.Request, _reply: Json) -> web.StreamResponse:
    return web.Response()


async def _html(_fault: Fault, _request: web.Request, _reply: Json) -> web.StreamResponse:
    return web.Response(text=HTML, content_type="text/html")


async def _large(fault: Fault, _request: web.Request, reply: Json) -> web.StreamResponse:
    return web.json_response({"result": reply, "padding": "x" * int(fault.megabytes * 1e6)})


async def _gzip_bomb(_fault: Fault, _request: web.Request, _reply: Json) -> web.StreamResponse:
    return web.Response(
        body=await asyncio.to_thread(_bomb),
        content_type="application/json",
        headers={"Content-Encoding": "gzip"},
    )


@cache
def _bomb() -> bytes:
    return gzip.compress(b'{"padding":"' + b"x" * BOMB_MEGABYTES * 2**20 + b'"}')


_EFFECTS: dict[str, Callable[[Fault, web.Request, Json], Awaitable[web.StreamResponse]]] = {
    "says-no": _says_no,
    "hang": _hang,
    "hang-after": _hang,
    "reset": _reset,
    "reset-after": _reset,
    "outage": _reset,  # on a connection older than the outage
    "closed": _reset,  # likewise
    "cut-headers": _cut_headers,
    "cut-body": _cut_body,
    "drip": _drip,
    "endless": _endless,
    "empty": _empty,
    "html": _html,
    "large": _large,
    "gzip-bomb": _gzip_bomb,
}
