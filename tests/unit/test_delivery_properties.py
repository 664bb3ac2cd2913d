"""Whatever happens in whatever order, the relay keeps its promises.

A state machine of doors, faults, crashes, duplicates, redrives and jumps of the clock runs over
the real intake, decisions and sender. `make mutants` breaks the code in the ways these checks
must find.
"""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from relay.broadcasts.model import BroadcastRecord, Command, paused, resumed, stopped
from relay.messages.envelope import OnUnknown, QueuedMessage
from relay.messages.intake import Accepted, Answer
from relay.messages.pacing import GRACE
from relay.messages.queues import DeadLetterEntry
from relay.messages.states import EARLY, REDRIVABLE, TERMINAL, Record, Rules, State, cancel, tally
from relay.messages.store import from_item, to_item
from relay.validation import parse
from tests.support.world import ANSWERS, Crash, Relay

RULES = Rules(retry_window=3600.0)
RATE = 2.0
CHATS = 5
"""Messages go to so many chats in turn."""

NO_MESSAGE = ("invalid", "id_reused", "not_sealed")
FEW_ANSWERS = st.lists(st.sampled_from(sorted(ANSWERS)), max_size=6)
TROUBLES = [
    # One that lasts keeps all the others from being met.
    *["none"] * 4,
    "the table is down",
    "the queues are down",
    "the password changes",
    "the password changes unheard",
    "the secret is wrong",
    "the secret is unreadable",
]
BROADCASTS = ("b-1", "b-2")
POLICIES = st.sampled_from([None, OnUnknown.HOLD, OnUnknown.RESEND])


