"""Which faults there are, and which of them strikes a request."""

import json
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
COUNT = "[1-9][0-9]{0,5}"
MARKER = re.compile(r"\[\[fault:([^\]]*)\]\]")


@dataclass(frozen=True)
class Option:
    """An option of a fault: the values it takes, as a regular expression, and what it does."""

    values: str
    does: str


OPTIONS = {
    "accepted": Option("", "the message is accepted all the same; only the response fails"),
    "chat": Option(r"[^\s]+", "the subscriber's id; required"),
    "every": Option(NUMBER, "seconds between two bytes; 1 by default"),
    "jitter": Option(NUMBER, "up to this many more milliseconds of delay, at random"),
    "megabytes": Option(NUMBER, "the size of the body; 5 by default"),
    "ms": Option(NUMBER, "milliseconds of delay"),
    "per-second": Option(COUNT, "messages that are accepted in any second; 1 by default"),
    "retry-after": Option(
        ".+",
        "the `Retry-After` header: `day` is 86400, `date` and `date+30` are HTTP dates 5 and 30 "
        "seconds ahead, `garbage` is words; any other value is sent as it is",
    ),
    "seconds": Option(NUMBER, "how long it lasts; required"),
    "shape": Option(
        "|".join(SHAPES), f"how the body says no: `{'`, `'.join(SHAPES)}`; `error` by default"
    ),
    "times": Option(COUNT, "with any fault: it strikes only this many times"),
}
"""Every fault takes `times`; a Kind names the others that it takes."""


@dataclass(frozen=True)
class Kind:
    """What a fault does: what the client sees and whether the message is accepted.

    One that `hits_connections` strikes whole connections, not requests; one that is a `limit`
    strikes what would have been accepted. Only a switch can be either.
    """

    client_sees: str
    accepted: bool = False
    options: tuple[str, ...] = ()
    hits_connections: bool = False
    limit: bool = False


STATUS = Kind("this status and a JSON reason", options=("accepted", "retry-after"))
REDIRECT = Kind("a redirect to the control port", options=("accepted",))
KINDS = {
    "says-no": Kind("200 with a body that says no", options=("shape",)),
    "hang": Kind("no response, ever"),
    "hang-after": Kind("no response, ever", accepted=True),
    "reset": Kind("a connection reset"),
    "reset-after": Kind("a connection reset", accepted=True),
    "cut-headers": Kind("a response that breaks off in its headers", accepted=True),
    "cut-body": Kind("a response that breaks off in its body", accepted=True),
    "drip": Kind("a body that comes byte by byte", accepted=True, options=("every",)),
    "endless": Kind("a body that never ends", accepted=True),
    "empty": Kind("200 without a body", accepted=True),
    "html": Kind("200 with an HTML page", accepted=True),
    "large": Kind("200 with a large JSON body", accepted=True, options=("megabytes",)),
    "gzip-bomb": Kind("64 MB packed with gzip, asked for or not", accepted=True),
    "latency": Kind("the usual response, but late", accepted=True, options=("ms", "jitter")),
    "chat-limit": Kind(
        "429 with `Retry-After` once a chat gets too much", options=("per-second",), limit=True
    ),
    "account-limit": Kind(
        "429 with `Retry-After` once the account sends too much",
        options=("per-second",),
        limit=True,
    ),
    "ban": Kind(
        "429 in one chat, with the rest of the time as `Retry-After`",
        options=("chat", "seconds"),
        limit=True,
    ),
    "outage": Kind("every connection reset at its first byte", hits_connections=True),
    "closed": Kind("every connection refused", hits_connections=True),
}
CATALOGUE = {"400 … 599": STATUS, " ".join(map(str, REDIRECTS)): REDIRECT, **KINDS}
"""Every fault there is, by its name or names."""


class FaultError(ValueError):
    """There is no such fault, or it does not take these options."""


