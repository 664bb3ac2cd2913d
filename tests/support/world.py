"""A small world to run the real state machine in: table, queues, provider and clock in memory.

Every effect on it may be the last one of a run: `crash_in` counts down, and at zero the run stops
there, as a process does that is killed.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from relay.broadcasts.gate import ruling
from relay.broadcasts.model import BroadcastRecord
from relay.messages.breaker import Breaker
from relay.messages.chats import Chats
from relay.messages.dead_letters import DeadLetters
from relay.messages.dispatch import Dispatcher
from relay.messages.envelope import QueuedMessage
from relay.messages.intake import Answer, Intake
from relay.messages.lines import CHAT_SECONDS, one_by_one
from relay.messages.lists import Listing, Page, place
from relay.messages.pacing import (
    CHATS_TO_HOLD_ALL,
    CHATS_WITHIN,
    GRACE,
    HORIZON,
    IDLE_SECONDS,
    Slots,
)
from relay.messages.queues import LONGEST_VISIBILITY, DeadLetterEntry
from relay.messages.results import Done, Received, Result, ends_by
from relay.messages.seals import Sealed, Seals, claim_of
from relay.messages.sender import Ruling, Sender
from relay.messages.service import Messages
from relay.messages.states import TERMINAL, Change, Record, Rules, State
from relay.messages.store import (
    GUARD,
    Applied,
    Conflict,
    Item,
    StoreUnavailableError,
    Unwritten,
    Written,
    difference,
    from_item,
    to_item,
)
from relay.validation import InvalidMessageError, parse
from smsgold.client import OutgoingMessage
from smsgold.credentials import Credentials, CredentialsSource
from smsgold.errors import CredentialsError
from smsgold.responses import Outcome, Verdict

T = TypeVar("T")

START = 1_800_000_000.0
SEALS = Seals(lambda: b"the key of this world's seals")
RUN_SECONDS = 60.0


class Crash(BaseException):
    """The process ends here."""


@dataclass
class World:
    """Time, and what goes wrong."""

    now: float = START
    crash_in: int | None = None
    crash_at: str = ""
    """The effect at which the run stops, by its name."""
    table_down: bool = False
    queue_down: bool = False
    next_writes: list[str] = field(default_factory=list)
    """What becomes of the next writes, in order: "refused", "lost", which is written unheard, or
    "late", which is unheard and written after the next one."""
    next_sends: list[str] = field(default_factory=list)
    """The same of the next messages put on the queue."""
    log: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def effect(self, what: str) -> None:
        self.log.append(what)
        if what == self.crash_at:
            self.crash_at = ""
            raise Crash(what)
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                raise Crash(what)


class MemoryStore:
    """The Relay table: of an item, a step changes the attributes that its statement names."""

    def __init__(self, world: World) -> None:
        self.items: dict[str, Item] = {}
        self.records: dict[str, Record] = {}
        """What the items say, by message id."""
        self.history: dict[str, list[Record]] = {}
        self.under_way: list[Change] = []
        """Writes that nobody waits for any more; they come with the next one."""
        self._world = world

    def put(self, record: Record) -> None:
        """Write a record as it is, whatever there was."""
        self.items[record.id] = to_item(record)
        self.records[record.id] = record

    def load(self, ids: Iterable[str]) -> dict[str, Record]:
        if self._world.table_down:
            raise StoreUnavailableError("down")
        return {id_: self.records[id_] for id_ in set(ids) if id_ in self.records}

    def apply(self, changes: Sequence[Change]) -> list[Written]:
        if not changes:
            return []
        self._world.effect("before a write")
        if self._world.table_down:
            return [Unwritten("down") for _ in changes]
        fate = self._world.next_writes.pop(0) if self._world.next_writes else ""
        if fate == "refused":
            return [Unwritten("throttled") for _ in changes]
        if fate == "late":
            self.under_way += changes
            return [Unwritten("no answer", in_doubt=True) for _ in changes]
        answers = [self._apply(change) for change in changes]
        self.arrive()
        self._world.effect("after a write")
        if fate == "lost":
            return [Unwritten("no answer", in_doubt=True) for _ in changes]
        return answers

    def page(self, listing: Listing, *, limit: int, after: str = "") -> Page:
        if self._world.table_down:
            raise StoreUnavailableError("down")
        index, earliest = listing.index, place(listing.since)
        places = sorted(
            (
                at
                for item in self.items.values()
                if item.get(index.partition) == {"S": listing.partition}
                and earliest <= (at := item[index.place]["S"])
                and (not after or at < after)
            ),
            reverse=True,
        )
        # Like the real one, it does not know whether there is more until it is asked.
        return Page(places[:limit], places[limit - 1] if len(places) >= limit else "")

    def arrive(self) -> None:
        """Let the writes arrive that nobody waits for any more."""
        for change in self.under_way:
            self._apply(change)
        self.under_way.clear()

    def _apply(self, change: Change) -> Written:
        id_, item = change.after.id, to_item(change.after)
        there = self.items.get(id_)
        if change.before is None:
            if there is not None:
                return Conflict(self.records[id_])
        else:
            was = to_item(change.before)
            if there is None or any(there.get(name) != was.get(name) for name in GUARD):
                return Conflict(self.records.get(id_))
            item = there | difference(was, item)
        self.items[id_] = item
        self.records[id_] = from_item(item)
        self.history.setdefault(id_, []).append(self.records[id_])
        return Applied(change.after)


@dataclass
class Copy:
    """A message on a queue."""

    body: str
    sent_at: float
    visible_at: float
    receive_count: int = 0
    seal: str = ""
    line: str = ""
    """The line it stands in; it is on the Ordered queue then."""


class MemoryQueues:
    """The Ordered, Messages and DeadLetter queues; the first two in one list, by their lines."""

    def __init__(self, world: World) -> None:
        self.messages: list[Copy] = []
        self.dead: list[DeadLetterEntry] = []
        self.room_to_wait = True
        self.delays: list[int] = []
        self.past_the_line: set[str] = set()
        """The ids of what was handed in without order as well."""
        self.delayed: set[str] = set()
        """The ids of what waits for its time, and holds up no line."""
        self._world = world

    def enqueue(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        self._world.effect("before the queue")
        if self._world.queue_down:
            return ["down"] * len(messages)
        fate = self._world.next_sends.pop(0) if self._world.next_sends and messages else ""
        if fate == "refused":
            return ["throttled"] * len(messages)
        for message, delay in zip(messages, delays or [0] * len(messages), strict=True):
            self.delayed |= {str(message.id)} if delay else set()
            self.put_own(
                message, delay, line=message.chat if message.in_order and not delay else ""
            )
        self._world.effect("after the queue")
        return ["no answer" if fate == "lost" else None] * len(messages)

    def has_room_to_wait(self) -> bool:
        return self.room_to_wait

    def put_own(self, message: QueuedMessage, delay: float = 0, *, line: str = "") -> None:
        """Put a message on the queue as the relay itself does."""
        body = message.to_body()
        self.put(body, delay, seal=SEALS.seal(body) if claim_of(message) else "", line=line)

    def put(self, body: str, delay: float = 0, *, seal: str = "", line: str = "") -> None:
        now = self._world.now
        self.messages.append(Copy(body, now, now + delay, seal=seal, line=line))
        if not line and (found := re.search('"id": ?"([^"]*)"', body)):
            self.past_the_line.add(found[1])

    def receive(self, most: int, *, in_line: bool) -> list[Copy]:
        """Return visible messages; of a line, none while one of it is being worked on."""
        now = self._world.now
        blocked = {c.line for c in self.messages if c.line and c.visible_at > now}
        visible = [
            c
            for c in self.messages
            if bool(c.line) is in_line and c.visible_at <= now and c.line not in blocked
        ]
        for copy in visible[:most]:
            copy.receive_count += 1
            copy.visible_at = now + 6 * RUN_SECONDS
        return visible[:most]

    def enqueue_dead_letters(self, letters: Sequence[DeadLetterEntry]) -> list[str | None]:
        if not letters:
            return []
        self._world.effect("before a burial")
        if self._world.queue_down:
            return ["down"] * len(letters)
        self.dead += letters
        self._world.effect("after a burial")
        return [None] * len(letters)

    def enqueue_broadcast(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        self.delays += delays
        return self.enqueue([m.model_copy(update={"in_order": False}) for m in messages])

    def enqueue_notifier(self, body: str) -> None:
        raise NotImplementedError  # nobody orders a broadcast here

    def change_visibility(self, source: str, receipts: Mapping[str, float]) -> None:
        raise NotImplementedError  # a run's caller hides its copies itself

    def before(self, id_: str) -> list[str]:
        """Return the ids of what stands before a message in its line, unless it may go past."""
        if id_ in self.past_the_line:
            return []
        copies = [(c.line, str(json.loads(c.body)["id"])) for c in self.messages if c.line]
        line = next((line for line, other in copies if other == id_), "")
        own = [other for known, other in copies if known == line]
        before = own[: own.index(id_)] if line else []
        return [other for other in before if other not in self.delayed]

    def redrive(self, dead: DeadLetterEntry) -> None:
        self.dead.remove(dead)
        self.put(dead.body, seal=SEALS.seal(dead.body) if dead.own else "")


ACCEPTED = Verdict(Outcome.ACCEPTED, "accepted", provider_id="p-1", status=200)


@dataclass(frozen=True)
class Answering:
    """How the provider takes one POST: whether it keeps the message, and what it answers."""

    keeps: bool
    verdict: Verdict


ANSWERS: dict[str, Answering] = {
    "accepts": Answering(True, ACCEPTED),
    "refuses": Answering(False, Verdict(Outcome.REFUSED, "http_400", status=400)),
    "is busy": Answering(False, Verdict(Outcome.NOT_SENT, "http_503", status=503)),
    "asks to slow down": Answering(
        False, Verdict(Outcome.NOT_SENT, "http_429", status=429, retry_after=30.0)
    ),
    "is in a flood ban": Answering(
        False, Verdict(Outcome.NOT_SENT, "http_429", status=429, retry_after=10_072.0)
    ),
    "cannot be reached": Answering(False, Verdict(Outcome.NOT_SENT, "connect_refused")),
    "keeps and times out": Answering(True, Verdict(Outcome.UNKNOWN, "read_timeout")),
    "times out": Answering(False, Verdict(Outcome.UNKNOWN, "read_timeout")),
    "keeps and fails": Answering(True, Verdict(Outcome.UNKNOWN, "http_500", status=500)),
    "fails": Answering(False, Verdict(Outcome.UNKNOWN, "http_500", status=500)),
    "redirects": Answering(False, Verdict(Outcome.MISDIRECTED, "redirect", status=302)),
    "refuses the password": Answering(False, Verdict(Outcome.CREDENTIALS, "http_401", status=401)),
}


class MemoryProvider:
    """The provider; texts carry the message's id, so that its ledger can be read by id."""

    def __init__(self, world: World) -> None:
        self.ledger: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.served: Counter[str] = Counter()
        """The POSTs whose credentials were right."""
        self.times: list[float] = []
        """When each POST came."""
        self.quiet: dict[str, tuple[float, float]] = {}
        """By chat, when the provider asked for quiet, and until when, as far as it was heard."""
        self.quiet_until = 0.0
        """The same of the whole account."""
        self.reached_at: dict[str, float] = {}
        """By chat, when a message reached it last, as far as the next run must know."""
        self.last_moment: dict[str, float] = {}
        """When a message expires, by its id."""
        self.password = "the first password"
        self.next: list[str] = []
        """How the next POSTs are answered, in order; after that all are accepted."""
        self.in_a_slot: Callable[[float], bool] = lambda _: True
        """Whether a POST may come at this time."""
        self.may_go: Callable[[str, float], bool] = lambda *_: True
        """Whether the time for a message has come, by its id."""
        self.before_it: Callable[[str], list[str]] = lambda _: []
        """The messages that stand before one in its line, by its id."""
        self.connecting: list[float] = []
        """Seconds from the next POSTs' slots to their first bytes, in order; after that none."""
        self.meanwhile: Callable[[], None] | None = None
        """What happens while the next POST is under way."""
        self._world = world

    def forget(self) -> None:
        """Expect nothing of a fresh environment that only the last one knew."""
        self.quiet.clear()
        self.quiet_until = 0.0
        self.reached_at.clear()

    def connect(self) -> None:
        pass  # each POST says itself how long it connects

    def send(
        self,
        credentials: Credentials,
        message: OutgoingMessage,
        *,
        withhold: Callable[[], str | None],
    ) -> Verdict:
        if self.connecting:
            self._world.sleep(self.connecting.pop(0))
        if reason := withhold():
            return Verdict(Outcome.WITHHELD, reason)
        self._world.effect("before a POST")
        began = self._world.now
        self.times.append(began)
        chat = str(message.subscriber_id)
        assert began >= self.quiet_until, "sent while the provider asked for quiet"
        assert began >= self.quiet.get(chat, (0.0, 0.0))[1], "sent into a chat's hold"
        if credentials.password == self.password:
            passed = began - self.reached_at.get(chat, 0.0)
            assert passed >= CHAT_SECONDS - 1e-6, "sent to a chat within a second of another"
            self.reached_at[chat] = began
        assert self.in_a_slot(began), "sent in nobody's slot"
        if meanwhile := self.meanwhile:
            self.meanwhile = None
            meanwhile()
        if credentials.password != self.password:
            answer = ANSWERS["refuses the password"]
        else:
            answer = ANSWERS[self.next.pop(0) if self.next else "accepts"]
        id_ = message.text
        assert began < self.last_moment.get(id_, began + 1), f"{id_} was sent too late"
        assert self.may_go(id_, began), f"{id_} was sent before its time, or out of its hours"
        assert not self.before_it(id_), f"{id_} was sent before {self.before_it(id_)}"
        self.posts[id_] += 1
        self.served[id_] += credentials.password == self.password
        self.ledger[id_] += answer.keeps
        if answer.verdict.outcome is Outcome.REFUSED:
            self.refused.add(id_)
        self._world.effect("after a POST")
        if answer.verdict.status == 429 and not self._world.table_down:
            now = self._world.now
            self.quiet[chat] = (now, now + (answer.verdict.retry_after or 0))
            if sum(at >= now - CHATS_WITHIN for at, _ in self.quiet.values()) >= CHATS_TO_HOLD_ALL:
                self.quiet_until = max(self.quiet_until, self.quiet[chat][1])
        return answer.verdict


