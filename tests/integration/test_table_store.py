"""The table behaves as the one in memory that the property test runs on, and as its contract says.

MiniStack plays DynamoDB here: moto cannot read an UPDATE with more than one SET.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from relay.messages import store as relay_store
from relay.messages.envelope import QueuedMessage
from relay.messages.states import (
    Attempt,
    Change,
    DeadLetter,
    Event,
    Finish,
    Record,
    Rules,
    Send,
    State,
    cancel,
    claim,
    decide,
    first_record,
    marked_dead_lettered,
    release,
    settle,
    step,
)
from relay.messages.store import (
    STATEMENTS_PER_CALL,
    Applied,
    Conflict,
    Item,
    Store,
    StoreUnavailableError,
    TableStore,
    Unreadable,
    Unwritten,
    from_item,
    to_item,
)
from smsgold.responses import Outcome, Verdict
from tests.support.world import MemoryStore, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NOW = 1_800_000_000.1239996
RULES = Rules()


@pytest.fixture(params=["memory", "table"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(World())
    return TableStore(request.getfixturevalue("dynamodb"), request.getfixturevalue("table"))


def message(id_: str = "m-1", text: str = "hello") -> QueuedMessage:
    return QueuedMessage(id=id_, subscriberId="s-1", text=text, reference="order-1")


def fresh(id_: str = "m-1") -> Record:
    return first_record(message(id_), door="http", accepted_at=NOW, now=NOW, rules=RULES)


def stored(record: Record) -> Record:
    """Return the record as a table gives it back: times to the millisecond."""
    return from_item(to_item(record))


def taken(store: Store, record: Record, attempt: str) -> Record:
    [written] = store.apply([claim(Send(record, record), attempt=attempt, now=NOW, lease=NOW + 65)])
    assert isinstance(written, Applied)
    return written.record


def load(store: Store, id_: str = "m-1") -> Record:
    record = store.load([id_])[id_]
    assert isinstance(record, Record)
    return stored(record)


def put(store: Store, item: Item) -> None:
    """Put an item into the table as somebody else wrote it."""
    if isinstance(store, MemoryStore):
        record = from_item(item)
        store.items[record.id], store.records[record.id] = item, record
    else:
        assert isinstance(store, TableStore)
        store._client.put_item(TableName=store._table, Item=item)


def test_what_is_written_is_read(store: Store) -> None:
    assert store.load(["m-1", "m-2"]) == {}

    assert store.apply([Change(None, fresh())]) == [Applied(fresh())]

    assert load(store) == stored(fresh())
    assert store.load(["m-2"]) == {}


def test_a_first_record_is_written_once(store: Store) -> None:
    store.apply([Change(None, fresh())])
    other = replace(fresh(), fingerprint="another")

    [written] = store.apply([Change(None, other)])

    assert isinstance(written, Conflict)
    assert written.current
    assert stored(written.current) == stored(fresh())


def test_a_message_is_claimed_once(store: Store) -> None:
    store.apply([Change(None, fresh())])
    mine = taken(store, fresh(), "a1")

    [written] = store.apply([claim(Send(fresh(), fresh()), attempt="a2", now=NOW, lease=NOW + 65)])

    assert isinstance(written, Conflict)
    assert written.current
    assert stored(written.current) == stored(mine)


def test_a_late_worker_changes_nothing(store: Store) -> None:
    store.apply([Change(None, fresh())])
    late = taken(store, fresh(), "a1")
    [released] = store.apply([release(late, NOW)])
    assert isinstance(released, Applied)
    owner = taken(store, released.record, "a2")
    verdict = Verdict(Outcome.ACCEPTED, "accepted")

    settlement = settle(late, verdict, began=NOW, now=NOW, on_unknown=None, rules=RULES)
    [written] = store.apply([settlement.change])

    assert isinstance(written, Conflict)
    assert load(store) == stored(owner)


def test_a_message_that_is_claimed_is_not_cancelled(store: Store) -> None:
    store.apply([Change(None, fresh())])
    change = cancel(fresh(), NOW)
    assert change
    owner = taken(store, fresh(), "a1")

    [written] = store.apply([change])

    assert isinstance(written, Conflict)
    assert load(store) == stored(owner)


def test_steps_of_many_messages_are_answered_each_on_its_own(store: Store) -> None:
    records = [fresh(f"m-{i}") for i in range(60)]
    store.apply([Change(None, r) for r in records[::2]])

    answers = store.apply([Change(None, replace(r, fingerprint="new")) for r in records])

    assert [type(a) for a in answers] == [Conflict, Applied] * 30
    assert len(store.load(r.id for r in records)) == 60


def test_a_step_that_was_decided_before_a_mark_does_not_land_after_it(store: Store) -> None:
    """Else the record would go on saying that a letter lies there, which is another's."""
    expiring = message().model_copy(update={"expires_at": datetime.fromtimestamp(NOW + 60, UTC)})
    first = first_record(expiring, door="http", accepted_at=NOW, now=NOW, rules=RULES)
    dead = replace(first, state=State.FAILED, tries=1, dead_letter=DeadLetter.DUE)
    store.apply([Change(None, dead)])
    redriven = expiring.model_copy(update={"generation": 1})
    decision = decide(dead, redriven, door="sqs", sent_at=NOW, now=NOW + 61, rules=RULES)
    assert isinstance(decision, Finish)

    [marked, finished] = [
        *store.apply([marked_dead_lettered(dead)]),
        *store.apply([decision.change]),
    ]

    assert isinstance(marked, Applied)
    assert isinstance(finished, Conflict)
    assert finished.current
    assert stored(finished.current) == load(store) == stored(marked.record)