@dataclass(frozen=True)
class Fault:
    """A fault and its options; `ms` and `jitter` are in milliseconds, the others in seconds."""

    spec: str
    name: str
    accepted: bool = False
    retry_after: str | None = None
    shape: str = "error"
    every: float = 1
    megabytes: float = 5
    ms: float = 0
    jitter: float = 0
    per_second: int = 1
    chat: str = ""
    seconds: float | None = None
    times: int | None = None

    @property
    def status(self) -> int | None:
        """The status it answers with, if it answers with one of its own."""
        if self.is_limit:
            return 429
        return int(self.name) if self.name.isdigit() else None

    @property
    def is_limit(self) -> bool:
        """Whether it strikes what would have been accepted."""
        return self.name in KINDS and KINDS[self.name].limit

    @property
    def hits_connections(self) -> bool:
        """Whether it strikes whole connections, not requests."""
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
            raise FaultError(f"{name} has no option {option!r}; it takes: {takes}")
        if not re.fullmatch(OPTIONS[option].values, value):
            raise FaultError(f"{name}: {word!r} is not a valid value of {option}")
        given[option] = value
    if name == "ban" and not given.keys() >= {"chat", "seconds"}:
        raise FaultError("ban needs chat and seconds")
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
        per_second=int(given.get("per-second", 1)),
        chat=given.get("chat", ""),
        seconds=float(given["seconds"]) if "seconds" in given else None,
        times=int(given["times"]) if "times" in given else None,
    )


def _kind(name: str) -> Kind:
    if name.isdecimal() and name.isascii():
        if int(name) in REDIRECTS:
            return REDIRECT
        if 400 <= int(name) <= 599:
            return STATUS
    if name not in KINDS:
        raise FaultError(f"there is no fault {name!r}; there are: {', '.join(CATALOGUE)}")
    return KINDS[name]


def retry_after(value: str, now: float) -> str:
    """Return the Retry-After header for the option's value."""
    ahead = re.fullmatch(r"date(?:\+(\d{1,9}))?", value)
    if ahead:
        return formatdate(now + int(ahead[1] or 5), usegmt=True)
    return {"day": "86400", "garbage": "as soon as we can"}.get(value, value)


@dataclass(frozen=True)
class Marked:
    """A fault named by a marker in a message's text; the key identifies the message."""

    fault: Fault
    key: str


