"""A broadcast's way through the table and the queue, whatever kills the run that spreads it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from moto import mock_aws

from relay.broadcasts.fanout import Broadcaster, InvalidTransition, Reused, Started, message_id
from relay.broadcasts.model import (
    CHUNK,
    Board,
    Broadcast,
    BroadcastRecord,
    BroadcastTable,
    Command,
    QueuedBroadcast,
    Status,
    hold_for,
    ordered,
)
from relay.messages.envelope import QueuedMessage, parse, validate
from relay.messages.states import Record, Rules, State
from smsgold.errors import ProviderRefusedError, ProviderUnavailableError
from tests.support.world import START, Crash, Relay

LONGEST_RUN = 60.0
RULES = Rules(retry_window=3600.0)


class Dying:
    """A DynamoDB client in whose calls the run may end, before or after they are made."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.dies_in: int | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def made(**arguments: Any) -> Any:
            self._step()
            answer = call(**arguments)
            self._step()
            return answer

        return made

    def _step(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Crash("here")


class Spread:
    """A broadcaster over a table of moto's and a world in memory."""

    def __init__(self) -> None:
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName="Relay",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        self.dying = Dying(client)
        self.relay = Relay(RULES)
        self.table = BroadcastTable(self.dying, "Relay")  # type: ignore[arg-type] # it passes on
        self.orders: list[str] = []
        self.relay.queues.enqueue_notifier = self.orders.append  # type: ignore[method-assign, assignment]
        self.listed: list[Mapping[str, object]] = []
        self.error: Exception | None = None
        self.meanwhile: Callable[[], list[Mapping[str, object]]] | None = None
        self.names = 0
        self.broadcaster = Broadcaster(
            table=self.table,
            store=self.relay.store,
            queues=self.relay.queues,
            subscribers=self._subscribers,
            rules=RULES,
            longest_run=LONGEST_RUN,
            rate=25.0,
            clock=self.relay.world.clock,
            new_name=self._name,
        )

    def _subscribers(self, bot_id: str) -> list[Mapping[str, object]]:
        assert bot_id == "b-1"
        if self.meanwhile:
            return self.meanwhile()
        if self.error:
            raise self.error
        return self.listed

    def _name(self) -> str:
        self.names += 1
        return f"s{self.names}"

    def start(self, text: str = "To all", id_: str = "x") -> Started | Reused:
        broadcast = validate(Broadcast, {"botId": "b-1", "text": text})
        return self.broadcaster.start(ordered(broadcast, id_))

    def work(self, ends_in: float = 60.0) -> float | None:
        return self.broadcaster.work(
            parse(QueuedBroadcast, self.orders[0]), ends_at=self.relay.world.now + ends_in
        )

    def progress(self) -> BroadcastRecord:
        return self.table.load(["x"])["x"]

    def enqueued(self) -> Counter[str]:
        messages = [parse(QueuedMessage, copy.body) for copy in self.relay.queues.messages]
        assert all(m.id == message_id("x", str(m.subscriber_id)) for m in messages)
        assert all(m.broadcast == "x" for m in messages)
        return Counter(str(m.subscriber_id) for m in messages)

    def settle(self, ids: list[str], state: State, *, at: float) -> None:
        """Write the records of messages that came to an end."""
        for id_ in ids:
            key = message_id("x", id_)
            self.relay.store.records[key] = Record(key, state, "f", "sqs", at, at, at)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spread]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield Spread()


def ids(count: int) -> list[str]:
    return [f"s-{n}" for n in range(count)]


def entries(count: int) -> list[Mapping[str, object]]:
    return [{"id": id_} for id_ in ids(count)]


def test_duplicates_and_entries_without_an_id_are_skipped_and_counted(spread: Spread) -> None:
    spread.listed = [*entries(3), {"id": "s-1"}, {"name": "x"}, {"id": "y" * 65}, {"id": "s-1"}]
    spread.start()
    spread.work()
    progress = spread.progress()
    assert (progress.total, progress.duplicates, progress.without_id) == (3, 2, 2)
    assert spread.enqueued() == dict.fromkeys(ids(3), 1)


