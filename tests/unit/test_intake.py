"""accept(): what a caller may rely on."""

import pytest

from relay.messages.envelope import Message, QueuedMessage
from relay.messages.intake import Accepted, KeyReused, Unavailable, fresh_id, queued, scoped_id
from relay.messages.states import Rules, State
from tests.support.world import Crash, Relay


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


def test_a_key_belongs_to_one_body(relay: Relay) -> None:
    relay.accept(message())

    answer = relay.accept(message("something else"))

    assert answer == KeyReused(relay.store.records["m-1"])
    assert len(relay.queues.messages) == 1


def test_a_crash_before_the_queue_is_mended_by_a_repeat(relay: Relay) -> None:
    relay.world.crash_in = 2
    with pytest.raises(Crash):
        relay.accept(message())
    assert not relay.queues.messages
    relay.world.crash_in = None

    assert isinstance(relay.accept(message()), Accepted)
    relay.settle_down()

    assert relay.provider.ledger["hello"] == 1


def test_what_the_queue_refuses_leaves_no_record(relay: Relay) -> None:
    relay.world.queue_down = True

    assert isinstance(relay.accept(message()), Unavailable)
    assert not relay.store.records

    relay.world.queue_down = False
    assert isinstance(relay.accept(message("another text")), Accepted), "the key is free again"


def test_what_the_table_refuses_is_not_queued(relay: Relay) -> None:
    relay.world.table_down = True

    assert isinstance(relay.accept(message()), Unavailable)
    assert not relay.queues.messages


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
