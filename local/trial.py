"""A first look at a running stack: a message sent through it, what to try next, its logs."""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests

ARRIVAL_TIMEOUT = 60.0  # seconds
TEXT = "Привет! This came through the relay on your own machine."


class TrialError(Exception):
    """The first message did not arrive; the text says how far it came."""


def send(facts: Mapping[str, str]) -> str:
    """Send a message to the sandbox's first subscriber, wait for it, and say where it arrived."""
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
        f"The message was accepted but did not arrive within {ARRIVAL_TIMEOUT:.0f} s; "
        ".local/functions.log says why."
    )


def subscriber(facts: Mapping[str, str]) -> str:
    """Name a subscriber of the sandbox's first bot."""
    bot = _get(f"{facts['sandboxUrl']}/bots")[0]
    return str(_get(f"{facts['sandboxUrl']}/bots/{bot['id']}/subscribers")[0]["id"])


def guide(facts: Mapping[str, str]) -> str:
    """Say where things are and what to paste."""
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


def follow(home: Path, *, while_: Callable[[], bool]) -> None:
    """Print what the functions and the sandbox log, as long as the condition holds."""
    logs = {path: _lines(path) for path in (home / "functions.log", home / "sandbox.log")}
    while while_():
        for path, lines in logs.items():
            for line in lines:
                if not line:
                    break
                print(f"{path.stem:9} | {line}", end="")
        time.sleep(0.3)


def _lines(path: Path) -> Iterator[str]:
    """Yield a growing file's complete lines, and an empty one whenever there is none yet."""
    while not path.exists():
        yield ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            start = file.tell()
            line = file.readline()
            if line.endswith("\n"):
                yield line
            else:
                file.seek(start)
                yield ""


def _get(address: str) -> list[dict[str, str]]:
    response = requests.get(address, timeout=10)
    response.raise_for_status()
    found: list[dict[str, str]] = response.json()
    return found
