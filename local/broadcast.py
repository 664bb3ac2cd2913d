"""Send one text to all subscribers of a sandbox bot and show the progress: `make broadcast`."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import requests

from local import ROOT

FACTS = ROOT / ".local" / "stack.json"
NUMBERS = ("sent", "rejected", "unknown", "failed", "expired", "canceled")


def run(facts: dict[str, str], text: str, more: int) -> int:
    """Broadcast to the sandbox's first bot, after adding `more` subscribers; 1 if it fails."""
    bot = requests.get(f"{facts['sandboxUrl']}/bots", timeout=10).json()[0]["id"]
    if more:
        address = f"{facts['sandboxUrl']}/bots/{bot}/subscribers"
        requests.post(address, json={"count": more}, timeout=60).raise_for_status()
    id_ = _call(facts, "POST", "/broadcasts", {"botId": bot, "text": text})["id"]
    print(f"Broadcast {id_}. Watch it in the inbox: {facts['sandboxUrl']}/")
    while True:
        state = _call(facts, "GET", f"/broadcasts/{id_}")
        print(f"\r{progress(state)}", end="", flush=True)
        if state["status"] not in ("preparing", "running"):
            print()
            return 0 if state["status"] == "completed" else 1
        time.sleep(0.5)


def progress(state: dict[str, Any]) -> str:
    """Describe on one line how far a broadcast has got."""
    total = state["total"]
    done = total - state["queued"]
    bar = "#" * round(30 * done / total) if total else ""
    numbers = ", ".join(f"{state[name]} {name}" for name in NUMBERS if state[name])
    until = f"; until {state['eta'][11:19]}" if "eta" in state else ""
    return f"[{bar:30}] {done} of {total}: {numbers or 'none yet'} ({state['status']}{until})   "


def _call(facts: dict[str, str], method: str, path: str, body: object = None) -> dict[str, Any]:
    response = requests.request(
        method,
        facts["apiUrl"] + path,
        json=body,
        headers={"x-api-key": facts["apiKey"]},
        timeout=60,
    )
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def main() -> int:
    """Send a broadcast through the stack that `make up` or `make run` started."""
    parser = argparse.ArgumentParser(prog="make broadcast", description=__doc__)
    parser.add_argument("--text", default="Good news for everybody!", help="what the message says")
    parser.add_argument("--more", type=int, default=0, help="how many subscribers to add first")
    parser.add_argument(
        "--facts",
        type=Path,
        default=FACTS,
        help="the stack's stack.json; .local/stack.json by default",
    )
    given = parser.parse_args()
    if not given.facts.exists():
        print("No stack runs on this machine. Start one with `make up`.", file=sys.stderr)
        return 1
    return run(json.loads(given.facts.read_text("utf-8")), given.text, given.more)


if __name__ == "__main__":
    sys.exit(main())
