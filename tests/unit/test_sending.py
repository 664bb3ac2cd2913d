"""Deliveries in a small world, scene by scene; the property test plays them at random."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from relay.broadcasts.model import BroadcastRecord
from relay.messages.dispatch import SETTLE_SECONDS
from relay.messages.envelope import OnUnknown, QueuedMessage
from relay.messages.pacing import GRACE, HORIZON, Slots
from relay.messages.results import LAST_RECEIVES
from relay.messages.sender import GROUP
from relay.messages.states import Change, Record, Rules, State, first_record
from relay.messages.store import Unwritten, Written
from relay.validation import parse
from tests.support.world import RUN_SECONDS, START, Relay

RULES = Rules(retry_window=3600.0)


@pytest.fixture
def relay() -> Relay:
    return Relay(RULES, rate=5.0)


def put(relay: Relay, id_: str = "m-1", policy: OnUnknown | None = None) -> QueuedMessage:
    message = QueuedMessage(subscriberId=f"s-{id_}", text=id_, id=id_, onUnknown=policy)
    relay.queues.put(message.to_body())
    return message


def state(relay: Relay, id_: str = "m-1") -> State:
    return relay.store.records[id_].state


def make_visible(relay: Relay) -> None:
    for copy in relay.queues.messages:
        copy.visible_at = relay.world.now


def test_a_dead_letter_counts_on_from_the_record_and_not_from_an_old_copy(relay: Relay) -> None:
    message = put(relay)
    relay.provider.next = ["refuses", "is busy", "refuses"]
    relay.run()
    relay.queues.redrive(relay.queues.dead[0])
    relay.world.now += 1.0
    relay.run()  # the redriven copy: the provider is busy, the message waits
    relay.queues.messages.clear()
    relay.queues.put(message.to_body())  # and an old duplicate of it comes first
    relay.world.now += 60.0
    relay.run()

    [letter] = relay.queues.dead
    assert parse(QueuedMessage, letter.body).generation == 2
    relay.queues.redrive(letter)
    relay.settle_down()
    assert state(relay) is State.SENT


def door_writes_before_the_claim(relay: Relay, *records: Record) -> None:
    """Let records be written after the run has looked for them, and before it claims."""
    load = relay.store.load

    def loaded(ids: Iterable[str]) -> dict[str, Record]:
        found = load(ids)
        for record in records:
            relay.store.put(record)
        return found

    relay.store.load = loaded  # type: ignore[method-assign]


def test_a_record_that_its_door_writes_meanwhile_delays_no_message(relay: Relay) -> None:
    message, other = put(relay), put(relay, "m-2")
    theirs = first_record(message, door="http", accepted_at=START, now=START, rules=RULES)
    door_writes_before_the_claim(relay, theirs)

    relay.run()

    assert state(relay) is state(relay, str(other.id)) is State.SENT
    assert (relay.store.records["m-1"].door, relay.provider.posts["m-1"]) == ("http", 1)
    assert not relay.queues.messages


def test_what_another_run_claims_meanwhile_is_left_to_it(relay: Relay) -> None:
    message = put(relay)
    theirs = first_record(message, door="http", accepted_at=START, now=START, rules=RULES)
    claimed = replace(theirs, state=State.SENDING, attempt="theirs", lease=START + 60, version=2)
    door_writes_before_the_claim(relay, claimed)

    relay.run()

    assert not relay.provider.posts
    assert relay.store.records["m-1"] == claimed
    assert len(relay.queues.messages) == 1


def test_a_fresh_message_is_not_looked_for(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    load = relay.store.load

    def loaded(ids: Iterable[str]) -> dict[str, Record]:
        looked_for.extend(ids := list(ids))
        return load(ids)

    monkeypatch.setattr(relay.store, "load", loaded)
    relay.takes_for_fresh = True
    put(relay)
    relay.run()

    assert (looked_for, state(relay)) == ([], State.SENT)


def test_a_second_delivery_of_a_fresh_message_finds_the_first_one_s_record(relay: Relay) -> None:
    """SQS may deliver a message twice, each time as if it were the first."""
    relay.takes_for_fresh = True
    message = put(relay)
    relay.run()
    relay.queues.put(message.to_body())
    relay.run()
    assert len(relay.queues.messages) == 1, "its first receive has not read the record"
    relay.settle_down()

    assert relay.provider.posts["m-1"] == 1
    assert not relay.queues.dead


def test_a_fresh_message_with_anothers_id_is_refused(relay: Relay) -> None:
    relay.takes_for_fresh = True
    put(relay)
    relay.run()
    other = QueuedMessage(subscriberId="s-2", text="another", id="m-1")
    relay.queues.put(other.to_body())
    relay.settle_down()

    assert [letter.reason for letter in relay.queues.dead] == ["id_reused"]
    assert sum(relay.provider.posts.values()) == 1


def test_an_outcome_that_the_table_refuses_at_first_is_recorded_within_the_run(
    relay: Relay,
) -> None:
    put(relay)

    def meanwhile() -> None:
        relay.world.table_down = True

    def and_back_up(seconds: float) -> None:
        relay.world.table_down = False
        relay.world.sleep(seconds)

    relay.provider.meanwhile = meanwhile
    relay.sender._sleep = and_back_up
    relay.run()

    assert state(relay) is State.SENT


def test_an_outcome_that_the_table_never_takes_is_unknown(relay: Relay) -> None:
    put(relay)

    def meanwhile() -> None:
        relay.world.table_down = True

    relay.provider.meanwhile = meanwhile
    relay.run()
    assert state(relay) is State.SENDING
    relay.settle_down()

    assert state(relay) is State.UNKNOWN
    assert relay.provider.ledger["m-1"] == 1
    assert relay.queues.dead[0].reason == "abandoned"


def test_an_outcome_that_the_table_refuses_holds_up_no_other(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(GROUP + 1):
        put(relay, f"m-{i}")
    apply = relay.store.apply

    def all_but_the_first(changes: Sequence[Change]) -> list[Written]:
        refused = [c.after.id == "m-0" and c.after.state is State.SENT for c in changes]
        taken = iter(apply([c for c, no in zip(changes, refused, strict=True) if not no]))
        return [Unwritten("hot") if no else next(taken) for no in refused]

    monkeypatch.setattr(relay.store, "apply", all_but_the_first)
    relay.run(GROUP + 1)

    assert state(relay, "m-0") is State.SENDING
    assert {state(relay, f"m-{i}") for i in range(1, GROUP + 1)} == {State.SENT}


def test_no_post_starts_that_the_run_could_not_finish(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        put(relay, f"m-{i}")
    began = relay.world.now

    def far_apart(count: int, *, within: float) -> Slots:
        del within
        return Slots(tuple(began + 10.0 * i for i in range(count)), began + 10.0 * count)

    monkeypatch.setattr(relay.pacer, "reserve", far_apart)
    relay.run()

    # The run ends after 60 s, an exchange takes up to 12 s and its record 3 s.
    assert relay.provider.times == [began + 10.0 * i for i in range(5)]
    assert len(relay.queues.messages) == 5
    assert all(record.tries for record in relay.store.records.values())


def test_a_message_that_misses_its_slot_is_not_sent_in_it(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(relay)
    apply = relay.store.apply
    slow = [GRACE + 5.0]

    def slowly(changes: Sequence[Change]) -> list[Written]:
        relay.world.now += slow.pop() if slow and changes else 0.0
        return apply(changes)

    monkeypatch.setattr(relay.store, "apply", slowly)
    relay.run()

    assert relay.provider.times == []
    assert state(relay) is State.QUEUED
    relay.settle_down()
    assert state(relay) is State.SENT


def test_a_429_holds_its_chat_alone(relay: Relay) -> None:
    for i in range(5):
        put(relay, f"m-{i}")
    relay.provider.next = ["asks to slow down"]
    began = relay.world.now

    relay.run()

    assert sum(relay.provider.ledger.values()) == 4
    [copy] = relay.queues.messages
    assert copy.visible_at >= began + 29.0
    relay.settle_down()
    assert sum(relay.provider.ledger.values()) == 5


def test_429s_in_three_chats_stop_the_rest_of_the_batch(relay: Relay) -> None:
    for i in range(6):
        put(relay, f"m-{i}")
    relay.provider.next = ["asks to slow down"] * 3
    began = relay.world.now

    relay.run()

    assert len(relay.provider.times) == 3
    for copy in relay.queues.messages:
        assert copy.visible_at >= began + 29.0
    relay.settle_down()
    assert sum(relay.provider.ledger.values()) == 6


def to_chat(relay: Relay, id_: str) -> None:
    relay.queues.put(QueuedMessage(subscriberId="a", text=id_, id=id_).to_body())


def test_no_other_message_is_sent_into_a_chat_s_hold() -> None:
    relay = Relay(Rules(retry_window=43_200.0), rate=5.0)
    relay.provider.next = ["is in a flood ban"]
    began = relay.world.now
    to_chat(relay, "m-1")
    relay.run()
    to_chat(relay, "m-2")
    relay.sender = relay.new_sender()  # another environment
    put(relay, "m-3")
    relay.run()

    assert relay.provider.posts == {"m-1": 1, "m-3": 1}
    relay.settle_down()
    assert next(at - began for at in relay.provider.times if at > began + 60.0) >= 10_072.0
    assert relay.provider.posts == {"m-1": 2, "m-2": 1, "m-3": 1}


def test_a_hold_that_outlasts_the_message_ends_it_at_its_deadline_without_another_post(
    relay: Relay,
) -> None:
    relay.provider.next = ["is in a flood ban"]
    began = relay.world.now
    put(relay)
    relay.run()
    relay.settle_down()

    record = relay.store.records["m-1"]
    assert (record.state, record.reason) == (State.FAILED, "http_429")
    assert relay.provider.posts["m-1"] == 1
    assert relay.world.now >= began + RULES.retry_window


def test_a_batch_sends_one_message_a_second_to_a_chat(relay: Relay) -> None:
    for i in range(5):
        to_chat(relay, f"m-{i}")
    began = relay.world.now
    relay.run()

    assert len(relay.provider.times) == 1
    assert [c.visible_at - began for c in relay.queues.messages] == pytest.approx(
        [1, 2, 3, 4], abs=0.05
    )
    relay.settle_down()
    assert sum(relay.provider.ledger.values()) == 5


def test_a_failing_provider_is_left_alone_for_a_while(relay: Relay) -> None:
    for i in range(10):
        put(relay, f"m-{i}")
    relay.provider.next = ["cannot be reached"] * 100

    relay.run()
    assert len(relay.provider.times) == 5
    make_visible(relay)
    relay.run()
    assert len(relay.provider.times) == 5, "it is still left alone"
    relay.world.now += 6.0
    make_visible(relay)
    relay.run()

    assert len(relay.provider.times) == 6, "one message tries"
    tries = [record.tries for record in relay.store.records.values()]
    assert sum(tries) == 6, "the others are not blamed"


def test_changed_credentials_are_fetched_once_and_cost_no_attempt(relay: Relay) -> None:
    put(relay, "m-0")
    relay.run()
    relay.provider.password = relay.secret = "another password"
    for i in range(1, 6):
        put(relay, f"m-{i}")
    relay.settle_down()

    assert {r.state for r in relay.store.records.values()} == {State.SENT}
    assert {r.tries for r in relay.store.records.values()} == {1}


def test_refused_credentials_are_not_sent_twice(relay: Relay) -> None:
    put(relay)
    relay.secret = "wrong"
    relay.run()

    assert relay.provider.posts["m-1"] == 1
    assert state(relay) is State.QUEUED
    relay.settle_down()
    assert state(relay) is State.SENT


def test_an_unreadable_secret_costs_no_attempt(relay: Relay) -> None:
    put(relay)
    relay.secret = ""
    relay.run()

    assert not relay.store.records
    relay.settle_down()
    assert relay.store.records["m-1"].tries == 1


def test_resend_records_the_doubt(relay: Relay) -> None:
    put(relay, policy=OnUnknown.RESEND)
    relay.provider.next = ["keeps and times out"]

    relay.run()
    relay.settle_down()

    record = relay.store.records["m-1"]
    assert (record.state, record.ambiguous) == (State.SENT, 1)
    assert relay.provider.ledger["m-1"] == 2


def test_every_message_of_a_batch_may_fail(relay: Relay) -> None:
    for i in range(10):
        put(relay, f"m-{i}")
    relay.provider.next = ["refuses"] * 10
    relay.run()

    assert len(relay.queues.dead) == 10
    assert {r.dead_letter for r in relay.store.records.values()} == {"written"}
    assert not relay.queues.messages


def test_a_late_worker_writes_over_nobody(relay: Relay) -> None:
    put(relay, policy=OnUnknown.RESEND)
    relay.provider.next = ["accepts", "is busy"]

    def meanwhile() -> None:
        """Another run takes the message over, and dies after its POST."""
        relay.world.now += 100.0
        make_visible(relay)
        late, relay.sender = relay.sender, relay.new_sender()
        relay.run_and_crash(after=3)
        relay.sender = late

    relay.provider.meanwhile = meanwhile
    relay.run()

    record = relay.store.records["m-1"]
    assert (record.state, record.attempt) == (State.SENDING, "a2")
    relay.settle_down()
    assert relay.provider.ledger["m-1"] <= 1 + relay.store.records["m-1"].ambiguous


def test_a_second_post_after_refused_credentials_takes_a_slot_of_its_own(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(relay)
    relay.run()  # the first password is known, and good
    put(relay, "m-2")
    relay.world.now += 60.0
    relay.provider.password = relay.secret = "another password"
    taken: list[int] = []
    reserve = relay.pacer.reserve

    def counted(count: int, *, within: float = HORIZON) -> Slots:
        taken.append(count)
        return reserve(count, within=within)

    monkeypatch.setattr(relay.pacer, "reserve", counted)
    relay.run()

    assert state(relay, "m-2") is State.SENT
    assert taken == [1, 1], "two POSTs, two slots"


def after_a_change_of_password(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, second_slot: float, lives: float | None = None
) -> None:
    """Send a message whose POST is refused, and whose second slot comes so much later."""
    put(relay)
    relay.run()  # the first password is known, and good
    relay.world.now += 60.0
    relay.provider.password = relay.secret = "another password"
    relay.provider.times.clear()
    ends = relay.world.now + lives if lives else None
    expires = datetime.fromtimestamp(ends, UTC) if ends else None
    relay.provider.last_moment |= {"m-2": ends} if ends else {}
    message = QueuedMessage(subscriberId="s-1", text="m-2", id="m-2", expiresAt=expires)
    relay.queues.put(message.to_body())
    reserve = relay.pacer.reserve

    def later(count: int, *, within: float = HORIZON) -> Slots:
        if not relay.provider.times:
            return reserve(count, within=within)
        at = relay.world.now + second_slot
        return Slots((at,), at + 1.0)

    monkeypatch.setattr(relay.pacer, "reserve", later)
    relay.run()
    monkeypatch.undo()


def test_a_second_post_that_would_come_too_late_is_not_made(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_a_change_of_password(relay, monkeypatch, second_slot=8.0, lives=5.0)

    assert len(relay.provider.times) == 1
    [attempt] = relay.store.records["m-2"].attempts
    assert attempt.reason == "http_401", "the first one's verdict"
    relay.settle_down()
    assert state(relay, "m-2") is State.FAILED


def test_a_second_post_that_misses_its_slot_is_not_made(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.provider.connecting = [0.0, 0.0, GRACE + 0.1]
    after_a_change_of_password(relay, monkeypatch, second_slot=1.0)

    assert len(relay.provider.times) == 1
    assert state(relay, "m-2") is State.QUEUED
    relay.settle_down()
    assert state(relay, "m-2") is State.SENT


def test_a_second_post_in_time_is_made(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    after_a_change_of_password(relay, monkeypatch, second_slot=1.0, lives=5.0)

    assert len(relay.provider.times) == 2
    assert state(relay, "m-2") is State.SENT


def test_no_credentials_are_renewed_so_late_that_the_outcome_could_not_be_recorded(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.provider.password = "another password"
    put(relay)
    began = relay.world.now
    relay.provider.meanwhile = lambda: relay.world.sleep(11.0)

    def late(count: int, *, within: float) -> Slots:
        del count, within
        return Slots((began + 40.0,), began + 41.0)

    monkeypatch.setattr(relay.pacer, "reserve", late)
    relay.fetch_takes = 9.0
    relay.run()

    assert relay.fetched_at == [began], "51 s after the run began, 9 s before it ends"
    assert relay.world.now <= began + RUN_SECONDS
    assert state(relay) is State.QUEUED

    monkeypatch.undo()
    relay.secret = relay.provider.password
    relay.world.now += 60.0
    make_visible(relay)
    relay.run()
    assert len(relay.fetched_at) == 2, "but by the next run, before it sends"
    assert (state(relay), relay.store.records["m-1"].tries) == (State.SENT, 2)


def test_what_becomes_too_late_while_it_connects_costs_no_attempt(relay: Relay) -> None:
    put(relay)
    relay.provider.connecting = [GRACE + 0.5]
    relay.run()

    assert relay.provider.times == []
    assert (state(relay), relay.store.records["m-1"].tries) == (State.QUEUED, 0)
    relay.settle_down()
    assert state(relay) is State.SENT


def test_outcomes_are_recorded_in_the_order_of_the_batch(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"m-{i}" for i in range(20)]
    for id_ in ids:
        put(relay, id_)
    settled: list[str] = []
    apply = relay.store.apply

    def watched(changes: Sequence[Change]) -> list[Written]:
        settled.extend(c.after.id for c in changes if c.after.state is State.SENT)
        return apply(changes)

    monkeypatch.setattr(relay.store, "apply", watched)
    relay.run()

    assert settled == ids[: len(settled)]
    assert len(settled) > 2


# ------------------------------------------------------------- what a queue keeps, and for how long

DAY = 86400.0
KEPT = 14 * DAY
"""How long a queue keeps a copy, from when it was put there."""


def announced(id_: str = "m-1") -> QueuedMessage:
    return QueuedMessage(subscriberId=f"s-{id_}", text=id_, id=id_, broadcast="b-1")


@pytest.mark.parametrize("later", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_broadcast_stops_asking_for_slots_that_come_after_its_run(later: float) -> None:
    relay = Relay(RULES, rate=1.0)
    relay.broadcasts.items["b-1"] = BroadcastRecord(
        "b-1", "bot", "", START, snapshot="s", total=100
    )
    relay.pacer.reserve(1)
    relay.world.now += later
    last_start = relay.world.now + RUN_SECONDS - 12.0 - SETTLE_SECONDS
    relay.queues.enqueue_broadcast([announced(f"m-{i}") for i in range(100)])

    relay.run(most=100)

    waiting = min(copy.visible_at for copy in relay.queues.messages)
    assert len(relay.provider.times) in (44, 45)
    assert last_start < waiting < last_start + 1.0 + HORIZON


def test_a_message_ends_before_its_queue_forgets_the_copy_that_waited_long() -> None:
    """A broadcast's retry time begins with its turn, which may come after ten days."""
    relay = Relay(Rules(retry_window=7 * DAY))
    began = relay.world.now
    relay.broadcasts.items["b-1"] = BroadcastRecord("b-1", "bot", "", began, snapshot="s", total=1)
    relay.queues.put_own(announced())
    relay.world.now += 10 * DAY
    relay.provider.next = ["is busy"]
    relay.run()

    assert relay.store.records["m-1"].deadline <= began + KEPT - DAY
    assert relay.store.records["m-1"].deadline > began + 11 * DAY


