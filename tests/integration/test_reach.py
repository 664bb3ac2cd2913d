"""Who refuses two messages in a row is left out of broadcasts until a message reaches them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from relay.broadcasts.model import Broadcast, Cause, queued_broadcast
from relay.broadcasts.recounts import Turn
from relay.messages.envelope import QueuedMessage, chat_of
from relay.messages.refusals import MOST_SOURCES, NOTING_SECONDS, Refusals
from relay.messages.states import State
from relay.validation import parse, validate
from tests.support.fanned import Fanned, entries

EVERYBODY = 40
BLOCKED = {f"s-{n}" for n in range(5)}


class Down:
    """A client of a table that is out of reach."""

    def __getattr__(self, _: str) -> Any:
        from botocore.exceptions import ConnectTimeoutError  # noqa: PLC0415

        raise ConnectTimeoutError(endpoint_url="-")


@pytest.fixture
def listed(fanned: Fanned) -> Fanned:
    fanned.listed = entries(EVERYBODY)
    return fanned


def cast_to(fanned: Fanned, id_: str, refusing: Iterable[str], **rest: Any) -> set[str]:
    """Send a broadcast that these refuse; return whom it was sent to."""
    fields = {"botId": "b-1", "text": "To all", **rest}
    queued = queued_broadcast(validate(Broadcast, fields), id_)
    fanned.broadcasts.start(queued)
    fanned.fan_out.run(queued, Turn(fanned.relay.world.now + 60))
    outcomes = []
    for copy in fanned.relay.queues.messages:
        message = parse(QueuedMessage, copy.body)
        refuses = message.subscriber_id in set(refusing)
        outcomes.append((message, State.REJECTED if refuses else State.SENT))
    fanned.relay.queues.messages.clear()
    fanned.refusals.note(outcomes)
    fanned.gate().count(id_, Counter(state for _, state in outcomes))
    return {str(message.subscriber_id) for message, _ in outcomes}


def single(fanned: Fanned, subscriber: str, state: State, id_: str = "m") -> None:
    message = QueuedMessage.model_construct(subscriber_id=subscriber, text="-", id=id_)
    fanned.refusals.note([(message, state)])


def unreachable(fanned: Fanned) -> set[str]:
    return {mark.subscriber_id for mark in fanned.reach.page().marks}


def test_the_third_broadcast_skips_who_refused_two_and_a_sent_message_brings_them_back(
    listed: Fanned,
) -> None:
    assert len(cast_to(listed, "1", BLOCKED)) == EVERYBODY
    assert len(cast_to(listed, "2", BLOCKED)) == EVERYBODY
    queued = queued_broadcast(validate(Broadcast, {"botId": "b-1", "text": "-"}), "dry-run")
    trial = listed.audience.try_out(queued, samples=0, goes_on=lambda: True)
    assert cast_to(listed, "3", BLOCKED).isdisjoint(BLOCKED)
    third = listed.table.load(["3"])["3"]
    assert third.total == trial.total == EVERYBODY - 5
    assert third.skipped[Cause.UNREACHABLE] == trial.skipped[Cause.UNREACHABLE] == 5
    assert unreachable(listed) == BLOCKED
    single(listed, "s-0", State.SENT)
    assert cast_to(listed, "4", ()) & BLOCKED == {"s-0"}


def test_who_refuses_is_reached_if_that_is_asked_for(listed: Fanned) -> None:
    for id_ in "12":
        cast_to(listed, id_, BLOCKED)
    assert len(cast_to(listed, "3", BLOCKED, includeUnreachable=True)) == EVERYBODY


def test_a_message_that_is_sent_in_between_starts_anew(listed: Fanned) -> None:
    cast_to(listed, "1", BLOCKED)
    single(listed, "s-0", State.SENT)
    cast_to(listed, "2", BLOCKED)
    assert unreachable(listed) == BLOCKED - {"s-0"}


def test_a_provider_that_refuses_everybody_marks_nobody(listed: Fanned) -> None:
    everybody = {f"s-{n}" for n in range(EVERYBODY)}
    for id_ in "123":
        assert cast_to(listed, id_, everybody) == everybody
    assert unreachable(listed) == set()
    for n in range(30):
        single(listed, f"s-{n % 3}", State.REJECTED, f"m-{n}")
    assert unreachable(listed) == set()


def test_one_broadcast_counts_once_however_often_it_is_refused(listed: Fanned) -> None:
    cast_to(listed, "1", BLOCKED)
    again = QueuedMessage.model_construct(subscriber_id="s-0", text="-", id="m", broadcast="1")
    for _ in range(3):
        listed.refusals.note([(again, State.REJECTED)])
    assert unreachable(listed) == set()


def test_single_messages_count_where_others_are_sent(listed: Fanned) -> None:
    for n in range(3):
        single(listed, f"s-{n + 10}", State.SENT)
    single(listed, "s-0", State.REJECTED, "m-1")
    single(listed, "s-0", State.REJECTED, "m-1")
    assert unreachable(listed) == set()
    for n in range(3):
        single(listed, f"s-{n + 20}", State.SENT)
    single(listed, "s-0", State.REJECTED, "m-2")
    assert unreachable(listed) == {"s-0"}


def test_nothing_is_written_for_an_ordinary_message(listed: Fanned) -> None:
    before = listed.client.scan(TableName="Relay")["Items"]
    cast_to(listed, "1", ())
    single(listed, "s-1", State.SENT)
    after = listed.client.scan(TableName="Relay")["Items"]
    new = {item["pk"]["S"] for item in after} - {item["pk"]["S"] for item in before}
    assert {pk.partition("#")[0] for pk in new} == {"broadcast"}


def test_no_number_is_kept_and_a_mark_does_not_grow(listed: Fanned) -> None:
    for n in range(MOST_SOURCES + 3):
        message = QueuedMessage.model_construct(
            bot_id="b-1", number="79160001122", text="-", id=f"m-{n}", broadcast=f"{n}"
        )
        listed.refusals.note([(message, State.REJECTED)])
    [mark] = listed.refusals.marks([chat_of("b-1", "79160001122")]).values()
    assert len(mark.sources) == MOST_SOURCES
    assert "79160001122" not in json.dumps(listed.client.scan(TableName="Relay")["Items"])


def test_marks_are_cleared_by_id_by_chat_and_all_at_once(listed: Fanned) -> None:
    for id_ in "12":
        cast_to(listed, id_, BLOCKED)
    assert listed.reach.clear("s-0")
    assert listed.reach.clear(chat_of("s-1"))
    assert not listed.reach.clear("s-30")
    assert unreachable(listed) == {"s-2", "s-3", "s-4"}
    assert listed.reach.clear_all(lambda: False) == (0, False)
    assert listed.reach.clear_all(lambda: True) == (3, True)
    assert unreachable(listed) == set()
    assert len(cast_to(listed, "3", BLOCKED)) == EVERYBODY
    assert unreachable(listed) == set(), "one refusal since is not two"


def test_a_page_ends_between_shards_and_the_next_goes_on(
    listed: Fanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id_ in "12":
        cast_to(listed, id_, BLOCKED)
    monkeypatch.setattr("relay.broadcasts.reach.PAGE", 2)
    found: list[str] = []
    page = listed.reach.page()
    while True:
        found += [mark.subscriber_id for mark in page.marks]
        if page.next is None:
            break
        page = listed.reach.page(page.next)
    assert sorted(found) == sorted(BLOCKED)


def test_a_table_that_is_down_costs_no_run() -> None:
    refusals = Refusals(cast("Any", Down()), "Relay")
    message = QueuedMessage.model_construct(subscriber_id="s", text="-", id="m", broadcast="1")
    refusals.note([(message, State.REJECTED)])


class Throttled:
    """A client of a table that hands out no key, however often it is asked."""

    def __init__(self) -> None:
        self.reads = 0

    def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803 - as boto3 names it
        self.reads += 1
        assert self.reads < 100, "asks for ever"
        return {"Responses": {}, "UnprocessedKeys": RequestItems}


def test_a_table_that_is_throttled_costs_no_run() -> None:
    pauses: list[float] = []
    refusals = Refusals(cast("Any", Throttled()), "Relay", sleep=pauses.append)
    message = QueuedMessage.model_construct(subscriber_id="s", text="-", id="m", broadcast="1")
    refusals.note([(message, State.REJECTED)])
    assert 0 < sum(pauses) < 1.0


def test_a_run_that_ends_leaves_its_marks_rather_than_its_answer(listed: Fanned) -> None:
    now = listed.relay.world.now
    outcomes = [
        (
            QueuedMessage.model_construct(subscriber_id=s, text="-", id=s, broadcast="b"),
            State.REJECTED,
        )
        for s in ("s-1", "s-2")
    ]
    listed.refusals.note(outcomes, ends_at=now + NOTING_SECONDS - 0.1)
    assert not listed.refusals.marks(message.chat for message, _ in outcomes)
    listed.refusals.note(outcomes, ends_at=now + NOTING_SECONDS + 0.1)
    assert len(listed.refusals.marks(message.chat for message, _ in outcomes)) == 2


class Heard:
    """Keeps what a sender tells of its messages."""

    def __init__(self) -> None:
        self.told: list[tuple[str, State]] = []

    def note(self, outcomes: Sequence[tuple[QueuedMessage, State]], *, ends_at: float) -> None:
        assert ends_at > 0
        self.told += [(message.text, state) for message, state in outcomes]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("accepts", [State.SENT]),
        ("refuses", [State.REJECTED]),
        ("is busy", []),
        ("cannot be reached", []),
        ("refuses the password", []),
        ("times out", []),
        ("redirects", []),
    ],
)
def test_only_what_the_provider_says_of_a_message_is_heard(
    listed: Fanned, answer: str, told: list[State]
) -> None:
    relay, heard = listed.relay, Heard()
    relay.sender._reachability = heard
    relay.provider.next = [answer] * 3
    relay.queues.put(QueuedMessage.model_construct(subscriber_id="s", text="m", id="m").to_body())
    relay.run()
    assert heard.told == [("m", state) for state in told]
