"""The queues on SQS: what fits into one call, what SQS takes, what comes back."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from relay.messages.envelope import QueuedMessage
from relay.messages.queues import (
    COUNTED_SECONDS,
    LONGEST_VISIBILITY,
    ROOM_TO_WAIT,
    DeadLetterEntry,
    SqsQueues,
    dead_letter_body,
    delay_for,
)
from relay.messages.seals import Seals
from relay.messages.store import StoreUnavailableError
from relay.validation import parse
from tests.support.world import SEALS

MIB = 1_048_576
SOURCE = "arn:aws:sqs:us-east-1:1:broadcast"


class Sqs:
    """Takes calls as SQS does, or fails as told."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.urls: list[str] = []
        self.hidden: dict[str, int] = {}
        self.refuse: set[str] = set()
        self.down_at_call: int | None = None
        self.waiting: dict[str, int] | None = None
        self.asked = 0

    def send_message_batch(self, *, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl.rpartition("/")[2] in ("messages", "ordered.fifo", "broadcast", "dead")
        self.urls.append(QueueUrl.rpartition("/")[2])
        if self.down_at_call == len(self.calls):
            self.calls.append([])
            raise ConnectTimeoutError(endpoint_url="sqs")
        self.calls.append(Entries)
        assert 1 <= len(Entries) <= 10
        assert sum(map(_size, Entries)) <= MIB
        return {
            "Successful": [{"Id": e["Id"]} for e in Entries if e["MessageBody"] not in self.refuse],
            "Failed": [
                {"Id": e["Id"], "Code": "InternalError"}
                for e in Entries
                if e["MessageBody"] in self.refuse
            ],
        }

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[Any]) -> None:  # noqa: N803
        assert QueueUrl == "https://sqs.example/1/broadcast"
        assert 1 <= len(Entries) <= 10
        self.hidden |= {e["ReceiptHandle"]: e["VisibilityTimeout"] for e in Entries}

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> dict[str, Any]:  # noqa: N803
        assert QueueUrl == "https://sqs.example/1/messages"
        self.asked += 1
        if self.waiting is None:
            raise ConnectTimeoutError(endpoint_url="sqs")
        return {"Attributes": {name: str(self.waiting[name]) for name in AttributeNames}}


def _size(entry: dict[str, Any]) -> int:
    attributes = entry.get("MessageAttributes", {})
    return len(entry["MessageBody"].encode()) + sum(
        len(name) + len(a["DataType"]) + len(a["StringValue"].encode())
        for name, a in attributes.items()
    )


@pytest.fixture
def sqs() -> Sqs:
    return Sqs()


@pytest.fixture
def queues(sqs: Sqs) -> SqsQueues:
    return sqs_queues(sqs, SEALS)


def sqs_queues(sqs: Sqs, seals: Seals, clock: Callable[[], float] = time.time) -> SqsQueues:
    client: Any = sqs
    return SqsQueues(
        client,
        messages_url="https://sqs.example/1/messages",
        ordered_url="https://sqs.example/1/ordered.fifo",
        broadcast_url="https://sqs.example/1/broadcast",
        notifier_url="https://sqs.example/1/notifier",
        dead_letter_url="https://sqs.example/1/dead",
        seals=seals,
        clock=clock,
    )


def message(i: int, text: str = "hello") -> QueuedMessage:
    return QueuedMessage(id=f"m-{i}", subscriberId="s-1", text=text)


def letter(body: str = "{}", detail: str = "why") -> DeadLetterEntry:
    return DeadLetterEntry(body, "http_400", detail, 3, 1_800_000_000.0)


def test_messages_travel_ten_to_a_call(queues: SqsQueues, sqs: Sqs) -> None:
    assert queues.enqueue([message(i) for i in range(23)], [7] * 23) == [None] * 23

    assert [len(call) for call in sqs.calls] == [10, 10, 3]
    assert {e["DelaySeconds"] for call in sqs.calls for e in call} == {7}


def test_a_call_is_no_larger_than_sqs_takes(queues: SqsQueues, sqs: Sqs) -> None:
    assert queues.enqueue_dead_letters([letter("x" * 400_000)] * 5) == [None] * 5

    assert [len(call) for call in sqs.calls] == [2, 2, 1]


