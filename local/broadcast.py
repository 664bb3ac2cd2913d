"""Send a text to the subscribers of a sandbox bot: try it out, ask, and show the progress."""

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
import requests

from local import ROOT

FACTS = ROOT / ".local" / "stack.json"
NUMBERS = ("sent", "rejected", "unknown", "failed", "expired", "canceled")
IN_THE_REQUEST = 100_000
"""Bytes of recipients in a request, which may have 256 KiB; more go to the stack's bucket."""
ADDRESSES = ("subscriberId", "number")
DIGITS = re.compile(r"[\d\s()+-]*")

Json = dict[str, Any]


class RefusedError(Exception):
    """The broadcast cannot be sent; the text says why."""


def run(
    facts: dict[str, str],
    request: Json,
    *,
    more: int = 0,
    yes: bool = False,
    lines: list[int] | None = None,
    ask: Callable[[str], str] = input,
) -> int:
    """Broadcast to the sandbox's first bot, after adding `more` subscribers; 1 if it fails.

    `lines` has the line of the file that each recipient came from.
    """
    bot = requests.get(f"{facts['sandboxUrl']}/bots", timeout=10).json()[0]["id"]
    if more:
        address = f"{facts['sandboxUrl']}/bots/{bot}/subscribers"
        requests.post(address, json={"count": more}, timeout=60).raise_for_status()
    request = {"botId": bot, **request}
    try:
        tried = _call(facts, "POST", "/broadcasts", {**request, "dryRun": True}, lines)
    except RefusedError as error:
        print(f"Nothing was sent.\n{error}", file=sys.stderr)
        return 1
    print(preview(tried))
    if not tried["total"]:
        print("Nobody would get it.")
        return 1
    if not yes and not _agreed(ask, tried["total"]):
        print("Nothing was sent.")
        return 1
    id_ = _call(facts, "POST", "/broadcasts", request)["id"]
    print(f"Broadcast {id_}. Watch it in the inbox: {facts['sandboxUrl']}/")
    shown = ""
    while True:
        state = _call(facts, "GET", f"/broadcasts/{id_}")
        if sys.stdout.isatty():
            print(f"\r{progress(state):100}", end="", flush=True)
        elif state["status"] != shown:
            shown = state["status"]
            print(progress(state), flush=True)
        if state["status"] not in ("preparing", "running"):
            print(end="\n" if sys.stdout.isatty() else "")
            return 0 if state["status"] == "completed" else 1
        time.sleep(0.5)


def _agreed(ask: Callable[[str], str], total: int) -> bool:
    try:
        return ask(f"Send it to {total}? [y/N] ").strip().lower() in ("y", "yes", "д", "да")
    except EOFError:
        print("\nThere is nobody to ask; YES=1 sends without asking.")
        return False


def preview(tried: Json) -> str:
    """Describe what a dry run has found."""
    told = [f"{n} {cause}" for cause, n in tried["skipped"].items() if n]
    last = f", the last at {tried['eta'][11:19]} UTC" if "eta" in tried else ""
    found = [f"Messages to send: {tried['total']}{last}. Left out: {', '.join(told) or 'nobody'}."]
    if not tried["complete"]:
        found.append("The list is so long that only its beginning was read.")
    for sample in tried["samples"]:
        who = sample.get("subscriberId") or sample["number"]
        found += ["", f"  to {who}:", *(f"  | {line}" for line in sample["text"].split("\n"))]
        found += [f"  [ {button['text']} ] {button['url']}" for button in sample["buttons"]]
    if tried["unrenderable"]:
        found += ["", "Nothing can be rendered for:"]
        found += [f"  {each['who']}: {each['problem']}" for each in tried["unrenderable"]]
    return "\n".join(found) + "\n"


def progress(state: Json) -> str:
    """Describe on one line how far a broadcast has got."""
    total = state["total"]
    done = total - state["queued"]
    bar = "#" * round(30 * done / total) if total else ""
    numbers = ", ".join(f"{state[name]} {name}" for name in NUMBERS if state[name])
    if not total:
        return f"[{'':30}] {state['status']}"
    last = f"; the last at {state['eta'][11:19]} UTC" if "eta" in state else ""
    return f"[{bar:30}] {done} of {total}: {numbers or 'none yet'} ({state['status']}{last})"


