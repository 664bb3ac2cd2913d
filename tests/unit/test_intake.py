"""accept(): what a caller may rely on."""

from collections.abc import Sequence
from functools import partial

import pytest

from relay.messages.envelope import Message, QueuedMessage
from relay.messages.intake import (
    OVERDUE,
    Accepted,
    Intake,
    KeyReused,
    Unavailable,
    fresh_id,
    queued,
    scoped_id,
)
from relay.messages.states import Rules, State
from tests.support.world import MemoryQueues, Relay


@pytest.fixture
def relay() -> Relay:
    return Relay(Rules())


def message(text: str = "hello", id_: str = "m-1") -> QueuedMessage:
    return queued(Message(subscriberId="s-1", text=text), id_)


def test_an_accepted_message_has_a_record_and_lies_on_the_queue(relay: Relay) -> None:
    answer = relay.accept(message())

    assert isinstance(answer, Accepted)
    assert answer.record == relay.store.records["m-1"]
    assert (answer.record.state, answer.record.door) == (State.QUEUED, "http")
    assert len(relay.queues.messages) == 1


def test_a_repeat_is_answered_with_the_first_ones_state(relay: Relay) -> None:
    relay.accept(message())
    relay.run()

    answer = relay.accept(message())

    assert answer == Accepted(relay.store.records["m-1"], replayed=True)
    assert relay.store.records["m-1"].state is State.SENT
    assert not relay.queues.messages, "a message that was tried is not queued again"


def test_a_repeat_of_what_was_never_tried_is_queued_again_and_sent_once(relay: Relay) -> None:
    relay.accept(message())
    relay.accept(message())
    assert len(relay.queues.messages) == 2

    relay.settle_down()

    assert relay.provider.ledger["hello"] == 1


def test_a_repeat_ends_what_was_tried_and_is_on_no_queue_any_more(relay: Relay) -> None:
    """Somebody emptied the queue; an hour after its deadline no copy can be left."""
    relay.provider.next = ["is busy"]
    relay.accept(message())
    relay.run()
    relay.queues.messages.clear()
    relay.accept(message())
    assert not relay.queues.messages, "its copy may still be there"
    relay.world.now = relay.store.records["m-1"].deadline + OVERDUE + 1

    relay.accept(message())
    relay.settle_down()

    assert relay.store.records["m-1"].state is State.FAILED
    assert relay.queues.dead


def test_a_key_belongs_to_one_body(relay: Relay) -> None:
    relay.accept(message())

    answer = relay.accept(message("something else"))

    assert answer == KeyReused(relay.store.records["m-1"])
    assert len(relay.queues.messages) == 1


@pytest.mark.parametrize(
    "moment", ["before the queue", "after the queue", "before a write", "after a write"]
)
def test_what_a_crash_leaves_ends_by_itself_and_a_repeat_is_sent_once(
    relay: Relay, moment: str
) -> None:
    for left in (message("m-1", "m-1"), message("m-2", "m-2")):
        relay.crash_at(partial(relay.accept, left), moment)
    assert isinstance(relay.accept(message("m-1", id_="m-1")), Accepted)

    relay.settle_down()

    assert relay.provider.ledger["m-1"] == 1
    assert relay.provider.ledger["m-2"] <= 1
    assert {record.state for record in relay.store.records.values()} == {State.SENT}


def test_what_the_queue_refuses_leaves_no_record(relay: Relay) -> None:
    relay.world.queue_down = True

    assert isinstance(relay.accept(message()), Unavailable)
    assert not relay.store.records

    relay.world.queue_down = False
    assert isinstance(relay.accept(message("another text")), Accepted), "the key is free again"


def test_nothing_is_queued_while_the_table_cannot_say_whose_the_key_is(relay: Relay) -> None:
    relay.world.table_down = True

    assert isinstance(relay.accept(message()), Unavailable)
    assert not relay.queues.messages


def test_a_write_whose_answer_was_lost_is_looked_up(relay: Relay) -> None:
    relay.world.next_writes = ["lost"]

    answer = relay.accept(message())

    assert answer == Accepted(relay.store.records["m-1"])


