"""A broadcast's version rises with each change of its status, and with nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from relay.broadcasts.model import BroadcastRecord, Recount, failed, paused, resumed, stopped
from relay.messages.states import State
from relay.outcomes.events import status_of
from tests.support.fanned import Fanned

NOW = 1_800_000_000.0
ID = "b-1"


def item(fanned: Fanned) -> dict[str, Any]:
    found: dict[str, Any] = fanned.client.get_item(
        TableName="Relay", Key={"pk": {"S": f"broadcast#{ID}"}}
    )["Item"]
    return found


def seen(fanned: Fanned) -> tuple[int, str, str]:
    """Return the item's version, what its last write changed, and its status."""
    found = item(fanned)
    return int(found["version"]["N"]), found["step"]["S"], status_of(found)


def loaded(fanned: Fanned) -> BroadcastRecord:
    return fanned.table.load([ID])[ID]


def _there(after: BroadcastRecord | None) -> BroadcastRecord:
    assert after
    return after


@pytest.fixture
def begun(fanned: Fanned) -> Fanned:
    fanned.table.create(BroadcastRecord(ID, "bot", "f", NOW, commanded_at=NOW))
    return fanned


def test_each_change_of_status_has_a_version(begun: Fanned) -> None:
    table = begun.table
    assert seen(begun) == (1, "status", "preparing")
    was = loaded(begun)
    listed = replace(was, snapshot="s", started_at=NOW, total=3)
    assert table.commit_snapshot(was, listed)
    assert seen(begun) == (2, "status", "running")
    was = loaded(begun)
    assert table.write_command(was, _there(paused(was, NOW + 1, "requested")))
    assert seen(begun) == (3, "status", "paused")
    was = loaded(begun)
    assert table.write_command(was, _there(resumed(was, NOW + 2)))
    assert seen(begun) == (4, "status", "running")
    assert table.finish(loaded(begun), NOW + 3)
    assert seen(begun) == (5, "status", "completed")


def test_progress_has_none(begun: Fanned) -> None:
    table = begun.table
    assert table.count(ID, {State.SENT: 2}, NOW, writer="w")
    assert table.advance(loaded(begun), 2, halted=False)
    assert table.begin_recount(loaded(begun), NOW)
    assert table.save_recount(loaded(begun), Recount(NOW, 1, {State.SENT: 2}))
    assert seen(begun) == (1, "progress", "preparing")


def test_a_write_that_comes_too_late_has_none(begun: Fanned) -> None:
    was = loaded(begun)
    assert begun.table.write_command(was, _there(stopped(was, NOW + 1)))
    assert not begun.table.write_command(was, failed(was, NOW + 2, "late", ""))
    assert seen(begun) == (2, "status", "stopped")


def test_a_broadcast_of_an_earlier_release_gets_its_first_version(begun: Fanned) -> None:
    old = {name: value for name, value in item(begun).items() if name not in ("version", "step")}
    begun.client.put_item(TableName="Relay", Item=old)
    was = loaded(begun)
    assert begun.table.write_command(was, _there(stopped(was, NOW + 1)))
    assert seen(begun) == (1, "status", "stopped")