def marked(raw: bytes) -> Marked | None:
    """Return the fault that a marker in the message's text names, if there is one."""
    if b"[[fault:" not in raw:
        return None
    try:
        body = json.loads(raw)
        text = body["text"]
        found = MARKER.search(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # not a message: the endpoint will refuse it
    if found is None:
        return None
    fault = parse(found[1])
    if fault.hits_connections or fault.is_limit:
        raise FaultError(f"{fault.name} is more than one message's fault: arm it with POST /faults")
    recipient = [body.get(name) for name in ("subscriberId", "botId", "number")]
    return Marked(fault, json.dumps([recipient, text]))


@dataclass
class Switch:
    """A fault armed for all requests to an operation.

    It strikes a `share` of them, until nothing is `left` of its number or its time is over.
    """

    id: int
    fault: Fault
    on: str
    share: float
    left: int | None
    until: float | None
    struck: int = 0

    def shown(self, now: float) -> dict[str, Any]:
        """Return the switch as the control API shows it, with the seconds that remain."""
        shown = asdict(self) | {"fault": self.fault.spec}
        until = shown.pop("until")
        return shown | {"seconds": None if until is None else round(until - now, 3)}


@dataclass(frozen=True)
class Strike:
    """What strikes one request: a fault, if any, and seconds of delay before the response."""

    fault: Fault | None
    delay: float


class ArmedFaults:
    """The switches, oldest first; a marker in a message's text goes before all of them."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - chaos, not cryptography
        self._switches: list[Switch] = []
        self._attempts: Counter[str] = Counter()
        self._accepted: dict[tuple[int, str], deque[float]] = {}
        """When a limit last let messages pass, by the limit and what it limits."""
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
        """Arm a fault until it is cleared, has struck this many times or the time is over."""
        if on not in (*OPERATIONS, "all"):
            raise FaultError(f"on must be one of {', '.join(OPERATIONS)} or all")
        if not (
            0 < share <= 1 and (times is None or times > 0) and (seconds is None or seconds > 0)
        ):
            raise FaultError("share must be above 0 and at most 1, times and seconds above 0")
        if fault.hits_connections and (on, share, times or fault.times) != ("all", 1.0, None):
            raise FaultError(f"{fault.name} strikes every connection, so it takes only seconds")
        if fault.is_limit and (on, share) != ("sendMessage", 1.0):
            raise FaultError(
                f"{fault.name} limits all messages, so it takes only times and seconds"
            )
        seconds = seconds or fault.seconds
        self._ids += 1
        until = None if seconds is None else self._clock() + seconds
        switch = Switch(self._ids, fault, on, share, times or fault.times, until)
        self._switches.append(switch)
        return switch

    def clear(self, switch_id: int | None = None) -> bool:
        """Disarm one switch; without an id, all of them, and count markers from the start."""
        before = len(self._switches)
        if switch_id is None:
            self._attempts.clear()
        self._switches = [s for s in self._switches if switch_id not in (None, s.id)]
        return len(self._switches) < before

    def switches(self) -> list[Switch]:
        """Return the switches that can still strike."""
        now = self._clock()
        self._switches = [
            s for s in self._switches if s.left != 0 and (s.until is None or now < s.until)
        ]
        return self._switches

    def shown(self) -> list[dict[str, Any]]:
        """Return them as the control API shows them."""
        return [switch.shown(self._clock()) for switch in self.switches()]

    def longest(self, name: str) -> Switch | None:
        """Return the switch with the fault of this name that lasts longest."""
        found = [switch for switch in self.switches() if switch.fault.name == name]
        return max(found, key=lambda s: float("inf") if s.until is None else s.until, default=None)

    def strike(self, operation: str, message: Marked | None = None) -> Strike:
        """Decide what strikes a request, and count it."""
        struck, delay = None, 0.0
        if message and self._strikes_again(message):
            struck, delay = self._add(message.fault, struck, delay)
        for switch in self.switches():
            if switch.on not in (operation, "all") or switch.fault.is_limit:
                continue
            if struck and switch.fault.name != "latency":
                continue
            if switch.share < 1 and self._rng.random() >= switch.share:
                continue
            self._count(switch)
            struck, delay = self._add(switch.fault, struck, delay)
        return Strike(struck, delay)

    def limit(self, chat: str) -> Fault | None:
        """Return the limit that a message to a chat exceeds, with its wait; count it if none."""
        now = self._clock()
        passed = []
        for switch in self.switches():
            if not switch.fault.is_limit:
                continue
            times = self._times(switch, chat)
            if (wait := _wait(switch, chat, times, now)) > 0:
                self._count(switch)
                return replace(switch.fault, retry_after=str(math.ceil(wait)))
            passed.append(times)
        for times in passed:
            times.append(now)
        return None

    def _times(self, switch: Switch, chat: str) -> deque[float]:
        key = switch.id, "" if switch.fault.name == "account-limit" else chat
        return self._accepted.setdefault(key, deque(maxlen=switch.fault.per_second))

    def _count(self, switch: Switch) -> None:
        switch.struck += 1
        if switch.left is not None:
            switch.left -= 1

    def _strikes_again(self, message: Marked) -> bool:
        if message.fault.times is None:
            return True
        self._attempts[message.key] += 1
        return self._attempts[message.key] <= message.fault.times

    def _add(self, fault: Fault, struck: Fault | None, delay: float) -> tuple[Fault | None, float]:
        if fault.name == "latency":
            return struck, delay + (fault.ms + self._rng.uniform(0, fault.jitter)) / 1000
        return fault, delay


def _wait(switch: Switch, chat: str, times: deque[float], now: float) -> float:
    """Return the seconds until a limit lets a message to a chat pass, 0 if it does now."""
    if switch.fault.name == "ban":
        return (switch.until or now) - now if chat == switch.fault.chat else 0.0
    return times[0] + 1.0 - now if len(times) == switch.fault.per_second else 0.0