def recipients(rows: Iterable[str]) -> tuple[list[Json], list[int]]:
    """Return the recipients in a CSV file's lines, and the line that each came from.

    A column is `subscriberId` or `number`, the others are data; an empty cell is left out. Raises
    RefusedError, naming every bad line.
    """
    lines = list(rows)
    header = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=max(",;\t", key=header.count))
    columns = [name.strip() for name in next(reader, [])]
    if not set(ADDRESSES) & set(columns) or len(set(columns)) < len(columns) or "" in columns:
        raise RefusedError(
            "line 1: name the columns, each once, one of them subscriberId or number"
        )
    found: list[Json] = []
    where: list[int] = []
    bad: list[str] = []
    end = reader.line_num
    for cells in reader:
        began, end = end + 1, reader.line_num
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        data = {name: value for name, value in row.items() if value and name not in ADDRESSES}
        address = {name: row[name] for name in ADDRESSES if row.get(name)}
        if not any(cells):
            continue
        if problem := _problem(columns, cells, address):
            bad.append(f"line {began}: {problem}")
            continue
        if "subscriberId" in address:
            address.pop("number", None)
        found.append({**address, **({"data": data} if data else {})})
        where.append(began)
    if bad:
        raise RefusedError("\n".join(bad))
    if not found:
        raise RefusedError("the file names nobody")
    return found, where


def _problem(columns: list[str], cells: list[str], address: Json) -> str:
    if len(cells) > len(columns):
        return f"has {len(cells)} cells, and there are {len(columns)} columns"
    if not address:
        return "has neither subscriberId nor number"
    number = address.get("number", "")
    digits = sum(map(str.isdigit, number))
    if "subscriberId" not in address and not (DIGITS.fullmatch(number) and 5 <= digits <= 15):
        return "number must be a phone number of 5 to 15 digits"
    return ""


def addressed(facts: dict[str, str], found: list[Json]) -> Json:
    """Return recipients as a part of the request; many are put into the stack's bucket."""
    if len(json.dumps(found)) <= IN_THE_REQUEST:
        return {"recipients": found}
    key = f"recipients/make-broadcast-{time.time_ns()}.jsonl"
    body = "\n".join(json.dumps(recipient) for recipient in found)
    s3 = boto3.client(
        "s3",
        endpoint_url=facts["awsEndpoint"],
        region_name=facts["region"],
        aws_access_key_id=facts["accessKeyId"],
        aws_secret_access_key=facts["secretAccessKey"],
    )
    s3.put_object(Bucket=facts["bucketName"], Key=key, Body=body.encode())
    return {"recipientsFrom": f"s3://{facts['bucketName']}/{key}"}


def _call(
    facts: dict[str, str],
    method: str,
    path: str,
    body: object = None,
    lines: list[int] | None = None,
) -> Json:
    response = requests.request(
        method,
        facts["apiUrl"] + path,
        json=body,
        headers={"x-api-key": facts["apiKey"]},
        timeout=60,
    )
    if response.status_code == requests.codes.unprocessable:
        errors = response.json()["errors"]
        raise RefusedError("\n".join(told(error, lines or []) for error in errors))
    response.raise_for_status()
    answer: Json = response.json()
    return answer


def told(error: Json, lines: list[int]) -> str:
    """Describe what is wrong with one field; a recipient's is named by its line in the file."""
    match error["pointer"].split("/"):
        case ["#", "recipients", place, *rest] if place.isdigit() and int(place) < len(lines):
            return f"line {lines[int(place)]}: {'.'.join(rest)}: {error['detail']}"
        case ["#", *rest]:
            return f"{'.'.join(rest)}: {error['detail']}"
        case _:
            return str(error["detail"])


def main() -> int:
    """Send a broadcast through the stack that `make up` or `make run` started."""
    parser = argparse.ArgumentParser(prog="make broadcast", description=__doc__)
    parser.add_argument(
        "--text",
        default="Good news for everybody!",
        help="what the message says; with {{ expressions }} it is a template",
    )
    parser.add_argument("--more", type=int, default=0, help="how many subscribers to add first")
    parser.add_argument("--recipients", type=Path, help="a CSV file of who gets it")
    parser.add_argument("--yes", action="store_true", help="send it without asking")
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
    facts = json.loads(given.facts.read_text("utf-8"))
    request: Json = {"text": given.text, **({"template": True} if "{{" in given.text else {})}
    lines: list[int] = []
    if given.recipients:
        try:
            rows = given.recipients.read_text("utf-8-sig").splitlines(keepends=True)
            found, lines = recipients(rows)
        except (OSError, UnicodeError, RefusedError) as error:
            problem = error.strerror if isinstance(error, OSError) else error
            print(f"Nothing was sent.\n{given.recipients}: {problem}", file=sys.stderr)
            return 1
        request |= addressed(facts, found)
    return run(facts, request, more=given.more, yes=given.yes, lines=lines)


if __name__ == "__main__":
    sys.exit(main())