class MemoryGate:
    """The broadcasts' items in the table."""

    def __init__(self, world: World) -> None:
        self.items: dict[str, BroadcastRecord] = {}
        self.exact = True
        """Nothing was left uncounted because the table was down."""
        self._world = world

    def check(self, ids: Collection[str]) -> Mapping[str, Ruling]:
        if self._world.table_down:
            raise StoreUnavailableError("down")
        now = self._world.now
        return {id_: ruling(self.items[id_], now) for id_ in ids if id_ in self.items}

    def reopen(self, id_: str, counts: Mapping[State, int]) -> None:
        self._world.effect("before a recount is asked for")
        if self._world.table_down:
            raise StoreUnavailableError("down")
        broadcast = self.items[id_]
        total = {s: broadcast.counts.get(s, 0) - counts.get(s, 0) for s in TERMINAL}
        self.items[id_] = replace(broadcast, counts=total)
        self._world.effect("after a recount is asked for")

    def count(self, id_: str, counts: Mapping[State, int]) -> None:
        self._world.effect("before a count")
        if self._world.table_down:
            self.exact = False
            return
        broadcast = self.items[id_]
        total = {s: broadcast.counts.get(s, 0) + counts.get(s, 0) for s in TERMINAL}
        self.items[id_] = replace(broadcast, counts=total, counted_at=self._world.now)
        self._world.effect("after a count")


