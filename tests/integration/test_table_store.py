"""The table behaves as the one in memory that the property test runs on, and as its contract says.

MiniStack plays DynamoDB here: moto cannot read an UPDATE with more than one SET.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from relay.messages import store as relay_store
from relay.messages.envelope import QueuedMessage
from relay.messages.states import (
    Attempt,
    Change,
    DeadLetter,
    Event,
    Record,
    Rules,
    Send,
    State,
    cancel,
    claim,
    first_record,
    release,
    settle,
)
from relay.messages.store import (
    Applied,
    Conflict,
    Store,
    StoreUnavailableError,
    TableStore,
    Unwritten,
    from_item,
    to_item,
)
from smsgold.responses import Outcome, Verdict
from tests.support.ministack import ministack
from tests.support.world import MemoryStore, World

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NOW = 1_800_000_000.1239996
RULES = Rules()


@pytest.fixture(scope="module")
def dynamodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator["DynamoDBClient"]:
    with ministack(tmp_path_factory.mktemp("ministack")) as address:
        yield boto3.client(
            "dynamodb",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )


@pytest.fixture
def table(dynamodb: "DynamoDBClient", request: pytest.FixtureRequest) -> str:
    name = f"relay-{abs(hash(request.node.nodeid))}"
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    return name


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
    assert written.record
    return written.record


def load(store: Store, id_: str = "m-1") -> Record:
    return stored(store.load([id_])[id_])


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
    assert released.record
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


def test_a_record_is_withdrawn_only_as_it_was(store: Store) -> None:
    store.apply([Change(None, fresh("m-1")), Change(None, fresh("m-2"))])
    taken(store, fresh("m-2"), "a1")

    answers = store.apply([Change(fresh("m-1"), None), Change(fresh("m-2"), None)])

    assert [type(a) for a in answers] == [Applied, Conflict]
    assert list(store.load(["m-1", "m-2"])) == ["m-2"]


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
        tries=7,
        ambiguous=2,
        reason="http_503",
        detail="quotes \" and ' and я",
        expires_at=NOW + 100,
        provider_id="p-1",
        provider_body='{"id": 1}',
        attempts=(Attempt(NOW, "not_sent", "http_503", 12), Attempt(NOW, "unknown")),
        history=(Event(NOW, "redriven"),),
    )
    store.apply([Change(None, full)])
    assert load(store) == stored(full)

    emptied = replace(
        full, state=State.FAILED, reason="", detail="", history=(), dead_letter=DeadLetter.DUE
    )
    [written] = store.apply([Change(full, emptied)])

    assert isinstance(written, Applied)
    assert load(store) == stored(emptied), "what is empty now is gone"


# ------------------------------------------------------------------------- the table alone


class Flaky:
    """A client whose next write is answered by a time-out or an error, made or not."""

    def __init__(self, client: Any, strike: Callable[[Callable[[], Any]], Any]) -> None:
        self._client = client
        self._strike: Callable[[Callable[[], Any]], Any] | None = strike
        self.batch_get_item = client.batch_get_item

    def batch_execute_statement(self, **request: Any) -> Any:
        def call() -> Any:
            return self._client.batch_execute_statement(**request)

        strike, self._strike = self._strike, None
        return strike(call) if strike else call()


def throttled(_call: Callable[[], Any]) -> Any:
    return {"Responses": [{"Error": {"Code": "ThrottlingError"}}]}


def written_and_then_failed(call: Callable[[], Any]) -> Any:
    call()
    return {"Responses": [{"Error": {"Code": "InternalServerError"}}]}


def timed_out(_call: Callable[[], Any]) -> Any:
    raise ReadTimeoutError(endpoint_url="dynamodb")


def denied(_call: Callable[[], Any]) -> Any:
    raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "BatchExecuteStatement")


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
    assert change.after
    assert load(store) == stored(change.after)


@pytest.mark.parametrize(
    ("strike", "reason"), [(timed_out, "ReadTimeoutError"), (denied, "AccessDeniedException")]
)
def test_a_table_that_does_not_answer_has_not_taken_the_steps(
    dynamodb: "DynamoDBClient",
    table: str,
    strike: Callable[[Callable[[], Any]], Any],
    reason: str,
) -> None:
    flaky: Any = Flaky(dynamodb, strike)

    answers = TableStore(flaky, table).apply([Change(None, fresh(f"m-{i}")) for i in range(30)])

    assert answers == [Unwritten(reason)] * 30


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
