"""The account's line of slots on DynamoDB's own arithmetic, and the breaker."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from relay.messages.breaker import Breaker
from relay.messages.pacing import (
    BROADCAST_HORIZON,
    CLOCK_SLACK,
    GRACE,
    HORIZON,
    IDLE_SECONDS,
    KEY,
    MOST_HOLDS,
    TablePacer,
)
from relay.messages.store import StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

RATE = 25.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator["DynamoDBClient"]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName="relay",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pacer(dynamodb: "DynamoDBClient", clock: Clock, rate: float = RATE) -> TablePacer:
    return TablePacer(dynamodb, "relay", rate, clock=clock)


def test_an_idle_line_starts_a_little_in_the_past(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    slots = pacer(dynamodb, clock).reserve(10)

    assert slots.times[0] == pytest.approx(clock.now - IDLE_SECONDS)
    assert slots.next == pytest.approx(clock.now - IDLE_SECONDS + 10 / RATE)


@pytest.mark.parametrize("senders", [2, 5, 10])
def test_concurrent_senders_share_one_line(
    dynamodb: "DynamoDBClient", clock: Clock, senders: int
) -> None:
    """Each sends what it was granted, rests, and asks again, out of step with the others."""
    lines = [pacer(dynamodb, clock) for _ in range(senders)]
    free_at = [clock.now + 0.03 * i for i in range(senders)]
    times: list[float] = []
    began = clock.now
    while clock.now < began + 20:
        i = min(range(senders), key=free_at.__getitem__)
        clock.now = free_at[i]
        slots = lines[i].reserve(10)
        sent = [max(at, clock.now) for at in slots.times]
        times += sent
        free_at[i] = (sent[-1] + 0.25) if sent else slots.next

    times = sorted(at for at in times if at < began + 20)
    allowed = int(RATE * (1 + IDLE_SECONDS)) + 1
    assert all(at - first > 1 for first, at in zip(times, times[allowed:], strict=False))
    assert len(times) >= 0.95 * 20 * RATE


@pytest.mark.parametrize("rate", [3.0, 25.0, 300.0])
def test_a_single_message_soon_has_its_slot_beside_broadcasts(
    dynamodb: "DynamoDBClient", clock: Clock, rate: float
) -> None:
    broadcast, single = pacer(dynamodb, clock, rate), pacer(dynamodb, clock, rate)
    for _ in range(50):
        while broadcast.reserve(100, within=BROADCAST_HORIZON).times:
            pass
        [slot] = single.reserve(1).times
        assert slot - clock.now <= 0.8 + 1e-3
        clock.now += 1.0


def test_slots_never_overlap(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    one, other = pacer(dynamodb, clock), pacer(dynamodb, clock)

    times = [*one.reserve(7).times, *other.reserve(3).times, *one.reserve(10).times]

    assert all(b - a == pytest.approx(1 / RATE, abs=1e-4) for a, b in pairwise(times))


def test_a_batch_costs_one_write(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    line = pacer(dynamodb, clock)
    line.reserve(1)
    calls: list[str] = []
    dynamodb.meta.events.register(
        "before-call.dynamodb", lambda model, **_: calls.append(model.name)
    )

    line.reserve(10)

    assert calls == ["UpdateItem"]


def test_a_line_that_is_too_long_grants_nothing_and_says_when(
    dynamodb: "DynamoDBClient", clock: Clock
) -> None:
    line = pacer(dynamodb, clock, rate=1)
    granted = [line.reserve(10) for _ in range(4)]

    assert [len(slots.times) for slots in granted] == [10, 10, 0, 0]
    assert granted[-1].next > clock.now + HORIZON
    clock.now = granted[-1].next
    assert len(line.reserve(10).times) == 10


def test_a_chat_s_hold_is_known_to_all_and_stops_no_other(
    dynamodb: "DynamoDBClient", clock: Clock
) -> None:
    one, other = pacer(dynamodb, clock), pacer(dynamodb, clock)
    one.reserve(5)

    assert one.hold("a", clock.now + 10_072) == 0.0
    assert one.hold("b", clock.now + 30) == 0.0

    slots = other.reserve(10)
    assert len(slots.times) == 10
    assert slots.holds == pytest.approx({"a": clock.now + 10_072, "b": clock.now + 30})
    clock.now += 40
    assert set(other.reserve(1).holds) == {"a"}


@pytest.mark.parametrize(("apart", "held"), [(4.9, True), (5.1, False)])
def test_three_chats_within_ten_seconds_mean_the_account(
    dynamodb: "DynamoDBClient", clock: Clock, apart: float, held: bool
) -> None:
    one, other = pacer(dynamodb, clock), pacer(dynamodb, clock)
    for chat in "aab":
        assert one.hold(chat, clock.now + 60) == 0.0
    clock.now += apart
    other.hold("b", clock.now + 60)
    clock.now += apart
    until = other.hold("c", clock.now + 300)

    assert until == (pytest.approx(clock.now + 300) if held else 0.0)
    assert (one.reserve(10).times == ()) is held
    if held:
        assert one.reserve(10).next == pytest.approx(until)
        other.hold("d", clock.now + 5)  # a shorter one does not shorten it
        clock.now += 299
        assert one.reserve(10).times == ()
        clock.now += 2
        assert len(one.reserve(10).times) == 10


def test_an_account_s_hold_by_a_clock_that_is_an_hour_ahead_is_put_right(
    dynamodb: "DynamoDBClient", clock: Clock
) -> None:
    ahead = Clock()
    ahead.now = clock.now + 3600
    for chat in "abc":
        pacer(dynamodb, ahead).hold(chat, ahead.now + 30)

    assert len(pacer(dynamodb, clock).reserve(1).times) == 1


def test_the_table_keeps_no_more_holds_than_are_worth_it(
    dynamodb: "DynamoDBClient", clock: Clock
) -> None:
    line = pacer(dynamodb, clock)
    for i in range(MOST_HOLDS + 20):
        line.hold(f"chat-{i}", clock.now + 1000 + i)
        clock.now += 20.0
    kept = line.reserve(1).holds
    assert len(kept) <= MOST_HOLDS
    assert f"chat-{MOST_HOLDS + 19}" in kept

    clock.now += 10_000.0
    line.reserve(1)
    item = dynamodb.get_item(TableName="relay", Key=KEY)["Item"]
    assert not [name for name in item if name.startswith("hold#")]


@pytest.mark.parametrize("rate", [0.05, 1.0, RATE])
def test_a_clock_that_is_an_hour_ahead_stalls_nobody(
    dynamodb: "DynamoDBClient", clock: Clock, rate: float, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = Clock()
    ahead.now = clock.now + 3600
    pacer(dynamodb, ahead, rate).reserve(10)
    one, other = pacer(dynamodb, clock, rate), pacer(dynamodb, clock, rate)

    granted = one.reserve(1)
    assert granted.times[0] == pytest.approx(clock.now - IDLE_SECONDS, abs=1e-3)
    assert other.reserve(1, within=1 / rate).times[0] == pytest.approx(granted.next, abs=1e-3)
    [told] = caplog.records
    assert told.__dict__["ahead_seconds"] == pytest.approx(3600 + 10 / rate, abs=20 / rate)


def test_a_line_put_right_by_two_runs_at_once_is_one_line(
    dynamodb: "DynamoDBClient", clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Clock()
    ahead.now = clock.now + 3600
    pacer(dynamodb, ahead).reserve(10)
    one, other = pacer(dynamodb, clock), pacer(dynamodb, clock)
    update = one._update
    first: list[float] = []

    def overtaken(expression: str, values: dict[str, float], condition: str) -> Any:
        if "believable" in condition:
            first.extend(other.reserve(5).times)
        return update(expression, values, condition)

    monkeypatch.setattr(one, "_update", overtaken)
    times = [*one.reserve(5).times, *first]

    assert len({round(at, 3) for at in times}) == 10, "no slot is given twice"


def test_the_longest_hold_is_believed(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    line = pacer(dynamodb, clock)
    for chat in "abc":
        line.hold(chat, clock.now + 86_400)
    clock.now -= CLOCK_SLACK - 1  # and seen by a host whose clock is behind

    assert line.reserve(1).times == ()


def test_the_longest_line_is_believed(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    line = pacer(dynamodb, clock, rate=0.01)
    line.reserve(1)
    clock.now += 95.0
    assert len(line.reserve(1).times) == 1
    clock.now -= CLOCK_SLACK - 1

    assert line.reserve(1).times == ()


def test_rate_0_switches_pacing_off(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    slots = pacer(dynamodb, clock, rate=0).reserve(1000)

    assert slots.times == (clock.now,) * 1000
    assert slots.grace == float("inf")


def test_a_slot_can_be_missed(dynamodb: "DynamoDBClient", clock: Clock) -> None:
    assert pacer(dynamodb, clock).reserve(1).grace == GRACE


def test_a_table_out_of_reach_is_named(clock: Clock) -> None:
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"max_attempts": 0}),
    )

    with pytest.raises(StoreUnavailableError, match="EndpointConnectionError"):
        pacer(client, clock).reserve(1)


def test_the_breaker_opens_after_failures_in_a_row_and_one_message_tries(clock: Clock) -> None:
    breaker = Breaker(threshold=3, pause=5.0, longest=12.0, clock=clock)
    for _ in range(2):
        breaker.record(failed=True)
    breaker.record(failed=False)
    for _ in range(2):
        breaker.record(failed=True)
    assert (breaker.room(), breaker.admit()) == (None, True)

    breaker.record(failed=True)
    assert (breaker.room(), breaker.admit()) == (0, False)
    clock.now += 5.0
    assert breaker.room() == 1
    assert [breaker.admit(), breaker.admit()] == [True, False]

    breaker.record(failed=True)
    assert breaker.shut_until() == clock.now + 10.0
    clock.now += 10.0
    breaker.record(failed=True)
    assert breaker.shut_until() == clock.now + 12.0, "no longer than the longest pause"
    clock.now += 12.0
    assert breaker.admit()
    breaker.record(failed=False)
    assert (breaker.room(), breaker.admit()) == (None, True)