def test_a_caller_told_503_leaves_nothing_that_waits_for_ever(relay: Relay) -> None:
    relay.world.next_writes = ["refused", "refused"]
    relay.world.next_sends = ["lost"]
    answers = [relay.accept(message()) for _ in range(3)]
    assert all(isinstance(answer, Unavailable) for answer in answers)

    relay.settle_down()

    assert relay.store.records["m-1"].state is State.SENT
    assert relay.provider.ledger["hello"] == 1


def test_an_id_of_its_own_needs_no_record_to_be_accepted(relay: Relay) -> None:
    """Told 503, its caller would repeat it without a key, and it would be sent twice."""
    relay.world.table_down = True

    [answer] = relay.intake.accept([message()], door="http", fresh=["m-1"])

    assert isinstance(answer, Accepted)
    relay.settle_down()
    assert relay.provider.ledger["hello"] == 1


def test_an_accepted_message_is_counted_once_whoever_writes_its_record(relay: Relay) -> None:
    counted: list[int] = []
    intake = Intake(
        relay.store, relay.queues, Rules(), clock=relay.world.clock, count=counted.append
    )
    intake.accept([message()], door="http")
    intake.accept([message()], door="http")
    relay.world.next_writes = ["lost"]
    intake.accept([message(id_="m-2")], door="http")
    relay.world.next_writes = ["refused"]
    # The sender counts it, as it counts what a producer put on the queue.
    intake.accept([message(id_="m-3")], door="http", fresh=["m-3"])
    assert counted == [1, 0, 1, 0]


@pytest.mark.parametrize("fresh", [True, False])
def test_only_a_key_of_ones_own_is_no_repeat_when_the_sender_was_faster(
    relay: Relay, *, fresh: bool
) -> None:
    class Hasty(MemoryQueues):
        """A queue whose sender takes a message before its record is written."""

        def enqueue(
            self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
        ) -> list[str | None]:
            answers = super().enqueue(messages, delays)
            relay.queues.messages, self.messages = self.messages, []
            relay.run()
            return answers

    intake = Intake(relay.store, Hasty(relay.world), Rules(), clock=relay.world.clock)
    [answer] = intake.accept([message()], door="http", fresh={"m-1"} if fresh else ())
    assert answer == Accepted(relay.store.records["m-1"], replayed=not fresh)
    assert relay.store.records["m-1"].state is State.SENT


@pytest.mark.parametrize("fate", ["refused", "lost"])
def test_what_comes_too_late_is_not_sent_whatever_the_table_does(relay: Relay, fate: str) -> None:
    relay.world.next_writes = [fate]
    answers = [relay.intake.skip(message(), door="schedule", reason="late") for _ in range(2)]

    assert isinstance(answers[0], Unavailable if fate == "refused" else Accepted)
    assert isinstance(answers[1], Accepted)
    relay.settle_down()
    assert relay.store.records["m-1"].state is State.EXPIRED
    assert not relay.provider.posts


def test_what_was_accepted_in_time_is_not_skipped(relay: Relay) -> None:
    relay.intake.accept([message()], door="schedule")
    assert relay.intake.skip(message(), door="schedule", reason="late") == Accepted(
        relay.store.records["m-1"], replayed=True
    )
    relay.settle_down()
    assert relay.provider.ledger["hello"] == 1


def test_a_batch_is_answered_one_by_one(relay: Relay) -> None:
    relay.accept(message(id_="m-2"))

    answers = relay.intake.accept(
        [message(id_="m-1"), message("other", id_="m-2"), message(id_="m-3")], door="http"
    )

    assert [type(a) for a in answers] == [Accepted, KeyReused, Accepted]


def test_ids_of_keys_are_stable_and_scoped() -> None:
    assert scoped_id("caller", "key") == scoped_id("caller", "key")
    assert len({scoped_id("a", "bc"), scoped_id("ab", "c"), scoped_id("a", "b", "c")}) == 3
    assert fresh_id() != fresh_id()
    for id_ in (scoped_id("a"), fresh_id()):
        assert message(id_=id_) == QueuedMessage.model_validate_json(message(id_=id_).to_body())
