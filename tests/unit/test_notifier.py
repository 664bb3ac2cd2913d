"""The notifier's handler: firings of schedules and bodies of its queue in, each to its own end."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from functions.notifier import app
from relay.broadcasts.model import (
    BroadcastRecord,
    QueuedBroadcast,
    first_record_of,
    recount_order,
)
from relay.broadcasts.recounts import Turn
from relay.broadcasts.service import Started
from relay.messages.queues import QueueUnavailableError
from relay.messages.states import Rules, State
from relay.schedules.firings import FiringDoor, NotAcceptedError
from relay.schedules.model import Schedule
from relay.schedules.scheduler import to_scheduler
from relay.validation import InvalidMessageError
from tests.support.firing import fired, scheduled_input
from tests.support.webhooks import payload
from tests.support.world import RUN_SECONDS, START, Relay

SOURCE = "arn:aws:sqs:us-east-1:1:notifier"
MESSAGE = {"subscriberId": "s-1", "text": "Good morning"}
BROADCAST = {"botId": "b-1", "text": "Good morning"}
FIRING = {"schedule": "arn:aws:scheduler:x", "time": "2027-01-15T08:00:00Z"}


@dataclass
class Context:
    function_name: str = "notifier"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:1:function:notifier"
    aws_request_id: str = "r-1"

    def get_remaining_time_in_millis(self) -> int:
        return int(RUN_SECONDS * 1000)


@dataclass
class Broadcasts:
    """What the notifier needs of broadcasts; `left` is how many seconds a run asks for again."""

    started: list[QueuedBroadcast] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)
    worked: list[QueuedBroadcast] = field(default_factory=list)
    recounted: list[tuple[str, float]] = field(default_factory=list)
    left: float | None = None
    receives: int = 1

    def start(self, broadcast: QueuedBroadcast, *, late: bool) -> Started:
        self.started.append(broadcast)
        self.late.append(late)
        return Started(self.record(broadcast))

    def record(self, broadcast: QueuedBroadcast) -> BroadcastRecord:
        return first_record_of(broadcast, START)

    def run(self, broadcast: QueuedBroadcast, turn: Turn, *, receive_count: int) -> float | None:
        assert receive_count == self.receives
        self.worked.append(broadcast)
        turn.keep()
        return self.left

    def again(self, id_: str, turn: Turn, *, asked_at: float, receive_count: int) -> float | None:
        assert receive_count == self.receives
        self.recounted.append((id_, asked_at))
        turn.keep()
        return self.left


@dataclass
class Stack:
    relay: Relay
    broadcasts: Broadcasts
    hidden: list[dict[str, float]] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    queue_down: bool = False

    def change_visibility(self, source: str, receipts: dict[str, float]) -> None:
        assert source == SOURCE
        self.hidden.append(receipts)

    def enqueue_notifier(self, body: str) -> None:
        if self.queue_down:
            raise QueueUnavailableError("down")
        self.renewed.append(body)

    @property
    def queued(self) -> list[dict[str, Any]]:
        return [json.loads(copy.body) for copy in self.relay.queues.messages]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    stack = Stack(Relay(Rules()), Broadcasts())
    monkeypatch.setattr(app, "fan_out", stack.broadcasts)
    monkeypatch.setattr(app, "recounts", stack.broadcasts)
    monkeypatch.setattr(app, "queues", stack)
    monkeypatch.setattr(app, "time", SimpleNamespace(time=stack.relay.world.clock))
    door = FiringDoor(stack.relay.intake, stack.broadcasts, clock=stack.relay.world.clock)  # type: ignore[arg-type]
    monkeypatch.setattr(app, "door", door)
    return stack


def invoke(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = app.handler(event, Context())  # type: ignore[arg-type]
    return found


def on_queue(body: object) -> dict[str, Any]:
    record = {
        "messageId": "sqs-1",
        "receiptHandle": "receipt-1",
        "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1800000000500"},
        "eventSourceARN": SOURCE,
    }
    return {"Records": [record]}


def test_a_firing_is_accepted_once_however_often_it_comes(stack: Stack) -> None:
    event = {**FIRING, "message": MESSAGE}
    first = invoke(event)
    assert (invoke(event), first["status"]) == (first, "queued")
    assert invoke({**event, "time": "2027-01-15T09:00:00Z"})["id"] != first["id"]
    assert {message["id"] for message in stack.queued} == set(stack.relay.store.records)
    assert len(stack.relay.store.records) == 2


@pytest.mark.parametrize("kind", [{"kind": "event"}, {}], ids=["", "of version 0.1.0"])
def test_a_firing_moved_back_to_the_queue_is_the_one_that_failed(
    stack: Stack, kind: dict[str, str]
) -> None:
    event = {**kind, **FIRING, "message": MESSAGE}
    assert invoke(on_queue(event)) == {"batchItemFailures": []}
    [id_] = stack.relay.store.records
    assert invoke(event)["id"] == id_
    assert stack.broadcasts.worked == []


def test_a_firing_that_the_scheduler_gave_up_is_unwrapped(stack: Stack) -> None:
    """The guide shows such a letter for a queue as the target; for Lambda only AWS can show one."""
    moved_back = json.loads(payload("notifier_firing_moved_back.json"))
    [record] = moved_back["Records"]
    request = json.loads(record["body"])
    assert set(request) == {"FunctionName", "InvocationType", "Payload"}

    assert invoke(moved_back) == {"batchItemFailures": []}

    [id_] = stack.relay.store.records
    assert invoke(json.loads(request["Payload"]))["id"] == id_, "as if it had not failed"


@pytest.mark.parametrize("kind", [{"kind": "broadcast"}, {}], ids=["", "of version 0.1.0"])
@pytest.mark.parametrize(("left", "stays"), [(None, False), (30.0, True)])
def test_a_queued_broadcast_is_fanned_out_until_it_has_ended(
    stack: Stack, kind: dict[str, str], left: float | None, stays: bool
) -> None:
    stack.broadcasts.left = left
    answer = invoke(on_queue({**kind, **BROADCAST, "id": "x"}))
    assert [broadcast.id for broadcast in stack.broadcasts.worked] == ["x"]
    assert answer == {"batchItemFailures": [{"itemIdentifier": "sqs-1"}] if stays else []}
    assert stack.hidden == [{"receipt-1": 20.0}, *([{"receipt-1": 30.0}] if stays else [])]


@pytest.mark.parametrize("queue_down", [False, True])
def test_an_order_that_sqs_would_forget_in_a_week_is_put_on_the_queue_anew(
    stack: Stack,
    queue_down: bool,
) -> None:
    stack.broadcasts.left = 30.0
    stack.queue_down = queue_down
    event = on_queue({**BROADCAST, "kind": "broadcast", "id": "x"})
    stack.relay.world.now = START + app.RENEWED_AFTER
    assert invoke(event)["batchItemFailures"]
    stack.relay.world.now += 1.0
    assert invoke(event) == {
        "batchItemFailures": [{"itemIdentifier": "sqs-1"}] if queue_down else []
    }
    assert stack.renewed == ([] if queue_down else [event["Records"][0]["body"]])
    stack.broadcasts.left = None
    assert invoke(event) == {"batchItemFailures": []}
    assert len(stack.renewed) == (not queue_down), "what has ended needs no order"


def test_an_order_that_its_queue_would_soon_give_up_is_put_on_it_anew(stack: Stack) -> None:
    """A million recipients, one chunk a run, are more receives than a queue allows."""
    stack.broadcasts.left = 30.0
    event = on_queue({**BROADCAST, "kind": "broadcast", "id": "x"})
    [record] = event["Records"]
    for count, renewed in ((499, []), (500, [record["body"]])):
        stack.broadcasts.receives = count
        record["attributes"]["ApproximateReceiveCount"] = str(count)
        assert bool(invoke(event)["batchItemFailures"]) is not bool(renewed)
        assert stack.renewed == renewed


@pytest.mark.parametrize(("left", "stays"), [(None, False), (30.0, True)])
def test_a_recount_stays_on_the_queue_until_it_is_made(
    stack: Stack, left: float | None, stays: bool
) -> None:
    stack.broadcasts.left = left
    answer = invoke(on_queue(json.loads(recount_order("x"))))
    assert stack.broadcasts.recounted == [("x", 1_800_000_000.5)]
    assert answer == {"batchItemFailures": [{"itemIdentifier": "sqs-1"}] if stays else []}
    assert stack.hidden == [{"receipt-1": 20.0}, *([{"receipt-1": 30.0}] if stays else [])]


def test_what_starts_a_broadcast_and_what_lies_on_the_queue_are_told_apart(stack: Stack) -> None:
    """The order to start one has a broadcast too: in a field of its own."""
    invoke(on_queue({"kind": "event", **FIRING, "broadcast": BROADCAST}))
    [started] = stack.broadcasts.started
    body = json.loads(started.to_body())
    assert body == {"kind": "broadcast", **BROADCAST, "id": started.id}
    invoke(on_queue(body))
    assert stack.broadcasts.worked == [started]
    assert len(stack.broadcasts.started) == 1


def test_a_body_of_unknown_kind_stays_on_the_queue(stack: Stack) -> None:
    with pytest.raises(app.UnknownKindError, match="riddle"):
        invoke(on_queue({"kind": "riddle", **BROADCAST, "id": "x"}))
    assert stack.broadcasts.worked == []


def test_a_firing_that_comes_too_late_is_recorded_only(stack: Stack) -> None:
    late = {**FIRING, "time": "2020-01-01T00:00:00Z", "skipIfLateBy": 60}
    assert invoke({**late, "message": MESSAGE})["status"] == "expired"
    invoke({**late, "broadcast": BROADCAST})
    assert stack.broadcasts.late == [True]
    assert stack.queued == []


def test_a_firing_that_comes_too_late_is_not_sent_because_the_table_throttles(
    stack: Stack,
) -> None:
    late = {**FIRING, "time": "2020-01-01T00:00:00Z", "skipIfLateBy": 60, "message": MESSAGE}
    stack.relay.world.next_writes = ["refused"]
    with pytest.raises(NotAcceptedError):
        invoke(late)
    assert stack.queued == []
    assert invoke(late)["status"] == "expired"


def test_a_schedule_of_the_api_sends_its_message(stack: Stack) -> None:
    schedule = Schedule.model_validate(
        {"name": "mine", "expression": "rate(1 day)", "message": MESSAGE}
    )
    invoke(json.loads(to_scheduler(schedule, TARGET)["Target"]["Input"]))
    [message] = stack.queued
    assert {name: message[name] for name in MESSAGE} == MESSAGE


def test_the_templates_schedule_sends_its_message_once_for_each_firing(stack: Stack) -> None:
    text = "<aws.scheduler.scheduled-time> is none of the scheduler's business"
    event = json.loads(fired(scheduled_input(json.dumps({"message": {**MESSAGE, "text": text}}))))
    assert invoke(event) == invoke(event)
    [id_] = stack.relay.store.records
    assert {(message["id"], message["text"]) for message in stack.queued} == {(id_, text)}


def test_the_templates_schedule_starts_its_broadcast(stack: Stack) -> None:
    invoke(json.loads(fired(scheduled_input(json.dumps({"broadcast": BROADCAST})))))
    [started] = stack.broadcasts.started
    assert (started.bot_id, started.text) == ("b-1", "Good morning")


@dataclass(frozen=True)
class Target:
    group: str = "group"
    function: str = "arn:function"
    role: str = "arn:role"
    dead_letter_queue: str = "arn:dead"


TARGET = Target()


@pytest.mark.parametrize("name", ["schedule", "notifier_broadcast"])
def test_the_example_events_are_accepted(stack: Stack, name: str) -> None:
    event = json.loads(payload(f"{name}.json"))
    assert event["kind"] == "event"
    assert invoke(event)["status"] in {"queued", "preparing"}
    assert len(stack.queued) + len(stack.broadcasts.started) == 1


@pytest.mark.parametrize("skip", [{}, {"skipIfLateBy": 1}], ids=["in time", "late"])
def test_what_a_firing_brings_tells_which_schedule_it_was(
    stack: Stack, skip: dict[str, int]
) -> None:
    invoke({**json.loads(payload("schedule.json")), **skip})
    [record] = stack.relay.store.records.values()
    assert record.caller == "schedule:NotificationSchedule-7G8H9I0J1K2L"
    assert (record.state is State.EXPIRED) is bool(skip)


def test_an_event_of_a_rule_is_none_of_the_notifiers(stack: Stack) -> None:
    """As version 0.1.0 took them: they fail, and so are kept on the dead-letter queue."""
    alarm = json.loads(payload("hook_alarm.json"))
    for event in ({"id": "e-1", "message": MESSAGE}, {"alarm": alarm, "to": {}}, alarm):
        with pytest.raises(InvalidMessageError, match="schedule: is required"):
            invoke(event)
    assert (stack.queued, stack.broadcasts.started) == ([], [])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "give either message or broadcast, not both"),
        ({"message": MESSAGE, "broadcast": BROADCAST}, "give either message or broadcast"),
        ({"content": {}}, "give either message or broadcast, not both"),
        ({"content": {"message": MESSAGE, "broadcast": BROADCAST}}, "give either message or"),
        ({"content": MESSAGE}, "text: is not a known field"),
        ({"content": [MESSAGE]}, "must be a JSON object"),
        ({"content": {"message": MESSAGE, "skipIfLateBy": 60}}, "skipIfLateBy: is not a known"),
        ({"content": {"message": {"subscriberId": "s-1"}}}, "message.text: is required"),
        ({"content": {"broadcast": {"text": "Hi"}}}, "broadcast.botId: is required"),
        ({"message": {"text": "Hi"}}, "message.subscriberId: give subscriberId, or botId"),
    ],
)
def test_a_firing_that_says_no_clear_thing_fails_and_says_why(
    stack: Stack, content: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidMessageError) as failed:
        invoke({**FIRING, **content})
    assert why in str(failed.value)
    assert (stack.queued, stack.broadcasts.started) == ([], [])


def test_the_table_out_of_order_fails_the_firing_so_that_it_comes_again(stack: Stack) -> None:
    stack.relay.world.table_down = True
    with pytest.raises(NotAcceptedError, match="table"):
        invoke({**FIRING, "message": MESSAGE})
    stack.relay.world.table_down = False
    assert invoke({**FIRING, "message": MESSAGE})["status"] == "queued"


def test_a_firing_s_message_keeps_its_time_and_its_hours(stack: Stack) -> None:
    hours = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}
    message = {**MESSAGE, "sendAt": "2027-01-16T04:00:00Z", "between": hours}
    answer = invoke({**FIRING, "message": message})
    record = stack.relay.store.records[answer["id"]]
    assert (record.state, record.lease) == (State.QUEUED, START + 22 * 3600)


def test_a_firing_s_time_that_is_too_far_is_named(stack: Stack) -> None:
    message = {**MESSAGE, "sendAt": "2027-02-16T04:00:00Z"}
    with pytest.raises(InvalidMessageError, match="sendAt: must be at most 12 days ahead"):
        invoke({**FIRING, "message": message})
    assert not stack.relay.store.records


def test_a_firing_at_night_waits_for_its_hours(stack: Stack) -> None:
    hours = {"from": "12:00", "to": "13:00", "timezone": "Europe/Moscow"}
    answer = app.handler({**FIRING, "message": {**MESSAGE, "between": hours}}, Context())  # type: ignore[arg-type]
    assert stack.relay.store.records[answer["id"]].lease == START + 3600
