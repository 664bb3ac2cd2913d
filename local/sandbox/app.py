"""The sandbox's two web applications, one for each port."""

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from local.gate import foreign, hosts
from local.sandbox import control, effects, faults, provider
from local.sandbox.provider import Json
from local.sandbox.state import STATE, State

BASE_PATH = "/v1/telegram/bot"
BODY_LIMIT = 1024**2

log = logging.getLogger("sandbox")

Answer = Callable[[State, web.Request, bytes, faults.Fault | None], Json]


def provider_app(state: State) -> web.Application:
    """Return the application with the provider's endpoints, the inbox and the control API."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=BODY_LIMIT)
    app[STATE] = state
    app.add_routes(
        [
            web.get(f"{BASE_PATH}/bots/", _endpoint("bots", _bots), allow_head=False),
            web.get(
                f"{BASE_PATH}/subscribers/",
                _endpoint("subscribers", _subscribers),
                allow_head=False,
            ),
            web.post(f"{BASE_PATH}/sendMessage/", _endpoint("sendMessage", _send_message)),
            *control.routes(),
        ]
    )
    return app


def control_app(state: State) -> web.Application:
    """Return the application with the control API; it records every other request."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=16 * BODY_LIMIT)
    app[STATE] = state
    app.add_routes([*control.routes(), web.route("*", "/{path:.*}", _record_elsewhere)])
    return app


class _LimitedError(Exception):
    """A message exceeds a limit."""

    def __init__(self, fault: faults.Fault) -> None:
        super().__init__(fault.spec)
        self.fault = fault


def _endpoint(operation: str, answer: Answer) -> Handler:
    outcome = "accepted" if operation == "sendMessage" else "listed"

    async def handle(request: web.Request) -> web.StreamResponse:
        state = request.app[STATE]
        raw = await request.read()
        fault, delay, reply, refused = None, 0.0, None, None
        try:
            strike = state.armed.strike(operation, faults.marked(raw))
            fault, delay = strike.fault, strike.delay
            if fault is None or fault.accepted:
                reply = answer(state, request, raw, fault)
        except provider.RefusedError as error:
            refused, fault = error, None
        except _LimitedError as error:
            fault = error.fault
        except faults.FaultError as error:
            refused = provider.RefusedError(400, str(error))
        state.requests.add(
            time=time.time(),
            operation=operation,
            outcome="refused" if refused else "fault" if fault else outcome,
            status=refused.status if refused else fault.status if fault else 200,
            fault=fault.spec if fault else None,
        )
        await asyncio.sleep(delay)
        if refused:
            return web.json_response({"error": refused.reason}, status=refused.status)
        if fault:
            request["fault"] = fault.spec
            return await effects.act(fault, request, reply, state.control_origin)
        return web.json_response(reply)

    return handle


def _bots(state: State, request: web.Request, _raw: bytes, _fault: faults.Fault | None) -> Json:
    query = provider.read_query(list(request.query.items()), {"user", "pass"})
    provider.check_credentials(state.credentials, query["user"], query["pass"])
    return [bot.entry() for bot in state.roster.bots.values()]


def _subscribers(
    state: State, request: web.Request, _raw: bytes, _fault: faults.Fault | None
) -> Json:
    query = provider.read_query(list(request.query.items()), {"user", "pass", "botId"})
    provider.check_credentials(state.credentials, query["user"], query["pass"])
    return provider.find_bot(state.roster, query["botId"]).subscribers


def _send_message(
    state: State, request: web.Request, raw: bytes, fault: faults.Fault | None
) -> Json:
    body = provider.read_body(request.content_type, raw)
    provider.check_auth(state.credentials, body)
    message = provider.read_message(state.roster, body)
    if limit := state.armed.limit(str(message.subscriber.get("id"))):
        raise _LimitedError(limit)
    entry = state.ledger.accept(
        message,
        time=time.time(),
        raw=raw.decode(),
        headers=dict(request.headers),
        fault=fault.spec if fault else None,
    )
    return {"success": True, "id": entry.id}


async def _record_elsewhere(request: web.Request) -> web.StreamResponse:
    raw = await request.read()
    request.app[STATE].elsewhere.append(
        {
            "time": time.time(),
            "method": request.method,
            "path": request.path,
            "query": request.query_string,
            "headers": dict(request.headers),
            "body": raw.decode(errors="replace"),
        }
    )
    return web.json_response({"success": True, "id": "elsewhere"})


@web.middleware
async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    # Query and body are not logged: they contain the password.
    started, status = time.monotonic(), "gone"  # the client left before the response
    try:
        response = await handler(request)
        status = str(response.status)
        return response
    finally:
        log.info(
            "%s %s %s %.0f ms",
            request.method,
            request.rel_url.raw_path,
            f"fault={request['fault']!r}" if "fault" in request else status,
            (time.monotonic() - started) * 1000,
        )


@web.middleware
async def _gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    name = f"[{address}]" if ":" in address else address
    if reason := foreign(request.headers, hosts(port, name)):
        text = f"The sandbox refused this request: {reason}."
        return web.json_response({"error": text}, status=403)
    return await handler(request)


MIDDLEWARES = (_logged, _gate, control.json_errors)
