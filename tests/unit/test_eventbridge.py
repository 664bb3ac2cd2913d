"""CloudWatch alarms as messages."""

import json
from typing import Any, cast

import pytest

from relay.eventbridge import EventDoor, alarm_message, console_url
from relay.messages.envelope import MAX_TEXT, KeyedMessage
from relay.messages.states import Rules
from relay.validation import validate
from tests.support.webhooks import payload
from tests.support.world import Relay


def alarm(**detail: Any) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(payload("notifier_alarm.json"))["alarm"]
    event["detail"] |= detail
    return event


def message(event: dict[str, Any]) -> KeyedMessage:
    return validate(KeyedMessage, alarm_message(event, {"subscriberId": "s1"}))


def test_an_alarm_tells_its_name_state_and_reason_and_where_to_look() -> None:
    told = message(alarm())
    assert (told.subscriber_id, told.reference) == ("s1", "alarm")
    assert told.text.splitlines() == [
        "🔴 ServerCpuTooHigh: ALARM",
        "was OK",
        "Goes into alarm when server CPU utilization is too high!",
        alarm()["detail"]["state"]["reason"],
        "123456789012 · us-east-1",
    ]
    [button] = told.buttons
    assert button.text == "Open the alarm"
    assert button.url == (
        "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1"
        "#alarmsV2:alarm/ServerCpuTooHigh"
    )


def test_an_alarm_needs_no_more_than_its_name_and_state() -> None:
    event = alarm()
    event["detail"] = {"alarmName": "composite", "state": {"value": "OK"}}
    assert message(event).text == "🟢 composite: OK\n123456789012 · us-east-1"


def test_a_long_reason_is_cut() -> None:
    text = message(alarm(state={"value": "ALARM", "reason": "x" * 9000})).text
    assert len(text) == MAX_TEXT
    assert text.endswith("x…")


@pytest.mark.parametrize(
    ("name", "arn", "url"),
    [
        ("a/b c%", "arn:aws:x", "https://us-east-1.console.aws.amazon.com/{}/a%2Fb%20c%25"),
        ("a", "arn:aws-cn:x", "https://us-east-1.console.amazonaws.cn/{}/a"),
        ("a", "arn:aws-us-gov:x", "https://us-east-1.console.amazonaws-us-gov.com/{}/a"),
    ],
)
def test_the_console_of_each_partition(name: str, arn: str, url: str) -> None:
    event = alarm(alarmName=name) | {"resources": [arn]}
    assert console_url(event) == url.format("cloudwatch/home?region=us-east-1#alarmsV2:alarm")


@pytest.mark.parametrize(
    ("event", "caller"),
    [
        ("schedule.json", "schedule:NotificationSchedule-7G8H9I0J1K2L"),
        ("notifier_alarm.json", "alarm:ServerCpuTooHigh"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_an_event_brings_tells_which_schedule_or_alarm_it_was(
    event: str, caller: str, late: bool
) -> None:
    relay, nobody = Relay(Rules()), cast("Any", None)
    door = EventDoor(relay.intake, nobody, clock=lambda: 4e9 if late else 0.0)
    door.accept({**json.loads(payload(event)), "skipIfLateBy": 1}, "r-1")
    [record] = relay.store.records.values()
    assert record.caller == caller
