"""When a message may go: `sendAt` and `between`, scene by scene."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.broadcasts.model import BroadcastRecord
from relay.messages.envelope import QueuedMessage
from relay.messages.intake import Accepted, Full, KeyReused, TooFar
from relay.messages.pacing import GRACE
from relay.messages.results import LAST_RECEIVES
from relay.messages.service import Refused
from relay.messages.states import (
    FURTHEST,
    Record,
    Rules,
    Send,
    State,
    cancel,
    claim,
    decide,
    first_record,
)
from relay.messages.store import Applied
from relay.validation import InvalidMessageError, parse
from tests.support.world import START, Relay

HOUR, DAY = 3600.0, 86400.0
RULES = Rules(retry_window=6 * HOUR)
DAYTIME = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}
MORNING = datetime.fromisoformat("2027-01-16T09:00:00+03:00").timestamp()
EVENING = datetime.fromisoformat("2027-01-15T21:00:00+03:00").timestamp()


@pytest.fixture
def relay() -> Relay:
    relay = Relay(RULES)
    assert MORNING - DAY < START < EVENING
    return relay


def rfc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def message(id_: str = "m-1", chat: str = "", **fields: Any) -> QueuedMessage:
    return QueuedMessage(subscriberId=chat or f"s-{id_}", text=id_, id=id_, **fields)


def accepted(relay: Relay, message: QueuedMessage) -> Record:
    answer = relay.accept(message)
    assert isinstance(answer, Accepted)
    return answer.record


def in_line(relay: Relay, message: QueuedMessage) -> None:
    """Put a message in its chat's line, as a producer does, or a door before the hours end."""
    relay.queues.put_own(message, line=message.chat)


def go_on(relay: Relay, until: float) -> None:
    """Let time pass, with a run whenever a message comes up."""
    while due := [c.visible_at for c in relay.queues.messages if c.visible_at <= until]:
        relay.world.now = max(relay.world.now, min(due))
        if not relay.run():
            # What is visible stands behind what is not.
            relay.world.now += 1.0
    relay.world.now = max(relay.world.now, until)


def state(relay: Relay, id_: str = "m-1") -> State:
    return relay.store.records[id_].state


# ------------------------------------------------------------------------------- sendAt


@pytest.mark.parametrize("ahead", [0.4, 40.0, 20 * 60.0, 13 * HOUR, 11 * DAY, FURTHEST])
def test_a_message_is_sent_at_its_time_and_not_before(relay: Relay, ahead: float) -> None:
    at = START + ahead
    record = accepted(relay, message(sendAt=rfc(at)))
    assert record.state is State.QUEUED
    assert record.lease == pytest.approx(at, abs=0.001)
    [copy] = relay.queues.messages
    assert not copy.line
    assert copy.visible_at - START == pytest.approx(min(ahead, 900.0), abs=1.0)

    go_on(relay, at - 0.001)
    assert not relay.provider.posts
    assert state(relay) is State.QUEUED
    go_on(relay, at + 4.0)
    assert at <= relay.provider.times[0] <= at + 3.0
    assert state(relay) is State.SENT


@pytest.mark.parametrize("ahead", [20 * 60.0, 11 * DAY, FURTHEST])
def test_a_message_that_waits_long_has_looks_left_for_its_retries(
    relay: Relay, ahead: float
) -> None:
    at = START + ahead
    record = accepted(relay, message(sendAt=rfc(at)))
    assert record.deadline == at + RULES.retry_window, "the retry window starts at its time"
    go_on(relay, at - 1.0)
    [copy] = relay.queues.messages
    assert copy.receive_count <= 1 + ahead / (11.9 * HOUR) + 1
    relay.provider.next = ["is busy"] * 1000
    go_on(relay, at + RULES.retry_window + 60.0)
    assert copy.receive_count < LAST_RECEIVES
    assert state(relay) is State.FAILED
    assert relay.store.records["m-1"].reason == "http_503"
    assert relay.provider.times[-1] > record.deadline - RULES.backoff_max


