"""The relay's CloudWatch metrics, as fields (EMF) of the one line that a run logs anyway.

Their only dimension is the stack's name, in POWERTOOLS_SERVICE_NAME: CloudWatch bills every
combination of dimensions as a metric of its own.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay.messages.results import Done, Received, Result
from relay.messages.states import State
from smsgold.responses import Outcome

ENDED: Mapping[State, str] = {
    State.SENT: "Sent",
    State.REJECTED: "Rejected",
    State.UNKNOWN: "Unknown",
    State.FAILED: "Failed",
    State.EXPIRED: "Expired",
}
"""The metric that counts the messages that end in this state."""

SHARES: Mapping[Outcome, int] = {
    Outcome.ACCEPTED: 0,
    Outcome.REFUSED: 0,
    Outcome.NOT_SENT: 1,
    Outcome.CREDENTIALS: 1,
    Outcome.MISDIRECTED: 1,
}
"""What a request adds to NotSent, whose average is thereby the share of what was not sent.

One whose outcome is unknown adds nothing."""


UNITS: Mapping[str, str] = {"ProviderLatency": "Milliseconds"}
"""The units of those metrics that are no counts."""

VALUES = 100
"""The most values that a metric may have in one line."""

_counts: Counter[str] = Counter()
_values: defaultdict[str, list[int]] = defaultdict(list)


def accepted(count: int) -> None:
    """Count messages accepted by a door."""
    _counts["Accepted"] += count


def delivered(batch: Sequence[Received], results: Sequence[Result]) -> None:
    """Count the results of a run's batch."""
    counts, values = measure(batch, results)
    _counts.update(counts)
    for name, each in values.items():
        _values[name] += each


def fields() -> dict[str, Any]:
    """Take what was counted since the last call, as fields of a log line; none if nothing was.

    A metric has at most 100 values in a line; ask again for the others.
    """
    taken: dict[str, Any] = {name: count for name, count in _counts.items() if count}
    taken |= {name: each[:VALUES] for name, each in _values.items()}
    left = {name: each[VALUES:] for name, each in _values.items() if each[VALUES:]}
    _counts.clear()
    _values.clear()
    _values.update(left)
    if not taken:
        return {}
    about = {
        "Namespace": os.environ.get("POWERTOOLS_METRICS_NAMESPACE", ""),
        "Dimensions": [["service"]],
        "Metrics": [{"Name": name, "Unit": UNITS.get(name, "Count")} for name in taken],
    }
    return {
        "service": os.environ.get("POWERTOOLS_SERVICE_NAME", ""),
        **taken,
        "_aws": {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [about]},
    }


def measure(
    batch: Iterable[Received], results: Iterable[Result]
) -> tuple[Mapping[str, int], Mapping[str, list[int]]]:
    """Return a run's counts by metric, and the values of those metrics that have one each.

    ProviderLatency is in milliseconds. NotSent is 1 for a request that sent nothing, and for a
    message that the circuit breaker handed back without one; 0 for a request that SMS Gold took. A
    message that only waits, for its slot for instance, adds nothing.
    """
    counts: Counter[str] = Counter()
    values: defaultdict[str, list[int]] = defaultdict(list)
    for received, result in zip(batch, results, strict=True):
        record, verdict = result.record, result.verdict
        if isinstance(result, Done):
            if result.repeated or record is None:
                continue
            if record.state in ENDED:
                counts[ENDED[record.state]] += 1
        elif result.reason == "no_credentials":
            counts["CredentialsRefused"] += 1
        elif result.reason == "provider_failing":
            values["NotSent"].append(1)
        # The other doors count what they accept. A queue may deliver twice: count the first time,
        # and no later copy, which left its line or was redriven.
        if record and record.door == received.door == "sqs" and received.receive_count == 1:
            counts["Accepted"] += received.sent_at <= record.accepted_at
        if verdict is None:
            continue
        counts["Attempts"] += 1
        counts["Throttled"] += verdict.status == 429
        counts["CredentialsRefused"] += verdict.outcome is Outcome.CREDENTIALS
        counts["Redirects"] += verdict.outcome is Outcome.MISDIRECTED
        if verdict.outcome in SHARES:
            values["NotSent"].append(SHARES[verdict.outcome])
        if record and record.attempts:
            values["ProviderLatency"].append(record.attempts[-1].milliseconds)
    return +counts, values
