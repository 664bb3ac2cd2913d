"""Puts the events of a batch of the table's stream on the bus, in order.

What cannot be put there goes back to the stream, which hands it out again for most of a day.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.outcomes.bus import MOST, PutError
from relay.outcomes.events import Event, event_of

PAUSES = (0.0, 0.0, 0.2, 1.0)
"""Seconds before each call for one group of events, until the rest goes back to the stream. The
first repeat comes at once: EventBridge may have closed a connection that was kept."""


class Bus(Protocol):
    """Where events go."""

    def put(self, events: Sequence[Event]) -> list[str]:
        """Put events on the bus; return each one's error code, "" for one that is there."""
        ...


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch."""

    events: int = 0
    """How many are on the bus."""
    back_from: str = ""
    """The sequence number of the first record that goes back to the stream, with all after it."""
    why: str = ""
    unreadable: tuple[str, ...] = ()
    """Sequence numbers of records that no retry would make readable."""

    @property
    def answer(self) -> dict[str, Any]:
        """Return what Lambda has to know.

        "Lambda uses the lowest sequence number as the checkpoint" and retries from there.
        """
        back = [{"itemIdentifier": self.back_from}] if self.back_from else []
        return {"batchItemFailures": back}


def publish(
    records: Sequence[Mapping[str, Any]], bus: Bus, *, sleep: Callable[[float], None] = time.sleep
) -> Published:
    """Put the events of the stream's records on the bus, ten at a time, up to the first failure."""
    found: list[tuple[str, Event]] = []
    unreadable: list[str] = []
    for record in records:
        number = str(record["dynamodb"]["SequenceNumber"])
        try:
            event = event_of(record)
        except (KeyError, TypeError, ValueError):
            # It would hold up all that come after it, for a day and in vain.
            unreadable.append(number)
            continue
        if event:
            found.append((number, event))
    for start in range(0, len(found), MOST):
        group = found[start : start + MOST]
        left, why = _put(group, bus, sleep)
        if left:
            done = start + len(group) - len(left)
            return Published(done, left[0][0], why, tuple(unreadable))
    return Published(len(found), unreadable=tuple(unreadable))


def _put(
    left: Sequence[tuple[str, Event]], bus: Bus, sleep: Callable[[float], None]
) -> tuple[Sequence[tuple[str, Event]], str]:
    """Put up to ten events on the bus; return those that are not there, and why."""
    why = ""
    for pause in PAUSES:
        sleep(pause)
        try:
            codes = bus.put([event for _, event in left])
        except PutError as error:
            why = str(error)
            continue
        left = [one for one, code in zip(left, codes, strict=True) if code]
        why = next(filter(None, codes), "")
        if not left:
            break
    return left, why


def log_line(published: Published, namespace: str, service: str, now: float) -> str:
    """Return what a run logs: an entry for people and metrics for CloudWatch (EMF) in one line.

    `service`, the stack's name, is the metrics' one dimension.
    """
    counts = {"Events": published.events, "EventsUnreadable": len(published.unreadable)}
    counted = [{"Name": name, "Unit": "Count"} for name in counts]
    about = {"Namespace": namespace, "Dimensions": [["service"]], "Metrics": counted}
    line: dict[str, Any] = {
        "level": "ERROR" if published.back_from or published.unreadable else "INFO",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "function": "publisher",
        "message": "events",
        "service": service,
        **counts,
        "_aws": {"Timestamp": round(now * 1000), "CloudWatchMetrics": [about]},
    }
    if published.back_from:
        line |= {"back_from": published.back_from, "why": published.why}
    if published.unreadable:
        line["unreadable"] = published.unreadable
    return json.dumps(line, separators=(",", ":"))
