"""A broadcast's counts: live ones that never run ahead, final ones that the records decide."""

import gc
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from relay.broadcasts.model import (
    BroadcastRecord,
    Command,
    Recount,
    Status,
    message_id,
    too_many_refusals,
)
from relay.broadcasts.recounts import Turn
from relay.broadcasts.service import InvalidTransition
from relay.broadcasts.table import CHUNK, Listed
from relay.http.broadcasts import BroadcastState
from relay.messages.envelope import QueuedMessage
from relay.messages.states import DeadLetter, Record, State
from relay.messages.store import StoreUnavailableError
from tests.support.fanned import LONGEST_RUN, Fanned, entries, ids, refused
from tests.support.world import START, Crash

SETTLED = LONGEST_RUN + 15.0
"""Seconds after which a run has counted, or has died."""


@pytest.fixture
def running(fanned: Fanned) -> Fanned:
    """A broadcast to ten, all on the queue."""
    fanned.listed = entries(10)
    fanned.start()
    fanned.run()
    return fanned


def settle(fanned: Fanned, some: Iterable[str], state: State) -> None:
    fanned.settle(list(some), state, at=fanned.relay.world.now)


def test_it_is_completed_as_soon_as_all_are_counted(running: Fanned) -> None:
    settle(running, ids(10), State.SENT)
    running.gate().count("x", {State.SENT: 9})
    assert running.run() is not None
    running.gate().count("x", {State.SENT: 1})
    assert running.progress().status is Status.RUNNING
    running.relay.world.now += 5
    assert running.run() is None
    progress = running.progress()
    assert (progress.status, progress.finished_at) == (Status.COMPLETED, running.relay.world.now)
    assert running.run() is None


def test_counts_that_a_killed_run_left_short_are_made_from_the_records(running: Fanned) -> None:
    settle(running, ids(6), State.SENT)
    settle(running, ids(10)[6:], State.REJECTED)
    running.gate().count("x", {State.SENT: 3})  # and the run with the others was killed

    # It may still count.
    running.relay.world.now += SETTLED - 1
    assert running.run() is not None
    assert running.counts() == {State.SENT: 3}

    running.relay.world.now += 2
    assert running.run() is None
    assert running.counts() == {State.SENT: 6, State.REJECTED: 4}
    assert running.progress().status is Status.COMPLETED


def test_a_run_that_counts_after_all_adds_nothing_to_final_counts(running: Fanned) -> None:
    settle(running, ids(10), State.SENT)
    running.relay.world.now += SETTLED + 1
    assert running.run() is None
    running.gate().count("x", {State.SENT: 10})
    assert running.counts() == {State.SENT: 10}


def test_one_message_that_has_not_ended_keeps_it_from_being_completed(running: Fanned) -> None:
    settle(running, ids(9), State.SENT)
    running.relay.world.now += SETTLED + 1
    assert running.run() is not None
    assert running.progress().recount == Recount()
    at = running.relay.world.now
    record = Record(message_id("x", "s-9"), State.QUEUED, "f", "sqs", at, at, at)
    running.relay.store.put(record)
    assert running.run() is not None
    assert running.progress().status is Status.RUNNING


@pytest.mark.parametrize("other", [0, 1, 2])
def test_a_count_whose_answer_was_lost_counts_once(fanned: Fanned, other: int) -> None:
    """Alone, or with so many other runs between the write and its repetition."""
    fanned.listed = entries(150)
    fanned.start()
    fanned.run()
    settle(fanned, ids(100), State.SENT)
    fanned.gate().count("x", {State.SENT: 50})

    def meanwhile() -> None:
        for _ in range(other):
            fanned.gate().count("x", {State.SENT: 10})

    fanned.faulty.meanwhile = meanwhile
    fanned.gate().count("x", {State.SENT: 50 - other * 10})
    assert fanned.counts() == {State.SENT: 100}
    fanned.run()
    assert fanned.progress().status is Status.RUNNING
    assert isinstance(fanned.broadcasts.command("x", Command.STOP), BroadcastRecord)


