"""The relay's CloudWatch metrics: one EMF log line per run, not per message.

Their only dimension is the stack's name, in POWERTOOLS_SERVICE_NAME: CloudWatch bills every
combination of dimensions as a metric of its own.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit

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


def accepted(count: int) -> None:
    """Count messages accepted by a door."""
    if count:
        _emit({"Accepted": count}, {})


def delivered(batch: Sequence[Received], results: Sequence[Result]) -> None:
    """Count the results of a run's batch."""
    _emit(*measure(batch, results))


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
        # The other doors count what they accept. A queue may deliver twice: count the first time.
        if record and record.door == received.door and received.receive_count == 1:
            counts["Accepted"] += 1
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


def _emit(counts: Mapping[str, int], values: Mapping[str, Iterable[int]]) -> None:
    metrics = Metrics()
    for name, count in counts.items():
        metrics.add_metric(name, MetricUnit.Count, count)
    for name, each in values.items():
        unit = MetricUnit.Milliseconds if name == "ProviderLatency" else MetricUnit.Count
        for value in each:
            metrics.add_metric(name, unit, value)
    if metrics.metric_set:
        metrics.flush_metrics()
