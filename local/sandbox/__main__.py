"""Start the sandbox: `python -m local.sandbox`."""

import argparse
import asyncio
import logging
import os
import socket
import sys
import textwrap

from local.sandbox.faults import CATALOGUE, OPTIONS, Kind
from local.sandbox.roster import Credentials
from local.sandbox.server import SafeFormatter, bound, serve
from local.sandbox.state import State

GUIDE = """\
--port has the provider's endpoints under /v1/telegram/bot, the inbox at / and the control API.
--control-port has the control API alone and answers during an outage, too. Redirect faults lead
there; it records every other request (GET /elsewhere).

control API:
  GET, DELETE /ledger     the accepted messages; ?since=SEQ&text=PART&fields=time,text
  GET, DELETE /requests   every request to the provider's endpoints, with its outcome
  GET, DELETE /elsewhere  requests that followed a redirect
  POST, GET, DELETE /faults
      {{"fault": "503", "times": 10, "share": 0.2, "seconds": 10, "on": "bots"}}; only fault is
      required; on is sendMessage (the default), bots, subscribers or all
  GET, PUT /credentials   {{"user": "10001", "passwords": ["old", "new"]}}
  GET, POST /bots         {{"name": "Another bot"}}
  GET, POST, DELETE /bots/ID/subscribers  {{"count": 10000}} or {{"subscribers": [{{…}}, …]}}
  GET /health             the addresses of everything

faults, armed with POST /faults or by a marker in a message's text, [[fault:503 times=2]]:
{faults}

options of faults:
{options}
"""


def _guide() -> str:
    faults = (_entry(name, _described(kind)) for name, kind in CATALOGUE.items())
    options = (_entry(name, option.does.replace("`", "")) for name, option in OPTIONS.items())
    return GUIDE.format(faults="\n".join(faults), options="\n".join(options))


def _described(kind: Kind) -> str:
    options = f" [{', '.join(kind.options)}]" if kind.options else ""
    return f"{'accepted, then ' * kind.accepted}{kind.client_sees}{options}"


def _entry(name: str, text: str) -> str:
    return textwrap.fill(f"  {name:19} {text}", 98, subsequent_indent=" " * 22)


def _control_socket(host: str, port: int, wanted: int | None) -> socket.socket:
    if wanted is not None:
        return bound(host, wanted)
    try:
        return bound(host, port + 1 if port else 0)
    except (OSError, OverflowError):
        return bound(host, 0)


def main() -> int:
    """Run the sandbox until a signal; return 1 if a port is taken."""
    parser = argparse.ArgumentParser(
        prog="python -m local.sandbox",
        description="SMS Gold's Telegram endpoints on this machine, with an inbox and faults.",
        epilog=_guide(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 by default")
    parser.add_argument(
        "--port", type=int, default=4580, help="4580 by default; 0 takes a free one"
    )
    parser.add_argument(
        "--control-port", type=int, help="the next port by default, or a free one if it is taken"
    )
    parser.add_argument(
        "--user",
        default=os.environ.get("SANDBOX_USER", "10001"),
        help="SANDBOX_USER or 10001 by default",
    )
    parser.add_argument(
        "--password",
        action="append",
        help="SANDBOX_PASSWORD or sandbox-password by default; give it twice to make two valid",
    )
    args = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(SafeFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    passwords = args.password or [os.environ.get("SANDBOX_PASSWORD", "sandbox-password")]
    try:
        provider = bound(args.host, args.port)
        control = _control_socket(args.host, args.port, args.control_port)
    except OSError as error:
        ports = f"{args.port}" if args.control_port is None else f"{args.port}, {args.control_port}"
        print(f"sandbox: cannot listen on {args.host}, port {ports}: {error}", file=sys.stderr)
        return 1
    asyncio.run(serve(State(Credentials(args.user, passwords)), provider, control))
    return 0


if __name__ == "__main__":
    sys.exit(main())