def test_counts_of_two_runs_at_once_are_both_added(running: Fanned) -> None:
    load = running.table.load

    def overtaken(wanted: Iterable[str]) -> dict[str, BroadcastRecord]:
        running.table.load = load  # type: ignore[method-assign]
        found = load(wanted)
        running.gate().count("x", {State.SENT: 3})
        return found

    running.table.load = overtaken  # type: ignore[method-assign, assignment]
    running.gate().count("x", {State.SENT: 2})
    assert running.counts() == {State.SENT: 5}


def test_nothing_to_count_is_no_write(running: Fanned) -> None:
    before = running.progress()
    running.gate().count("x", {State.REJECTED: 0})
    assert running.progress() == before


def test_a_count_that_the_table_refuses_is_left_to_the_recount(running: Fanned) -> None:
    settle(running, ids(10), State.SENT)

    def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("down")

    gate = running.gate()
    count, running.table.count = running.table.count, fails  # type: ignore[method-assign]
    gate.count("x", {State.SENT: 10})
    running.table.count = count  # type: ignore[method-assign]
    running.relay.world.now += SETTLED + 1
    assert running.run() is None
    assert running.counts() == {State.SENT: 10}


def test_a_stop_that_comes_before_the_last_count_stays(running: Fanned) -> None:
    settle(running, ids(8), State.SENT)
    running.gate().count("x", {State.SENT: 8})
    running.broadcasts.command("x", Command.STOP)
    settle(running, ids(10)[8:], State.CANCELED)
    running.gate().count("x", {State.CANCELED: 2})
    assert running.run() is None
    progress = running.progress()
    assert (progress.status, progress.final) == (Status.STOPPED, True)
    assert running.counts() == {State.SENT: 8, State.CANCELED: 2}


def test_what_has_ended_obeys_no_command_decided_before(running: Fanned) -> None:
    load = running.table.load

    def overtaken(wanted: Iterable[str]) -> dict[str, BroadcastRecord]:
        running.table.load = load  # type: ignore[method-assign]
        found = load(wanted)
        settle(running, ids(10), State.SENT)
        running.gate().count("x", {State.SENT: 10})
        assert running.run() is None
        return found

    running.table.load = overtaken  # type: ignore[method-assign, assignment]
    assert isinstance(running.broadcasts.command("x", Command.STOP), InvalidTransition)
    assert running.progress().status is Status.COMPLETED


# ---------------------------------------------------------------------------- redrives


def completed(fanned: Fanned) -> None:
    """Complete it: nine are sent, one is rejected."""
    settle(fanned, ids(9), State.SENT)
    settle(fanned, ["s-9"], State.REJECTED)
    fanned.gate().count("x", {State.SENT: 9, State.REJECTED: 1})
    assert fanned.run() is None
    assert fanned.progress().status is Status.COMPLETED


def redriven(fanned: Fanned) -> QueuedMessage:
    """Move the dead letter of the one that was rejected back; return what lies on the queue."""
    relay, key = fanned.relay, message_id("x", "s-9")
    message = QueuedMessage(subscriberId="s-9", text="t", id=key, broadcast="x", generation=1)
    known = relay.store.records[key]
    relay.store.put(replace(known, fingerprint=message.fingerprint, dead_letter=DeadLetter.WRITTEN))
    relay.broadcasts = fanned.gate()  # type: ignore[assignment]
    relay.sender = relay.new_sender()
    relay.queues.messages.clear()
    relay.queues.put(message.to_body())
    return message


def test_a_redrive_after_the_end_is_counted_anew_once_it_has_ended(running: Fanned) -> None:
    completed(running)
    world = running.relay.world
    asked_at = world.now
    running.gate().reopen("x", {State.REJECTED: 1})
    assert running.recount(asked_at=asked_at) == SETTLED, "before, it may not have begun"
    world.now += SETTLED
    settle(running, ["s-9"], State.SENDING)
    assert running.recount(asked_at=asked_at) is not None
    assert running.progress().status is Status.COMPLETED, "what has ended stays ended"
    settle(running, ["s-9"], State.SENT)
    assert running.recount(asked_at=asked_at) is None
    assert running.counts() == {State.SENT: 10}
    assert running.progress().final


