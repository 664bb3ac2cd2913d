"""A broadcast's way through the table and the queue, whatever kills the run that fans it out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    Cause,
    Command,
    Status,
    first_record_of,
    hold_for,
    paused_too_long,
    queued_broadcast,
)
from relay.broadcasts.service import InvalidTransition, Reused, Started
from relay.broadcasts.table import CHUNK
from relay.messages.envelope import QueuedMessage, rfc3339
from relay.messages.queues import QueueUnavailableError
from relay.messages.sender import Passage
from relay.messages.states import FURTHEST, State
from relay.validation import InvalidMessageError, parse, validate
from smsgold.errors import ProviderRefusedError, ProviderUnavailableError
from tests.support.fanned import LONGEST_RUN, RULES, Fanned, entries, ids, refused
from tests.support.world import START, Crash


def test_duplicates_and_entries_without_an_id_are_skipped_and_counted(fanned: Fanned) -> None:
    fanned.listed = [*entries(3), {"id": "s-1"}, {"name": "x"}, {"id": "y" * 65}, {"id": "s-1"}]
    fanned.start()
    fanned.run()
    progress = fanned.progress()
    assert progress.total == 3
    assert +Counter(progress.skipped) == {Cause.DUPLICATES: 2, Cause.WITHOUT_ID: 2}
    assert fanned.enqueued() == dict.fromkeys(ids(3), 1)


def test_a_run_stops_before_its_time_ends_and_the_next_goes_on(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK + 1)
    fanned.start()
    assert fanned.run(ends_in=5.0) == 0.0
    assert fanned.progress().enqueued == CHUNK
    assert fanned.run(ends_in=5.0) == 0.0
    assert fanned.run(ends_in=5.0) != 0.0
    assert fanned.enqueued() == dict.fromkeys(ids(2 * CHUNK + 1), 1)


@pytest.mark.parametrize("step", range(0, 34, 3))
def test_a_killed_run_loses_nobody_and_repeats_one_chunk_at_most(fanned: Fanned, step: int) -> None:
    everybody = 2 * CHUNK + 10
    fanned.listed = entries(everybody)
    fanned.start()
    fanned.faulty.dies_in = step
    try:
        fanned.run()
    except Crash:
        # Meanwhile the list has changed: the snapshot has not, once it counts.
        fanned.listed = [*reversed(fanned.listed)]
        fanned.run()
    fanned.faulty.dies_in = None
    got = fanned.enqueued()
    assert set(got) == set(ids(everybody))
    assert sum(got.values()) <= everybody + CHUNK
    assert fanned.progress().enqueued == fanned.progress().total == everybody


def test_of_two_runs_at_once_the_first_snapshot_counts_for_both(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start()

    def meanwhile() -> list[Mapping[str, object]]:
        slow, fanned.meanwhile = fanned.listed, None
        fanned.listed = [*reversed(slow)]
        fanned.run(ends_in=5.0)  # the quicker run enqueues a chunk
        return slow

    fanned.meanwhile = meanwhile
    fanned.run()
    assert fanned.enqueued() == dict.fromkeys(ids(2 * CHUNK), 1)


def test_a_stopped_one_enqueues_no_more_and_what_was_enqueued_is_due(fanned: Fanned) -> None:
    fanned.listed = entries(3 * CHUNK)
    fanned.start()
    fanned.run(ends_in=5.0)
    assert isinstance(fanned.broadcasts.command("x", Command.STOP), BroadcastRecord)
    fanned.run()
    fanned.run()
    progress = fanned.progress()
    assert progress.halted
    # The chunk that a killed run may have begun, and no other.
    assert progress.due == progress.enqueued == sum(fanned.enqueued().values()) == 2 * CHUNK


@pytest.fixture
def narrow(fanned: Fanned, monkeypatch: pytest.MonkeyPatch) -> Fanned:
    """A broadcast to five chunks, of which two may be on the queue at a time."""
    monkeypatch.setattr("relay.broadcasts.fanout.WINDOW", 2 * CHUNK)
    fanned.listed = entries(5 * CHUNK)
    fanned.start()
    return fanned


def test_no_more_is_put_on_the_queue_than_a_pause_may_hold(narrow: Fanned) -> None:
    assert narrow.run() == pytest.approx(CHUNK / 25), "until half of it is sent"
    assert narrow.progress().enqueued == 2 * CHUNK
    narrow.gate().count("x", {State.SENT: CHUNK - 1})
    assert narrow.run() is not None
    assert narrow.progress().enqueued == 2 * CHUNK
    narrow.gate().count("x", {State.REJECTED: 1})
    assert narrow.run() is not None
    assert narrow.progress().enqueued == 3 * CHUNK


def test_runs_that_died_before_they_counted_do_not_hold_the_rest_back(narrow: Fanned) -> None:
    narrow.run()
    narrow.settle(ids(CHUNK), State.SENT, at=narrow.relay.world.now)
    narrow.relay.world.now += LONGEST_RUN
    narrow.run()
    assert narrow.progress().enqueued == 2 * CHUNK, "they may still count"
    narrow.relay.world.now += 16
    narrow.run()
    assert narrow.progress().enqueued == 3 * CHUNK


def test_a_paused_one_puts_nothing_on_the_queue_until_it_is_resumed(narrow: Fanned) -> None:
    narrow.broadcasts.command("x", Command.PAUSE)
    assert narrow.run() == 10.0
    assert narrow.progress().total == 5 * CHUNK, "who gets it is known"
    narrow.relay.world.now += 400
    assert narrow.run() == pytest.approx(100.0)
    assert narrow.enqueued() == {}
    narrow.broadcasts.command("x", Command.RUN)
    narrow.run()
    assert narrow.progress().enqueued == 2 * CHUNK


def test_a_stop_does_not_wait_for_room(narrow: Fanned) -> None:
    narrow.run()
    narrow.broadcasts.command("x", Command.STOP)
    narrow.run()
    assert (narrow.progress().halted, narrow.progress().due) == (True, 3 * CHUNK)


def test_an_unknown_bot_fails_and_an_unreachable_provider_is_asked_again(fanned: Fanned) -> None:
    fanned.error = ProviderUnavailableError("http_503")
    fanned.start()
    wait = fanned.run()
    assert wait is not None
    assert wait > 0
    assert fanned.progress().status is Status.PREPARING
    fanned.error = ProviderRefusedError("http_404", "no such bot")
    assert fanned.run() is None
    failed = fanned.progress()
    assert (failed.status, failed.reason, failed.detail) == (
        Status.FAILED,
        "http_404",
        "no such bot",
    )


def test_a_provider_out_of_reach_for_the_retry_window_fails_it(fanned: Fanned) -> None:
    fanned.error = ProviderUnavailableError("http_503")
    fanned.start()
    fanned.relay.world.now += RULES.retry_window + 1
    assert fanned.run() is None
    assert fanned.progress().reason == "retry_window_ended"


def test_an_empty_list_is_completed(fanned: Fanned) -> None:
    fanned.start()
    assert fanned.run() is None
    assert fanned.progress().status is Status.COMPLETED


def test_the_same_order_twice_is_one_broadcast_and_another_is_refused(fanned: Fanned) -> None:
    first, again = fanned.start(), fanned.start()
    assert isinstance(first, Started)
    assert not first.replayed
    assert isinstance(again, Started)
    assert again.replayed
    assert isinstance(fanned.start("Another text"), Reused)
    assert len(fanned.queued) == 2, "what is refused is not put on the queue"


def test_what_a_repeat_was_told_is_accepted_is_sent_whatever_the_first_call_meets(
    fanned: Fanned,
) -> None:
    fanned.listed = entries(2)

    def hangs(body: str) -> None:
        fanned.relay.queues.enqueue_notifier = fanned.queued.append  # type: ignore[method-assign, assignment]
        assert isinstance(fanned.start(), Started)
        refused(body)

    fanned.relay.queues.enqueue_notifier = hangs  # type: ignore[method-assign]
    with pytest.raises(QueueUnavailableError):
        fanned.start()
    fanned.run()
    assert fanned.enqueued() == dict.fromkeys(ids(2), 1)


@pytest.mark.parametrize("step", range(4))
def test_a_call_that_dies_leaves_the_key_to_the_next_or_is_sent(fanned: Fanned, step: int) -> None:
    fanned.listed = entries(2)
    fanned.faulty.dies_in = step
    with pytest.raises(Crash):
        fanned.start("To all")
    fanned.faulty.dies_in = None
    again = fanned.start("Another text")
    for order in range(len(fanned.queued)):
        fanned.run(order=order)
    texts = {parse(QueuedMessage, copy.body).text for copy in fanned.relay.queues.messages}
    # Refused as another's key only if the other is sent.
    assert texts == {"Another text" if isinstance(again, Started) else "To all"}


def test_an_order_that_lies_on_the_queue_without_a_record_is_sent(fanned: Fanned) -> None:
    fanned.listed = entries(2)
    fanned.faulty.dies_in = 2  # it is on the queue by then
    with pytest.raises(Crash):
        fanned.start()
    fanned.run()
    assert fanned.enqueued() == dict.fromkeys(ids(2), 1)
    again = fanned.start()
    assert isinstance(again, Started)
    assert again.replayed


def test_an_order_is_not_dropped_if_fingerprints_are_made_anew_meanwhile(
    fanned: Fanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanned.listed = entries(2)
    fanned.start()
    monkeypatch.setattr("relay.messages.envelope.FINGERPRINTS", "9:")
    fanned.run()
    assert fanned.enqueued() == dict.fromkeys(ids(2), 1)


def test_a_record_that_vanishes_under_the_fan_out_is_made_again(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start()
    put = fanned.relay.queues.enqueue_broadcast

    def vanishes(messages: Sequence[QueuedMessage], _: Sequence[int]) -> list[str | None]:
        fanned.relay.queues.enqueue_broadcast = put  # type: ignore[method-assign]
        fanned.client.delete_item(TableName="Relay", Key={"pk": {"S": "broadcast#x"}})
        return put(messages)

    fanned.relay.queues.enqueue_broadcast = vanishes  # type: ignore[method-assign, assignment]
    assert fanned.run() is not None
    fanned.run()
    assert set(fanned.enqueued()) == set(ids(2 * CHUNK))


def test_a_record_that_version_0_1_0_left_without_an_order_gets_one_from_a_repeat(
    fanned: Fanned,
) -> None:
    broadcast = queued_broadcast(validate(Broadcast, {"botId": "b-1", "text": "To all"}), "x")
    fanned.table.create(first_record_of(broadcast, START))
    assert isinstance(fanned.start(), Started)
    assert len(fanned.queued) == 1


def test_a_firing_that_died_in_time_is_not_sent_when_its_retry_is_too_late(fanned: Fanned) -> None:
    fanned.listed = entries(2)
    fanned.faulty.dies_in = 2
    with pytest.raises(Crash):
        fanned.start()
    fanned.start(late=True)
    assert fanned.run() is None
    assert fanned.enqueued() == {}


def test_a_pause_between_listing_and_failing_does_not_lose_it(fanned: Fanned) -> None:
    fanned.start()

    def meanwhile() -> list[Mapping[str, object]]:
        fanned.meanwhile = None
        fanned.broadcasts.command("x", Command.PAUSE)
        raise ProviderRefusedError("http_404", "no such bot")

    fanned.meanwhile = meanwhile
    assert fanned.run() is not None
    fanned.error = ProviderRefusedError("http_404", "no such bot")
    assert fanned.run() is None
    assert fanned.progress().command is Command.FAIL


def test_a_run_that_cannot_list_does_not_fail_what_another_has_listed(fanned: Fanned) -> None:
    fanned.start()

    def meanwhile() -> list[Mapping[str, object]]:
        fanned.meanwhile = None
        fanned.listed = entries(2)
        fanned.run()
        raise ProviderRefusedError("http_404", "no such bot")

    fanned.meanwhile = meanwhile
    fanned.run()
    assert fanned.progress().command is Command.RUN
    assert set(fanned.enqueued()) == set(ids(2))


def test_what_two_runs_enqueue_around_a_stop_is_due(fanned: Fanned) -> None:
    fanned.listed = entries(3 * CHUNK)
    fanned.start()
    put, advance = fanned.relay.queues.enqueue_broadcast, fanned.table.advance

    def killed_after(messages: Sequence[QueuedMessage], _: Sequence[int]) -> list[str | None]:
        put(messages)
        raise Crash("here")

    def overtaken(broadcast: BroadcastRecord, enqueued: int, **rest: Any) -> bool:
        """Another copy of the order goes further, and is killed before it can say so."""
        fanned.table.advance = advance  # type: ignore[method-assign]
        moved = advance(broadcast, enqueued, **rest)
        fanned.relay.queues.enqueue_broadcast = killed_after  # type: ignore[method-assign, assignment]
        with pytest.raises(Crash):
            fanned.run()
        fanned.relay.queues.enqueue_broadcast = put  # type: ignore[method-assign]
        fanned.broadcasts.command("x", Command.STOP)
        return moved

    fanned.table.advance = overtaken  # type: ignore[method-assign]
    fanned.run()
    assert fanned.progress().halted
    assert len(fanned.enqueued()) == fanned.progress().due == 2 * CHUNK


def test_orders_and_what_they_lead_to(fanned: Fanned) -> None:
    assert fanned.broadcasts.command("x", Command.PAUSE) is None
    fanned.listed = entries(2)
    fanned.start()
    fanned.run()
    for order, status in [
        (Command.PAUSE, Status.PAUSED),
        (Command.PAUSE, Status.PAUSED),
        (Command.RUN, Status.RUNNING),
        (Command.RUN, Status.RUNNING),
        (Command.STOP, Status.STOPPED),
        (Command.STOP, Status.STOPPED),
    ]:
        done = fanned.broadcasts.command("x", order)
        assert isinstance(done, BroadcastRecord)
        assert done.status is status
    assert isinstance(fanned.broadcasts.command("x", Command.RUN), InvalidTransition)


def test_time_in_pause_is_kept_and_too_much_of_it_stops(fanned: Fanned) -> None:
    fanned.start()
    world = fanned.relay.world
    fanned.broadcasts.command("x", Command.PAUSE)
    world.now += 100
    assert fanned.progress().pause_so_far(world.now) == pytest.approx(100)
    fanned.broadcasts.command("x", Command.RUN)
    world.now += 100
    assert fanned.progress().pause_so_far(world.now) == pytest.approx(100)
    fanned.broadcasts.command("x", Command.PAUSE)
    world.now += 3 * 86400
    refused = fanned.broadcasts.command("x", Command.RUN)
    assert isinstance(refused, InvalidTransition)
    assert refused.broadcast.status is Status.STOPPED
    assert fanned.progress().why == "paused_too_long"
    assert fanned.progress().pause_so_far(world.now) == pytest.approx(3 * 86400 + 100)


@pytest.mark.parametrize("met_by", ["the fan-out", "a run of the sender"])
def test_what_was_stopped_for_too_long_a_pause_stays_stopped_to_the_last_message(
    fanned: Fanned, met_by: str
) -> None:
    fanned.listed = entries(2)
    fanned.start()
    fanned.run()
    fanned.broadcasts.command("x", Command.PAUSE)
    fanned.relay.world.now += 3 * 86400 + 1
    gate = fanned.gate()
    if met_by == "the fan-out":
        fanned.run()
    assert gate.check(["x"])["x"].passage is Passage.CANCEL
    assert (fanned.progress().status, fanned.progress().why) == (Status.STOPPED, "paused_too_long")
    gate.count("x", {State.CANCELED: 2})
    assert fanned.progress().status is Status.STOPPED


def test_the_longest_pause_hands_a_message_back_less_than_a_queue_allows(fanned: Fanned) -> None:
    fanned.start()
    fanned.broadcasts.command("x", Command.PAUSE)
    progress, world, receive_count = fanned.progress(), fanned.relay.world, 0
    while not paused_too_long(progress, world.now):
        world.now += hold_for(progress, world.now)
        receive_count += 1
    assert receive_count < 700


def test_refusals_above_the_share_pause_it_once_and_a_resumption_forgives(fanned: Fanned) -> None:
    fanned.listed = entries(200)
    fanned.start()
    fanned.run()
    board = fanned.gate()
    board.count("x", {State.REJECTED: 10})
    board.count("x", {State.SENT: 9})
    assert fanned.progress().command is Command.RUN, "19 outcomes say nothing yet"
    board.count("x", {State.SENT: 2})
    assert fanned.progress().command is Command.RUN, "10 of 21 are fewer than half"
    board.count("x", {State.REJECTED: 1, State.EXPIRED: 50})
    progress = fanned.progress()
    assert progress.command is Command.PAUSE
    assert progress.reason == "refusals"
    assert "11 of 22" in progress.detail

    fanned.broadcasts.command("x", Command.RUN)
    board.count("x", {State.REJECTED: 19})
    assert fanned.progress().command is Command.RUN
    board.count("x", {State.REJECTED: 1})
    assert fanned.progress().command is Command.PAUSE


def test_one_that_comes_too_late_is_recorded_and_sent_to_nobody(fanned: Fanned) -> None:
    fanned.start(late=True)
    assert fanned.queued == []
    progress = fanned.progress()
    assert (progress.status, progress.reason) == (Status.STOPPED, "late")


# ----------------------------------------------------------------------------- sendAt, between

DAYTIME = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}
EVENING = START + 10 * 3600  # 21:00 in Moscow
MORNING = EVENING + 12 * 3600


def test_a_broadcast_for_later_lists_nobody_before_its_time(fanned: Fanned) -> None:
    fanned.listed = entries(3)
    fanned.start(sendAt=rfc3339(START + 86400))
    assert fanned.run() == 86400
    assert fanned.progress().status is Status.PREPARING
    fanned.relay.world.now += 86400
    fanned.listed = entries(5)
    assert fanned.run() is not None
    assert fanned.enqueued() == dict.fromkeys(ids(5), 1), "who subscribes then"


def test_a_broadcast_for_later_can_be_stopped_before_its_time(fanned: Fanned) -> None:
    fanned.listed = entries(3)
    fanned.start(sendAt=rfc3339(START + 86400))
    fanned.run()
    fanned.broadcasts.command("x", Command.STOP)
    assert fanned.run() is None
    fanned.relay.world.now += 86400
    assert fanned.run() is None
    assert not fanned.enqueued()


def test_a_broadcast_too_far_ahead_is_refused_but_its_repeat_is_a_repeat(fanned: Fanned) -> None:
    with pytest.raises(InvalidMessageError, match="sendAt: must be at most 12 days ahead"):
        fanned.start(sendAt=rfc3339(START + FURTHEST + 1))
    assert not fanned.queued
    assert not fanned.table.load(["x"])
    fanned.start(sendAt=rfc3339(START + FURTHEST))
    fanned.relay.world.now -= 10.0  # by another machine's clock
    assert fanned.start(sendAt=rfc3339(START + FURTHEST)) == Started(fanned.progress(), True)


def test_the_time_to_list_the_subscribers_begins_when_they_are_to_be_listed(
    fanned: Fanned,
) -> None:
    fanned.error = ProviderUnavailableError("is down")
    fanned.start(sendAt=rfc3339(START + 86400))
    fanned.relay.world.now += 86400 + RULES.retry_window - 1.0
    assert fanned.run() is not None
    assert fanned.progress().status is Status.PREPARING
    fanned.relay.world.now += 1.0
    assert fanned.run() is None
    assert fanned.progress().status is Status.FAILED


def test_a_broadcast_at_night_waits_for_the_morning_with_one_order(fanned: Fanned) -> None:
    fanned.listed = entries(3)
    fanned.relay.world.now = EVENING
    fanned.start(between=DAYTIME)
    assert fanned.run() == MORNING - EVENING
    assert not fanned.enqueued()
    fanned.relay.world.now = MORNING
    fanned.run()
    assert fanned.enqueued() == dict.fromkeys(ids(3), 1)


def test_when_the_hours_end_it_stops_and_goes_on_in_the_morning(fanned: Fanned) -> None:
    everybody = 5 * CHUNK
    fanned.listed = entries(everybody)
    rate = fanned.broadcasts.rate
    fanned.relay.world.now = EVENING - 2.5 * CHUNK / rate
    fanned.start(between=DAYTIME)
    fanned.run()
    assert sum(fanned.enqueued().values()) == 2 * CHUNK, "no more than go until the evening"
    fanned.gate().count("x", {State.SENT: 2 * CHUNK})
    fanned.relay.world.now = EVENING
    assert fanned.run() == MORNING - EVENING
    assert fanned.progress().enqueued == 2 * CHUNK
    fanned.relay.world.now = MORNING
    assert fanned.run() is not None
    assert fanned.enqueued() == dict.fromkeys(ids(everybody), 1)


def test_hours_that_are_shorter_than_a_chunk_takes_still_get_one(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start(between={"from": "11:00", "to": "11:01", "timezone": "Europe/Moscow"})
    fanned.relay.world.now = START + 50.0
    fanned.run()
    assert fanned.progress().enqueued == CHUNK


def test_a_broadcast_s_messages_carry_its_hours(fanned: Fanned) -> None:
    fanned.listed = entries(1)
    fanned.start(between=DAYTIME)
    fanned.run()
    [copy] = fanned.relay.queues.messages
    between = parse(QueuedMessage, copy.body).between
    assert between
    assert between.model_dump() == DAYTIME
