"""The sender's handler: SQS records in, a partial batch response out."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from functions.sender import app
from relay.broadcasts.model import BroadcastRecord
from relay.messages.queues import DeadLetterEntry
from relay.messages.results import LAST_RECEIVES, LAST_RECEIVES_IN_LINE
from relay.messages.states import LONGEST_LIFE, Rules, State
from tests.support.world import RUN_SECONDS, SEALS, Relay
from tools.translated import template

SOURCE = "arn:aws:sqs:us-east-1:1:messages"
ORDERED_SOURCE = "arn:aws:sqs:us-east-1:1:ordered.fifo"
BROADCAST_SOURCE = "arn:aws:sqs:us-east-1:1:broadcast"


@dataclass
class Context:
    function_name: str = "sender"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:1:function:sender"
    aws_request_id: str = "r-1"

    def get_remaining_time_in_millis(self) -> int:
        return int(RUN_SECONDS * 1000)


class Hidden:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def is_ordered(self, source: str) -> bool:
        return source == ORDERED_SOURCE

    def is_broadcast(self, source: str) -> bool:
        return source == BROADCAST_SOURCE

    def change_visibility(self, source: str, receipts: dict[str, float]) -> None:
        assert source in (SOURCE, ORDERED_SOURCE, BROADCAST_SOURCE)
        self.seconds |= receipts


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Relay:
    relay = Relay(Rules())
    monkeypatch.setattr(app, "sender", relay.sender)
    monkeypatch.setattr("time.time", relay.world.clock)
    return relay


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Hidden:
    hidden = Hidden()
    monkeypatch.setattr(app, "queues", hidden)
    return hidden


def record(i: int, body: object, *, receive_count: int = 1) -> dict[str, Any]:
    return {
        "messageId": f"sqs-{i}",
        "receiptHandle": f"receipt-{i}",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {
            "ApproximateReceiveCount": str(receive_count),
            "SentTimestamp": "1800000000000",
        },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": SOURCE,
    }


def envelope(text: str, **fields: object) -> dict[str, object]:
    return {"subscriberId": f"s-{text}", "text": text, **fields}


def moved_back(i: int, letter: DeadLetterEntry) -> dict[str, Any]:
    """Return a record of a dead letter that was moved back with its attributes."""
    assert letter.own
    seal = {"stringValue": SEALS.seal(letter.body), "dataType": "String"}
    return record(i, letter.body) | {"messageAttributes": {"seal": seal}}


def handle(*records: dict[str, Any]) -> dict[str, Any]:
    context: Any = Context()
    answer: dict[str, Any] = app.handler({"Records": list(records)}, context)
    return answer


def test_finished_messages_leave_the_queue_and_others_stay_hidden(
    relay: Relay, hidden: Hidden
) -> None:
    relay.provider.next = ["accepts", "is busy", "refuses"]

    answer = handle(*(record(i, envelope(f"m-{i}", id=f"m-{i}")) for i in range(3)))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "sqs-1"}]}
    assert list(hidden.seconds) == ["receipt-1"]
    assert 5 <= hidden.seconds["receipt-1"] <= 10
    assert [relay.store.records[f"m-{i}"].state for i in range(3)] == [
        State.SENT,
        State.QUEUED,
        State.REJECTED,
    ]


def test_all_failing_is_answered_not_raised(relay: Relay, hidden: Hidden) -> None:
    relay.world.table_down = True

    answer = handle(*(record(i, envelope(f"m-{i}")) for i in range(10)))

    assert answer == {"batchItemFailures": [{"itemIdentifier": f"sqs-{i}"} for i in range(10)]}
    assert len(hidden.seconds) == 10


def in_line(i: int, body: object, line: str, **fields: Any) -> dict[str, Any]:
    """Return a record of the Ordered queue, in the shape that Lambda documents for FIFO queues."""
    fifo = record(i, body, **fields) | {"eventSourceARN": ORDERED_SOURCE}
    fifo["attributes"] |= {
        "SequenceNumber": str(18849496460467696128 + i),
        "MessageGroupId": line,
        "SenderId": "AIDAIO23YVJENQZJOL4VO",
        "MessageDeduplicationId": str(i),
        "ApproximateFirstReceiveTimestamp": "1800000000000",
    }
    return fifo


def test_a_chat_s_later_messages_stay_when_one_stays(relay: Relay, hidden: Hidden) -> None:
    relay.provider.next = ["is busy", "accepts"]

    answer = handle(
        in_line(1, envelope("a1", id="a1"), "a"),
        in_line(2, envelope("b1", id="b1"), "b"),
        in_line(3, envelope("a2", id="a2"), "a"),
        in_line(4, "not JSON", "a"),
    )

    assert failed(answer) == ["sqs-1", "sqs-3", "sqs-4"]
    assert hidden.seconds["receipt-3"] == hidden.seconds["receipt-1"]
    assert relay.store.records["b1"].state is State.SENT
    assert "a2" not in relay.store.records, "it goes back untouched"
    assert not relay.queues.dead


def test_a_chat_gets_one_message_a_second(relay: Relay, hidden: Hidden) -> None:
    answer = handle(*(in_line(i, envelope(f"a{i}", id=f"a{i}"), "a") for i in range(1, 4)))

    assert failed(answer) == ["sqs-2", "sqs-3"]
    assert set(relay.store.records) == {"a1"}
    assert set(hidden.seconds.values()) == {1.0}


def test_what_is_no_message_holds_up_no_line(relay: Relay, hidden: Hidden) -> None:
    answer = handle(in_line(1, "not JSON", "a"), in_line(2, envelope("a2", id="a2"), "a"))

    assert failed(answer) == []
    assert not hidden.seconds
    assert relay.store.records["a2"].state is State.SENT
    [letter] = relay.queues.dead
    assert letter.reason == "invalid"


def test_a_message_in_a_line_is_not_given_up_for_those_before_it(relay: Relay) -> None:
    handle(in_line(1, envelope("a1", id="a1"), "a", receive_count=LAST_RECEIVES + 1))
    assert relay.store.records["a1"].state is State.SENT

    handle(in_line(2, envelope("a2", id="a2"), "a", receive_count=LAST_RECEIVES_IN_LINE))
    assert relay.store.records["a2"].state is State.FAILED
    assert relay.store.records["a2"].reason == "given_up"


def failed(answer: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.mark.parametrize(
    "claim", [{"generation": 1}, {"broadcast": "b-1"}, {"id": f"k-{'0' * 40}"}]
)
def test_a_producer_cannot_say_what_only_the_relay_may_say(
    relay: Relay, claim: dict[str, object]
) -> None:
    relay.broadcasts.items["b-1"] = BroadcastRecord("b-1", "bot", "", 0.0, snapshot="s", total=1)
    handle(record(1, envelope("m-1", **{"id": "m-1", **claim})))

    [letter] = relay.queues.dead
    assert letter.reason == "not_sealed"
    assert not relay.store.records
    assert not relay.broadcasts.items["b-1"].counts


def test_a_producer_cannot_send_a_held_message_again(relay: Relay) -> None:
    relay.provider.next = ["keeps and times out"]
    handle(record(1, envelope("m-1", id="m-1")))
    handle(record(2, envelope("m-1", id="m-1", generation=1)))

    assert relay.store.records["m-1"].state is State.UNKNOWN
    assert relay.provider.posts["m-1"] == 1


def test_a_sealed_redrive_is_sent(relay: Relay) -> None:
    relay.provider.next = ["refuses"]
    handle(record(1, envelope("m-1", id="m-1")))
    [letter] = relay.queues.dead
    relay.world.now += 1.0
    handle(moved_back(2, letter))

    assert relay.store.records["m-1"].state is State.SENT


def test_the_broadcast_queue_is_believed(relay: Relay) -> None:
    relay.broadcasts.items["b-1"] = BroadcastRecord("b-1", "bot", "", 0.0, snapshot="s", total=1)
    announced = record(1, envelope("m-1", id="m-1", broadcast="b-1"))
    handle(announced | {"eventSourceARN": BROADCAST_SOURCE})

    assert relay.store.records["m-1"].state is State.SENT


def test_an_envelope_without_an_id_goes_by_the_queues(relay: Relay, hidden: Hidden) -> None:
    handle(record(1, envelope("m-1")))

    assert relay.store.records["sqs-1"].state is State.SENT
    assert not hidden.seconds


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("not JSON", "JSON"),
        ("", "JSON"),
        ("[]", "object"),
        ("null", "object"),
        ('{"subscriberId": "s-1", "text": 5}', "text"),
        ('{"subscriberId": "s-1", "text": null}', "text"),
        ('{"subscriberId": "s-1"}', "text"),
        ('{"subscriberId": 5, "text": "hi"}', "subscriberId"),
        ('{"subscriberId": "s-1", "text": "hi", "buttons": {}}', "buttons"),
        ('{"subscriberId": "s-1", "text": "hi", "buttons": [{"text": "a"}]}', "buttons.0.url"),
        ('{"subscriberId": "s-1", "txet": "hi"}', "txet"),
        ('{"subscriberId": "s-1", "text": "hi", "id": "ü"}', "id"),
        ('{"subscriberId": "s-1", "text": "hi", "expiresAt": "soon"}', "expiresAt"),
        ('{"subscriberId": "s-1", "text": "hi", "generation": -1}', "generation"),
        ('{"subscriberId": "s-1", "text": "hi", "text": "ho"}', "text"),
        ('{"subscriberId": "s-1", "text": NaN}', "NaN"),
        ('{"subscriberId": "s-1", "text": "hi", "generation": Infinity}', "Infinity"),
        (r'{"subscriberId": "s-1", "text": "\ud800"}', "text"),
        (r'{"subscriberId": "s-1", "text": "hi", "reference": "\udfff"}', "reference"),
        ('{"botId": "b-1", "text": "hi"}', "number"),
        ("[" * 100_000, "JSON"),
        ('{"text":' * 50_000, "JSON"),
        ("x" * 1_048_576, "JSON"),
        ('{"text": ' + "1" * 1_000_000 + "}", "JSON"),
        ('{"a":1' + "".join(f',"a{i}":1' for i in range(90_000)) + ',"a":1}', "twice"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_no_message_is_a_dead_letter_and_disturbs_nobody(
    relay: Relay, hidden: Hidden, body: str, says: str
) -> None:
    answer = handle(
        record(1, envelope("m-1", id="m-1")), record(2, body), record(3, envelope("m-3", id="m-3"))
    )

    assert answer == {"batchItemFailures": []}
    assert not hidden.seconds
    [letter] = relay.queues.dead
    assert (letter.body, letter.reason) == (body, "invalid")
    assert says in letter.detail
    assert relay.provider.ledger == {"m-1": 1, "m-3": 1}


def test_what_is_no_message_stays_while_there_is_no_dead_letter_queue(
    relay: Relay, hidden: Hidden
) -> None:
    relay.world.queue_down = True

    assert handle(record(1, "junk")) == {"batchItemFailures": [{"itemIdentifier": "sqs-1"}]}
    assert list(hidden.seconds) == ["receipt-1"]


@pytest.mark.usefixtures("hidden")
def test_a_message_without_an_id_takes_its_own_along_when_it_is_given_up(relay: Relay) -> None:
    """Moved back by SQS it gets another one, under which it would be sent again."""
    relay.provider.next = ["is busy"]
    handle(record(1, envelope("t")))
    relay.world.now += 60.0

    answer = handle(record(1, envelope("t"), receive_count=LAST_RECEIVES))

    assert answer == {"batchItemFailures": []}
    [letter] = relay.queues.dead
    assert (letter.reason, json.loads(letter.body)["id"]) == ("http_503", "sqs-1")
    handle(moved_back(2, letter))
    assert relay.store.records["sqs-1"].state is State.SENT
    assert len(relay.store.records) == 1


def test_a_message_ends_before_sqs_gives_it_up() -> None:
    resources = template()["Resources"]
    for queue in ("MessagesQueue", "BroadcastQueue"):
        net = resources[queue]["Properties"]["RedrivePolicy"]["maxReceiveCount"]
        assert net - 100 >= LAST_RECEIVES
        assert resources[queue]["Properties"]["MessageRetentionPeriod"] > LONGEST_LIFE


@pytest.mark.usefixtures("hidden")
def test_a_second_receive_finds_what_the_first_has_done(relay: Relay) -> None:
    assert handle(record(0, envelope("hi"))) == {"batchItemFailures": []}

    assert handle(record(0, envelope("hi"), receive_count=2)) == {"batchItemFailures": []}
    assert relay.provider.posts["hi"] == 1


@pytest.mark.usefixtures("hidden")
def test_a_message_with_an_id_of_its_own_is_looked_for_at_once(relay: Relay) -> None:
    """Somebody else may have made its record: a write that meets it costs five times the read."""
    handle(record(0, envelope("hi", id="order-4711")))

    assert handle(record(1, envelope("hi", id="order-4711"))) == {"batchItemFailures": []}
    assert relay.provider.posts["hi"] == 1


@pytest.mark.usefixtures("hidden")
def test_a_run_logs_one_line_with_each_message_s_id_and_what_became_of_it(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(app.log, "info", lambda _, extra: lines.append(extra))
    relay.provider.next = ["accepts", "is busy"]
    handle(record(0, envelope("a", id="a")), record(1, envelope("b")), record(2, "no JSON"))
    handle(record(0, envelope("a", id="a")))

    first, again = lines
    assert first["messages"] == {
        "sent": ["a"],
        "queued http_503": ["sqs-1"],
        "dead_lettered": ["sqs-2"],
    }
    assert (first["Sent"], first["Attempts"]) == (1, 2)
    assert again["messages"] == {"sent again": ["a"]}
