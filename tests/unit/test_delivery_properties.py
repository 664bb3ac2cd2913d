"""Whatever happens in whatever order, the relay keeps its promises.

A state machine of doors, faults, crashes, duplicates, redrives and jumps of the clock runs over
the real intake, decisions and courier. `make mutants` breaks the code in the ways these checks
must find.
"""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from relay.intake import Accepted
from relay.message import OnUnknown, QueuedMessage, parse
from relay.states import REDRIVABLE, TERMINAL, Rules, State, cancel

from tests.support.world import ANSWERS, RUN_SECONDS, Crash, Relay

RULES = Rules(retry_window=3600.0, lease=RUN_SECONDS + 15)
POLICIES = st.sampled_from([None, OnUnknown.HOLD, OnUnknown.RESEND])


class Promises(RuleBasedStateMachine):
    """No lost message, no surprise duplicate."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(RULES)
        self.accepted: set[str] = set()
        self.bodies: dict[str, QueuedMessage] = {}
        self.resends: set[str] = set()
        self.redriven: Counter[str] = Counter()
        self.crashes = 0

    # ------------------------------------------------------------------------------- doors

    def _message(self, policy: OnUnknown | None, lives: float | None) -> QueuedMessage:
        id_ = f"m{len(self.bodies)}"
        expires = datetime.fromtimestamp(self.relay.world.now + lives, UTC) if lives else None
        message = QueuedMessage(
            subscriberId="s-1", text=id_, id=id_, onUnknown=policy, expiresAt=expires
        )
        self.bodies[id_] = message
        if policy is OnUnknown.RESEND:
            self.resends.add(id_)
        return message

    @rule(target=ids, policy=POLICIES, lives=st.sampled_from([None, None, 20.0, 7200.0]))
    def accept(self, policy: OnUnknown | None, lives: float | None) -> str:
        message = self._message(policy, lives)
        self._accept(message)
        return str(message.id)

    @rule(id_=ids)
    def accept_again(self, id_: str) -> None:
        self._accept(self.bodies[id_])

    def _accept(self, message: QueuedMessage) -> None:
        assert message.id
        try:
            answer = self.relay.accept(message)
        except Exception:  # noqa: BLE001  the caller hears an error, whatever it is
            return
        if isinstance(answer, Accepted):
            self.accepted.add(message.id)

    @rule(target=ids, policy=POLICIES)
    def put_on_the_queue(self, policy: OnUnknown | None) -> str:
        message = self._message(policy, None)
        assert message.id
        self.relay.queues.put(message.to_body())
        self.accepted.add(message.id)
        return message.id

    @rule(id_=ids)
    def duplicate(self, id_: str) -> None:
        self.relay.queues.put(self.bodies[id_].to_body())
        self.accepted.add(id_)

    @rule(id_=ids)
    def cancel(self, id_: str) -> None:
        record = self.relay.store.records.get(id_)
        if record and (change := cancel(record, self.relay.world.now)):
            self.relay.store.records[id_] = change.after or record

    @precondition(lambda self: self.relay.queues.dead)
    @rule(pick=st.integers(0, 1000))
    def redrive(self, pick: int) -> None:
        dead = self.relay.queues.dead[pick % len(self.relay.queues.dead)]
        message = parse(QueuedMessage, dead.body)
        assert message.id
        self.redriven[message.id] += 1
        self.relay.queues.redrive(dead)

    # ---------------------------------------------------------------------------- what happens

    @rule(answers=st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=6))
    def provider_will(self, answers: list[str]) -> None:
        self.relay.provider.next += answers

    @rule(answer=st.sampled_from(sorted(ANSWERS)), times=st.integers(6, 15))
    def provider_keeps_at_it(self, answer: str, times: int) -> None:
        self.relay.provider.next += [answer] * times

    @rule(most=st.integers(1, 10))
    def run(self, most: int) -> None:
        self.relay.run(most)

    @rule(after=st.integers(0, 12))
    def run_and_crash(self, after: int) -> None:
        self.crashes += 1
        self.relay.run_and_crash(after)

    @rule(jump=st.sampled_from([1.0, 100.0, 500.0]))
    def run_and_stall(self, jump: float) -> None:
        """A worker stalls in the middle of its POST, and others go on meanwhile."""

        def meanwhile() -> None:
            self.relay.world.now += jump
            for copy in self.relay.queues.messages:
                copy.visible_at = min(copy.visible_at, self.relay.world.now)
            stalled, self.relay.courier = self.relay.courier, self.relay.new_courier()
            self.relay.run()
            self.relay.courier = stalled

        self.relay.provider.meanwhile = meanwhile
        self.relay.run()
        self.relay.provider.meanwhile = None

    @rule(after=st.integers(0, 4), id_=ids)
    def accept_and_crash(self, after: int, id_: str) -> None:
        self.relay.world.crash_in = after
        try:
            self._accept(self.bodies[id_])
        except Crash:
            self.crashes += 1
        self.relay.world.crash_in = None

    @rule(seconds=st.sampled_from([1.0, 10.0, 80.0, 400.0, 2000.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.relay.world.now += seconds

    @rule(down=st.booleans())
    def table_down(self, down: bool) -> None:  # noqa: FBT001  hypothesis draws it
        self.relay.world.table_down = down

    @rule(down=st.booleans())
    def queues_down(self, down: bool) -> None:  # noqa: FBT001  hypothesis draws it
        self.relay.world.queue_down = down

    # ------------------------------------------------------------------------------- promises

    @invariant()
    def no_surprise_duplicate(self) -> None:
        for id_, times in self.relay.provider.ledger.items():
            allowed = 1 + self.redriven[id_]
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
                assert in_ledger <= self.redriven[id_] + record.ambiguous
            if record.state in TERMINAL - {State.SENT}:
                assert record.reason, f"{id_} is {record.state} without a reason"
            made = [a for a in record.attempts if a.reason != "abandoned"]
            assert len(made) <= self.relay.provider.posts[id_], f"{id_} counts what was no attempt"
            assert record.tries >= len(record.attempts)

    @invariant()
    def a_terminal_state_changes_only_by_redrive(self) -> None:
        for id_, steps in self.relay.store.history.items():
            for was, now in zip(steps, steps[1:], strict=False):
                if (
                    was is None
                    or now is None
                    or was.state not in TERMINAL
                    or was.state == now.state
                ):
                    continue
                assert was.state in REDRIVABLE, f"{id_} went from {was.state} to {now.state}"
                assert now.generation > was.generation
                assert self.redriven[id_], f"{id_} started again without a redrive"
                assert any(event.what == "redriven" for event in now.history)

    @invariant()
    def every_dead_letter_has_its_reason(self) -> None:
        for dead in self.relay.queues.dead:
            message = parse(QueuedMessage, dead.body)
            assert dead.note.reason
            assert message.generation >= 1, "a redrive of this would do nothing"

    def teardown(self) -> None:
        """Once nothing goes wrong any more, every message ends, in exactly one state."""
        self.relay.settle_down()
        for id_ in self.accepted:
            record = self.relay.store.records[id_]
            assert record.state in TERMINAL, f"{id_} is lost: {record.state}"
        dead = {parse(QueuedMessage, d.body).id for d in self.relay.queues.dead}
        for id_, record in self.relay.store.records.items():
            if record.state in REDRIVABLE:
                assert id_ in dead, f"{id_} is {record.state}, but no dead letter"
            elif id_ in dead:
                # Only a crash or a full queue between burial and record leaves a copy behind.
                assert self.redriven[id_], f"{id_} is {record.state} and a dead letter"
        # A redrive of what is dead sends each once more, whatever it meets then.
        before = dict(self.relay.provider.posts)
        sleeping = {i for i, r in self.relay.store.records.items() if r.state in REDRIVABLE}
        for letter in list(self.relay.queues.dead):
            id_ = str(parse(QueuedMessage, letter.body).id)
            self.redriven[id_] += 1
            self.relay.queues.redrive(letter)
        self.relay.settle_down()
        for id_ in sleeping:
            record = self.relay.store.records[id_]
            expired = record.expires_at is not None and record.expires_at < self.relay.world.now
            if not expired:
                assert self.relay.provider.posts[id_] == before.get(id_, 0) + 1, "redrive ignored"
                assert record.state is State.SENT
        self.no_surprise_duplicate()
        self.the_record_tells_what_happened()
        self.a_terminal_state_changes_only_by_redrive()


Promises.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPromises = Promises.TestCase