class MemoryPacer:
    """The account's line of slots, as the table keeps it."""

    def __init__(self, world: World, rate: float) -> None:
        self._world = world
        self._rate = rate
        self._next = 0.0
        self._granted: list[float] = []
        self._refusals: Counter[float] = Counter()
        self._holds: dict[str, tuple[float, float]] = {}
        self._held_until = 0.0

    def use(self, at: float) -> bool:
        """Use up a slot for a POST at this time; False if none was granted for then."""
        found = next((s for s in self._granted if s - 1e-6 <= at <= s + GRACE + 1e-6), None)
        if found is None:
            return False
        self._granted.remove(found)
        return True

    def reserve(self, count: int, *, within: float = HORIZON) -> Slots:
        if self._world.table_down:
            raise StoreUnavailableError("down")
        if not self._rate:
            return Slots((self._world.now,) * count, self._world.now, grace=float("inf"))
        if self._held_until > self._world.now:
            return Slots((), max(self._next, self._held_until))
        holds = {chat: until for chat, (_, until) in self._holds.items() if until > self._world.now}
        first = max(self._next, self._world.now - IDLE_SECONDS)
        if first > self._world.now + within:
            self._refusals[self._world.now] += 1
            assert self._refusals[self._world.now] < 100, "asks for slots without waiting"
            return Slots((), first, holds=holds)
        count = min(count, max(1, int(self._rate * within)))
        self._next = first + count / self._rate
        times = tuple(first + i / self._rate for i in range(count))
        self._granted = [*self._granted[-1000:], *times]
        return Slots(times, self._next, holds=holds)

    def hold(self, chat: str, until: float) -> float:
        if self._world.table_down:
            raise StoreUnavailableError("down")
        now = self._world.now
        self._holds[chat] = (now, until)
        lately = [at for at, _ in self._holds.values() if at >= now - CHATS_WITHIN]
        if len(lately) >= CHATS_TO_HOLD_ALL:
            self._held_until = max(self._held_until, until)
        return self._held_until if self._held_until > now else 0.0


