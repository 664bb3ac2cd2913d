"""A first look at a running stack: a message sent through it, and what to try next."""

import json
import shlex
import time
from collections.abc import Mapping

import requests

ARRIVAL_TIMEOUT = 60.0  # seconds
TEXT = "Привет! This came through the relay on your own machine."


class TrialError(Exception):
    """The first message did not arrive; the text says how far it got."""


def send(facts: Mapping[str, str]) -> str:
    """Send a message to the sandbox's first subscriber and wait until it arrives; return where."""
    response = requests.post(
        f"{facts['apiUrl']}/messages",
        headers={"x-api-key": facts["apiKey"]},
        json={"subscriberId": subscriber(facts), "text": TEXT},
        timeout=40,  # the first request starts the function
    )
    if response.status_code != requests.codes.accepted:
        raise TrialError(f"POST /messages answered {response.status_code}: {response.text[:500]}")
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    while time.monotonic() < deadline:
        for entry in _get(f"{facts['sandboxUrl']}/ledger"):
            if entry["text"] == TEXT:
                return (
                    f"Sent message {response.json()['id']} through the API; "
                    f"{entry['subscriber']} has it from the bot “{entry['bot']}”."
                )
        time.sleep(0.2)
    raise TrialError(
        f"The message was accepted but did not arrive within {ARRIVAL_TIMEOUT:.0f} s. "
        "Look for the reason in .local/functions.log."
    )


def subscriber(facts: Mapping[str, str]) -> str:
    """Return the id of the first subscriber of the sandbox's first bot."""
    bot = _get(f"{facts['sandboxUrl']}/bots")[0]
    return str(_get(f"{facts['sandboxUrl']}/bots/{bot['id']}/subscribers")[0]["id"])


def guide(facts: Mapping[str, str]) -> str:
    """Return the addresses, and a command to paste."""
    sandbox = facts["sandboxUrl"]
    body = {"subscriberId": subscriber(facts) if sandbox else "…", "text": "Hello from curl"}
    curl = [
        *("curl", "-sS", f"{facts['apiUrl']}/messages"),
        *("-H", f"x-api-key: {facts['apiKey']}", "-H", "content-type: application/json"),
        *("-d", json.dumps(body)),
    ]
    lines = [
        "",
        f"  API      {facts['apiUrl']}",
        f"  key      {facts['apiKey']}",
        *([f"  inbox    {sandbox}/", f"  contract {sandbox}/docs"] if sandbox else []),
        "",
        f"  {shlex.join(curl)}",
    ]
    return "\n".join(lines)


def _get(address: str) -> list[dict[str, str]]:
    response = requests.get(address, timeout=10)
    response.raise_for_status()
    found: list[dict[str, str]] = response.json()
    return found
