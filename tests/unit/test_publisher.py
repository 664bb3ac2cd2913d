"""The publisher puts every event on the bus, or says from where on the stream has to repeat."""

import json
from collections.abc import Sequence
from typing import Any

from relay.outcomes.bus import MOST, PutError
from relay.outcomes.events import Event
from relay.outcomes.publisher import PAUSES, Published, log_line, publish


def records(count: int) -> list[dict[str, Any]]:
    return [
        {
            "dynamodb": {
                "Keys": {"pk": {"S": f"message#{n}"}},
                "SequenceNumber": f"{1000 + n}",
                "NewImage": {"state": {"S": "sent"}, "version": {"N": "3"}},
            }
        }
        for n in range(count)
    ]


class FakeBus:
    """A bus that fails as it is told: for each call an error, or the codes of its entries."""

    def __init__(self, *answers: Exception | dict[int, str]) -> None:
        self._answers = list(answers)
        self.there: list[str] = []
        self.calls: list[int] = []

    def put(self, events: Sequence[Event]) -> list[str]:
        self.calls.append(len(events))
        answer = self._answers.pop(0) if self._answers else {}
        if isinstance(answer, Exception):
            raise answer
        codes = [answer.get(i, "") for i in range(len(events))]
        self.there += [
            str(e.detail["id"]) for e, code in zip(events, codes, strict=True) if not code
        ]
        return codes


def never(_: float) -> None:
    pass


def run(count: int, bus: FakeBus) -> Published:
    return publish(records(count), bus, sleep=never)


def test_a_batch_is_put_in_tens_and_in_order() -> None:
    bus = FakeBus()
    published = run(25, bus)

    assert bus.calls == [MOST, MOST, 5]
    assert bus.there == [str(n) for n in range(25)]
    assert published.events == 25
    assert published.answer == {"batchItemFailures": []}


def test_what_the_bus_does_not_take_is_repeated_alone() -> None:
    bus = FakeBus({1: "InternalFailure", 4: "ThrottlingException"}, {0: "InternalFailure"})
    published = run(6, bus)

    assert bus.calls == [6, 2, 1]
    assert sorted(bus.there) == [str(n) for n in range(6)]
    assert published.answer == {"batchItemFailures": []}


def test_a_call_that_fails_is_repeated() -> None:
    bus = FakeBus(PutError("RemoteDisconnected"), PutError("500 InternalException"))
    assert run(3, bus).events == 3
    assert bus.calls == [3, 3, 3]


def test_what_stays_untaken_goes_back_with_all_that_follows() -> None:
    stuck = {2: "InternalFailure"}
    bus = FakeBus({}, stuck, *[{0: "InternalFailure"}] * len(PAUSES))
    published = run(25, bus)

    assert published.answer == {"batchItemFailures": [{"itemIdentifier": "1012"}]}
    assert published.why == "InternalFailure"
    assert "12" not in bus.there
    assert "20" not in bus.there, "what comes after it waits"


def test_an_outage_gives_the_whole_batch_back() -> None:
    bus = FakeBus(*[PutError("TimeoutError")] * len(PAUSES))
    published = run(12, bus)

    assert published.answer == {"batchItemFailures": [{"itemIdentifier": "1000"}]}
    assert published.why == "TimeoutError"
    assert len(bus.calls) == len(PAUSES)


def test_a_record_that_cannot_be_read_holds_up_no_other() -> None:
    batch = records(3)
    batch[1]["dynamodb"]["NewImage"]["version"] = {"S": "three"}
    bus = FakeBus()
    published = publish(batch, bus, sleep=never)

    assert bus.there == ["0", "2"]
    assert published.unreadable == ("1001",)
    assert published.answer == {"batchItemFailures": []}


def test_what_is_no_event_makes_no_call() -> None:
    batch = records(2)
    for record in batch:
        record["dynamodb"]["NewImage"]["state"] = {"S": "queued"}
    bus = FakeBus()
    assert publish(batch, bus, sleep=never) == Published()
    assert bus.calls == []


def test_a_run_logs_one_line_with_its_metrics() -> None:
    line = json.loads(log_line(Published(3, "1003", "TimeoutError", ("1001",)), "n", "stack", 1.5))

    assert (line["Events"], line["EventsUnreadable"], line["service"]) == (3, 1, "stack")
    assert (line["level"], line["back_from"], line["why"]) == ("ERROR", "1003", "TimeoutError")
    [about] = line["_aws"]["CloudWatchMetrics"]
    assert about["Dimensions"] == [["service"]]
    assert json.loads(log_line(Published(3), "n", "stack", 1.5))["level"] == "INFO"