class Promises(RuleBasedStateMachine):
    """No lost message, no surprise duplicate."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(RULES, rate=RATE)
        self.relay.provider.in_a_slot = self.relay.pacer.use
        self.relay.provider.may_go = lambda id_, at: self.bodies[id_].may_go_at(at) == at
        self.accepted: set[str] = set()
        self.bodies: dict[str, QueuedMessage] = {}
        self.resends: set[str] = set()
        self.redriven: defaultdict[str, set[int]] = defaultdict(set)
        """The generations of the dead letters that were moved back."""
        self.junk: Counter[str] = Counter()
        self.impostors: set[str] = set()
        self.forged: set[str] = set()
        """The ids of forged messages of a broadcast, or of the relay's own making."""
        self.crashes = 0
        self.relay.broadcasts.items = {
            id_: BroadcastRecord(
                id_, "bot", "", self.relay.world.now, snapshot="s", total=1_000_000
            )
            for id_ in BROADCASTS
        }
        self.held: dict[str, Counter[str]] = {}
        """The POSTs there had been when a broadcast was paused or stopped."""

    # ------------------------------------------------------------------------------- doors

    def _message(
        self,
        policy: OnUnknown | None,
        lives: float | None,
        broadcast: str = "",
        **waits: Any,
    ) -> QueuedMessage:
        id_ = f"m{len(self.bodies)}"
        expires = datetime.fromtimestamp(self.relay.world.now + lives, UTC) if lives else None
        message = QueuedMessage(
            subscriberId=f"s-{len(self.bodies) % CHATS}",
            text=id_,
            id=id_,
            onUnknown=policy,
            expiresAt=expires,
            broadcast=broadcast,
            **waits,
        )
        self.bodies[id_] = message
        if expires:
            # The table keeps it to the millisecond.
            self.relay.provider.last_moment[id_] = round(expires.timestamp(), 3)
        if policy is OnUnknown.RESEND:
            self.resends.add(id_)
        return message

    @rule(
        target=ids,
        policy=POLICIES,
        lives=st.sampled_from([None, None, 20.0, 7200.0]),
        crash_after=st.sampled_from([None, None, 0, 1, 2, 3]),
    )
    def accept(self, policy: OnUnknown | None, lives: float | None, crash_after: int | None) -> str:
        message = self._message(policy, lives)
        self._accept(message, crash_after)
        return str(message.id)

    @rule(
        target=ids,
        policy=POLICIES,
        send_in=st.sampled_from([None, 40.0, 7200.0]),
        opens_and_closes_in=st.sampled_from([None, (1800, 1740), (-3600, 300)]),
        door=st.sampled_from(["http", "queue", "line"]),
    )
    def hand_in_for_later(
        self,
        policy: OnUnknown | None,
        send_in: float | None,
        opens_and_closes_in: tuple[int, int] | None,
        door: str,
    ) -> str:
        waits: dict[str, Any] = {}
        now = self.relay.world.now
        if send_in:
            waits["sendAt"] = datetime.fromtimestamp(now + send_in, UTC)
        if opens_and_closes_in:
            clocks = [datetime.fromtimestamp(now + s, UTC) for s in opens_and_closes_in]
            opens, closes = (f"{clock:%H:%M}" for clock in clocks)
            waits["between"] = {"from": opens, "to": closes, "timezone": "UTC"}
        message = self._message(policy, None, **waits)
        if door == "http":
            self._accept(message, None)
        else:
            self.relay.queues.put_own(message, line=message.chat if door == "line" else "")
            self.accepted.add(str(message.id))
        return str(message.id)

    @rule(id_=ids, crash_after=st.sampled_from([None, None, 0, 1, 2, 3]))
    def accept_again(self, id_: str, crash_after: int | None) -> None:
        self._accept(self.bodies[id_], crash_after)

    def _accept(self, message: QueuedMessage, crash_after: int | None) -> None:
        self.relay.world.crash_in = crash_after
        try:
            if isinstance(self.relay.accept(message), Accepted):
                self.accepted.add(str(message.id))
        except Crash:
            self.crashes += 1
        self.relay.world.crash_in = None

    @rule(
        target=ids,
        policy=POLICIES,
        lives=st.sampled_from([None, None, 20.0]),
        patience=st.sampled_from([1.0, 10.0, 20.0]),
        after=st.sampled_from([None, None, *range(14)]),
    )
    def accept_and_wait(
        self, policy: OnUnknown | None, lives: float | None, patience: float, after: int | None
    ) -> str:
        message = self._message(policy, lives)
        self._accept_and_wait(message, patience, after)
        return str(message.id)

    @rule(
        id_=ids,
        patience=st.sampled_from([1.0, 20.0]),
        after=st.sampled_from([None, None, *range(14)]),
    )
    def accept_again_and_wait(self, id_: str, patience: float, after: int | None) -> None:
        self._accept_and_wait(self.bodies[id_], patience, after)

    def _accept_and_wait(self, message: QueuedMessage, patience: float, after: int | None) -> None:
        assert message.id
        self.relay.queues.past_the_line.add(message.id)

        def call() -> Answer:
            return self.relay.service.accept_and_wait(message, seconds=patience, time_left=28.0)

        began = self.relay.world.now
        answer = call() if after is None else self.relay.crash(call, after)
        assert self.relay.world.now <= began + 28.0, "waited longer than a function may run"
        if isinstance(answer, Accepted):
            self.accepted.add(message.id)
            answered = from_item(to_item(answer.record))
            assert answered == self.relay.store.records[message.id], "an outdated answer"
        elif answer is None:
            self.crashes += 1

    @rule(id_=ids)
    def resolve(self, id_: str) -> None:
        """Somebody looks at the subscriber's phone and says what he sees."""
        if self.relay.world.table_down:
            return
        record = self.relay.store.records.get(id_)
        found: Literal[State.SENT, State.FAILED] = (
            State.SENT if self.relay.provider.ledger[id_] else State.FAILED
        )
        resolved = self.relay.service.resolve(id_, found)
        if record and record.state is State.UNKNOWN:
            assert isinstance(resolved, Record)
            assert resolved.state is found

    @rule(target=ids, policy=POLICIES)
    def put_on_the_queue(self, policy: OnUnknown | None) -> str:
        message = self._message(policy, None)
        assert message.id
        self.relay.queues.put(message.to_body())
        self.accepted.add(message.id)
        return message.id

    @rule(target=ids, policy=POLICIES, broadcast=st.sampled_from(BROADCASTS))
    def announce(self, policy: OnUnknown | None, broadcast: str) -> str:
        message = self._message(policy, None, broadcast)
        assert message.id
        self.relay.queues.enqueue_broadcast([message])
        self.accepted |= {message.id} if not self.relay.world.queue_down else set()
        return message.id

    @rule(broadcast=st.sampled_from(BROADCASTS), order=st.sampled_from(Command))
    def steer(self, broadcast: str, order: Command) -> None:
        items, now = self.relay.broadcasts.items, self.relay.world.now
        match order:
            case Command.PAUSE:
                after = paused(items[broadcast], now, "requested")
            case Command.RUN:
                after = resumed(items[broadcast], now)
            case _:
                after = stopped(items[broadcast], now)
        if after:
            items[broadcast] = after
            self.held.pop(broadcast, None)
            if order is not Command.RUN:
                self.held[broadcast] = Counter(self.relay.provider.posts)

    @rule(id_=ids)
    def duplicate(self, id_: str) -> None:
        self.relay.queues.put_own(self.bodies[id_])
        self.accepted.add(id_)

    @rule(id_=ids)
    def cancel(self, id_: str) -> None:
        record = self.relay.store.records.get(id_)
        if record and (change := cancel(record, self.relay.world.now)):
            self.relay.store.apply([change])
            if record.broadcast and not self.relay.world.table_down:
                self.relay.broadcasts.count(record.broadcast, tally(change))

    @rule(id_=ids, junk=st.sampled_from(["", "not JSON", '{"subscriberId": "s-1", "txet": ""}']))
    def put_what_is_no_message_on_the_queue(self, id_: str, junk: str) -> None:
        record = self.relay.store.records.get(id_)
        if junk:
            self.relay.queues.put(junk)
            self.junk[junk] += 1
        elif record:
            other = self.bodies[id_].model_copy(update={"text": f"another {id_}"})
            self.relay.queues.put(other.to_body())
            self.impostors.add(id_)

    @rule(id_=ids, generation=st.sampled_from([1, 2, 1_000_000]))
    def forge_a_redrive(self, id_: str, generation: int) -> None:
        forged = self.bodies[id_].model_copy(update={"generation": generation})
        self.relay.queues.put(forged.to_body())

    @rule(id_=st.sampled_from(["f1", "k-f1"]), broadcast=st.sampled_from(["", *BROADCASTS]))
    def forge_a_message(self, id_: str, broadcast: str) -> None:
        if not broadcast and id_ == "f1":
            return
        forged = QueuedMessage(subscriberId="s-1", text=id_, id=id_, broadcast=broadcast)
        self.relay.queues.put(forged.to_body())
        self.forged.add(id_)

    @invariant()
    def what_nobody_sealed_is_not_believed(self) -> None:
        assert not self.forged & set(self.relay.store.records)

    @precondition(lambda self: self.relay.queues.dead)
    @rule(pick=st.integers(0, 1000))
    def redrive(self, pick: int) -> None:
        self._redrive(self.relay.queues.dead[pick % len(self.relay.queues.dead)])

    def _redrive(self, dead: DeadLetterEntry) -> None:
        if dead.reason not in NO_MESSAGE:
            message = parse(QueuedMessage, dead.body)
            self.redriven[str(message.id)].add(message.generation)
        self.relay.queues.redrive(dead)

    # ---------------------------------------------------------------------------- what happens

    def _prepare(self, answers: list[str]) -> None:
        """Let the provider answer like this, and time pass until there is something to send."""
        self.relay.provider.next += answers
        if copies := self.relay.queues.messages:
            self.relay.world.now = max(self.relay.world.now, min(c.visible_at for c in copies))

    @rule(answers=FEW_ANSWERS, most=st.integers(1, 10))
    def run(self, answers: list[str], most: int) -> None:
        self._prepare(answers)
        self.relay.run(most)

    @rule(
        answers=FEW_ANSWERS,
        connecting=st.lists(st.sampled_from([0.0, 0.3, 25.0]), max_size=2),
        fetching=st.sampled_from([0.0, 8.0]),
    )
    def run_while_all_takes_long(
        self, answers: list[str], connecting: list[float], fetching: float
    ) -> None:
        """Much time passes between a message's slot and its first byte."""
        self._prepare(answers)
        self.relay.provider.connecting += connecting
        self.relay.fetch_takes = fetching
        self.relay.run()
        self.relay.provider.connecting.clear()
        self.relay.fetch_takes = 0.0

    @rule(answer=st.sampled_from(sorted(ANSWERS)), times=st.integers(6, 15))
    def run_while_the_provider_keeps_at_it(self, answer: str, times: int) -> None:
        self._prepare([answer] * times)
        self.relay.run()

    @rule(answers=FEW_ANSWERS, after=st.integers(0, 12))
    def run_and_crash(self, answers: list[str], after: int) -> None:
        self.crashes += 1
        self._prepare(answers)
        self.relay.run_and_crash(after)

    @rule(answers=FEW_ANSWERS)
    def run_while_the_table_goes_down(self, answers: list[str]) -> None:
        self._prepare(answers)

        def meanwhile() -> None:
            self.relay.world.table_down = True

        self.relay.provider.meanwhile = meanwhile
        self.relay.run()
        self.relay.provider.meanwhile = None

    @rule(
        answers=FEW_ANSWERS,
        jump=st.sampled_from([1.0, 100.0, 500.0]),
        crash_after=st.sampled_from([None, None, 0, 1, 2, 3, 4]),
    )
    def run_and_stall(self, answers: list[str], jump: float, crash_after: int | None) -> None:
        """A worker stalls in the middle of its POST, and others go on meanwhile."""
        self._prepare(answers)

        def meanwhile() -> None:
            self.relay.world.now += jump
            owned = {
                id_: record
                for id_, record in self.relay.store.records.items()
                if record.state is State.SENDING and record.lease > self.relay.world.now + 30.0
            }
            for copy in self.relay.queues.messages:
                copy.visible_at = min(copy.visible_at, self.relay.world.now)
            stalled, self.relay.sender = self.relay.sender, self.relay.new_sender()
            if crash_after is None:
                self.relay.run()
            else:
                self.crashes += 1
                self.relay.run_and_crash(crash_after)
            self.relay.sender = stalled
            for id_, record in owned.items():
                assert self.relay.store.records[id_] == record, "taken from its owner"
            # It holds slots from before, and hears of a wish for quiet by its next answer.
            self.relay.provider.forget()

        self.relay.provider.meanwhile = meanwhile
        self.relay.run()
        self.relay.provider.meanwhile = None

    @rule(seconds=st.sampled_from([1.0, 10.0, 80.0, 400.0, 2000.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.relay.world.now += seconds

    @rule(whether=st.booleans())
    def runs_take_first_receives_for_fresh(self, whether: bool) -> None:
        """They read no record then, whatever there is."""
        self.relay.takes_for_fresh = whether

    @rule(trouble=st.sampled_from(TROUBLES))
    def trouble(self, trouble: str) -> None:
        world, provider = self.relay.world, self.relay.provider
        world.table_down = trouble == "the table is down"
        world.queue_down = trouble == "the queues are down"
        if "password changes" in trouble:
            provider.password += "!"
        self.relay.secret = provider.password
        if trouble == "the secret is unreadable":
            self.relay.secret = ""
        elif trouble == "the secret is wrong":
            self.relay.secret = "wrong"
        elif trouble == "the password changes unheard":
            self.relay.secret = provider.password.removesuffix("!")

    # ------------------------------------------------------------------------------- promises

    @invariant()
    def what_is_paused_or_stopped_is_not_sent(self) -> None:
        for broadcast, posts in self.held.items():
            for id_, message in self.bodies.items():
                # A redrive is an order of its own.
                if message.broadcast == broadcast and not self.redriven[id_]:
                    assert self.relay.provider.posts[id_] == posts[id_], f"{id_} was sent"

    @invariant()
    def no_surprise_duplicate(self) -> None:
        for id_, times in self.relay.provider.ledger.items():
            allowed = 1 + len(self.redriven[id_])
            if id_ in self.resends:
                record = self.relay.store.records[id_]
                # An attempt under way has not been recorded yet.
                allowed += record.ambiguous + (record.state is State.SENDING)
            assert times <= allowed, f"{id_} was sent {times} times, {allowed} allowed"

    @invariant()
    def the_record_tells_what_happened(self) -> None:
        for id_, record in self.relay.store.records.items():
            in_ledger = self.relay.provider.ledger[id_]
            if record.state is State.SENT:
                assert in_ledger >= 1, f"{id_} is sent, but the provider does not have it"
            if record.state in (State.EXPIRED, State.CANCELED):
                assert in_ledger == 0, f"{id_} is {record.state}, but the provider has it"
            if record.state is State.REJECTED:
                assert id_ in self.relay.provider.refused, f"{id_} was rejected by nobody"
                assert in_ledger <= len(self.redriven[id_]) + record.ambiguous
            if record.state in TERMINAL - {State.SENT}:
                assert record.reason, f"{id_} is {record.state} without a reason"
            made = [a for a in record.attempts if a.reason != "abandoned"]
            assert len(made) <= self.relay.provider.posts[id_], f"{id_} counts what was no attempt"
            assert record.tries >= len(record.attempts)

    @invariant()
    def a_terminal_state_changes_only_by_redrive(self) -> None:
        for id_, steps in self.relay.store.history.items():
            for was, now in pairwise(steps):
                if was.state not in TERMINAL or was.state == now.state:
                    continue
                assert was.state in REDRIVABLE, f"{id_} went from {was.state} to {now.state}"
                if was.state is State.UNKNOWN and len(now.history) > len(was.history):
                    event = now.history[-1]
                    if event.what == f"resolved as {now.state}":
                        continue
                assert now.generation > was.generation
                assert self.redriven[id_], f"{id_} started again without a redrive"
                assert any(event.what == "redriven" for event in now.history)

    @invariant()
    def no_second_copy_brings_a_retry_forward(self) -> None:
        for id_, record in self.relay.store.records.items():
            if self.redriven[id_]:
                continue
            made = [a for a in record.attempts if a.reason != "abandoned"]
            for was, now in pairwise(made):
                if was.at + RULES.backoff_min + 2.0 < record.deadline:
                    assert now.at - was.at >= RULES.backoff_min - EARLY, f"{id_} did not wait"

    @invariant()
    def every_dead_letter_has_its_reason(self) -> None:
        for dead in self.relay.queues.dead:
            assert dead.reason
            if dead.reason not in NO_MESSAGE:
                message = parse(QueuedMessage, dead.body)
                assert message.generation >= 1, "a redrive of this would do nothing"

    @invariant()
    def no_flood(self) -> None:
        times = self.relay.provider.times[-100:]
        most = int(RATE * (1 + GRACE)) + 1
        for first, at in zip(times, times[most:], strict=False):
            assert at - first >= 1.0, f"more than {most} POSTs within a second, at {at}"

    @invariant()
    def an_id_belongs_to_one_message(self) -> None:
        for id_ in self.impostors:
            assert not self.relay.provider.posts[f"another {id_}"]

    def teardown(self) -> None:
        """Once nothing goes wrong any more, every message ends, in exactly one state."""
        for order in (Command.PAUSE, Command.RUN):
            for broadcast in BROADCASTS:
                self.steer(broadcast, order)
            self.relay.run()
            self.what_is_paused_or_stopped_is_not_sent()
        self.relay.settle_down()
        self.the_counts_are_right()
        for id_ in self.accepted:
            record = self.relay.store.records[id_]
            assert record.state in TERMINAL, f"{id_} is lost: {record.state}"
        letters = self.relay.queues.dead
        dead = {parse(QueuedMessage, d.body).id for d in letters if d.reason not in NO_MESSAGE}
        for id_, record in self.relay.store.records.items():
            if record.state in REDRIVABLE:
                assert id_ in dead, f"{id_} is {record.state}, but no dead letter"
            elif id_ in dead:
                # Only a crash or a full queue between burial and record leaves a copy behind, or
                # a person who resolves what was unknown.
                resolved = any(event.what == "resolved as sent" for event in record.history)
                assert self.redriven[id_] or resolved, f"{id_} is {record.state} and a dead letter"
        for body, times in self.junk.items():
            assert sum(d.body == body for d in letters) >= times, "junk got lost"
        # A redrive of what is dead sends each once more, whatever it meets then.
        before = dict(self.relay.provider.served)
        sleeping = {i for i, r in self.relay.store.records.items() if r.state in REDRIVABLE}
        for letter in list(letters):
            self._redrive(letter)
        self.relay.settle_down()
        for id_ in sleeping:
            record = self.relay.store.records[id_]
            expired = record.expires_at is not None and record.expires_at <= self.relay.world.now
            if not expired:
                assert self.relay.provider.served[id_] == before.get(id_, 0) + 1, "redrive ignored"
                assert record.state is State.SENT
        self.no_surprise_duplicate()
        self.the_record_tells_what_happened()
        self.a_terminal_state_changes_only_by_redrive()
        self.the_counts_are_right()

    @invariant()
    def live_counts_never_run_ahead(self) -> None:
        for broadcast, item in self.relay.broadcasts.items.items():
            states = self._states(broadcast)
            ahead = {s: n for s, n in item.counts.items() if n > states[s]}
            assert not ahead, f"{broadcast} counts {ahead} of {states}"

    def the_counts_are_right(self) -> None:
        """Compare a broadcast's counts, a redriven message's moves among them, with the records."""
        if self.crashes or not self.relay.broadcasts.exact:
            return
        for broadcast, item in self.relay.broadcasts.items.items():
            assert Counter(item.counts) == self._states(broadcast), f"{broadcast}: {item.counts}"

    def _states(self, broadcast: str) -> Counter[State]:
        records = self.relay.store.records.values()
        return Counter(r.state for r in records if r.broadcast == broadcast)


Promises.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPromises = Promises.TestCase