def test_a_run_stops_before_its_time_ends_and_the_next_goes_on(spread: Spread) -> None:
    spread.listed = entries(2 * CHUNK + 1)
    spread.start()
    assert spread.work(ends_in=1.0) == 0.0
    assert spread.progress().enqueued == CHUNK
    assert spread.work(ends_in=1.0) == 0.0
    assert spread.work(ends_in=1.0) != 0.0
    assert spread.enqueued() == dict.fromkeys(ids(2 * CHUNK + 1), 1)


@pytest.mark.parametrize("step", range(0, 34, 3))
def test_a_killed_run_loses_nobody_and_repeats_one_chunk_at_most(spread: Spread, step: int) -> None:
    everybody = 2 * CHUNK + 10
    spread.listed = entries(everybody)
    spread.start()
    spread.dying.dies_in = step
    try:
        spread.work()
    except Crash:
        # Meanwhile the list has changed: the snapshot has not, once it counts.
        spread.listed = [*reversed(spread.listed)]
        spread.work()
    spread.dying.dies_in = None
    got = spread.enqueued()
    assert set(got) == set(ids(everybody))
    assert sum(got.values()) <= everybody + CHUNK
    assert spread.progress().enqueued == spread.progress().total == everybody


def test_of_two_runs_at_once_the_first_snapshot_counts_for_both(spread: Spread) -> None:
    spread.listed = entries(2 * CHUNK)
    spread.start()

    def meanwhile() -> list[Mapping[str, object]]:
        slow, spread.meanwhile = spread.listed, None
        spread.listed = [*reversed(slow)]
        spread.work(ends_in=1.0)  # the quicker run enqueues a chunk
        return slow

    spread.meanwhile = meanwhile
    spread.work()
    assert spread.enqueued() == dict.fromkeys(ids(2 * CHUNK), 1)


def test_a_stopped_one_enqueues_no_more_and_what_was_enqueued_is_due(spread: Spread) -> None:
    spread.listed = entries(3 * CHUNK)
    spread.start()
    spread.work(ends_in=1.0)
    assert isinstance(spread.broadcaster.order("x", Command.STOP), BroadcastRecord)
    spread.work()
    spread.work()
    progress = spread.progress()
    assert progress.halted
    # The chunk that a killed run may have begun, and no other.
    assert progress.due == progress.enqueued == sum(spread.enqueued().values()) == 2 * CHUNK


def test_an_unknown_bot_fails_and_an_unreachable_provider_is_asked_again(spread: Spread) -> None:
    spread.error = ProviderUnavailableError("http_503")
    spread.start()
    wait = spread.work()
    assert wait is not None
    assert wait > 0
    assert spread.progress().status(START) is Status.PREPARING
    spread.error = ProviderRefusedError("http_404", "no such bot")
    assert spread.work() is None
    failed = spread.progress()
    assert (failed.status(START), failed.reason, failed.detail) == (
        Status.FAILED,
        "http_404",
        "no such bot",
    )


def test_a_provider_out_of_reach_for_the_retry_window_fails_it(spread: Spread) -> None:
    spread.error = ProviderUnavailableError("http_503")
    spread.start()
    spread.relay.world.now += RULES.retry_window + 1
    assert spread.work() is None
    assert spread.progress().reason == "retry_window_ended"


def test_an_empty_list_is_completed(spread: Spread) -> None:
    spread.start()
    assert spread.work() is None
    assert spread.progress().status(START) is Status.COMPLETED


def test_counts_that_a_killed_run_left_short_are_put_right(spread: Spread) -> None:
    spread.listed = entries(10)
    spread.start()
    spread.work()
    now = spread.relay.world.now
    spread.settle(ids(6), State.SENT, at=now)
    spread.settle(ids(10)[6:], State.REJECTED, at=now)
    spread.table.count("x", {State.SENT: 3}, now)  # and the run with the others was killed

    # A run that is still alive may count yet.
    spread.relay.world.now += LONGEST_RUN - 1
    assert spread.work() is not None
    assert spread.progress().finished == 3

    spread.relay.world.now += 60
    spread.work()
    counts = {state: n for state, n in spread.progress().counts.items() if n}
    assert counts == {State.SENT: 6, State.REJECTED: 4}
    assert spread.work() is None
    assert spread.progress().status(now) is Status.COMPLETED


