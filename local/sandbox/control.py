"""The control API and the inbox: how people and tests use the sandbox itself."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from local.sandbox import api_docs, faults
from local.sandbox.ledger import FIELDS, shown
from local.sandbox.roster import Bot
from local.sandbox.state import STATE

INBOX = Path(__file__).with_name("inbox.html")
PAGE_FIELDS = (
    *("seq", "time", "botId", "bot", "subscriberId", "subscriber"),
    *("number", "text", "buttons", "fault"),
)
PAGE_BACKLOG = 2000  # messages at most for a page that has just opened
SUBSCRIBERS_AT_ONCE = 100_000


def routes() -> list[web.RouteDef]:
    """Return the routes of both ports."""
    return [
        web.get("/", _inbox, allow_head=False),
        web.get("/docs", api_docs.page, allow_head=False),
        web.get("/events", _events, allow_head=False),
        web.get("/health", _health, allow_head=False),
        web.get("/ledger", _ledger, allow_head=False),
        web.delete("/ledger", _clear_ledger),
        web.get("/requests", _requests, allow_head=False),
        web.delete("/requests", _clear_requests),
        web.get("/elsewhere", _elsewhere, allow_head=False),
        web.delete("/elsewhere", _clear_elsewhere),
        web.get("/faults", _faults, allow_head=False),
        web.post("/faults", _arm),
        web.delete("/faults", _disarm),
        web.delete("/faults/{id}", _disarm),
        web.get("/credentials", _credentials, allow_head=False),
        web.put("/credentials", _set_credentials),
        web.get("/bots", _bots, allow_head=False),
        web.post("/bots", _add_bot),
        web.get("/bots/{bot}/subscribers", _subscribers, allow_head=False),
        web.post("/bots/{bot}/subscribers", _add_subscribers),
        web.delete("/bots/{bot}/subscribers", _empty),
    ]


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn the framework's errors into JSON, as the provider answers them."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.json_response({"error": error.text}, status=error.status, headers=headers)


def _wrong(reason: str, status: int = 400) -> web.HTTPException:
    kind = web.HTTPNotFound if status == 404 else web.HTTPBadRequest
    return kind(text=reason)


async def _read(request: web.Request, types: Mapping[str, Any]) -> dict[str, Any]:
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError:
        raise _wrong("the body is not JSON") from None
    if not isinstance(body, dict) or body.keys() - types:
        raise _wrong(f"the body must be a JSON object with no fields but {', '.join(types)}")
    for name, value in body.items():
        # In Python, unlike JSON, true is a number
        if not isinstance(value, types[name]) or isinstance(value, bool) > (types[name] is bool):
            raise _wrong(f"{name} has the wrong type")
    return body


# -- the inbox ----------------------------------------------------------------------------------


async def _inbox(_request: web.Request) -> web.StreamResponse:
    return web.Response(
        text=INBOX.read_text(encoding="utf-8"),
        content_type="text/html",
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; connect-src 'self'; img-src data:",
        },
    )


async def _events(request: web.Request) -> web.StreamResponse:
    """Stream accepted messages to the page; one that reconnects goes on from where it was."""
    ledger = request.app[STATE].ledger
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    era, _, last = request.headers.get("Last-Event-ID", "").partition(":")
    seq = int(last) if last.isdecimal() else 0
    while True:
        changed = ledger.changed  # read first, so that no message is missed
        if anew := era != ledger.era:
            era, seq = ledger.era, 0
            await response.write(b"event: reset\ndata: {}\n\n")
        if fresh := ledger.since(seq)[-PAGE_BACKLOG:]:
            seq = fresh[-1].seq
            data = json.dumps(shown(fresh, PAGE_FIELDS))
            await response.write(f"id: {era}:{seq}\ndata: {data}\n\n".encode())
        if anew:  # messages after this are new
            await response.write(b"event: caught-up\ndata: {}\n\n")
        try:
            async with asyncio.timeout(15):
                await changed.wait()
        except TimeoutError:
            await response.write(b": keep-alive\n\n")
        await asyncio.sleep(0.05)  # send a burst together


# -- what the sandbox saw -----------------------------------------------------------------------


async def _health(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    return web.json_response(
        {
            "status": "ok",
            "inbox": f"{state.origin}/",
            "baseUrl": f"{state.origin}/v1/telegram/bot",
            "controlUrl": state.control_origin,
            "messages": len(state.ledger),
        }
    )


async def _ledger(request: web.Request) -> web.StreamResponse:
    query = request.query
    wanted = [name for name in query.get("fields", "").split(",") if name]
    if unknown := set(wanted) - FIELDS:
        raise _wrong(
            f"no field {', '.join(sorted(unknown))}; the fields are {', '.join(sorted(FIELDS))}"
        )
    since = query.get("since", "0")
    if not since.isdecimal():
        raise _wrong("since must be a sequence number")
    text = query.get("text", "")
    entries = request.app[STATE].ledger.since(int(since))
    return web.json_response(shown([entry for entry in entries if text in entry.text], wanted))


async def _clear_ledger(request: web.Request) -> web.StreamResponse:
    request.app[STATE].ledger.clear()
    return web.json_response([])


async def _requests(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[STATE].requests.summary())


async def _clear_requests(request: web.Request) -> web.StreamResponse:
    request.app[STATE].requests.clear()
    return web.json_response([])


async def _elsewhere(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[STATE].elsewhere)


async def _clear_elsewhere(request: web.Request) -> web.StreamResponse:
    request.app[STATE].elsewhere.clear()
    return web.json_response([])


# -- faults -------------------------------------------------------------------------------------


async def _faults(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[STATE].armed.shown())


async def _arm(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    number = (int, float)
    body = await _read(
        request, {"fault": str, "times": int, "share": number, "seconds": number, "on": str}
    )
    try:
        fault = faults.parse(body.pop("fault", ""))
        switch = state.armed.arm(fault, **({"on": "all"} if fault.hits_connections else {}) | body)
    except faults.FaultError as error:
        raise _wrong(str(error)) from None
    await state.faults_changed()
    return web.json_response({"id": switch.id, "fault": fault.spec}, status=201)


async def _disarm(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    switch_id = request.match_info.get("id")
    if switch_id is None:
        state.armed.clear()
    elif not (switch_id.isdecimal() and state.armed.clear(int(switch_id))):
        raise _wrong("no fault with this id is armed", 404)
    await state.faults_changed()
    return web.json_response(state.armed.shown())


# -- the account --------------------------------------------------------------------------------


async def _credentials(request: web.Request) -> web.StreamResponse:
    credentials = request.app[STATE].credentials
    return web.json_response({"user": credentials.user, "passwords": credentials.passwords})


async def _set_credentials(request: web.Request) -> web.StreamResponse:
    credentials = request.app[STATE].credentials
    body = await _read(request, {"user": str, "passwords": list})
    passwords = body.get("passwords", credentials.passwords)
    if not all(isinstance(password, str) and password for password in passwords):
        raise _wrong("passwords must be an array of non-empty strings")
    credentials.user, credentials.passwords = body.get("user", credentials.user), passwords
    return await _credentials(request)


def _bot(request: web.Request) -> Bot:
    bot = request.app[STATE].roster.bots.get(request.match_info["bot"])
    if bot is None:
        raise _wrong("no such bot", 404)
    return bot


async def _bots(request: web.Request) -> web.StreamResponse:
    bots = request.app[STATE].roster.bots.values()
    return web.json_response([bot.entry() | {"subscribers": len(bot.subscribers)} for bot in bots])


async def _add_bot(request: web.Request) -> web.StreamResponse:
    body = await _read(request, {"id": str, "name": str, "username": str})
    bot = request.app[STATE].roster.add_bot(
        body.get("name", "Another bot"), body.get("username", "another_bot"), body.get("id")
    )
    return web.json_response(bot.entry(), status=201)


async def _subscribers(request: web.Request) -> web.StreamResponse:
    return web.json_response(_bot(request).subscribers)


async def _add_subscribers(request: web.Request) -> web.StreamResponse:
    roster, bot = request.app[STATE].roster, _bot(request)
    body = await _read(request, {"count": int, "blocked": bool, "subscribers": list})
    count = body.get("count", 0)
    if not 0 <= count <= SUBSCRIBERS_AT_ONCE:
        raise _wrong(f"count must be from 0 to {SUBSCRIBERS_AT_ONCE}")
    entries = body.get("subscribers", [])
    if not all(isinstance(entry, dict) for entry in entries):
        raise _wrong("subscribers must be an array of objects")
    added = [*entries, *roster.made_up(count, blocked=body.get("blocked", False))]
    roster.add_subscribers(bot, added)
    return web.json_response(added, status=201)


async def _empty(request: web.Request) -> web.StreamResponse:
    request.app[STATE].roster.empty(_bot(request))
    return web.json_response([])