def test_a_run_killed_in_a_redrive_after_the_end_is_counted_too(running: Fanned) -> None:
    """It reopens the broadcast, sends, records, and dies before it counts."""
    completed(running)
    relay, message = running.relay, redriven(running)
    asked_at = relay.world.now

    def killed(*_: Any) -> None:
        raise Crash("before it counts")

    relay.broadcasts.count = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(Crash):
        relay.run()
    assert relay.store.records[str(message.id)].state is State.SENT
    relay.world.now += SETTLED + 1
    assert running.recount(asked_at=asked_at) is None
    assert running.counts() == {State.SENT: 10}


def test_a_redrive_waits_until_its_broadcast_can_be_told(running: Fanned) -> None:
    completed(running)
    relay, message = running.relay, redriven(running)
    relay.queues.enqueue_notifier = refused  # type: ignore[method-assign, assignment]
    relay.run()
    assert relay.store.records[str(message.id)].state is State.REJECTED
    assert not relay.provider.posts
    relay.queues.enqueue_notifier = running.queued.append  # type: ignore[method-assign, assignment]
    relay.settle_down()
    assert relay.store.records[str(message.id)].state is State.SENT


def test_a_redrive_before_the_end_moves_the_counts_before_it_moves_the_message(
    running: Fanned,
) -> None:
    settle(running, ids(5), State.REJECTED)
    gate = running.gate()
    gate.count("x", {State.REJECTED: 5})
    gate.reopen("x", {State.REJECTED: 2})
    assert running.counts() == {State.REJECTED: 3}
    running.faulty.meanwhile = lambda: running.gate().count("x", {State.SENT: 1})
    gate.reopen("x", {State.REJECTED: 1})
    # Nobody can say whether the answer that was lost was a yes: then less rather than more.
    assert running.counts() == {State.SENT: 1, State.REJECTED: 1}


def test_what_is_taken_back_before_it_was_counted_is_owed_and_never_shown(
    running: Fanned,
) -> None:
    """A run settles a message, another reopens it, and only then does the first one count it."""
    gate = running.gate()
    gate.count("x", {State.SENT: 4})
    gate.reopen("x", {State.REJECTED: 1})
    progress = running.progress()
    assert progress.finished == 3, "never ahead"
    state = BroadcastState.of(progress, 25.0)
    assert (state.total, state.queued, state.sent, state.rejected) == (10, 6, 4, 0)
    gate.count("x", {State.REJECTED: 1})
    gate.count("x", {State.SENT: 1})
    assert running.counts() == {State.SENT: 5}


def test_a_debt_that_nobody_pays_is_gone_with_the_final_counts(running: Fanned) -> None:
    running.gate().reopen("x", {State.REJECTED: 1})  # and the run that settled it was killed
    running.gate().count("x", {State.SENT: 10})
    settle(running, ids(10), State.SENT)
    running.relay.world.now += SETTLED + 1
    assert running.run() is None
    assert running.counts() == {State.SENT: 10}


def test_a_debt_is_no_refusal(running: Fanned) -> None:
    running.gate().reopen("x", {State.REJECTED: 2})
    running.broadcasts.command("x", Command.PAUSE)
    running.broadcasts.command("x", Command.RUN)
    running.gate().count("x", {State.REJECTED: 2})
    running.gate().count("x", {State.SENT: 19, State.REJECTED: 1})
    progress = running.progress()
    assert too_many_refusals(progress, 5) == "1 of 20 messages were refused; the limit is 5 %"


def test_of_many_recounts_that_are_asked_for_the_last_one_is_made(running: Fanned) -> None:
    completed(running)
    world = running.relay.world
    first = world.now
    running.gate().reopen("x", {State.REJECTED: 1})
    last = world.now = first + 10
    running.gate().reopen("x", {State.REJECTED: 1})
    world.now += SETTLED
    settle(running, ["s-9"], State.SENDING)
    assert running.recount(asked_at=first) is not None
    assert running.recount(asked_at=last) is not None
    assert running.recount(asked_at=first) is None, "left to the later one"
    settle(running, ["s-9"], State.FAILED)
    assert running.recount(asked_at=last) is None
    assert running.counts() == {State.SENT: 9, State.FAILED: 1}
    assert running.recount(asked_at=last) is None, "another copy of the order"


