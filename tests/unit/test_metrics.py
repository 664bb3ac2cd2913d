"""What is counted of a run, and how it is written."""

import json
from typing import Any

import pytest

from relay import metrics
from relay.messages.envelope import QueuedMessage
from relay.messages.results import Done, Later, Received, Result
from relay.messages.states import Attempt, Record, State
from smsgold.responses import Outcome, Verdict


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


def test_only_what_was_exchanged_has_a_latency() -> None:
    results = [Done(record(State.SENT, milliseconds=90), OK), Done(record(State.UNKNOWN))]

    assert metrics.measure([delivery(), delivery()], results)[1] == [90]


def test_a_run_writes_numbers_and_the_stacks_name_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "smsgold-relay")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "a-stack")

    metrics.delivered([delivery()] * 150, [Done(record(State.SENT), OK)] * 150)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(sum(line.get("Sent", [])) for line in lines) == 150
    assert sum(len(line.get("ProviderLatency", [])) for line in lines) == 150
    for line in lines:
        assert line["service"] == "a-stack"
        values: list[Any] = [v for k, v in line.items() if k not in ("_aws", "service")]
        assert all(isinstance(number, float) for numbers in values for number in numbers)


def test_an_idle_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.delivered([delivery()], [Later(5, "pace")])
    metrics.accepted(0)

    assert capsys.readouterr().out == ""