def test_each_message_gets_its_own_answer(queues: SqsQueues, sqs: Sqs) -> None:
    messages = [message(i) for i in range(22)]
    sqs.refuse = {messages[3].to_body()}
    sqs.down_at_call = 1

    answers = queues.enqueue(messages)

    assert answers[3] == "InternalError"
    assert answers[10:20] == ["ConnectTimeoutError"] * 10
    assert [a for i, a in enumerate(answers) if i != 3 and not 10 <= i < 20] == [None] * 11


def test_a_letter_says_why(queues: SqsQueues, sqs: Sqs) -> None:
    queues.enqueue_dead_letters([letter()])

    [[entry]] = sqs.calls
    attributes = {name: a["StringValue"] for name, a in entry["MessageAttributes"].items()}
    assert attributes == {
        "reason": "http_400",
        "detail": "why",
        "attempts": "3",
        "failedAt": "2027-01-15T08:00:00.000Z",
    }


def test_messages_stand_in_their_chats_lines_and_say_no_number(queues: SqsQueues, sqs: Sqs) -> None:
    to_a_number = QueuedMessage(id="m-1", botId="b-1", number="79000000001", text="hello")
    queues.enqueue([message(1), to_a_number, message(2), message(1, "another text")])

    [entries] = sqs.calls
    assert all("DelaySeconds" not in entry for entry in entries), "FIFO queues refuse it"
    lines = [entry["MessageGroupId"] for entry in entries]
    assert lines[0] == lines[2] == lines[3] != lines[1]
    assert "79000000001" not in lines[1]
    assert len({entry["MessageDeduplicationId"] for entry in entries}) == 4, "by all that it says"


def test_the_same_message_twice_is_one_on_the_ordered_queue(queues: SqsQueues, sqs: Sqs) -> None:
    queues.enqueue([message(1)])
    queues.enqueue([message(1)])

    [[first], [second]] = sqs.calls
    assert first["MessageDeduplicationId"] == second["MessageDeduplicationId"]


def test_what_needs_no_order_or_waits_goes_past_the_lines(queues: SqsQueues, sqs: Sqs) -> None:
    at_once = message(2).model_copy(update={"in_order": False})
    sqs.refuse = {message(3).to_body()}
    answers = queues.enqueue([message(1), at_once, message(3)])

    assert sqs.urls == ["ordered.fifo", "messages"]
    assert answers == [None, None, "InternalError"]
    queues.enqueue([message(1)], [5])
    assert sqs.urls[-1] == "messages"
    assert "MessageGroupId" not in sqs.calls[-1][0]


def seal(entry: dict[str, Any]) -> str:
    return str(entry["MessageAttributes"]["seal"]["StringValue"])


def test_what_only_the_relay_may_say_is_sealed(queues: SqsQueues, sqs: Sqs) -> None:
    plain, own = message(1), message(2).model_copy(update={"id": "k-2"})
    announced = message(3).model_copy(update={"broadcast": "b-1"})
    queues.enqueue([plain, own])
    queues.enqueue_broadcast([announced])
    queues.enqueue_dead_letters([letter(), replace(letter(), own=True)])

    [[first, second], [third], [foreign, relays]] = sqs.calls
    assert "MessageAttributes" not in first
    assert "seal" not in foreign["MessageAttributes"]
    for entry in (second, third, relays):
        assert seal(entry) == SEALS.seal(entry["MessageBody"])


def test_without_the_key_of_the_seals_nothing_is_put_anywhere(sqs: Sqs) -> None:
    def key() -> bytes:
        raise StoreUnavailableError("down")

    queues = sqs_queues(sqs, Seals(key))
    own = message(2).model_copy(update={"id": "k-2"})

    assert all(queues.enqueue([message(1), own]))
    assert all(queues.enqueue_dead_letters([letter(), replace(letter(), own=True)]))
    assert not sqs.calls