def test_a_redriven_message_ends_before_its_queue_forgets_the_copy_that_waited_long() -> None:
    relay = Relay(Rules(retry_window=7 * DAY))
    put(relay)
    relay.provider.next = ["refuses", "is busy"]
    relay.run()
    relay.queues.redrive(relay.queues.dead[0])
    redriven = relay.world.now
    relay.world.now += 10 * DAY
    relay.run()

    record = relay.store.records["m-1"]
    assert (record.state, record.generation) == (State.QUEUED, 1)
    assert redriven + 11 * DAY < record.deadline <= redriven + KEPT - DAY


def test_an_old_copy_does_not_shorten_the_life_of_a_redriven_message() -> None:
    relay = Relay(Rules(retry_window=7 * DAY))
    old = put(relay)
    relay.provider.next = ["refuses", "is busy", "is busy"]
    relay.run()
    relay.queues.put(old.to_body())
    relay.queues.messages[0].receive_count = LAST_RECEIVES
    [copy] = relay.queues.messages
    copy.visible_at = relay.world.now + 8 * DAY
    relay.world.now += 7 * DAY
    relay.queues.redrive(relay.queues.dead[0])
    relay.run()
    life = relay.store.records["m-1"].deadline
    relay.world.now += 2 * DAY
    relay.queues.messages = [copy]
    relay.run()

    assert (state(relay), relay.store.records["m-1"].deadline) == (State.QUEUED, life)