def test_a_time_that_is_too_far_is_refused_and_names_the_way(relay: Relay) -> None:
    answer = relay.accept(message(sendAt=rfc(START + FURTHEST + 1)))
    assert answer == TooFar()
    (where, problem) = TooFar().problem
    assert where == ("sendAt",)
    assert "POST /schedules" in problem
    assert not relay.queues.messages
    assert not relay.store.records


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "UTC", "America/New_York"])
@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"])
def test_a_time_at_the_end_of_all_calendars_is_too_far_like_any_other(
    relay: Relay, at: str, zone: str
) -> None:
    hours = {"from": "23:59", "to": "23:58", "timezone": zone}
    for between in (hours, {**DAYTIME, "timezone": zone}):
        late = message(sendAt=at, between=between)
        assert relay.accept(late) == TooFar()
        assert relay.service.accept_and_wait(late, seconds=1.0, time_left=28.0) == TooFar()
        in_line(relay, late)
        relay.run()
    assert [letter.reason for letter in relay.queues.dead] == ["invalid"] * 2


def test_a_producer_s_time_that_is_too_far_becomes_a_dead_letter(relay: Relay) -> None:
    relay.queues.put_own(message(sendAt=rfc(START + FURTHEST + 90)))
    relay.run()
    [letter] = relay.queues.dead
    assert letter.reason == "invalid"
    assert letter.detail == (
        "sendAt: must be at most 12 days ahead; for a later time use POST /schedules"
    )
    assert not relay.store.records


def test_a_repeat_is_a_repeat_however_far_its_time_was(relay: Relay) -> None:
    at = rfc(START + FURTHEST)
    accepted(relay, message(sendAt=at))
    relay.world.now -= 10.0  # by another machine's clock
    assert isinstance(relay.accept(message(sendAt=at)), Accepted)
    assert isinstance(relay.accept(message(sendAt=rfc(START + 60))), KeyReused)
    relay.settle_down()
    assert relay.provider.posts["m-1"] == 1


def test_a_producer_s_message_has_a_record_while_it_waits(relay: Relay) -> None:
    relay.queues.put_own(message(sendAt=rfc(START + DAY)))
    relay.run()
    record = relay.store.records["m-1"]
    assert (record.state, record.lease, record.tries) == (State.QUEUED, START + DAY, 0)
    assert isinstance(relay.service.cancel("m-1"), Record)
    relay.settle_down()
    assert not relay.provider.posts


def test_a_time_in_the_past_is_now(relay: Relay) -> None:
    record = accepted(relay, message(sendAt=rfc(START - DAY)))
    assert record.lease == 0.0
    assert record.deadline == START + RULES.retry_window
    assert relay.queues.messages[0].line, "it keeps its place in line"
    relay.run()
    assert state(relay) is State.SENT


def test_what_expires_before_its_time_is_refused() -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse(
            QueuedMessage,
            '{"subscriberId": "s", "text": "t", "sendAt": "2027-01-01T10:00:00Z",'
            ' "expiresAt": "2027-01-01T12:00:00+02:00"}',
        )
    assert str(caught.value) == "expiresAt: must be later than sendAt"


@pytest.mark.parametrize("ahead", [5.0, 60.0])
def test_a_caller_who_waits_gets_its_state_and_the_queue_keeps_its_copy(
    relay: Relay, ahead: float
) -> None:
    waits = message(sendAt=rfc(START + ahead))
    answer = relay.service.accept_and_wait(waits, seconds=10.0, time_left=28.0)
    assert isinstance(answer, Accepted)
    assert (answer.record.state, answer.record.lease) == (State.QUEUED, START + ahead)
    assert relay.world.now <= START + 10.0
    assert [c.visible_at for c in relay.queues.messages] == [START + ahead]


# ------------------------------------------------------------------------------ between


def test_a_message_at_night_is_sent_in_the_morning(relay: Relay) -> None:
    relay.world.now = EVENING + HOUR
    record = accepted(relay, message(between=DAYTIME))
    assert record.lease == MORNING
    assert record.deadline == MORNING + RULES.retry_window
    go_on(relay, MORNING - 0.1)
    assert not relay.provider.posts
    go_on(relay, MORNING + 4.0)
    assert state(relay) is State.SENT


def test_a_message_within_its_hours_keeps_its_place_in_line(relay: Relay) -> None:
    assert accepted(relay, message(between=DAYTIME)).lease == 0.0
    assert relay.queues.messages[0].line
    relay.run()
    assert state(relay) is State.SENT


def test_a_time_at_night_waits_for_the_morning(relay: Relay) -> None:
    record = accepted(relay, message(sendAt=rfc(EVENING + HOUR), between=DAYTIME))
    assert record.lease == MORNING
    relay.settle_down()
    assert MORNING <= relay.provider.times[0] <= MORNING + 3.0