class Inline(Executor):
    """An executor that runs each call at once, in the caller's own thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Relay:
    """The real intake and sender in a world, and the senders' runs over its queue."""

    def __init__(self, rules: Rules, seed: int = 0, rate: float = 5.0) -> None:
        self.world = World()
        self.store = MemoryStore(self.world)
        self.queues = MemoryQueues(self.world)
        self.provider = MemoryProvider(self.world)
        self.provider.before_it = lambda id_: [
            before
            for before in self.queues.before(id_)
            if before not in self.store.records or self.store.records[before].state not in TERMINAL
        ]
        self.broadcasts = MemoryGate(self.world)
        self.rules = rules
        self.intake = Intake(self.store, self.queues, rules, clock=self.world.clock)
        self.takes_for_fresh = False
        self._attempts = 0
        self._random = random.Random(seed)
        self.pacer = MemoryPacer(self.world, rate)
        self.secret = self.provider.password
        """The password that the secret holds; empty where it cannot be read."""
        self.fetch_takes = 0.0
        self.fetched_at: list[float] = []
        self.sender = self.new_sender()

    def new_sender(self) -> Sender:
        """Return the sender of a fresh environment."""
        chats = Chats(clock=self.world.clock)
        return Sender(
            store=self.store,
            gate=self.broadcasts,
            pacer=self.pacer,
            chats=chats,
            dispatcher=Dispatcher(
                provider=self.provider,
                credentials=CredentialsSource(self._fetch, clock=self.world.clock),
                breaker=Breaker(clock=self.world.clock),
                pacer=self.pacer,
                chats=chats,
                executor=Inline(),
                provider_timeout=12.0,
                clock=self.world.clock,
                sleep=self.world.sleep,
            ),
            dead_letters=DeadLetters(self.store, self.queues, clock=self.world.clock),
            queues=self.queues,
            seals=SEALS,
            rules=self.rules,
            clock=self.world.clock,
            sleep=self.world.sleep,
            new_attempt=self._new_attempt,
            jitter=self._random,
        )

    @property
    def service(self) -> Messages:
        """Return what the API's callers deal with."""
        return Messages(
            store=self.store,
            lists=self.store,
            queues=self.queues,
            intake=self.intake,
            sender=lambda: self.sender,
            gate=lambda: self.broadcasts,
            clock=self.world.clock,
            sleep=self.world.sleep,
        )

    def _fetch(self) -> str:
        self.fetched_at.append(self.world.now)
        self.world.sleep(self.fetch_takes)
        if not self.secret:
            raise CredentialsError("the secret cannot be read")
        return json.dumps({"user": "10001", "pass": self.secret})

    def _new_attempt(self) -> str:
        self._attempts += 1
        return f"a{self._attempts}"

    def accept(self, message: QueuedMessage) -> Answer:
        return self.intake.accept([message], door="http")[0]

    def run(self, most: int = 10) -> int:
        """Receive up to `most` visible messages of each queue and deliver them; return how many."""
        ends_at = self.world.now + RUN_SECONDS
        copies = self.queues.receive(most, in_line=False)
        self._take_off(copies, self._deliver(copies, ends_at))
        in_line = self.queues.receive(most, in_line=True)
        if in_line:
            ends_at = self.world.now + RUN_SECONDS
            results = one_by_one(in_line, lambda c: c.line, lambda cs: self._deliver(cs, ends_at))
            self._take_off(in_line, results)
        return len(copies) + len(in_line)

    def _deliver(self, copies: Sequence[Copy], ends_at: float) -> list[Result]:
        good: dict[int, Received] = {}
        results: dict[int, Result] = {}
        for i, copy in enumerate(copies):
            in_line = bool(copy.line)
            try:
                message = parse(QueuedMessage, copy.body)
            except InvalidMessageError as error:
                results[i] = self.sender.refuse(
                    copy.body,
                    "invalid",
                    str(error),
                    sent_at=copy.sent_at,
                    receive_count=copy.receive_count,
                )
            else:
                last = ends_by(copy.sent_at, copy.receive_count, in_line=in_line)
                sealed = Sealed(copy.body, copy.seal)
                # More than the sender's function takes for fresh: doors have made some's records.
                own = not claim_of(message) or (message.broadcast and not message.generation)
                fresh = bool(own and copy.receive_count == 1 and self.takes_for_fresh)
                good[i] = Received(
                    message, "sqs", copy.sent_at, copy.receive_count, last, in_line, sealed, fresh
                )
        delivered = self.sender.deliver(list(good.values()), ends_at=ends_at)
        results |= zip(good, delivered, strict=True)
        return [results[i] for i in range(len(copies))]

    def _take_off(self, copies: Sequence[Copy], results: Sequence[Result]) -> None:
        """Take what is done off its queue, and hide the rest for as long as it says."""
        for copy, result in zip(copies, results, strict=True):
            if isinstance(result, Done):
                self.queues.messages = [c for c in self.queues.messages if c is not copy]
            else:
                copy.visible_at = self.world.now + min(result.seconds, LONGEST_VISIBILITY - 120)

    def run_and_crash(self, after: int) -> None:
        """Run, and end the process at the given effect; a fresh environment takes its place."""
        self.crash(self.run, after)

    def crash(self, run: Callable[[], T], after: int) -> T | None:
        """Return what a run returns, or None if its process ended at the given effect."""
        self.world.crash_in = after
        try:
            return run()
        except Crash:
            self.sender = self.new_sender()
            self.provider.forget()
            return None
        finally:
            self.world.crash_in = None

    def crash_at(self, run: Callable[[], T], effect: str) -> T | None:
        """Return what a run returns, or None if its process ended at the effect of this name."""
        self.world.crash_at = effect
        try:
            return run()
        except Crash:
            return None
        finally:
            self.world.crash_at = ""

    def settle_down(self) -> None:
        """Let time pass, with nothing going wrong any more, until the queue is empty."""
        self.world.table_down = self.world.queue_down = False
        self.provider.next.clear()
        self.secret = self.provider.password
        for _ in range(4000):
            if not self.queues.messages:
                return
            if not self.run():
                hidden = [c.visible_at for c in self.queues.messages]
                self.world.now = min(at for at in hidden if at > self.world.now)
        raise AssertionError(f"the queue never empties: {self.queues.messages}")
