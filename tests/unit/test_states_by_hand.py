"""The steps that a person takes: cancel and resolve; and that no copy brings a retry forward."""

from dataclasses import replace

import pytest

from relay.messages.envelope import QueuedMessage
from relay.messages.states import (
    EARLY,
    DeadLetter,
    Record,
    Rules,
    Send,
    State,
    Wait,
    cancel,
    decide,
    first_record,
    resolve,
    settle,
)
from smsgold.responses import Outcome, Verdict

NOW = 1_800_000_000.0
RULES = Rules()
MESSAGE = QueuedMessage(subscriberId="s-1", text="a text", id="m-1")


def record(state: State = State.QUEUED) -> Record:
    queued = first_record(MESSAGE, door="http", accepted_at=NOW, now=NOW, rules=RULES)
    return replace(queued, state=state, reason="read_timeout", dead_letter=DeadLetter.WRITTEN)


@pytest.mark.parametrize("state", list(State))
def test_only_what_waits_is_canceled(state: State) -> None:
    change = cancel(record(state), NOW + 1)
    assert (change is not None) == (state is State.QUEUED)
    if change:
        assert change.after.state is State.CANCELED


def test_what_may_have_been_sent_is_not_canceled() -> None:
    assert cancel(replace(record(), ambiguous=1), NOW) is None


@pytest.mark.parametrize("state", list(State))
def test_only_what_is_unknown_is_resolved(state: State) -> None:
    assert (resolve(record(state), State.SENT, NOW) is not None) == (state is State.UNKNOWN)


def test_what_is_resolved_as_sent_has_no_reason_left_and_none_to_redrive() -> None:
    unknown = record(State.UNKNOWN)
    change = resolve(replace(unknown, dead_letter=DeadLetter.DUE), State.SENT, NOW + 9)
    assert change
    assert (change.after.state, change.after.reason) == (State.SENT, "")
    assert change.after.dead_letter is DeadLetter.NONE
    assert [event.what for event in change.after.history] == ["resolved as sent"]


def test_what_is_resolved_as_failed_keeps_its_reason_and_its_letter() -> None:
    change = resolve(record(State.UNKNOWN), State.FAILED, NOW + 9)
    assert change
    assert (change.after.state, change.after.reason) == (State.FAILED, "read_timeout")
    assert change.after.dead_letter is DeadLetter.WRITTEN


def test_no_second_copy_brings_a_retry_forward() -> None:
    busy = Verdict(Outcome.NOT_SENT, "http_503", status=503, retry_after=60.0)
    sending = record(State.SENDING)
    settled = settle(sending, busy, began=NOW, now=NOW, on_unknown=None, rules=RULES)
    waiting = settled.change.after
    assert settled.retry_in
    assert settled.retry_in >= 60

    def seen(after: float) -> object:
        at = NOW + after
        return decide(waiting, MESSAGE, door="http", sent_at=NOW, now=at, rules=RULES)

    assert isinstance(seen(0), Wait)
    assert isinstance(seen(settled.retry_in - EARLY - 0.1), Wait)
    assert isinstance(seen(settled.retry_in - EARLY), Send), "a queue counts whole seconds"