def test_a_retry_that_would_come_at_night_waits_for_the_morning(relay: Relay) -> None:
    relay.world.now = EVENING - 20.0
    accepted(relay, message(between=DAYTIME))
    relay.provider.next = ["is busy"] * 8
    go_on(relay, MORNING - 1.0)
    assert relay.provider.times
    assert max(relay.provider.times) < EVENING
    record = relay.store.records["m-1"]
    assert (record.state, record.lease) == (State.QUEUED, MORNING)
    relay.provider.next.clear()
    go_on(relay, MORNING + 4.0)
    assert state(relay) is State.SENT


def test_a_retry_at_night_is_announced_for_the_morning(relay: Relay) -> None:
    relay.world.now = EVENING - 2.0
    accepted(relay, message(between=DAYTIME))
    relay.provider.next = ["is busy"]
    relay.run()
    record = relay.store.records["m-1"]
    assert (record.tries, record.lease) == (1, MORNING)


def test_the_night_uses_up_no_retry_time(relay: Relay) -> None:
    relay.world.now = EVENING - HOUR
    record = accepted(relay, message(between=DAYTIME))
    assert record.deadline == MORNING + RULES.retry_window - HOUR
    relay.provider.next = ["is busy"] * 1000
    go_on(relay, MORNING + 12 * HOUR)
    times = relay.provider.times
    assert not [at for at in times if EVENING <= at < MORNING]
    assert record.deadline - RULES.backoff_max < times[-1] < record.deadline
    assert state(relay) is State.FAILED


def test_an_outage_until_the_hours_end_costs_no_message(relay: Relay) -> None:
    relay.world.now = EVENING - 5.0
    relay.queues.put_own(message(between=DAYTIME))
    relay.secret = ""
    relay.run()
    relay.secret = relay.provider.password
    go_on(relay, MORNING + 4.0)
    assert relay.provider.times[0] >= MORNING
    assert state(relay) is State.SENT


def test_hours_that_end_while_it_connects_send_nothing(relay: Relay) -> None:
    relay.world.now = EVENING - 0.1
    accepted(relay, message(between=DAYTIME))
    relay.provider.connecting = [GRACE / 2]
    relay.run()
    record = relay.store.records["m-1"]
    assert (record.state, record.lease, record.tries) == (State.QUEUED, MORNING, 0)
    assert not relay.provider.posts
    go_on(relay, MORNING + 4.0)
    assert state(relay) is State.SENT


def test_a_flood_ban_until_the_night_is_kept_until_the_morning(relay: Relay) -> None:
    relay.world.now = EVENING - HOUR
    accepted(relay, message(between=DAYTIME))
    relay.provider.next = ["is in a flood ban"]
    go_on(relay, MORNING + 4.0)
    assert MORNING <= relay.provider.times[1] <= MORNING + 3.0


def test_what_expires_before_its_hours_ends_then_and_is_never_sent(relay: Relay) -> None:
    relay.world.now = EVENING + HOUR
    accepted(relay, message(between=DAYTIME, expiresAt=rfc(MORNING - HOUR)))
    go_on(relay, MORNING - HOUR - 1.0)
    assert state(relay) is State.QUEUED
    go_on(relay, MORNING - HOUR + 5.0)
    assert state(relay) is State.EXPIRED
    assert relay.store.records["m-1"].reason == "expired"
    assert not relay.provider.posts
    assert not relay.queues.dead


def test_what_was_tried_and_expires_before_its_hours_has_failed(relay: Relay) -> None:
    relay.world.now = EVENING - 5.0
    accepted(relay, message(between=DAYTIME, expiresAt=rfc(MORNING - HOUR)))
    relay.provider.next = ["is busy"]
    go_on(relay, MORNING - HOUR + 5.0)
    record = relay.store.records["m-1"]
    assert (record.state, record.reason, record.tries) == (State.FAILED, "http_503", 1)


def test_a_redrive_at_night_waits_for_the_morning(relay: Relay) -> None:
    relay.provider.next = ["refuses"]
    accepted(relay, message(between=DAYTIME))
    relay.run()
    relay.world.now = EVENING + HOUR
    relay.queues.redrive(relay.queues.dead[0])
    go_on(relay, MORNING - 1.0)
    assert relay.provider.posts["m-1"] == 1
    assert state(relay) is State.REJECTED
    go_on(relay, MORNING + 4.0)
    assert state(relay) is State.SENT


