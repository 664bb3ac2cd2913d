"""Broadcasts that version 0.1.0 accepted, by the items and bodies that its own code wrote."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from relay.broadcasts.model import BroadcastRecord, Command, Status
from relay.broadcasts.service import InvalidTransition, Reused, Started
from relay.http.broadcasts import BroadcastState
from relay.messages.states import State
from tests.support.fanned import LONGEST_RUN, Fanned, entries, ids

SETTLED = LONGEST_RUN + 15.0
BODY = '{"text":"To all","botId":"b-1","id":"x"}'
ACCEPTED: Mapping[str, Mapping[str, Any]] = {
    "pk": {"S": "broadcast#x"},
    "botId": {"S": "b-1"},
    "fingerprint": {"S": "541f42ad0d2944a2e2323e6d00cfe8399f080da02e7bbab2fcfb48a3f5495e98"},
    "order": {"S": "run"},
    "reason": {"S": ""},
    "detail": {"S": ""},
    "reference": {"S": ""},
    "createdAt": {"N": "1800000000.000"},
    "orderedAt": {"N": "1800000000.000"},
    "startedAt": {"N": "0.000"},
    "pausedFor": {"N": "0.000"},
    "countedAt": {"N": "0.000"},
    "total": {"N": "0"},
    "duplicates": {"N": "0"},
    "withoutId": {"N": "0"},
    "enqueued": {"N": "0"},
    "writes": {"N": "0"},
    "judgedOutcomes": {"N": "0"},
    "judgedRefusals": {"N": "0"},
    "canceled": {"N": "0"},
    "expired": {"N": "0"},
    "failed": {"N": "0"},
    "rejected": {"N": "0"},
    "sent": {"N": "0"},
    "unknown": {"N": "0"},
    "halted": {"BOOL": False},
    "ttl": {"N": "1803024000"},
}
QUEUED = {
    **ACCEPTED,
    "startedAt": {"N": "1800000001.000"},
    "total": {"N": "10"},
    "duplicates": {"N": "1"},
    "enqueued": {"N": "10"},
    "snapshot": {"S": "s1"},
}
CHUNK_0 = {
    "pk": {"S": "broadcast#x#s1#0"},
    "ids": {"S": json.dumps(ids(10))},
    "ttl": {"N": "1803024001"},
}


def counted(sent: int, **others: int) -> dict[str, Mapping[str, Any]]:
    """Return the item after 0.1.0 has added to its counts, which it did in one ADD."""
    numbers = {"writes": 1, "sent": sent, **others}
    return {
        **QUEUED,
        "countedAt": {"N": "1800000003.000"},
        **{name: {"N": str(number)} for name, number in numbers.items()},
    }


def write(fanned: Fanned, item: Mapping[str, Any]) -> None:
    for written in (item, CHUNK_0):
        fanned.client.put_item(TableName="Relay", Item=written)
    fanned.queued.append(BODY)
    fanned.relay.world.now += 5


def shown(fanned: Fanned) -> BroadcastState:
    return BroadcastState.of(fanned.progress(), 25.0)


def settle(fanned: Fanned, state: State) -> None:
    fanned.settle(ids(10), state, at=fanned.relay.world.now)


def test_one_that_was_only_accepted_goes_on(fanned: Fanned) -> None:
    write(fanned, ACCEPTED)
    fanned.listed = entries(10)
    assert (shown(fanned).status, shown(fanned).total) == (Status.PREPARING, 0)
    assert fanned.run() is not None
    assert fanned.enqueued() == dict.fromkeys(ids(10), 1)
    again = fanned.start()
    assert isinstance(again, Started)
    assert again.replayed
    assert isinstance(fanned.start("Another text"), Reused)


def test_one_under_way_is_counted_to_its_end(fanned: Fanned) -> None:
    write(fanned, QUEUED)
    assert fanned.run() is not None
    fanned.gate().count("x", {State.SENT: 4})
    assert (shown(fanned).sent, shown(fanned).queued, shown(fanned).finished_at) == (4, 6, None)
    settle(fanned, State.SENT)
    fanned.relay.world.now += SETTLED + 1
    assert fanned.run() is None
    assert fanned.counts() == {State.SENT: 10}
    assert fanned.progress().final


def test_a_count_that_it_left_below_zero_is_not_shown(fanned: Fanned) -> None:
    write(fanned, counted(3, rejected=-1))
    state = shown(fanned)
    assert (state.sent, state.rejected, state.queued) == (3, 0, 7)
    fanned.gate().count("x", {State.REJECTED: 1})
    assert fanned.counts() == {State.SENT: 3}


@pytest.mark.parametrize("item", [ACCEPTED, QUEUED, counted(3)])
def test_one_obeys_every_command(fanned: Fanned, item: Mapping[str, Any]) -> None:
    write(fanned, item)
    fanned.listed = entries(10)
    for command in (Command.PAUSE, Command.RUN, Command.STOP):
        assert isinstance(fanned.broadcasts.command("x", command), BroadcastRecord)
    assert isinstance(fanned.broadcasts.command("x", Command.RUN), InvalidTransition)
    settle(fanned, State.CANCELED)
    fanned.relay.world.now += SETTLED + 1
    assert fanned.run() is None
    assert fanned.progress().status is Status.STOPPED
    assert shown(fanned).canceled == shown(fanned).total


@pytest.mark.parametrize("order", ["pause", "stop", "fail"])
def test_one_that_it_paused_stopped_or_failed_stays_so(fanned: Fanned, order: str) -> None:
    item = ACCEPTED if order == "fail" else counted(3)
    write(fanned, {**item, "order": {"S": order}, "reason": {"S": "requested"}})
    settle(fanned, State.SENT)
    expected = {"pause": Status.PAUSED, "stop": Status.STOPPED, "fail": Status.FAILED}[order]
    assert shown(fanned).status is expected
    fanned.run()
    assert (shown(fanned).status, shown(fanned).reason) == (expected, "requested")
    answer = fanned.broadcasts.command("x", Command.RUN)
    assert isinstance(answer, BroadcastRecord if order == "pause" else InvalidTransition)


def test_one_is_complete_by_its_counts(fanned: Fanned) -> None:
    write(fanned, counted(9))
    settle(fanned, State.SENT)
    assert fanned.progress().status is Status.RUNNING
    fanned.gate().count("x", {State.SENT: 1})
    progress = fanned.progress()
    assert (progress.status, progress.final) == (Status.COMPLETED, True)
    assert progress.finished_at == progress.counted_at
    assert isinstance(fanned.broadcasts.command("x", Command.STOP), InvalidTransition)
    asked_at = fanned.relay.world.now
    fanned.gate().reopen("x", {State.SENT: 1})
    fanned.settle(["s-0"], State.FAILED, at=asked_at)
    fanned.relay.world.now += SETTLED + 1
    assert fanned.recount(asked_at=asked_at) is None
    assert fanned.counts() == {State.SENT: 9, State.FAILED: 1}
    assert fanned.progress().status is Status.COMPLETED