def test_a_claim_that_was_not_made_is_not_released_where_another_was(store: Store) -> None:
    """Both would have made the same version."""
    store.apply([Change(None, fresh())])
    lost = claim(Send(fresh(), fresh()), attempt="a1", now=NOW, lease=NOW + 65).after
    owner = taken(store, fresh(), "a2")
    assert owner.version == lost.version

    [written] = store.apply([release(lost, NOW)])

    assert isinstance(written, Conflict)
    assert load(store) == stored(owner)


# ----------------------------------------------------------------- records of other releases


def of_release_0_1_0(record: Record) -> Item:
    item = {name: value for name, value in to_item(record).items() if name != "version"}
    return item | {"providerBody": {"S": '{"id": 1}'}}


def test_a_record_of_release_0_1_0_goes_on(store: Store) -> None:
    put(store, of_release_0_1_0(fresh()))
    known = load(store)
    assert known.version == 0

    owner = taken(store, known, "a1")
    [late] = store.apply([claim(Send(known, known), attempt="a2", now=NOW, lease=NOW + 65)])

    assert isinstance(late, Conflict)
    assert owner.version == 1
    assert load(store) == stored(owner)


def test_a_run_of_release_0_1_0_changes_a_record_without_raising_its_version(store: Store) -> None:
    store.apply([Change(None, fresh())])
    known = load(store)
    theirs = replace(known, state=State.SENDING, attempt="a1", lease=NOW + 65)
    put(store, to_item(theirs))

    [written] = store.apply([claim(Send(known, known), attempt="a2", now=NOW, lease=NOW + 65)])

    assert isinstance(written, Conflict)
    assert load(store) == stored(theirs)


def test_a_step_from_nothing_that_is_there_is_a_conflict(store: Store) -> None:
    [written] = store.apply([release(replace(fresh(), state=State.SENDING, attempt="a1"), NOW)])

    assert written == Conflict(None)


def test_everything_a_record_holds_survives(store: Store) -> None:
    full = replace(
        fresh(),
        state=State.SENDING,
        attempt="a1",
        lease=NOW + 65,
        generation=3,
        version=1,
        tries=7,
        ambiguous=2,
        reason="http_503",
        detail="quotes \" and ' and я",
        expires_at=NOW + 100,
        provider_id="p-1",
        attempts=(Attempt(NOW, "not_sent", "http_503", 12), Attempt(NOW, "unknown")),
        history=(Event(NOW, "redriven"),),
    )
    store.apply([Change(None, full)])
    assert load(store) == stored(full)

    change = step(
        full,
        replace(
            full, state=State.FAILED, reason="", detail="", history=(), dead_letter=DeadLetter.DUE
        ),
    )
    [written] = store.apply([change])

    assert isinstance(written, Applied)
    assert load(store) == stored(change.after), "what is empty now reads as if it were gone"


