"""Show the events of the local stack as they happen, one line each, until Ctrl-C: `make watch`."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import ROOT
from local.aws import EVENTS_LOG
from local.live_logs import appended

HOME = ROOT / ".local"
FIRST = ("reason", "reference", "broadcast", "version")
"""What is shown of an event, if it has it, before what only a broadcast has."""
COUNTS = ("total", "sent", "rejected", "unknown", "failed", "expired", "canceled")


def shown(event: dict[str, Any]) -> str:
    """Describe an event on one line."""
    detail = event["detail"]
    at = str(detail.get("endedAt") or detail.get("changedAt"))[11:23]
    named = [f"{name}={detail[name]}" for name in FIRST if detail.get(name)]
    counted = [f"{name}={detail[name]}" for name in COUNTS if detail.get(name)]
    kind = event["detail-type"].partition(" ")[0].lower()
    return " ".join([at, f"{kind:9}", f"{detail['status']:9}", detail["id"], *named, *counted])


def follow(home: Path, *, raw: bool, while_: Callable[[], bool]) -> None:
    """Print what is on the bus already and what comes, as long as the condition holds."""
    for line in appended(home / EVENTS_LOG):
        if line:
            print(line.rstrip() if raw else shown(json.loads(line)), flush=True)
        elif while_():
            time.sleep(0.1)
        else:
            return


def main() -> int:
    """Follow the stack that `make up` or `make run` started, until it or Ctrl-C ends it."""
    parser = argparse.ArgumentParser(prog="make watch", description=__doc__)
    parser.add_argument("--raw", action="store_true", help="each event whole, as JSON")
    parser.add_argument("--home", type=Path, default=HOME, help="the stack's folder")
    given = parser.parse_args()
    facts = given.home / "stack.json"
    if not facts.exists():
        print(f"{facts} is not there: start a stack with `make up`", file=sys.stderr)
        return 1
    if json.loads(facts.read_text(encoding="utf-8"))["events"] != "all":
        print(
            "Only problems are events here. To see them all: "
            "make up TEMPLATE_PARAMETERS=Events=all",
            file=sys.stderr,
        )
    try:
        follow(given.home, raw=given.raw, while_=facts.exists)
    except KeyboardInterrupt:
        return 0  # the way to end it
    print("The stack has stopped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