def test_a_recount_under_way_starts_again_when_another_redrive_comes(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start()
    fanned.run()
    settle(fanned, ids(CHUNK), State.REJECTED)
    world = fanned.relay.world
    world.now += SETTLED + 1
    assert fanned.run() is not None
    assert fanned.progress().recount.chunks == 1
    asked_at = world.now
    fanned.gate().reopen("x", {State.REJECTED: 1})
    settle(fanned, ["s-0"], State.SENT)
    settle(fanned, ids(2 * CHUNK)[CHUNK:], State.SENT)
    world.now += SETTLED + 1
    assert fanned.recount(asked_at=asked_at) is None, "it is counted at its end"
    assert fanned.run() is None
    assert fanned.counts() == {State.SENT: CHUNK + 1, State.REJECTED: CHUNK - 1}


def test_a_recount_of_a_broadcast_that_is_not_there_is_dropped(fanned: Fanned) -> None:
    assert fanned.recounts.again("x", Turn(START + 60), asked_at=START - 1000) is None
    fanned.gate().reopen("x", {State.REJECTED: 1})
    assert fanned.queued == []


def test_a_recount_of_a_broadcast_whose_snapshot_is_gone_is_dropped(fanned: Fanned) -> None:
    """Somebody asked for his data to be deleted, or 35 days are over."""
    fanned.listed = [{"id": "s-0"}]
    fanned.start(text="{{ id }}", template=True)
    fanned.run()
    fanned.settle(["s-0"], State.REJECTED, at=START)
    fanned.relay.world.now += SETTLED + 1
    assert fanned.run() is None
    fanned.gate().reopen("x", {State.REJECTED: 1})
    for found in fanned.s3.list_objects_v2(Bucket="stack")["Contents"]:
        fanned.s3.delete_object(Bucket="stack", Key=found["Key"])
    asked_at = fanned.relay.world.now
    fanned.relay.world.now += SETTLED + 1
    assert fanned.recount(asked_at=asked_at), "it may only be out of reach"
    fanned.relay.world.now += 86400
    assert fanned.recount(asked_at=asked_at) is None
    assert fanned.counts() == {State.REJECTED: 1}


# ------------------------------------------------------------------- many, and older ones


class Counted:
    """A store in which every message is sent; it knows how many records are held at once."""

    def __init__(self, fanned: Fanned, seconds: float) -> None:
        self._world = fanned.relay.world
        self._seconds = seconds
        self._held: weakref.WeakSet[Any] = weakref.WeakSet()
        self.calls = self.most_held = 0

    def load(self, wanted: Iterable[str]) -> dict[str, Any]:
        self._world.now += self._seconds
        self.calls += 1
        found = {id_: Slotted(State.SENT) for id_ in wanted}
        for record in found.values():
            self._held.add(record)
        self.most_held = max(self.most_held, len(self._held))
        return found

    def apply(self, changes: Any) -> Any:
        raise NotImplementedError


class Slotted:
    """As much of a record as a recount looks at."""

    def __init__(self, state: State) -> None:
        self.state = state


def test_300_000_messages_are_counted_in_as_many_runs_as_it_takes(fanned: Fanned) -> None:
    everybody = 300_000
    fanned.listed = [{"id": "s"}]
    fanned.start()
    fanned.run()
    listed = [Listed((f"s-{n}",)) for n in range(CHUNK)]
    fanned.table.chunk = lambda *_: listed  # type: ignore[method-assign]
    for name in ("total", "enqueued"):
        fanned.client.update_item(
            TableName="Relay",
            Key={"pk": {"S": "broadcast#x"}},
            UpdateExpression="SET #name = :n",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":n": {"N": str(everybody)}},
        )
    store = Counted(fanned, seconds=0.25)
    fanned.recounts._store = store
    fanned.relay.world.now += SETTLED + 1
    runs = 1
    gc.disable()
    while fanned.run() is not None:
        runs += 1
    gc.enable()
    assert fanned.counts() == {State.SENT: everybody}
    assert store.calls == everybody // CHUNK, "each record is read once"
    assert store.most_held <= 2 * CHUNK
    # A run keeps to its time: 45 of its 60 seconds, at a quarter of a second for a chunk.
    assert runs == -(-everybody // CHUNK // 180)
