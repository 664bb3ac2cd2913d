"""A message may wait for two weeks, whatever it waits for, and is not received too often."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.broadcasts.model import BroadcastRecord, paused
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import HORIZON
from relay.messages.results import LAST_RECEIVES
from relay.messages.spacing import FREE, soonest, spaced
from relay.messages.states import LONGEST_LIFE, Rules, State
from tests.support.world import RUN_SECONDS, Relay
from tools.translated import translated

DAY = 86400.0
RETENTION = 14 * DAY
LONGEST_VISIBILITY = 12 * 3600.0


def receives(days: float, asked: Callable[[int], float]) -> int:
    """Return how often a message is received in so many days of waiting."""
    age, count = 0.0, 1
    while True:
        age += spaced(asked(count), count, age)
        if age > days * DAY:
            return count
        count += 1


@pytest.mark.parametrize("queue", ["MessagesQueue", "BroadcastQueue"])
def test_the_queues_grant_more_receives_than_the_longest_wait_takes(queue: str) -> None:
    properties: Any = translated()["Resources"][queue]["Properties"]
    net = properties["RedrivePolicy"]["maxReceiveCount"]
    assert properties["MessageRetentionPeriod"] == RETENTION
    assert receives(14, lambda _: 1.0) < LAST_RECEIVES < net
    assert receives(0.25, lambda _: 1.0) < receives(1, lambda _: 1.0) < receives(12, lambda _: 1.0)


@given(st.randoms(use_true_random=False))
def test_what_is_asked_for_does_not_matter(random: Any) -> None:
    """Retries, pauses, holds and slots by turns: a longer wait is never followed by more looks."""
    kinds = [1.0, 5.0, 30.0, 600.0, 3600.0]
    assert receives(14, lambda _: random.choice(kinds)) <= receives(14, lambda _: 1.0)


def test_a_look_comes_within_a_hundredth_of_the_time_waited() -> None:
    age, count = 0.0, 1
    while age < RETENTION:
        wait = spaced(1.0, count, age)
        assert wait <= 7.0 + age * 0.0102
        assert wait < LONGEST_VISIBILITY
        age, count = age + wait, count + 1


def test_short_waits_are_as_asked() -> None:
    assert [spaced(2.0, count, 2.0 * count) for count in range(1, FREE + 1)] == [2.0] * FREE
    assert soonest(FREE) == 0.0


# -------------------------------------------------------------------- with the real sender


def wait_for(relay: Relay, days: float, before_each: Callable[[], None] = lambda: None) -> int:
    """Let the relay look at what is on its queue for so long; return the most receives of one."""
    ends = relay.world.now + days * DAY
    most = 0
    while copies := relay.queues.messages:
        relay.world.now = max(relay.world.now, min(c.visible_at for c in copies))
        if relay.world.now >= ends:
            relay.world.now = ends
            break
        before_each()
        relay.run()
        most = max(most, *(copy.receive_count for copy in copies))
    return most


def announce(relay: Relay, count: int = 3) -> None:
    relay.broadcasts.items["b-1"] = BroadcastRecord(
        "b-1", "bot", "", relay.world.now, snapshot="s", total=count
    )
    for i in range(count):
        message = QueuedMessage(subscriberId=f"s-{i}", text=f"b-{i}", id=f"b-{i}", broadcast="b-1")
        relay.queues.enqueue_broadcast([message])


@pytest.mark.parametrize("rate", [1.0, 5.0, 25.0])
def test_a_broadcast_outlasts_days_of_full_lines(rate: float) -> None:
    relay = Relay(Rules(), rate=rate)
    announce(relay)

    def single_messages_take_every_slot() -> None:
        while relay.pacer.reserve(1000).times:
            pass

    began = relay.world.now
    most = wait_for(relay, 11.8, single_messages_take_every_slot)

    assert relay.provider.times == []
    assert most < LAST_RECEIVES
    waited = relay.world.now - began
    wait_for(relay, 1)  # and now the line is free
    assert {record.state for record in relay.store.records.values()} == {State.SENT}
    assert relay.world.now - began <= waited * 1.011 + RUN_SECONDS


def break_table(relay: Relay) -> None:
    relay.world.table_down = True


def break_secret(relay: Relay) -> None:
    relay.secret = ""


def break_dead_letters(relay: Relay) -> None:
    relay.provider.next = ["refuses"] * 3
    relay.world.queue_down = True


def hold_all(relay: Relay, seconds: float) -> None:
    """Let three chats ask for quiet, so that nobody may send."""
    for chat in "abc":
        relay.pacer.hold(chat, relay.world.now + seconds)


def hold_the_line(relay: Relay) -> None:
    hold_all(relay, HORIZON + 1.0)


def pause(relay: Relay) -> None:
    item = relay.broadcasts.items["b-1"]
    relay.broadcasts.items["b-1"] = paused(item, relay.world.now, "requested") or item


@pytest.mark.parametrize(
    "trouble", [break_table, break_secret, break_dead_letters, hold_the_line, pause]
)
def test_no_other_wait_uses_up_the_receives(trouble: Callable[[Relay], None]) -> None:
    relay = Relay(Rules())
    announce(relay)
    assert FREE < wait_for(relay, 12, lambda: trouble(relay)) < LAST_RECEIVES


def test_a_body_that_is_no_message_waits_for_the_dead_letter_queue_as_long() -> None:
    relay = Relay(Rules())
    relay.queues.put("not JSON")
    relay.world.queue_down = True
    assert FREE < wait_for(relay, 12) < LAST_RECEIVES

    relay.world.queue_down = False
    wait_for(relay, 1)
    assert [letter.reason for letter in relay.queues.dead] == ["invalid"]


def test_a_single_message_that_waited_in_vain_ends_at_its_deadline() -> None:
    relay = Relay(Rules(retry_window=6 * 3600.0))
    message = QueuedMessage(subscriberId="s-1", text="m-1", id="m-1")
    relay.queues.put(message.to_body())
    began = relay.world.now
    wait_for(relay, 1, lambda: hold_all(relay, HORIZON + 1.0))

    [record] = relay.store.records.values()
    assert (record.state, record.reason) == (State.FAILED, "retry_window_ended")
    assert record.updated_at - began <= 6 * 3600.0 + 15.0
    assert LONGEST_LIFE < RETENTION
