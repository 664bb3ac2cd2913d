"""The fault lab, deciding: what a fault is called, and which one strikes a request."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import formatdate
from typing import Any

OPERATIONS = ("bots", "subscribers", "sendMessage")
REDIRECTS = (301, 302, 303, 307, 308)
SHAPES: dict[str, dict[str, Any]] = {
    "error": {"error": "no"},
    "errors": {"errors": ["no"]},
    "errorCode": {"errorCode": 17},
    "error_code": {"error_code": 17},
    "errorMessage": {"errorMessage": "no"},
    "success": {"success": False},
    "ok": {"ok": False},
    "status-error": {"status": "error"},
    "status-fail": {"status": "fail"},
    "status-failed": {"status": "failed"},
}
NUMBER = r"[0-9]{1,6}(\.[0-9]{1,6})?"
OPTIONS = {
    "accepted": "",
    "every": NUMBER,
    "jitter": NUMBER,
    "megabytes": NUMBER,
    "ms": NUMBER,
    "retry-after": ".+",
    "shape": "|".join(SHAPES),
    "times": "[1-9][0-9]{0,5}",
}
MARKER = re.compile(r"\[\[fault:([^\]]*)\]\]")


@dataclass(frozen=True)
class Kind:
    """A fault's meaning: whether the message was accepted, and which options it takes.

    One that `hits_connections` strikes whole connections, not requests: only a switch can be it.
    """

    does: str
    accepted: bool = False
    options: tuple[str, ...] = ()
    hits_connections: bool = False


STATUS = Kind("this status and a JSON reason", options=("accepted", "retry-after"))
REDIRECT = Kind("this redirect, to the second port", options=("accepted",))
KINDS = {
    "says-no": Kind("200 with a body that says no", options=("shape",)),
    "hang": Kind("no answer, ever"),
    "hang-after": Kind("accepted, then no answer, ever", accepted=True),
    "reset": Kind("the connection is reset"),
    "reset-after": Kind("accepted, then the connection is reset", accepted=True),
    "cut-headers": Kind("accepted, the answer ends amid its headers", accepted=True),
    "cut-body": Kind("accepted, the answer ends amid its body", accepted=True),
    "drip": Kind("accepted, the body comes a byte a second", accepted=True, options=("every",)),
    "endless": Kind("accepted, the body never ends", accepted=True),
    "empty": Kind("accepted, 200 without a body", accepted=True),
    "html": Kind("accepted, 200 with an HTML page", accepted=True),
    "large": Kind("accepted, a body of 5 MB", accepted=True, options=("megabytes",)),
    "gzip-bomb": Kind("accepted, 64 MB packed by gzip, asked for or not", accepted=True),
    "latency": Kind("a delayed answer, and nothing else", options=("ms", "jitter")),
    "outage": Kind("every connection is reset at its first byte", hits_connections=True),
    "closed": Kind("the port is closed: connections are refused", hits_connections=True),
}


class FaultError(ValueError):
    """A fault that the lab does not know, or one with wrong options."""


@dataclass(frozen=True)
class Fault:
    """A fault as it was ordered; `ms` and `jitter` are milliseconds, `every` seconds."""

    spec: str
    name: str
    accepted: bool = False
    retry_after: str | None = None
    shape: str = "error"
    every: float = 1
    megabytes: float = 5
    ms: float = 0
    jitter: float = 0
    times: int | None = None

    @property
    def status(self) -> int | None:
        """The status this fault answers with, where a status is all there is to it."""
        return int(self.name) if self.name.isdigit() else None

    @property
    def hits_connections(self) -> bool:
        """Whether it hits the connections, not single requests."""
        return self.name in KINDS and KINDS[self.name].hits_connections


def parse(spec: str) -> Fault:
    """Read a fault such as `503`, `500 accepted`, `429 retry-after=5` or `says-no shape=ok`."""
    name, *words = spec.split() or [""]
    kind = _kind(name)
    given: dict[str, str] = {}
    for word in words:
        option, _, value = word.partition("=")
        if option not in (*kind.options, "times"):
            takes = ", ".join((*kind.options, "times"))
            raise FaultError(f"{name} takes no {option!r}; it takes: {takes}")
        if not re.fullmatch(OPTIONS[option], value):
            raise FaultError(f"{name}: {word!r} is not how {option} is given")
        given[option] = value
    return Fault(
        " ".join([name, *words]),
        name,
        accepted=kind.accepted or "accepted" in given,
        retry_after=given.get("retry-after"),
        shape=given.get("shape", "error"),
        every=float(given.get("every", 1)),
        megabytes=float(given.get("megabytes", 5)),
        ms=float(given.get("ms", 0)),
        jitter=float(given.get("jitter", 0)),
        times=int(given["times"]) if "times" in given else None,
    )


def _kind(name: str) -> Kind:
    if name.isdecimal() and name.isascii():
        if int(name) in REDIRECTS:
            return REDIRECT
        if 400 <= int(name) <= 599:
            return STATUS
    if name not in KINDS:
        redirects = ", ".join(map(str, REDIRECTS))
        raise FaultError(
            f"no fault {name!r}; there are: 400 … 599, {redirects}, {', '.join(KINDS)}"
        )
    return KINDS[name]


def retry_after(value: str, now: float) -> str:
    """Spell a Retry-After: `date` (5 s ahead), `date+N`, `day`, `garbage`, or the value itself."""
    ahead = re.fullmatch(r"date(?:\+(\d{1,9}))?", value)
    if ahead:
        return formatdate(now + int(ahead[1] or 5), usegmt=True)
    return {"day": "86400", "garbage": "as soon as we can"}.get(value, value)


@dataclass(frozen=True)
class Marked:
    """A fault ordered by a marker in a message's text, and what tells the message from others."""

    fault: Fault
    key: str