# ------------------------------------------------------------------------- the table alone


class Flaky:
    """A client whose next write is answered by a time-out or an error, made or not."""

    def __init__(self, client: Any, strike: Callable[[Callable[[], Any]], Any]) -> None:
        self._client = client
        self._strike: Callable[[Callable[[], Any]], Any] | None = strike
        self.batch_get_item = client.batch_get_item
        self.call = client.batch_execute_statement

    def batch_execute_statement(self, **request: Any) -> Any:
        def call() -> Any:
            return self._client.batch_execute_statement(**request)

        strike, self._strike = self._strike, None
        return strike(call) if strike else self.call(**request)


def throttled(_call: Callable[[], Any]) -> Any:
    return {"Responses": [{"Error": {"Code": "ThrottlingError"}}]}


def written_and_then_failed(call: Callable[[], Any]) -> Any:
    call()
    return {"Responses": [{"Error": {"Code": "InternalServerError"}}]}


def timed_out(_call: Callable[[], Any]) -> Any:
    raise ReadTimeoutError(endpoint_url="dynamodb")


@pytest.mark.parametrize("strike", [throttled, written_and_then_failed])
@pytest.mark.parametrize("step", ["insert", "update"])
def test_a_step_is_written_once_whatever_the_first_answer(
    dynamodb: "DynamoDBClient", table: str, strike: Callable[[Callable[[], Any]], Any], step: str
) -> None:
    flaky: Any = Flaky(dynamodb, strike)
    store = TableStore(flaky, table, sleep=lambda _: None)
    change = Change(None, fresh())
    if step == "update":
        TableStore(dynamodb, table).apply([change])
        change = claim(Send(fresh(), fresh()), attempt="a1", now=NOW, lease=NOW + 65)

    [written] = store.apply([change])

    assert isinstance(written, Applied)
    assert load(store) == stored(change.after)


def answered(status: int, code: str, *, repeats: int = 0) -> Callable[[Callable[[], Any]], Any]:
    def strike(_call: Callable[[], Any]) -> Any:
        metadata: Any = {"HTTPStatusCode": status, "RetryAttempts": repeats}
        answer: Any = {"Error": {"Code": code}, "ResponseMetadata": metadata}
        raise ClientError(answer, "BatchExecuteStatement")

    return strike


@pytest.mark.parametrize(
    ("strike", "reason", "in_doubt"),
    [
        (timed_out, "ReadTimeoutError", True),
        (answered(500, "InternalServerError"), "InternalServerError", True),
        (answered(400, "AccessDeniedException"), "AccessDeniedException", False),
        (answered(400, "ThrottlingException"), "ThrottlingException", False),
        # The answer is that to botocore's own repetition.
        (answered(400, "ThrottlingException", repeats=1), "ThrottlingException", True),
    ],
)
def test_a_table_that_does_not_answer_may_have_taken_what_it_was_asked_to(
    dynamodb: "DynamoDBClient",
    table: str,
    strike: Callable[[Callable[[], Any]], Any],
    reason: str,
    in_doubt: bool,
) -> None:
    flaky: Any = Flaky(dynamodb, strike)

    answers = TableStore(flaky, table).apply([Change(None, fresh(f"m-{i}")) for i in range(30)])

    asked, not_asked = Unwritten(reason, in_doubt), Unwritten(reason)
    assert answers == [asked] * STATEMENTS_PER_CALL + [not_asked] * (30 - STATEMENTS_PER_CALL)