def test_what_nobody_knows_is_not_sent_again_at_night(relay: Relay) -> None:
    relay.world.now = EVENING - 10.0
    accepted(relay, message(between=DAYTIME, onUnknown="resend"))
    relay.crash_at(relay.run, "after a POST")
    relay.sender = relay.new_sender()
    go_on(relay, MORNING - 1.0)
    assert relay.provider.posts["m-1"] == 1
    record = relay.store.records["m-1"]
    assert (record.state, record.lease, record.ambiguous) == (State.QUEUED, MORNING, 1)
    go_on(relay, MORNING + 4.0)
    assert (state(relay), relay.provider.posts["m-1"]) == (State.SENT, 2)


def test_a_broadcast_s_message_keeps_its_hours(relay: Relay) -> None:
    relay.broadcasts.items["b-1"] = BroadcastRecord("b-1", "bot", "", START, snapshot="s", total=1)
    relay.world.now = EVENING + HOUR
    relay.queues.put_own(message(between=DAYTIME, broadcast="b-1"))
    relay.settle_down()
    assert MORNING <= relay.provider.times[0] <= MORNING + 3.0
    assert relay.broadcasts.items["b-1"].counts[State.SENT] == 1


# ------------------------------------------------------------------------------ the line


@pytest.mark.parametrize("waits", [{"sendAt": rfc(START + DAY)}, {"between": DAYTIME}])
def test_what_waits_for_its_time_holds_up_nothing_in_its_chat(
    relay: Relay, waits: dict[str, Any]
) -> None:
    if "between" in waits:
        relay.world.now = EVENING + HOUR
    accepted(relay, message("m-1", "s", **waits))
    accepted(relay, message("m-2", "s"))
    relay.run()
    assert (state(relay, "m-1"), state(relay, "m-2")) == (State.QUEUED, State.SENT)
    relay.settle_down()
    assert state(relay, "m-1") is State.SENT


@pytest.mark.parametrize("waits", [{"sendAt": rfc(EVENING + DAY)}, {"between": DAYTIME}])
def test_it_leaves_the_line_that_it_stands_in(relay: Relay, waits: dict[str, Any]) -> None:
    relay.world.now = EVENING + HOUR
    in_line(relay, message("m-1", "s", **waits))
    in_line(relay, message("m-2", "s"))
    relay.run()
    assert (state(relay, "m-1"), state(relay, "m-2")) == (State.QUEUED, State.SENT)
    [copy] = relay.queues.messages
    assert not copy.line
    assert copy.visible_at == relay.world.now + 900
    relay.settle_down()
    assert relay.provider.posts == {"m-1": 1, "m-2": 1}


def test_a_retry_that_waits_for_the_morning_leaves_the_line(relay: Relay) -> None:
    relay.world.now = EVENING - 5.0
    accepted(relay, message("m-1", "s", between=DAYTIME))
    accepted(relay, message("m-2", "s"))
    relay.provider.next = ["is busy"]
    go_on(relay, EVENING + 60.0)
    assert (state(relay, "m-1"), state(relay, "m-2")) == (State.QUEUED, State.SENT)
    assert not [c for c in relay.queues.messages if c.line]
    relay.settle_down()
    assert state(relay, "m-1") is State.SENT


def test_a_retry_within_the_hours_stays_in_line(relay: Relay) -> None:
    accepted(relay, message("m-1", "s", between=DAYTIME))
    accepted(relay, message("m-2", "s"))
    relay.provider.next = ["is busy"]
    relay.run()
    assert [bool(c.line) for c in relay.queues.messages] == [True, True]
    relay.settle_down()
    assert list(relay.provider.posts) == ["m-1", "m-2"]


def test_a_crash_on_the_way_out_of_the_line_sends_it_once(relay: Relay) -> None:
    in_line(relay, message("m-1", "s", sendAt=rfc(START + HOUR)))
    relay.crash_at(relay.run, "after the queue")
    relay.sender = relay.new_sender()
    assert sorted(bool(c.line) for c in relay.queues.messages) == [False, True]
    relay.settle_down()
    assert relay.provider.posts["m-1"] == 1
    assert relay.provider.times[0] >= START + HOUR


def test_it_stays_in_line_while_the_other_queue_does_not_take_it(relay: Relay) -> None:
    in_line(relay, message("m-1", "s", sendAt=rfc(START + HOUR)))
    relay.world.queue_down = True
    relay.run()
    assert [bool(c.line) for c in relay.queues.messages] == [True]
    relay.world.queue_down = False
    relay.settle_down()
    assert state(relay) is State.SENT