def test_junk_of_a_mebibyte_is_cut_to_what_sqs_takes(queues: SqsQueues, sqs: Sqs) -> None:
    junk = "я" * (MIB // 2)

    assert queues.enqueue_dead_letters([letter(junk, detail="я" * 10_000)]) == [None]

    [[entry]] = sqs.calls
    assert junk.startswith(entry["MessageBody"])
    assert len(entry["MessageBody"].encode()) > MIB - 8192


def test_a_detail_is_made_fit_for_sqs(queues: SqsQueues, sqs: Sqs) -> None:
    queues.enqueue_dead_letters(
        [letter(detail="a\x00b\x1bc\ufffed\ud800e\tf"), letter(detail="\x00")]
    )

    [[first, second]] = sqs.calls
    assert first["MessageAttributes"]["detail"]["StringValue"] == "abcde\tf"
    assert "detail" not in second["MessageAttributes"], "SQS takes no empty attribute"


def test_characters_that_sqs_does_not_take_survive_in_a_body(queues: SqsQueues, sqs: Sqs) -> None:
    odd = message(1, text="a\x01b\ufffec\uffffd\x7fe😀")

    queues.enqueue([odd])

    [[entry]] = sqs.calls
    body = entry["MessageBody"]
    assert all(c in "\t\n\r" or " " <= c < "\ufffe" or c > "\uffff" for c in body)
    assert parse(QueuedMessage, body) == odd


def test_a_dead_letter_is_the_envelope_one_generation_on() -> None:
    old = message(1)

    assert parse(QueuedMessage, dead_letter_body(old, 4)) == old.model_copy(
        update={"generation": 5}
    )


def test_hiding_is_rounded_and_within_what_sqs_allows(queues: SqsQueues, sqs: Sqs) -> None:
    queues.change_visibility(
        SOURCE, {"a": -3.0, "b": 1.6, "c": 10 * LONGEST_VISIBILITY} | {f"{i}": 5 for i in range(9)}
    )

    assert sqs.hidden["a"] == 0
    assert sqs.hidden["b"] == 2
    assert sqs.hidden["c"] < LONGEST_VISIBILITY
    assert len(sqs.hidden) == 12


def test_nothing_to_do_is_no_call(queues: SqsQueues, sqs: Sqs) -> None:
    queues.enqueue([])
    queues.enqueue_dead_letters([])
    queues.change_visibility(SOURCE, {})

    assert not sqs.calls


def test_each_message_has_its_own_delay(queues: SqsQueues, sqs: Sqs) -> None:
    assert queues.enqueue([message(1), message(2), message(3)], [40, 0, 900]) == [None] * 3
    assert sqs.urls == ["ordered.fifo", "messages"]
    [in_line], delayed = sqs.calls
    assert "DelaySeconds" not in in_line
    assert [entry["DelaySeconds"] for entry in delayed] == [40, 900]


@pytest.mark.parametrize(
    ("seconds", "delay"), [(-1.0, 0), (0.0, 0), (0.1, 1), (40.0, 40), (900.5, 900), (1e6, 900)]
)
def test_how_long_a_queue_holds_a_message_back(seconds: float, delay: int) -> None:
    assert delay_for(seconds) == delay


@pytest.mark.parametrize(
    ("hidden", "delayed", "room"),
    [
        (0, 0, True),
        (ROOM_TO_WAIT - 1, 0, True),
        (ROOM_TO_WAIT, 0, False),
        (ROOM_TO_WAIT // 2, ROOM_TO_WAIT // 2, False),
    ],
)
def test_how_many_may_wait(
    sqs: Sqs, queues: SqsQueues, hidden: int, delayed: int, room: bool
) -> None:
    sqs.waiting = {
        "ApproximateNumberOfMessagesNotVisible": hidden,
        "ApproximateNumberOfMessagesDelayed": delayed,
    }
    assert queues.has_room_to_wait() is room


def test_how_many_wait_is_asked_for_now_and_then_and_nobody_is_refused_in_doubt(sqs: Sqs) -> None:
    now = 1_800_000_000.0
    queues = sqs_queues(sqs, SEALS, lambda: now)
    full = {
        "ApproximateNumberOfMessagesNotVisible": ROOM_TO_WAIT,
        "ApproximateNumberOfMessagesDelayed": 0,
    }
    assert queues.has_room_to_wait(), "SQS does not say"
    sqs.waiting = full
    assert queues.has_room_to_wait()
    assert sqs.asked == 1
    now += COUNTED_SECONDS + 1.0
    assert not queues.has_room_to_wait()
    assert not queues.has_room_to_wait()
    assert sqs.asked == 2