@pytest.mark.parametrize("first", [written_and_then_failed, throttled])
def test_what_may_have_been_written_once_stays_in_doubt(
    dynamodb: "DynamoDBClient", table: str, first: Callable[[Callable[[], Any]], Any]
) -> None:
    def always_throttled(**_request: Any) -> Any:
        return throttled(lambda: None)

    flaky: Any = Flaky(dynamodb, first)
    store = TableStore(flaky, table, sleep=lambda _: setattr(flaky, "call", always_throttled))

    [written] = store.apply([Change(None, fresh())])

    assert written == Unwritten("ThrottlingError", in_doubt=first is written_and_then_failed)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"state": {"S": "dreaming"}},
        {"deadLetter": {"S": "lost"}},
        {"attempts": {"L": [{"S": "one"}]}},
        {"state": {"N": "1"}},
    ],
)
def test_a_record_that_cannot_be_read_costs_no_other(
    dynamodb: "DynamoDBClient", table: str, spoilt: Item
) -> None:
    store = TableStore(dynamodb, table)
    store.apply([Change(None, fresh("m-1")), Change(None, fresh("m-2"))])
    put(store, to_item(fresh("m-3")) | spoilt)

    assert store.load(["m-1", "m-2", "m-3"]) == {
        "m-1": stored(fresh("m-1")),
        "m-2": stored(fresh("m-2")),
        "m-3": Unreadable("m-3"),
    }
    steps = [
        Change(None, fresh("m-3")),
        claim(Send(fresh("m-1"), fresh("m-1")), attempt="a1", now=NOW, lease=NOW + 65),
    ]
    assert [type(answer) for answer in store.apply(steps)] == [Conflict, Applied]


@pytest.mark.parametrize("name", ["mood", "providerBody"])
def test_an_attribute_of_another_release_stays_until_the_record_expires(
    dynamodb: "DynamoDBClient", table: str, name: str
) -> None:
    store = TableStore(dynamodb, table)
    put(store, to_item(fresh()) | {name: {"S": "good"}})

    taken(store, fresh(), "a1")

    item = dynamodb.get_item(TableName=table, Key={"pk": {"S": "message#m-1"}})["Item"]
    assert item[name] == {"S": "good"}


def test_a_table_that_cannot_be_read_says_so(dynamodb: "DynamoDBClient") -> None:
    with pytest.raises(StoreUnavailableError, match="ResourceNotFoundException"):
        TableStore(dynamodb, "no-such-table").load(["m-1"])


def test_a_record_outlives_both_queues(dynamodb: "DynamoDBClient", table: str) -> None:
    TableStore(dynamodb, table).apply([Change(None, fresh())])

    item = dynamodb.get_item(TableName=table, Key={"pk": {"S": "message#m-1"}})["Item"]

    assert float(item["ttl"]["N"]) > NOW + 28 * 86400
    assert relay_store.KEPT_DAYS > 28


def test_a_record_holds_nothing_of_what_the_message_says(
    dynamodb: "DynamoDBClient", table: str
) -> None:
    secretive = QueuedMessage.model_validate(
        {
            "id": "m-1",
            "botId": "b-1",
            "number": "79991234567",
            "text": "the text",
            "buttons": [{"text": "the button", "url": "https://shop.example/"}],
        }
    )
    record = first_record(secretive, door="http", accepted_at=NOW, now=NOW, rules=RULES)

    TableStore(dynamodb, table).apply([Change(None, record)])

    item = str(dynamodb.get_item(TableName=table, Key={"pk": {"S": "message#m-1"}})["Item"])
    for told in ("79991234567", "the text", "the button", "shop.example", "b-1"):
        assert told not in item


# ------------------------------------------------------------------------------- the seals' key


def test_all_functions_share_the_key_of_the_seals(dynamodb: "DynamoDBClient", table: str) -> None:
    first, second = TableStore(dynamodb, table), TableStore(dynamodb, table)

    assert first.seal_key() == second.seal_key()
    assert len(first.seal_key()) == 32


def test_two_functions_that_make_the_key_of_the_seals_at_once_agree(
    dynamodb: "DynamoDBClient", table: str
) -> None:
    late = TableStore(dynamodb, table)
    early = TableStore(dynamodb, table)
    key = early.seal_key()
    assert late._make_seal_key() == key
    assert late.seal_key() == key


def test_without_a_table_there_is_no_key_of_the_seals(dynamodb: "DynamoDBClient") -> None:
    with pytest.raises(StoreUnavailableError):
        TableStore(dynamodb, "no-such-table").seal_key()