def test_a_queue_that_fails_once_holds_up_no_line_for_hours(relay: Relay) -> None:
    in_line(relay, message("m-1", "s", sendAt=rfc(START + DAY)))
    in_line(relay, message("m-2", "s"))
    relay.world.next_sends = ["refused"]
    relay.run()
    assert all(c.visible_at <= START + RULES.backoff_max for c in relay.queues.messages)
    go_on(relay, START + RULES.backoff_max)
    assert (state(relay, "m-1"), state(relay, "m-2")) == (State.QUEUED, State.SENT)
    assert not [c for c in relay.queues.messages if c.line]


def test_what_nobody_sealed_gets_no_seal_by_leaving_its_line(relay: Relay) -> None:
    forged = message("k-forged", "s", sendAt=rfc(START + HOUR))
    relay.queues.put(forged.to_body(), line=forged.chat)
    relay.world.table_down = True
    relay.run()
    assert [(bool(c.line), c.seal) for c in relay.queues.messages] == [(True, "")]
    relay.settle_down()
    assert relay.queues.dead[0].reason == "not_sealed"
    assert not relay.provider.posts


# --------------------------------------------------------------------- cancel at the moment


@pytest.mark.parametrize("first", ["cancel", "claim"])
def test_a_cancel_and_a_claim_at_the_same_moment_have_one_end(relay: Relay, first: str) -> None:
    at = START + HOUR
    waits = message(sendAt=rfc(at))
    record = accepted(relay, waits)
    send = decide(record, waits, door="sqs", sent_at=START, now=at, rules=RULES)
    assert isinstance(send, Send)
    canceled = cancel(record, at)
    assert canceled
    changes = {"cancel": canceled, "claim": claim(send, attempt="a", now=at, lease=at + 60)}
    other = "claim" if first == "cancel" else "cancel"
    assert isinstance(relay.store.apply([changes[first]])[0], Applied)
    assert not isinstance(relay.store.apply([changes[other]])[0], Applied)


@pytest.mark.parametrize("moment", ["before the record is read", "after it", "while it is sent"])
def test_a_cancel_at_its_moment_is_believed_or_comes_too_late(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    accepted(relay, message(sendAt=rfc(START + HOUR)))
    relay.world.now = START + HOUR
    answers: list[object] = []

    def cancels() -> None:
        answers.append(relay.service.cancel("m-1"))

    if moment == "while it is sent":
        relay.provider.meanwhile = cancels
    else:
        cancel_around_the_first(relay, monkeypatch, cancels, after=moment == "after it")
    relay.settle_down()
    [answer] = answers
    if moment == "while it is sent":
        assert isinstance(answer, Refused)
        assert (state(relay), relay.provider.posts["m-1"]) == (State.SENT, 1)
    else:
        assert isinstance(answer, Record)
        assert (state(relay), relay.provider.posts["m-1"]) == (State.CANCELED, 0)


def cancel_around_the_first(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, cancels: Callable[[], None], *, after: bool
) -> None:
    """Cancel right before, or right after, a run reads the record."""
    load = relay.store.load

    def loading(ids: Iterable[str]) -> dict[str, Record]:
        monkeypatch.setattr(relay.store, "load", load)
        if not after:
            cancels()
        found = load(ids)
        if after:
            cancels()
        return found

    monkeypatch.setattr(relay.store, "load", loading)


# --------------------------------------------------------------------------- no room to wait


def test_what_has_to_wait_is_refused_while_too_many_do(relay: Relay) -> None:
    relay.queues.room_to_wait = False
    assert relay.accept(message(sendAt=rfc(START + 60))) == Full()
    assert isinstance(relay.accept(message(between=DAYTIME)), Accepted), "its hours are now"
    relay.world.now = EVENING
    assert relay.accept(message("m-2", between=DAYTIME)) == Full()
    assert set(relay.store.records) == {"m-1"}
    assert len(relay.queues.messages) == 1


def test_a_repeat_is_answered_however_many_wait(relay: Relay) -> None:
    accepted(relay, message(sendAt=rfc(START + 60)))
    relay.queues.room_to_wait = False
    assert isinstance(relay.accept(message(sendAt=rfc(START + 60))), Accepted)
    assert len(relay.queues.messages) == 1, "one more would take room that there is not"


def test_an_envelope_without_a_time_has_the_fingerprint_it_had() -> None:
    assert message().fingerprint == (
        "e1a8cbbfd01ef4ab69ab5d3f6358b5afb5b6ea0171c9bb603b259d672ccf65d1"
    )
    assert first_record(message(), door="d", accepted_at=START, now=START, rules=RULES).lease == 0