@pytest.mark.parametrize("policy", OnUnknown)
def test_a_message_that_sqs_is_about_to_give_up_ends_with_a_letter(
    relay: Relay, policy: OnUnknown
) -> None:
    """However it came to that; whether it was sent is told as always."""
    tried, dead = put(relay, "m-tried"), put(relay, "m-dead", policy)
    relay.provider.next = ["is busy"]
    relay.run(1)
    relay.queues.messages.reverse()
    make_visible(relay)
    relay.run_and_crash(4)
    assert (state(relay, "m-tried"), state(relay, "m-dead")) == (State.QUEUED, State.SENDING)
    put(relay, "m-new")
    relay.world.now += 900.0
    for copy in relay.queues.messages:
        copy.receive_count = LAST_RECEIVES
    make_visible(relay)
    posts = relay.provider.posts.total()
    relay.run()

    assert state(relay, "m-dead") is (State.UNKNOWN if policy is OnUnknown.HOLD else State.FAILED)
    assert {id_: relay.store.records[id_].reason for id_ in ("m-tried", "m-dead", "m-new")} == {
        "m-tried": "http_503",
        "m-dead": "abandoned",
        "m-new": "given_up",
    }
    assert relay.provider.posts.total() == posts
    letters = [parse(QueuedMessage, letter.body) for letter in relay.queues.dead]
    assert {letter.id for letter in letters} == {tried.id, dead.id, "m-new"}
    assert {letter.generation for letter in letters} == {1}
    assert not relay.queues.messages
