"""Start the sandbox: `python -m local.sandbox`."""

import argparse
import asyncio
import logging
import os
import socket
import sys

from local.sandbox.faults import KINDS, REDIRECT, STATUS
from local.sandbox.roster import Credentials
from local.sandbox.server import SafeFormatter, bound, serve
from local.sandbox.state import State

GUIDE = """\
On --port: the provider's endpoints under /v1/telegram/bot, the inbox page at /, the control API.
On --control-port: the control API once more, which stays up through outages; any other request
there is recorded (GET /elsewhere), since it is where the redirect faults lead.

control API:
  GET, DELETE /ledger     the accepted messages; ?since=SEQ&text=PART&fields=time,text
  GET, DELETE /requests   every request the provider's endpoints saw, with its outcome
  GET, DELETE /elsewhere  requests that followed a redirect
  POST, GET, DELETE /faults
      {{"fault": "503", "times": 10, "share": 0.2, "seconds": 10, "on": "bots"}}: all but fault
      are optional; on: sendMessage (if not given), bots, subscribers or all
  GET, PUT /credentials   {{"user": "10001", "passwords": ["old", "new"]}}
  GET, POST /bots         {{"name": "Another bot"}}
  GET, POST, DELETE /bots/ID/subscribers  {{"count": 10000}} or {{"subscribers": [{{…}}, …]}}
  GET /health             where everything is

faults, armed by POST /faults or by a marker in a message's text, [[fault:503 times=2]]:
{faults}
"""


def _guide() -> str:
    kinds = {"400 … 599": STATUS, "301 302 303 307 308": REDIRECT, **KINDS}
    lines = (
        f"  {name:19} {kind.does}" + (f" [{', '.join(kind.options)}]" if kind.options else "")
        for name, kind in kinds.items()
    )
    return GUIDE.format(faults="\n".join(lines))


def _second(host: str, first: int, wanted: int | None) -> socket.socket:
    if wanted is not None:
        return bound(host, wanted)
    try:
        return bound(host, first + 1 if first else 0)
    except (OSError, OverflowError):
        return bound(host, 0)


def main() -> int:
    """Read the flags and run until a signal; 1 if a port is taken."""
    parser = argparse.ArgumentParser(
        prog="python -m local.sandbox",
        description="SMS Gold's Telegram endpoints on this machine, with an inbox and faults.",
        epilog=_guide(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4580, help="4580; 0 takes a free one")
    parser.add_argument(
        "--control-port", type=int, help="the next one, or a free one where that is taken"
    )
    parser.add_argument(
        "--user", default=os.environ.get("SANDBOX_USER", "10001"), help="or SANDBOX_USER; 10001"
    )
    parser.add_argument(
        "--password",
        action="append",
        help="or SANDBOX_PASSWORD; sandbox-password; given twice, both are valid",
    )
    args = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(SafeFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    passwords = args.password or [os.environ.get("SANDBOX_PASSWORD", "sandbox-password")]
    try:
        first = bound(args.host, args.port)
        second = _second(args.host, args.port, args.control_port)
    except OSError as error:
        ports = f"{args.port}" if args.control_port is None else f"{args.port}, {args.control_port}"
        print(f"sandbox: cannot listen on {args.host}, port {ports}: {error}", file=sys.stderr)
        return 1
    asyncio.run(serve(State(Credentials(args.user, passwords)), first, second))
    return 0


if __name__ == "__main__":
    sys.exit(main())
