"""What is counted of a run, and how it is written."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean

import pytest

from relay import metrics
from relay.messages.envelope import QueuedMessage
from relay.messages.results import Done, Later, Received, Result
from relay.messages.service import Messages
from relay.messages.states import Attempt, Record, Rules, State
from smsgold.responses import Outcome, Verdict
from tests.support.world import START, Relay
from tools.translated import translated


def delivery(receive_count: int = 1) -> Received:
    message = QueuedMessage(subscriberId="s-1", text="a secret text", id="m-1")
    return Received(message, door="sqs", sent_at=0.0, receive_count=receive_count)


def record(state: State, door: str = "http", milliseconds: int = 120) -> Record:
    attempts = (Attempt(0.0, "accepted", "", milliseconds),)
    return Record(
        id="m-1",
        state=state,
        fingerprint="f",
        door=door,
        accepted_at=0.0,
        updated_at=0.0,
        deadline=1.0,
        attempts=attempts,
    )


OK = Verdict(Outcome.ACCEPTED, "accepted", status=200)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Done(record(State.SENT), OK), {"Sent": 1, "Attempts": 1}),
        (Done(record(State.SENT), repeated=True), {}),
        (Done(None), {}),
        (Done(record(State.EXPIRED)), {"Expired": 1}),
        (Done(record(State.CANCELED)), {}),
        (
            Done(record(State.REJECTED), Verdict(Outcome.REFUSED, "http_404", status=404)),
            {"Rejected": 1, "Attempts": 1},
        ),
        (Done(record(State.UNKNOWN)), {"Unknown": 1}),
        (Done(record(State.FAILED)), {"Failed": 1}),
        (
            Later(5, "http_429", record(State.QUEUED), Verdict(Outcome.NOT_SENT, "", status=429)),
            {"Attempts": 1, "Throttled": 1},
        ),
        (
            Later(
                5, "http_401", record(State.QUEUED), Verdict(Outcome.CREDENTIALS, "", status=401)
            ),
            {"Attempts": 1, "CredentialsRefused": 1},
        ),
        (Later(5, "no_credentials"), {"CredentialsRefused": 1}),
        (
            Later(
                5, "redirect", record(State.QUEUED), Verdict(Outcome.MISDIRECTED, "", status=302)
            ),
            {"Attempts": 1, "Redirects": 1},
        ),
        (Later(5, "pace"), {}),
    ],
)
def test_each_result_counts_for_what_it_is(result: Result, expected: dict[str, int]) -> None:
    counts, _ = metrics.measure([delivery()], [result])

    assert counts == expected


def test_the_queues_own_door_counts_a_message_when_it_is_first_received() -> None:
    result = Done(record(State.SENT, door="sqs"), OK)

    assert metrics.measure([delivery()], [result])[0]["Accepted"] == 1
    assert "Accepted" not in metrics.measure([delivery(receive_count=2)], [result])[0]


def test_what_leaves_its_line_or_is_sent_again_was_accepted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relay = Relay(Rules())
    deliver = relay.sender.deliver
    counts: Counter[str] = Counter()

    def counted(batch: Sequence[Received], **times: float) -> list[Result]:
        results = deliver(batch, **times)
        counts.update(metrics.measure(batch, results)[0])
        return results

    monkeypatch.setattr(relay.sender, "deliver", counted)
    later = datetime.fromtimestamp(START + 20.0, UTC)
    message = QueuedMessage(subscriberId="s-1", text="-", id="m-1", sendAt=later)
    relay.queues.put_own(message, line=message.chat)
    relay.world.now += 1.0
    relay.run()
    relay.world.now += 30.0
    relay.provider.next = ["refuses"]
    relay.run()
    relay.queues.redrive(relay.queues.dead[0])
    relay.settle_down()

    assert counts == {"Accepted": 1, "Attempts": 2, "Rejected": 1, "Sent": 1}


def test_a_message_that_its_caller_waits_for_counts_like_any_other() -> None:
    relay = Relay(Rules())
    counts: Counter[str] = Counter()
    service = Messages(
        store=relay.store,
        lists=relay.store,
        queues=relay.queues,
        intake=relay.intake,
        sender=lambda: relay.sender,
        gate=lambda: relay.broadcasts,
        count=lambda batch, results: counts.update(metrics.measure(batch, results)[0]),
        clock=relay.world.clock,
        sleep=relay.world.sleep,
    )
    relay.provider.next = ["is busy"]
    message = QueuedMessage(subscriberId="s-1", text="-", id="m-1")
    service.accept_and_wait(message, seconds=20.0, time_left=28.0)

    assert relay.store.records["m-1"].state is State.SENT
    # Its door counted that it was accepted.
    assert counts == {"Attempts": 2, "Sent": 1}


def test_only_what_was_exchanged_has_a_latency() -> None:
    results = [Done(record(State.SENT, milliseconds=90), OK), Done(record(State.UNKNOWN))]

    assert metrics.measure([delivery(), delivery()], results)[1]["ProviderLatency"] == [90]


@pytest.mark.parametrize(
    ("result", "adds"),
    [
        (Done(record(State.SENT), OK), [0]),
        (Done(record(State.REJECTED), Verdict(Outcome.REFUSED, "http_404", status=404)), [0]),
        (Later(5, "http_503", record(State.QUEUED), Verdict(Outcome.NOT_SENT, "")), [1]),
        (Later(5, "http_401", record(State.QUEUED), Verdict(Outcome.CREDENTIALS, "")), [1]),
        (Later(5, "redirect", record(State.QUEUED), Verdict(Outcome.MISDIRECTED, "")), [1]),
        (Done(record(State.FAILED), Verdict(Outcome.NOT_SENT, "connect_refused")), [1]),
        (Later(5, "provider_failing"), [1]),
        (Done(record(State.UNKNOWN), Verdict(Outcome.UNKNOWN, "read_timeout")), []),
        *((Later(5, reason), []) for reason in ("pace", "slow_down", "slot_missed", "run_ends")),
        *((Later(5, reason), []) for reason in ("paused", "another_run", "table_unavailable")),
        (Done(record(State.SENT), OK, repeated=True), []),
    ],
)
def test_what_was_not_sent_is_told_from_what_waits(result: Result, adds: list[int]) -> None:
    assert metrics.measure([delivery()], [result])[1].get("NotSent", []) == adds


def alarms_after(relay: Relay, seconds: float) -> float | None:
    """Run so long; return when the template's alarm goes off, by the metrics of the runs."""
    alarm = translated()["Resources"]["NotSentAlarm"]["Properties"]
    assert (alarm["Statistic"], alarm["TreatMissingData"]) == ("Average", "notBreaching")
    period, began = alarm["Period"], relay.world.now
    values: defaultdict[int, list[int]] = defaultdict(list)

    def counted(batch: Sequence[Received], **times: float) -> list[Result]:
        found = deliver(batch, **times)
        values[int(relay.world.now // period)] += metrics.measure(batch, found)[1]["NotSent"]
        return found

    deliver = relay.sender.deliver
    relay.sender.deliver = counted  # type: ignore[method-assign]
    while relay.world.now < began + seconds and relay.queues.messages:
        relay.run()
        relay.world.now += 1.0
    breaching = {n for n, each in values.items() if each and fmean(each) > alarm["Threshold"]}
    for last in range(int(began // period), int((began + seconds) // period) + 1):
        evaluated = range(last - alarm["EvaluationPeriods"] + 1, last + 1)
        if sum(n in breaching for n in evaluated) >= alarm["DatapointsToAlarm"]:
            return float((last + 1) * period - began)
    return None


@pytest.mark.parametrize("answer", ["cannot be reached", "is busy", "refuses the password"])
@pytest.mark.parametrize(("messages", "into_a_period"), [(1, 0), (1, 290), (12, 150)])
def test_a_provider_that_takes_nothing_sets_off_the_alarm_within_15_minutes(
    answer: str, messages: int, into_a_period: int
) -> None:
    relay = Relay(Rules())
    relay.world.now += into_a_period
    relay.provider.next = [answer] * 10_000
    for i in range(messages):
        relay.accept(QueuedMessage(subscriberId="s-1", text=f"m-{i}", id=f"m-{i}"))

    after = alarms_after(relay, 1200)

    assert after is not None
    assert after <= 900


def test_messages_that_wait_for_their_slots_set_off_no_alarm() -> None:
    relay = Relay(Rules(), rate=0.5)
    relay.provider.next = ["is busy"]
    for i in range(400):
        relay.accept(QueuedMessage(subscriberId="s-1", text=f"m-{i}", id=f"m-{i}"))

    assert alarms_after(relay, 1500) is None
    assert sum(relay.provider.ledger.values()) == 400


def test_a_run_writes_numbers_and_the_stacks_name_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "smsgold-relay")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "a-stack")

    metrics.delivered([delivery()] * 150, [Done(record(State.SENT), OK)] * 150)

    lines = list(iter(metrics.fields, {}))
    assert sum(line.get("Sent", 0) for line in lines) == 150
    assert sum(len(line.get("ProviderLatency", [])) for line in lines) == 150
    for line in lines:
        assert line["service"] == "a-stack"
        values = {k: v for k, v in line.items() if k not in ("_aws", "service")}
        for value in values.values():
            numbers = value if isinstance(value, list) else [value]
            assert all(isinstance(number, int) for number in numbers)
            assert len(numbers) <= 100, "what CloudWatch takes of a metric in a line"
        [about] = line["_aws"]["CloudWatchMetrics"]
        units = {metric["Name"]: metric["Unit"] for metric in about["Metrics"]}
        assert units == {
            name: "Milliseconds" if name == "ProviderLatency" else "Count" for name in values
        }


def test_an_idle_run_writes_nothing() -> None:
    metrics.delivered([delivery()], [Later(5, "pace")])
    metrics.accepted(0)

    assert metrics.fields() == {}
