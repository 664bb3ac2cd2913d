"""The sandbox's state, which its two ports share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local.sandbox.faults import ArmedFaults
from local.sandbox.ledger import Ledger, RequestLog
from local.sandbox.roster import Credentials, Roster, furnished


async def _nothing() -> None:
    """Stand in until the provider's port listens."""


@dataclass
class State:
    """Everything the sandbox knows; `elsewhere` holds the requests that followed a redirect."""

    credentials: Credentials
    roster: Roster = field(default_factory=furnished)
    ledger: Ledger = field(default_factory=Ledger)
    requests: RequestLog = field(default_factory=RequestLog)
    armed: ArmedFaults = field(default_factory=ArmedFaults)
    elsewhere: list[dict[str, Any]] = field(default_factory=list)
    origin: str = ""
    control_origin: str = ""
    faults_changed: Callable[[], Awaitable[None]] = _nothing


STATE = web.AppKey("state", State)
