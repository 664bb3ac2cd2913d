"""Lists are complete, in order and cheap, on the table in memory and on MiniStack's alike."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from relay.messages.envelope import QueuedMessage
from relay.messages.lists import (
    BROADCASTS,
    BY_LISTED,
    BY_REFERENCE,
    INDEXES,
    Index,
    Listing,
    id_at,
    that_ended,
    with_reference,
)
from relay.messages.service import Messages
from relay.messages.states import Change, DeadLetter, Record, Rules, State, first_record, step
from relay.messages.store import Applied, Item, StoreUnavailableError, TableStore
from tests.support.fanned import Fanned, entries
from tests.support.world import MemoryStore, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NOW = 1_800_000_000.0
RULES = Rules()


Store = MemoryStore | TableStore


@pytest.fixture(params=["memory", "table"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(World())
    return TableStore(request.getfixturevalue("dynamodb"), request.getfixturevalue("table"))


def messages(store: Store) -> Messages:
    nobody: Any = None
    return Messages(
        store=store, lists=store, queues=nobody, intake=nobody, sender=nobody, gate=nobody
    )


def write(store: Store, *changes: Change) -> list[Record]:
    written = store.apply(changes)
    assert all(isinstance(answer, Applied) for answer in written), written
    return [change.after for change in changes]


def accepted(store: Store, id_: str, reference: str | None = None, *, at: float = NOW) -> Record:
    message = QueuedMessage(id=id_, subscriberId=f"s-{id_}", text="Hi", reference=reference)
    fresh = first_record(message, door="http", accepted_at=at, now=at, rules=RULES)
    [record] = write(store, Change(None, fresh))
    return record


def to(store: Store, record: Record, *states: State, at: float) -> Record:
    """Write the steps to states, the last one at a time."""
    for state in states:
        after = replace(record, state=state, updated_at=at, reason="" if state == "sent" else "r")
        [record] = write(store, step(record, after))
    return record


def pages(
    store: Store, listing: Listing, *, limit: int = 2, between: Callable[[], object] = lambda: None
) -> Iterator[list[str]]:
    """Yield the ids on each page of a list; something happens between two of them."""
    after = ""
    while True:
        found = messages(store).find(listing, limit=limit, after=after)
        yield [record.id for record in found.records]
        if not found.after:
            return
        assert found.after != after, "a page leads to the next"
        after = found.after
        between()


def listed(store: Store, listing: Listing) -> list[str]:
    return [id_ for page in pages(store, listing) for id_ in page]


def items(store: Store) -> list[Item]:
    """Return all items of the table."""
    if isinstance(store, MemoryStore):
        return list(store.items.values())
    return [dict(item) for item in store._client.scan(TableName=store._table)["Items"]]


def in_the_index(store: Store, index: Index) -> set[str]:
    """Return the ids of whatever an index holds."""
    if isinstance(store, MemoryStore):
        return {id_ for id_, item in store.items.items() if index.partition in item}
    answer = store._client.scan(TableName=store._table, IndexName=index.name)
    return {item["pk"]["S"].partition("#")[2] for item in answer["Items"]}


# -------------------------------------------------------------------------------- what is listed


def test_messages_are_found_by_their_reference_the_latest_first(store: Store) -> None:
    for n in range(5):
        accepted(store, f"m-{n}", "order-1", at=NOW + n)
    accepted(store, "other", "order-2")

    assert listed(store, with_reference("order-1")) == ["m-4", "m-3", "m-2", "m-1", "m-0"]
    assert listed(store, with_reference("order-2")) == ["other"]
    assert listed(store, with_reference("order-3")) == []
    assert listed(store, with_reference("order-1", since=NOW + 3)) == ["m-4", "m-3"]


@pytest.mark.parametrize("end", ["rejected", "unknown", "failed", "expired"])
def test_messages_are_found_by_a_bad_end_the_latest_first(store: Store, end: str) -> None:
    state = State(end)
    for n in range(3):
        way = [State.EXPIRED] if state is State.EXPIRED else [State.SENDING, state]
        # The last one accepted ends first.
        to(store, accepted(store, f"m-{n}", at=NOW + n), *way, at=NOW + 100 - n)

    assert listed(store, that_ended(state)) == ["m-0", "m-1", "m-2"]
    assert listed(store, that_ended(state, since=NOW + 99)) == ["m-0", "m-1"]
    for other in {State.REJECTED, State.UNKNOWN, State.FAILED, State.EXPIRED} - {state}:
        assert listed(store, that_ended(other)) == []


def test_a_sent_message_without_a_reference_never_enters_an_index(store: Store) -> None:
    record = accepted(store, "m-1")
    to(store, record, State.SENDING, State.QUEUED, State.SENDING, State.SENT, at=NOW)

    assert [in_the_index(store, index) for index in INDEXES] == [set(), set()]


def test_a_reference_is_in_the_index_as_a_hash_alone(store: Store) -> None:
    accepted(store, "m-1", "a@example.org")

    assert in_the_index(store, BY_REFERENCE) == {"m-1"}
    partition = with_reference("a@example.org").partition
    assert partition == hashlib.sha256(b"a@example.org").hexdigest()[:40]
    assert in_the_index(store, BY_LISTED) == set()


def test_what_leaves_a_bad_end_leaves_its_list(store: Store) -> None:
    unknown, failed = (accepted(store, id_) for id_ in ("m-1", "m-2"))
    unknown = to(store, unknown, State.SENDING, State.UNKNOWN, at=NOW + 1)
    failed = to(store, failed, State.SENDING, State.FAILED, at=NOW + 2)
    assert listed(store, that_ended(State.UNKNOWN)) == ["m-1"]

    to(store, unknown, State.SENT, at=NOW + 3)
    failed = to(store, failed, State.SENDING, at=NOW + 4)

    places = [store.page(that_ended(s), limit=9) for s in (State.UNKNOWN, State.FAILED)]
    assert [page.places for page in places] == [[], []], "nothing is left to be read in vain"
    # The local AWS takes an empty key, which the real one refuses.
    assert all(item[BY_LISTED.place]["S"] for item in items(store))
    to(store, failed, State.REJECTED, at=NOW + 5)
    assert listed(store, that_ended(State.FAILED)) == []
    assert listed(store, that_ended(State.REJECTED)) == ["m-2"]


def test_marking_the_dead_letter_moves_no_message_in_its_list(store: Store) -> None:
    record = to(store, accepted(store, "m-1"), State.SENDING, State.FAILED, at=NOW + 1)
    before = store.page(that_ended(State.FAILED), limit=9)
    write(store, step(record, replace(record, dead_letter=DeadLetter.WRITTEN)))
    assert store.page(that_ended(State.FAILED), limit=9) == before
    assert len(before.places) == 1


def test_an_index_that_is_behind_its_table_shows_no_message_twice_or_wrongly() -> None:
    """On AWS it follows "in an eventually consistent fashion"; here it never does."""
    store = MemoryStore(World())
    kept, again, gone = (
        to(store, accepted(store, f"m-{n}"), State.SENDING, State.FAILED, at=NOW + n)
        for n in range(3)
    )
    behind = store.page(that_ended(State.FAILED), limit=9)
    to(store, again, State.SENDING, State.FAILED, at=NOW + 50)
    to(store, gone, State.SENDING, State.SENT, at=NOW + 51)
    store.page = lambda *_, **__: behind  # type: ignore[method-assign]

    found = messages(store).find(that_ended(State.FAILED), limit=9)

    assert [record.id for record in found.records] == [kept.id]


def test_a_list_needs_the_table(store: Store) -> None:
    if isinstance(store, MemoryStore):
        store._world.table_down = True
    else:
        store._table = "no-such-table"
    with pytest.raises(StoreUnavailableError):
        store.page(BROADCASTS, limit=9)


# ------------------------------------------------------------------------------------ its pages


def test_messages_of_one_moment_are_each_on_one_page(store: Store) -> None:
    for n in range(7):
        accepted(store, f"m-{n}", "order-1")
    seen = [id_ for page in pages(store, with_reference("order-1"), limit=3) for id_ in page]
    assert seen == [f"m-{n}" for n in reversed(range(7))]


def test_ten_thousand_messages_are_each_on_one_page_while_states_change() -> None:
    store, dice, now = MemoryStore(World()), random.Random(1), NOW
    failed: dict[str, Record] = {}

    def fail(id_: str) -> None:
        nonlocal now
        now += dice.choice((0.0, 0.001, 0.5))
        known = failed.get(id_) or accepted(store, id_, at=now)
        failed[id_] = to(store, known, State.SENDING, State.FAILED, at=now)

    for n in range(10_000):
        fail(f"m-{n}")
    untouched = set(failed)

    def change() -> None:
        """Some are redriven and sent, some are redriven in vain, some fail for the first time."""
        for id_ in dice.sample(sorted(failed), 20):
            untouched.discard(id_)
            if dice.random() < 0.5:
                fail(id_)
            else:
                to(store, failed.pop(id_), State.SENDING, State.SENT, at=now)
        for _ in range(10):
            fail(f"new-{len(store.items)}")

    began = set(failed)
    read = list(pages(store, that_ended(State.FAILED), limit=100, between=change))

    seen = Counter(id_ for page in read for id_ in page)
    assert set(seen.values()) == {1}, "none twice"
    assert untouched <= set(seen) <= began, "none is missed that was there all the time"
    assert 2000 < len(untouched) < 10_000
    assert len(read) <= 101, "and no page is read in vain"


def test_a_page_of_a_hundred_costs_two_calls_and_what_the_documentation_says(
    dynamodb: "DynamoDBClient", table: str
) -> None:
    calls: Counter[str] = Counter()
    units: Counter[str] = Counter()
    store = TableStore(dynamodb, table)
    everyone = [f"{'k' * 30}{n:03}" for n in range(250)]
    for id_ in everyone:
        accepted(store, id_, "r" * 256)

    class Counting:
        def query(self, **arguments: Any) -> Any:
            answer = dynamodb.query(**arguments, ReturnConsumedCapacity="TOTAL")
            calls["query"] += 1
            units["query"] += math.ceil(answer["ConsumedCapacity"]["CapacityUnits"])
            return answer

        def batch_get_item(self, **arguments: Any) -> Any:
            calls["batch_get_item"] += 1
            # "A strongly consistent read request of an item up to 4 KB requires one read unit."
            units["batch_get_item"] += len(arguments["RequestItems"][table]["Keys"])
            return dynamodb.batch_get_item(**arguments)

    found = messages(TableStore(Counting(), table)).find(  # type: ignore[arg-type] # it passes on
        with_reference("r" * 256), limit=100
    )

    assert [record.id for record in found.records] == everyone[:-101:-1]
    assert calls == {"query": 1, "batch_get_item": 1}
    assert units["query"] <= 3
    assert units["batch_get_item"] == 100


# ---------------------------------------------------------------------------------- broadcasts


def test_broadcasts_are_listed_the_latest_first_and_keep_their_place(fanned: Fanned) -> None:
    fanned.listed = entries(3)
    for n in range(5):
        fanned.relay.world.now = NOW + n
        fanned.start(id_=f"x-{n}")
        fanned.run(order=n)

    pages: list[list[str]] = []
    after = ""
    while not pages or after:
        found = fanned.broadcasts.find(limit=2, after=after)
        pages.append([broadcast.id for broadcast in found.broadcasts])
        after = found.after

    assert pages == [["x-4", "x-3"], ["x-2", "x-1"], ["x-0"]]


def test_a_broadcast_s_messages_are_found_by_state_each_once(fanned: Fanned) -> None:
    fanned.listed = entries(2300)
    fanned.start()
    while (fanned.run() or 99.0) < 99.0 and fanned.progress().enqueued < 2300:
        pass
    broadcast = fanned.progress()
    assert broadcast.enqueued == 2300
    fanned.settle([f"s-{n}" for n in range(2250)], State.SENT, at=NOW)
    fanned.settle(["s-3", "s-499", "s-500", "s-2249"], State.FAILED, at=NOW)

    def found(state: State | None, limit: int) -> list[list[str]]:
        pages: list[list[str]] = []
        after = ""
        while not pages or after:
            page = fanned.broadcasts.messages(broadcast, state, limit=limit, after=after)
            pages.append([record.id for record in page.records])
            after = page.after
        return pages

    failed = found(State.FAILED, 100)
    assert [len(page) for page in failed] == [3, 0, 1], "a thousand are read at a time"
    assert found(State.FAILED, 2)[0] == failed[0][:2]
    everyone = [id_ for page in found(None, 70) for id_ in page]
    assert len(everyone) == len(set(everyone)) == 2250, "a message has a record from its turn on"
    assert {id_ for page in failed for id_ in page} <= set(everyone)


def test_an_index_s_places_tell_the_ids() -> None:
    store = MemoryStore(World())
    accepted(store, "k-a:b.c_d", "order-1")
    [at] = store.page(with_reference("order-1"), limit=1).places
    assert id_at(at) == "k-a:b.c_d"