def marked(raw: bytes) -> Marked | None:
    """Find the marker in the text of a request's body."""
    if b"[[fault:" not in raw:
        return None
    try:
        body = json.loads(raw)
        text = body["text"]
        found = MARKER.search(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # no message: the endpoint will say so
    if found is None:
        return None
    fault = parse(found[1])
    if fault.hits_connections:
        raise FaultError(f"{fault.name} hits every connection: order it by POST /faults")
    recipient = [body.get(name) for name in ("subscriberId", "botId", "number")]
    return Marked(fault, json.dumps([recipient, text]))


@dataclass
class Switch:
    """A fault armed for all requests to an operation, as far as `share`, `left`, `until` go."""

    id: int
    fault: Fault
    on: str
    share: float
    left: int | None
    until: float | None
    struck: int = 0

    def shown(self, now: float) -> dict[str, Any]:
        """Show the switch as the control API does, with the seconds that remain."""
        shown = asdict(self) | {"fault": self.fault.spec}
        until = shown.pop("until")
        return shown | {"seconds": None if until is None else round(until - now, 3)}


@dataclass(frozen=True)
class Strike:
    """What becomes of one request: a fault or none, and a delay in seconds before its answer."""

    fault: Fault | None
    delay: float


class ArmedFaults:
    """The armed faults; a message's own marker goes before the switches, the oldest switch next."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - chaos, not cryptography
        self._switches: list[Switch] = []
        self._attempts: Counter[str] = Counter()
        self._ids = 0

    def arm(
        self,
        fault: Fault,
        *,
        on: str = "sendMessage",
        share: float = 1.0,
        times: int | None = None,
        seconds: float | None = None,
    ) -> Switch:
        """Arm a fault until it is cleared, has struck so many times, or the seconds are over."""
        if on not in (*OPERATIONS, "all"):
            raise FaultError(f"on: one of {', '.join(OPERATIONS)}, all")
        if not (
            0 < share <= 1 and (times is None or times > 0) and (seconds is None or seconds > 0)
        ):
            raise FaultError("share: above 0, up to 1; times and seconds: above 0")
        if fault.hits_connections and (on, share, times or fault.times) != ("all", 1.0, None):
            raise FaultError(f"{fault.name} hits every connection: it takes only seconds")
        self._ids += 1
        until = None if seconds is None else self._clock() + seconds
        switch = Switch(self._ids, fault, on, share, times or fault.times, until)
        self._switches.append(switch)
        return switch

    def clear(self, switch_id: int | None = None) -> bool:
        """Disarm one switch; or all, and forget which marked messages were struck how often."""
        before = len(self._switches)
        if switch_id is None:
            self._attempts.clear()
        self._switches = [s for s in self._switches if switch_id not in (None, s.id)]
        return len(self._switches) < before

    def switches(self) -> list[Switch]:
        """List the switches that can still strike."""
        now = self._clock()
        self._switches = [
            s for s in self._switches if s.left != 0 and (s.until is None or now < s.until)
        ]
        return self._switches

    def shown(self) -> list[dict[str, Any]]:
        """Show the switches that can still strike."""
        return [switch.shown(self._clock()) for switch in self.switches()]

    def longest(self, name: str) -> Switch | None:
        """Find the armed listener fault of this name that lasts longest."""
        found = [switch for switch in self.switches() if switch.fault.name == name]
        return max(found, key=lambda s: float("inf") if s.until is None else s.until, default=None)

    def strike(self, operation: str, message: Marked | None = None) -> Strike:
        """Decide what strikes this request, and count it."""
        struck, delay = None, 0.0
        if message and self._strikes_again(message):
            struck, delay = self._add(message.fault, struck, delay)
        for switch in self.switches():
            if switch.on not in (operation, "all"):
                continue
            if struck and switch.fault.name != "latency":
                continue
            if switch.share < 1 and self._rng.random() >= switch.share:
                continue
            switch.struck += 1
            if switch.left is not None:
                switch.left -= 1
            struck, delay = self._add(switch.fault, struck, delay)
        return Strike(struck, delay)

    def _strikes_again(self, message: Marked) -> bool:
        if message.fault.times is None:
            return True
        self._attempts[message.key] += 1
        return self._attempts[message.key] <= message.fault.times

    def _add(self, fault: Fault, struck: Fault | None, delay: float) -> tuple[Fault | None, float]:
        if fault.name == "latency":
            return struck, delay + (fault.ms + self._rng.uniform(0, fault.jitter)) / 1000
        return fault, delay