def test_what_was_settled_a_moment_ago_is_left_to_its_run(spread: Spread) -> None:
    spread.listed = entries(2)
    spread.start()
    spread.work()
    spread.relay.world.now += 1000
    spread.settle(ids(2), State.SENT, at=spread.relay.world.now - 1)
    spread.work()
    assert spread.progress().finished == 0


def test_the_same_order_twice_is_one_broadcast_and_another_is_refused(spread: Spread) -> None:
    first, again = spread.start(), spread.start()
    assert isinstance(first, Started)
    assert not first.replayed
    assert isinstance(again, Started)
    assert again.replayed
    assert isinstance(spread.start("Another text"), Reused)


def test_orders_and_what_they_lead_to(spread: Spread) -> None:
    assert spread.broadcaster.order("x", Command.PAUSE) is None
    spread.listed = entries(2)
    spread.start()
    spread.work()
    for order, status in [
        (Command.PAUSE, Status.PAUSED),
        (Command.PAUSE, Status.PAUSED),
        (Command.RUN, Status.RUNNING),
        (Command.RUN, Status.RUNNING),
        (Command.STOP, Status.STOPPED),
        (Command.STOP, Status.STOPPED),
    ]:
        done = spread.broadcaster.order("x", order)
        assert isinstance(done, BroadcastRecord)
        assert done.status(spread.relay.world.now) is status
    assert isinstance(spread.broadcaster.order("x", Command.RUN), InvalidTransition)


def test_time_in_pause_is_kept_and_too_much_of_it_stops(spread: Spread) -> None:
    spread.start()
    world = spread.relay.world
    spread.broadcaster.order("x", Command.PAUSE)
    world.now += 100
    assert spread.progress().pause_so_far(world.now) == pytest.approx(100)
    spread.broadcaster.order("x", Command.RUN)
    world.now += 100
    assert spread.progress().pause_so_far(world.now) == pytest.approx(100)
    spread.broadcaster.order("x", Command.PAUSE)
    world.now += 3 * 86400
    progress = spread.progress()
    assert progress.status(world.now) is Status.STOPPED
    assert progress.why(world.now) == "paused_too_long"
    assert isinstance(spread.broadcaster.order("x", Command.RUN), InvalidTransition)


def test_the_longest_pause_hands_a_message_back_less_than_a_queue_allows(spread: Spread) -> None:
    spread.start()
    spread.broadcaster.order("x", Command.PAUSE)
    progress, world, receive_count = spread.progress(), spread.relay.world, 0
    while progress.status(world.now) is Status.PAUSED:
        world.now += hold_for(progress, world.now)
        receive_count += 1
    assert receive_count < 700


def test_refusals_above_the_share_pause_it_once_and_a_resumption_forgives(spread: Spread) -> None:
    spread.listed = entries(200)
    spread.start()
    spread.work()
    board = Board(spread.table, refusals_percent=50, clock=spread.relay.world.clock)
    board.count("x", {State.REJECTED: 10})
    board.count("x", {State.SENT: 9})
    assert spread.progress().order is Command.RUN, "19 outcomes say nothing yet"
    board.count("x", {State.SENT: 2})
    assert spread.progress().order is Command.RUN, "10 of 21 are fewer than half"
    board.count("x", {State.REJECTED: 1, State.EXPIRED: 50})
    progress = spread.progress()
    assert progress.order is Command.PAUSE
    assert progress.reason == "refusals"
    assert "11 of 22" in progress.detail

    spread.broadcaster.order("x", Command.RUN)
    board.count("x", {State.REJECTED: 19})
    assert spread.progress().order is Command.RUN
    board.count("x", {State.REJECTED: 1})
    assert spread.progress().order is Command.PAUSE


def test_one_that_comes_too_late_is_recorded_and_sent_to_nobody(spread: Spread) -> None:
    broadcast = validate(Broadcast, {"botId": "b-1", "text": "Late"})
    spread.broadcaster.start(ordered(broadcast, "x"), late=True)
    assert spread.orders == []
    progress = spread.progress()
    assert (progress.status(START), progress.reason) == (Status.STOPPED, "late")
