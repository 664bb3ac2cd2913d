"""Every interleaving of the calls that one broadcast meets, over the real classes.

Those who start it, steer it, fan it out, send its messages and count it run up to their next effect
on the table, the queues or the provider, as the calls of tests/model/intake.py do: a call is known
by its answers. Below BroadcastTable lies a client that takes its conditions and updates as DynamoDB
does. A write may be refused, be done later without an answer, or be done, lose its answer and be
made again by botocore. A call may end for ever at any effect, an order may come twice, and a person
may come in anywhere.

In each world a promise may be broken, or the world may be at rest and not as promised, or nothing
that goes well leads to rest any more. `make model` searches everything;
tests/unit/test_model_broadcasts.py a part.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, cast
from unittest.mock import patch

from botocore.exceptions import ClientError

from relay.broadcasts import audience, fanout, recounts
from relay.broadcasts.audience import Audience
from relay.broadcasts.fanout import FanOut
from relay.broadcasts.gate import BroadcastGate
from relay.broadcasts.model import (
    LONGEST_PAUSE,
    Broadcast,
    BroadcastRecord,
    Command,
    QueuedBroadcast,
    Status,
    message_id,
    queued_broadcast,
)
from relay.broadcasts.recounts import SPARE_SECONDS, Recounts, Turn
from relay.broadcasts.service import Broadcasts, InvalidTransition, Started
from relay.broadcasts.table import BroadcastTable
from relay.http.broadcasts import BroadcastState
from relay.messages.envelope import QueuedMessage
from relay.messages.queues import QueueUnavailableError
from relay.messages.sender import Passage
from relay.messages.states import TERMINAL, Record, Rules, State
from relay.messages.store import StoreUnavailableError
from relay.validation import parse, validate
from smsgold.errors import ProviderRefusedError, ProviderUnavailableError
from tests.model.found import Found

NOW = 1_800_000_000.0
RULES = Rules(retry_window=3600.0)
TEXTS = ("a text", "another text")
QUEUED = tuple(
    queued_broadcast(validate(Broadcast, {"botId": "b-1", "text": text}), "x") for text in TEXTS
)
PRINTS = tuple(broadcast.fingerprint for broadcast in QUEUED)
TIMES = ("createdAt", "orderedAt", "startedAt", "countedAt", "finishedAt")
ENDED = (Status.STOPPED, Status.COMPLETED, Status.FAILED)
NAMES = "abcdefgh"
COMMANDS = (Command.PAUSE, Command.RUN, Command.STOP)

Item = Mapping[str, Mapping[str, Any]]


# -------------------------------------------------------------------------------- the table


UNSEEN = ("ttl", "version")
"""Attributes that decide nothing."""

GROWING = frozenset(
    ("pk", "snapshot", "enqueued", "writes", "recountAskedAt", "recountChunks", "finishedAt")
)
"""Attributes that never become again what they were; `_shrinks` judges each write by that."""


def written(item: Item | None, made: Mapping[str, Any]) -> Item | None:
    """Return what a put or an update makes of an item; None if its condition does not hold."""
    names, values = (
        made.get("ExpressionAttributeNames", {}),
        made.get("ExpressionAttributeValues", {}),
    )
    if any(unmet(item, made)):
        return None
    if "Item" in made:
        return cast("Item", {k: v for k, v in made["Item"].items() if k not in UNSEEN})
    # What it adds to the version only numbers events.
    updates = made["UpdateExpression"].partition(" ADD ")[0].removeprefix("SET ")
    news = (update.split(" = ") for update in updates.split(", "))
    return {**(item or {}), **{names[name]: values[value] for name, value in news}}


def unmet(item: Item | None, made: Mapping[str, Any]) -> Iterator[str]:
    """Yield the attributes of an item that are not as a put's or an update's condition says."""
    names = made.get("ExpressionAttributeNames", {})
    values = made.get("ExpressionAttributeValues", {})
    there = item or {}
    for condition in made["ConditionExpression"].split(" AND "):
        bare = condition[1:-1] if condition.startswith("(") else condition
        name, met = "", False
        for clause in bare.split(" OR "):
            if clause.startswith("attribute_"):
                what, _, name = clause.rstrip(")").partition("(")
                met |= (names.get(name, name) in there) == (what == "attribute_exists")
            else:
                name, _, value = clause.partition(" = ")
                met |= _same(there.get(names[name]), values[value])
        if not met:
            yield names.get(name, name)


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    if one and "N" in one and "N" in other:
        return float(one["N"]) == float(other["N"])
    return one == other


# ------------------------------------------------------------------------------- one call


class Read(NamedTuple):
    """A call reads the broadcast."""


class ReadChunk(NamedTuple):
    """A call reads a chunk of a snapshot."""

    name: str
    n: int


class SaveChunk(NamedTuple):
    """A call writes a chunk of a snapshot."""

    name: str
    n: int


class Write(NamedTuple):
    """A call writes the broadcast's item; the request by its number."""

    made: int


class Order(NamedTuple):
    """What lies on the notifier's queue: a broadcast's body, or a recount, asked for at a time."""

    body: int
    asked_at: float = 0.0


class Announce(NamedTuple):
    """A call puts messages on the queue."""

    subscribers: tuple[int, ...]
    body: int


class List(NamedTuple):
    """A call asks for the subscribers."""


class ReadRecords(NamedTuple):
    """A call reads what became of messages."""

    subscribers: tuple[int, ...]


class End(NamedTuple):
    """The sender ends a message."""

    subscriber: int
    canceled: bool


class Reopen(NamedTuple):
    """The sender makes a message that had ended wait again."""

    subscriber: int


Effect = Read | ReadChunk | SaveChunk | Write | Order | Announce | List | ReadRecords | End | Reopen


class Start(NamedTuple):
    """Somebody starts the broadcast."""

    body: int
    at: float = NOW


class Steer(NamedTuple):
    """Somebody pauses, resumes or stops it."""

    command: Command
    at: float


class Run(NamedTuple):
    """A run of the notifier has an order; its snapshot would have this name."""

    order: Order
    name: str
    at: float = NOW


class Deliver(NamedTuple):
    """A run of the sender has a message; its writes to the counts have this name."""

    subscriber: int
    name: str
    at: float = NOW


class Redrive(NamedTuple):
    """A run of the sender has a redriven message."""

    subscriber: int
    name: str
    at: float


What = Start | Steer | Run | Deliver | Redrive


class Over(NamedTuple):
    """A call has ended, with these words."""

    words: str


class Pause(BaseException):
    """The call is at an effect that has no answer yet."""

    def __init__(self, effect: Effect) -> None:
        super().__init__(effect)
        self.effect = effect


class MisusedError(Exception):
    """A call did what no call may do."""


class Tape:
    """A client, a store and queues that answer as they are told, then stop the call."""

    def __init__(self, of: "Configuration") -> None:
        self._of = of
        self.answers: Sequence[Any] = ()
        self._at = 0
        self.made: list[Mapping[str, Any]] = []
        self.items: list[Item | None] = []
        self._numbers: dict[str, int] = {}
        self.number_of(None)

    def number_of(self, item: Item | None) -> int:
        """Return an item's number; 0 for none."""
        key = json.dumps(item, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append(item)
        return self._numbers[key]

    def rewind(self, answers: Sequence[Any]) -> None:
        self.answers, self._at = answers, 0

    def next(self, effect: Effect) -> Any:
        if self._at == len(self.answers):
            raise Pause(effect)
        self._at += 1
        return self.answers[self._at - 1]

    def listed(self, name: str) -> list[int]:
        """Return the subscribers in a snapshot: the list is not in the same order each time."""
        everybody = list(range(self._of.subscribers))
        return everybody if name == NAMES[0] else everybody[::-1]

    # the client

    def batch_get_item(self, **_: Any) -> Any:
        item = self.items[_answered(self.next(Read()))]
        return {"Responses": {"Relay": [item] if item else []}}

    def get_item(self, Key: Any, **_: Any) -> Any:  # noqa: N803 - boto3's name
        _, _, name, n = Key["pk"]["S"].split("#")
        if not _answered(self.next(ReadChunk(name, int(n)))):
            return {}
        page = self._of.page
        chunk = self.listed(name)[int(n) * page : (int(n) + 1) * page]
        return {"Item": {"ids": {"S": json.dumps([f"s-{i}" for i in chunk])}}}

    def put_item(self, **made: Any) -> Any:
        _, _, *chunk = made["Item"]["pk"]["S"].split("#")
        if chunk:
            return _answered(self.next(SaveChunk(chunk[0], int(chunk[1]))))
        return self.update_item(**made)

    def update_item(self, **made: Any) -> Any:
        key = json.dumps(made, sort_keys=True)
        if key not in self._numbers:
            self._numbers[key] = len(self.made)
            self.made.append(made)
        if _answered(self.next(Write(self._numbers[key]))) == "refused":
            error: Any = {"Error": {"Code": "ConditionalCheckFailedException"}}
            raise ClientError(error, "UpdateItem")
        return {}

    # the store

    def load(self, ids: Iterable[str]) -> dict[str, Record]:
        places = {message_id("x", f"s-{i}"): i for i in range(self._of.subscribers)}
        wanted = [(id_, places[id_]) for id_ in ids]
        states = self.next(ReadRecords(tuple(place for _, place in wanted)))
        if states == "fails":
            raise StoreUnavailableError(states)
        return {
            id_: Record(id_, State(state), "f", "sqs", NOW, NOW, NOW)
            for (id_, _), state in zip(wanted, states, strict=True)
            if state
        }

    # the queues

    def enqueue_notifier(self, body: str) -> None:
        order = Order(-1) if json.loads(body)["kind"] == "recount" else Order(_index(body))
        if self.next(order) == "fails":
            raise QueueUnavailableError("no answer")

    def enqueue_broadcast(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        del delays
        for message in messages:
            if (message.id, message.broadcast) != (
                message_id("x", str(message.subscriber_id)),
                "x",
            ):
                raise MisusedError(f"{message.subscriber_id} gets another message id")
        subscribers = tuple(int(str(message.subscriber_id)[2:]) for message in messages)
        taken = self.next(Announce(subscribers, TEXTS.index(messages[0].text)))
        return [None if n < taken else "InternalError" for n in range(len(messages))]


def _answered(answer: Any) -> Any:
    if answer == "fails":
        raise ClientError(cast("Any", {"Error": {"Code": "InternalServerError"}}), "a call")
    return answer


def _index(body: str) -> int:
    return TEXTS.index(parse(QueuedBroadcast, body).text)


class Classes:
    """The real classes over a tape; `run` takes a call up to its next effect."""

    def __init__(self, of: "Configuration") -> None:
        self.tape = tape = Tape(of)
        self._of = of
        self._now = NOW
        self._name = ""
        self._known: dict[tuple[Any, ...], Effect | Over] = {}
        anything: Any = tape
        self.table = BroadcastTable(anything, "Relay")
        self._broadcasts = Broadcasts(
            self.table, anything, anything, anything, anything, rate=25.0, clock=lambda: self._now
        )
        self._recounts = Recounts(
            self.table, anything, RULES, longest_run=60.0, clock=lambda: self._now
        )
        self._fan_out = FanOut(
            table=self.table,
            queues=anything,
            recounts=self._recounts,
            audience=Audience(
                subscribers=self._subscribers, table=self.table, store=anything, bucket=anything
            ),
            rules=RULES,
            rate=25.0,
            clock=lambda: self._now,
            new_name=lambda: self._name,
        )
        self._calls: Mapping[type, Callable[[Any], str]] = {
            Start: self._start,
            Steer: self._steer,
            Run: self._run,
            Deliver: self._deliver,
            Redrive: self._redrive,
        }

    def run(self, what: What, answers: tuple[Any, ...]) -> Effect | Over:
        """Return a call's next effect after these answers, or how it ended."""
        key = (type(what), what, answers)
        if key not in self._known:
            self.tape.rewind(answers)
            self._now = what.at
            self._name = getattr(what, "name", "")
            try:
                self._known[key] = Over(self._calls[type(what)](what))
            except Pause as pause:
                self._known[key] = pause.effect
            except Exception as error:  # noqa: BLE001 - whatever it raises is told
                self._known[key] = Over(f"raises {error!r}")
        return self._known[key]

    def record(self, item: int) -> BroadcastRecord | None:
        """Return the broadcast that an item holds, as the table reads it."""
        self.tape.rewind([item])
        return self.table.load(["x"]).get("x")

    def _subscribers(self, bot_id: str) -> list[Mapping[str, object]]:
        assert bot_id == "b-1"
        match self.tape.next(List()):
            case "fails":
                raise ProviderUnavailableError("http_503")
            case "refused":
                raise ProviderRefusedError("http_404", "no such bot")
        return [{"id": f"s-{i}"} for i in self.tape.listed(self._name)]

    def _start(self, call: Start) -> str:
        try:
            answer = self._broadcasts.start(QUEUED[call.body])
        except (StoreUnavailableError, QueueUnavailableError):
            return "unavailable"
        return "accepted" if isinstance(answer, Started) else "reused"

    def _steer(self, call: Steer) -> str:
        try:
            answer = self._broadcasts.command("x", call.command)
        except StoreUnavailableError:
            return "unavailable"
        return "refused" if isinstance(answer, InvalidTransition) or answer is None else "obeyed"

    def _run(self, call: Run) -> str:
        turn = Turn(call.at + SPARE_SECONDS + (1.5 if self._of.hurried else 1e6), self._pass_time)
        if call.order.body < 0:
            seconds = self._recounts.again("x", turn, asked_at=call.order.asked_at)
        else:
            seconds = self._fan_out.run(
                parse(QueuedBroadcast, QUEUED[call.order.body].to_body()), turn
            )
        return "leaves it on the queue" if seconds is not None else "is done with it"

    def _pass_time(self, _: float) -> None:
        self._now += 1.0

    def _gate(self) -> BroadcastGate:
        queues: Any = self.tape
        return BroadcastGate(
            self.table,
            queues,
            refusals_percent=0,
            clock=lambda: self._now,
            new_name=lambda: self._name,
        )

    def _deliver(self, call: Deliver) -> str:
        gate = self._gate()
        try:
            ruling = gate.check(["x"])["x"]
        except StoreUnavailableError:
            return "waits"
        if ruling.passage is Passage.HOLD:
            return "waits"
        canceled = ruling.passage is Passage.CANCEL
        state = self.tape.next(End(call.subscriber, canceled))
        gate.count("x", {State(state): 1})
        return "is done"

    def _redrive(self, call: Redrive) -> str:
        try:
            self._gate().reopen("x", {State.REJECTED: 1})
        except (StoreUnavailableError, QueueUnavailableError):
            return "waits"
        self.tape.next(Reopen(call.subscriber))
        return "is done"


# ------------------------------------------------------------------------------ the world


class Call(NamedTuple):
    """A call under way: known by the answers it got."""

    what: What
    answers: tuple[Any, ...] = ()
    again: bool = False
    """Its write was done and the answer lost: botocore makes it again."""
    lost: bool = False
    """That has happened to a write of it."""


class World(NamedTuple):
    """Everything there is, and what must be remembered to judge it."""

    item: int = 0
    chunks: frozenset[ReadChunk] = frozenset()
    orders: tuple[Order, ...] = ()
    announced: tuple[int, ...] = ()
    """For each subscriber the body that was put on the queue; -1: none."""
    ends: tuple[str, ...] = ()
    """What each message's record says; "": it has not ended."""
    calls: tuple[int, ...] = ()
    pending: tuple[Write | Order, ...] = ()
    """Effects that nobody waits for any more."""
    starts: int = 0
    commands: int = 0
    redrives: int = 0
    faults: int = 0
    """How many more of these there may be."""
    tick: int = 0
    """How many times somebody came in since time has passed."""
    told: tuple[tuple[int, str], ...] = ()
    """Which bodies were accepted and reused, as callers were told."""
    limit: int = -1
    """How many messages may be on the queue while it is paused or stopped; -1: it is neither."""
    wrong: str = ""


class Move(NamedTuple):
    """A step of the story; `well`: nothing goes wrong in it and no person is needed."""

    words: str
    world: World
    well: bool = True


@dataclass(frozen=True)
class Configuration:
    """How much may happen."""

    subscribers: int = 2
    page: int = 2
    starts: int = 1
    bodies: int = 1
    commands: tuple[Command, ...] = ()
    """What a person may command."""
    most_commands: int = 0
    redrives: int = 0
    faults: int = 1
    at_once: int = 2
    """Calls under way at the same time."""
    apart: tuple[type[What], ...] = (Start, Run)
    """The calls into which others may come; each of the rest is one step in which all goes well."""
    rejected: bool = False
    """Whether messages may be refused by the provider."""
    queued: bool = False
    """Whether all its messages are on the queue from the start."""
    hurried: bool = False
    """Whether a run of the notifier has time for one chunk only."""
    long: float = 10_000.0
    """Seconds that pass when time passes; every run has ended by then."""


def explore(configuration: Configuration) -> Found:
    """Search breadth first; keep the shortest story of each broken promise."""
    began = perf_counter()
    with ExitStack() as patches:
        for module in (audience, fanout, recounts):
            patches.enter_context(patch.object(module, "CHUNK", configuration.page))
        search = _Search(configuration)
        start = search.start()
        numbers = {start: 0}
        worlds = [start]
        came_from: list[tuple[int, str]] = [(-1, "")]
        before: list[list[int]] = [[]]
        """For each world those that come to it if all goes well."""
        resting: list[int] = []
        violations: dict[str, tuple[str, ...]] = {}
        moves = 0
        for here, world in enumerate(worlds):
            if problem := search.broken(world):
                if problem not in violations:
                    violations[problem] = (*_story(came_from, here), problem)
                resting.append(here)
                continue
            if search.rests(world):
                resting.append(here)
            for move in search.moves(world):
                moves += 1
                there = numbers.setdefault(move.world, len(worlds))
                if there == len(worlds):
                    worlds.append(move.world)
                    came_from.append((here, move.words))
                    before.append([])
                if move.well:
                    before[there].append(here)
    if (endless := _endless(before, resting)) is not None:
        problem = "if all goes well from now on, it never comes to rest"
        violations[problem] = (*_story(came_from, endless), problem)
    return Found(len(worlds), moves, perf_counter() - began, violations)


def _endless(before: Sequence[Sequence[int]], resting: Sequence[int]) -> int | None:
    """Return the first world from which none of those that rest can be reached."""
    reached = bytearray(len(before))
    trail = list(resting)
    for number in trail:
        reached[number] = 1
    while trail:
        for earlier in before[trail.pop()]:
            if not reached[earlier]:
                reached[earlier] = 1
                trail.append(earlier)
    return found if (found := reached.find(0)) >= 0 else None


def _story(came_from: Sequence[tuple[int, str]], here: int) -> Iterator[str]:
    steps = []
    while here:
        here, words = came_from[here]
        steps.append(words)
    return reversed(steps)


class _Search:
    def __init__(self, configuration: Configuration) -> None:
        self._of = configuration
        self._classes = Classes(configuration)
        self._calls: list[Call] = []
        self._numbers: dict[Call, int] = {}
        self._records: dict[int, BroadcastRecord | None] = {}
        self._shown: dict[int, str] = {}
        self._late: dict[tuple[int, int], bool] = {}

    def start(self) -> World:
        """Return the world in which nothing has happened, or all messages are on the queue."""
        of = self._of
        world = World(
            announced=(-1,) * of.subscribers,
            ends=("",) * of.subscribers,
            starts=of.starts,
        )
        if of.queued:
            world = world._replace(starts=of.starts - 1)
            [(_, world)] = self._through(world, Call(Start(0)))
            [(_, world)] = self._through(world, Call(Run(world.orders[0], NAMES[0])))
        return world._replace(commands=of.most_commands, redrives=of.redrives, faults=of.faults)

    # ------------------------------------------------------------------------------ moves

    def moves(self, world: World) -> Iterator[Move]:
        """Yield everything that may happen next."""
        for move in self._moves(world):
            for words, there in self._settled(move.world):
                yield Move(move.words + words, there, move.well)

    def _settled(self, world: World) -> Iterator[tuple[str, World]]:
        """Yield the worlds once the table has refused all writes that it can only refuse."""
        pending = tuple(effect for effect in world.pending if not self._is_late(world, effect))
        world = world._replace(pending=pending)
        for i, number in enumerate(world.calls):
            call = self._calls[number]
            if self._is_late(world, self._classes.run(call.what, call.answers)):
                rest = world._replace(calls=world.calls[:i] + world.calls[i + 1 :])
                refused = call._replace(answers=(*call.answers, "refused"), again=False)
                for words, there in self._gone_on(rest, refused):
                    for more, then in self._settled(there):
                        yield f"; {_who(call.what)} is refused{words}{more}", then
                return
        if not (world.calls or pending) and (item := self._classes.tape.items[world.item]):
            # Nobody has read what these were.
            item = {**item, "writes": {"N": "0"}, "writer": {"S": ""}}
            world = world._replace(item=self._classes.tape.number_of(item))
        yield "", world

    def _is_late(self, world: World, effect: Effect | Over) -> bool:
        """Return whether the table can only refuse a write, now and at any later time."""
        if not isinstance(effect, Write):
            return False
        key = (world.item, effect.made)
        if key not in self._late:
            tape = self._classes.tape
            item = tape.items[world.item]
            self._late[key] = bool(item) and not GROWING.isdisjoint(
                unmet(item, tape.made[effect.made])
            )
        return self._late[key]

    def _moves(self, world: World) -> Iterator[Move]:
        yield from self._begun(world)
        for i, number in enumerate(world.calls):
            rest = world._replace(calls=world.calls[:i] + world.calls[i + 1 :])
            call = self._calls[number]
            who = _who(call.what)
            yield Move(f"{who} dies", self._cleared(rest), well=False)
            effect = cast("Effect", self._classes.run(call.what, call.answers))
            for words, there, answer, well in self._answers(rest, effect, call):
                if answer is None:
                    lost = call._replace(again=True, lost=True)
                    yield Move(f"{who} {words}", self._with(there, lost), well)
                    continue
                after = call._replace(answers=(*call.answers, answer), again=False)
                for more, then in self._gone_on(there, after):
                    yield Move(f"{who} {words}{more}", then, well and "again" not in more)
        for i, effect in enumerate(world.pending):
            rest = world._replace(pending=world.pending[:i] + world.pending[i + 1 :])
            yield Move(f"late, {self._words(effect)} is done", self._done(rest, effect, NOW)[0])
        if not (world.calls or world.pending):
            yield Move("time passes", self._later(world))

    def _begun(self, world: World) -> Iterator[Move]:
        """Yield the calls that may begin."""
        of, later = self._of, NOW + world.tick + 1
        record = self._record(world.item)
        for body in range(of.bodies if world.starts else 0):
            yield from self._begin(world._replace(starts=world.starts - 1), Start(body), well=False)
        ticked = world._replace(tick=world.tick + 1)
        if world.commands and record:
            for command in of.commands:
                steered = ticked._replace(commands=world.commands - 1)
                yield from self._begin(steered, Steer(command, later), well=False)
        if record and record.status is Status.PAUSED:
            resume = Steer(Command.RUN, later)
            for words, there in self._through(ticked, Call(resume)):
                yield Move(f"{_who(resume)}{words}", there)
        under_way = [self._calls[number] for number in world.calls]
        used = {call.what.name for call in under_way if isinstance(call.what, Run)}
        name = next(name for name in NAMES if name not in used)
        if record and record.snapshot:
            name = NAMES[-1]  # it makes no snapshot, so its name decides nothing
        for order in sorted(set(world.orders)):
            yield from self._begin(world, Run(order, name), well=True)
        if world.calls and Deliver not in of.apart:
            return
        busy = {held for call in under_way if (held := _held(call)) is not None}
        waiting = [i for i in self._waiting(world) if i not in busy]
        # If each run is one step, their order makes no difference.
        for i in waiting if Deliver in of.apart else waiting[:1]:
            yield from self._begin(world, Deliver(i, f"{i} {world.redrives}"), well=True)
        for i, end in enumerate(world.ends if world.redrives else ()):
            if end == State.REJECTED and i not in busy:
                redriven = ticked._replace(redrives=world.redrives - 1)
                what = Redrive(i, f"redrive {world.redrives}", later)
                yield from self._begin(redriven, what, well=False)

    def _waiting(self, world: World) -> list[int]:
        """Return the messages that are on the queue and have not ended."""
        return [i for i, end in enumerate(world.ends) if world.announced[i] >= 0 and not end]

    def _begin(self, world: World, what: What, *, well: bool) -> Iterator[Move]:
        if type(what) not in self._of.apart:
            for words, there in self._through(world, Call(what)):
                yield Move(f"{_who(what)}{words}", there, well)
        elif len(world.calls) < self._of.at_once:
            call, effect = self._next(world, Call(what))
            if isinstance(what, Run | Deliver) and isinstance(effect, Read):
                # One that has read nothing yet might as well begin later.
                call = call._replace(answers=(*call.answers, world.item))
            for words, there in self._gone_on(world, call):
                yield Move(f"{_who(what)} begins{words}", there, well)

    def _with(self, world: World, call: Call) -> World:
        number = self._numbers.setdefault(call, len(self._calls))
        if number == len(self._calls):
            self._calls.append(call)
        return world._replace(calls=tuple(sorted((*world.calls, number))))

    def _through(self, world: World, call: Call) -> list[tuple[str, World]]:
        """Return the worlds after a call in which all goes well and nobody comes in between."""
        call, effect = self._next(world, call)
        if isinstance(effect, Over):
            return self._gone_on(world, call)
        return [
            (f" {words}{more}", after)
            for words, there, answer, well in self._answers(world, effect, call)
            if well
            for more, after in self._through(there, call._replace(answers=(*call.answers, answer)))
        ]

    def _next(self, world: World, call: Call) -> tuple[Call, Effect | Over]:
        """Return a call and its next effect; a chunk that can be read does not change any more."""
        effect = self._classes.run(call.what, call.answers)
        while isinstance(effect, ReadChunk):
            call = call._replace(answers=(*call.answers, effect in world.chunks))
            effect = self._classes.run(call.what, call.answers)
        return call, effect

    def _gone_on(self, world: World, call: Call) -> list[tuple[str, World]]:
        """Return the world in which a call waits for its next answer, or those after its end."""
        call, over = self._next(world, call)
        if not isinstance(over, Over):
            return [("", self._with(world, call))]
        world, words = self._cleared(world), f", and {over.words}"
        if over.words.startswith("raises"):
            return [(words, world._replace(wrong=f"{_who(call.what)} {over.words}"))]
        match call.what:
            case Start(body):
                if over.words == "reused" and "done" in call.answers and not call.lost:
                    world = world._replace(wrong="a reused key changed something")
                if over.words != "unavailable":
                    told = tuple(sorted({*world.told, (body, over.words)}))
                    world = world._replace(told=told)
            case Steer() if self._of.long < LONGEST_PAUSE:
                if over.words == "refused" and "done" in call.answers and not call.lost:
                    world = world._replace(wrong="a command that was refused changed something")
            case Run(order) if over.words == "is done with it" and order in world.orders:
                orders = list(world.orders)
                orders.remove(order)
                gone = world._replace(orders=tuple(orders))
                if not world.faults:
                    return [(words, gone)]
                twice = world._replace(faults=world.faults - 1)
                return [(words, gone), (f"{words}, but it comes again", twice)]
        return [(words, world)]

    def _cleared(self, world: World) -> World:
        """Leave out the chunks that nobody can come to any more."""
        record = self._record(world.item)
        kept = {record.snapshot} if record else set()
        for number in world.calls:
            what = self._calls[number].what
            kept |= {what.name} if isinstance(what, Run) else set()
        for effect in world.pending:
            if isinstance(effect, Write):
                values = self._classes.tape.made[effect.made].get("ExpressionAttributeValues", {})
                kept |= {values.get(":snapshot", {}).get("S", "")}
        return world._replace(chunks=frozenset(c for c in world.chunks if c.name in kept))

    def _later(self, world: World) -> World:
        """Return the world some time later: only the order of the recounts asked for counts."""
        item = self._classes.tape.items[world.item]
        long_ago = NOW - self._of.long
        asked = {order.asked_at for order in world.orders}
        asked |= {float(item["recountAskedAt"]["N"])} if item else set()
        past = {at: long_ago + n for n, at in enumerate(sorted(asked - {0.0}))} | {0.0: 0.0}
        if item:
            times = {name: long_ago for name in TIMES if float(item[name]["N"])}
            times["recountAskedAt"] = past[float(item["recountAskedAt"]["N"])]
            item = {**item, **{name: {"N": f"{at:.3f}"} for name, at in times.items()}}
        return world._replace(
            item=self._classes.tape.number_of(item),
            orders=tuple(sorted(Order(o.body, past[o.asked_at]) for o in world.orders)),
            tick=0,
        )

    # ---------------------------------------------------------------------------- effects

    def _answers(
        self, world: World, effect: Effect, call: Call
    ) -> Iterator[tuple[str, World, Any, bool]]:
        """Yield how an effect may go: words, the world then, the answer, whether it goes well.

        The answer None leaves the call where it is. The first is how it goes if all goes well.
        """
        less = world._replace(faults=world.faults - 1)
        match effect:
            case Write() | Order():
                yield from self._written(world, effect, call)
            case Announce(subscribers, body):
                count = len(subscribers)
                taken = self._announced(world, subscribers, body)
                yield f"puts {subscribers} on the queue", taken, count, True
                for part in range(count + 1 if world.faults else 0):
                    taken = self._announced(less, subscribers[:part], body)
                    heard = min(part, count - 1)
                    yield f"puts only {subscribers[:part]} there, it hears", taken, heard, False
            case End(i, canceled):
                ends = [State.SENT, State.REJECTED] if self._of.rejected else [State.SENT]
                for state in [State.CANCELED] if canceled else ends:
                    yield f"ends it as {state}", _ended(world, i, state), str(state), True
            case Reopen(i):
                yield "makes it wait again", _ended(world, i, ""), "done", True
            case _:
                words, there, answer = self._read(world, effect)
                yield words, there, answer, True
                if world.faults:
                    yield f"fails where it {words}", less, "fails", False
                    if isinstance(effect, List):
                        yield "hears that there is no such bot", less, "refused", False

    def _read(self, world: World, effect: Effect) -> tuple[str, World, Any]:
        """Return the words, the world and the answer of what changes nothing that others see."""
        match effect:
            case Read():
                record = self._record(world.item)
                words = f"reads that it is {record.status if record else 'not there'}"
                return words, world, world.item
            case ReadRecords(subscribers):
                states = tuple(world.ends[i] for i in subscribers)
                return f"reads the records {states}", world, states
            case SaveChunk(name, n):
                saved = world._replace(chunks=world.chunks | {ReadChunk(name, n)})
                return f"saves chunk {n}", saved, "done"
        return "lists the subscribers", world, "done"

    def _written(
        self, world: World, effect: Write | Order, call: Call
    ) -> Iterator[tuple[str, World, Any, bool]]:
        less, at = world._replace(faults=world.faults - 1), call.what.at
        words = self._words(effect)
        there, answer = self._done(world, effect, at)
        yield f"does {words}: {answer}", there, answer, True
        if world.faults and not call.again:
            yield f"fails in {words}", less, "fails", False
            asked = effect._replace(asked_at=at) if effect == Order(-1) else effect
            pending = less._replace(pending=(*less.pending, asked))
            yield f"hears nothing of {words}, which is under way", pending, "fails", False
            if answer == "done":
                there, _ = self._done(less, effect, at)
                yield f"does {words}, loses the answer, makes it again", there, None, False

    def _done(self, world: World, effect: Write | Order, at: float) -> tuple[World, str]:
        if isinstance(effect, Order):
            if effect == Order(-1):
                effect = Order(-1, at)
            return world._replace(orders=tuple(sorted((*world.orders, effect)))), "taken"
        tape = self._classes.tape
        item = written(tape.items[world.item], tape.made[effect.made])
        if item is None:
            return world, "refused"
        if self._of.long < LONGEST_PAUSE:
            item = {**item, "pausedFor": {"N": "0.000"}}
        was, number = self._record(world.item), tape.number_of(item)
        now = cast("BroadcastRecord", self._record(number))
        there = world._replace(item=number)
        if was and _shrinks(was, now):
            there = there._replace(wrong="what only grows shrinks, and the search relies on it")
        if was and was.status in ENDED and now.status is not was.status:
            there = there._replace(wrong=f"it was {was.status} and is {now.status}")
        if was is None or now.command is not was.command:
            there = there._replace(limit=self._limit(now))
        return there, "done"

    def _limit(self, now: BroadcastRecord) -> int:
        """Return how many may be announced after a command: the chunk that a run has begun.

        It cannot be told from the one that a killed run had begun, so a stop takes in one more.
        """
        if now.command is Command.RUN:
            return -1
        chunks = 2 if now.command is Command.STOP else 1
        return now.enqueued + chunks * self._of.page if now.snapshot else 0

    def _announced(self, world: World, subscribers: Sequence[int], body: int) -> World:
        record = self._record(world.item)
        announced = list(world.announced)
        for i in subscribers:
            if announced[i] not in (-1, body):
                return world._replace(wrong="two texts under one key")
            if record and world.limit >= 0 and announced[i] < 0:
                allowed = self._classes.tape.listed(record.snapshot)[: world.limit]
                if i not in allowed:
                    return world._replace(wrong="more is put on the queue after a pause or a stop")
            announced[i] = body
        return world._replace(announced=tuple(announced))

    def _record(self, item: int) -> BroadcastRecord | None:
        if item not in self._records:
            self._records[item] = self._classes.record(item)
        return self._records[item]

    def _words(self, effect: Write | Order) -> str:
        if isinstance(effect, Order):
            what = "an order for a recount" if effect.body < 0 else f"{TEXTS[effect.body]!r}"
            return f"putting {what} on the notifier's queue"
        made = self._classes.tape.made[effect.made]
        if "Item" in made:
            return "making the record"
        values = made["ExpressionAttributeValues"].items()
        news = [f"{k[1:]}={next(iter(v.values()))}" for k, v in values if not k.startswith(":was_")]
        return f"writing {', '.join(sorted(news))}"

    # --------------------------------------------------------------------------- promises

    def rests(self, world: World) -> bool:
        """Return whether nothing is under way any more."""
        return not (world.calls or world.pending or world.orders or self._waiting(world))

    def broken(self, world: World) -> str:
        """Return the promise that is broken in a world, if one is."""
        if world.wrong:
            return world.wrong
        if problem := self._untrue(world):
            return problem
        if (record := self._record(world.item)) is None:
            return ""
        if world.item not in self._shown:
            self._shown[world.item] = _badly_shown(record)
        if problem := self._shown[world.item]:
            return problem
        truth = Counter(world.ends)
        if not record.finished_at:
            for state, count in record.counts.items():
                if count > truth[state]:
                    return f"the count of {state} runs ahead of the records"
        return self._at_rest(world, record, truth) if self.rests(world) else ""

    def _untrue(self, world: World) -> str:
        """Return how what a caller was told is not true, now or any more."""
        item = self._classes.tape.items[world.item]
        mine = PRINTS.index(item["fingerprint"]["S"]) if item else -1
        for body, words in world.told:
            if words == "accepted" and body != mine:
                return "accepted, and there is no record of it"
            if words == "reused" and body == mine:
                return "refused as another broadcast's key, and no other has it"
        if mine >= 0 and {*world.announced} - {-1, mine}:
            return "the messages are not those of the record"
        return ""

    def _at_rest(self, world: World, record: BroadcastRecord, truth: Counter[str]) -> str:
        announced = {i for i, body in enumerate(world.announced) if body >= 0}
        if record.status not in ENDED:
            return f"nothing goes on, and it is {record.status} for ever"
        if record.status is Status.COMPLETED and len(announced) < self._of.subscribers:
            return "completed, and not everybody got it"
        if not record.snapshot:
            return "there is no list, and some got it" if announced else ""
        due = set(self._classes.tape.listed(record.snapshot)[: record.enqueued])
        if announced != due:
            return "what is on the queue is not what is due"
        counts = {str(state): n for state, n in record.counts.items() if n}
        if not record.final or counts != {end: n for end, n in truth.items() if end}:
            return "it has ended, and its counts are not those of the records"
        return ""


def _shrinks(was: BroadcastRecord, now: BroadcastRecord) -> bool:
    """Return whether an attribute becomes less that only grows."""
    return (
        was.snapshot not in ("", now.snapshot)
        or was.enqueued > now.enqueued
        or was.writes > now.writes
        or (was.recount.asked_at, was.recount.chunks) > (now.recount.asked_at, now.recount.chunks)
        or was.finished_at > now.finished_at
    )


def _ended(world: World, subscriber: int, state: str) -> World:
    ends = (*world.ends[:subscriber], str(state), *world.ends[subscriber + 1 :])
    return world._replace(ends=ends)


def _badly_shown(record: BroadcastRecord) -> str:
    """Return what is wrong with how a broadcast is shown, if anything is."""
    shown = BroadcastState.of(record, 25.0)
    names = ("queued", "sent", "rejected", "unknown", "failed", "expired", "canceled")
    numbers = [getattr(shown, name) for name in names]
    if min(numbers) < 0:
        return "a number below zero is shown"
    return "" if sum(numbers) == shown.total else "what is shown does not sum up"


def _held(call: Call) -> int | None:
    """Return the message that a run of the sender has and has not moved yet, if any."""
    match call.what:
        case Redrive(subscriber):
            return subscriber
        case Deliver(subscriber) if not TERMINAL.intersection(call.answers):
            return subscriber
    return None


def _who(what: What) -> str:
    match what:
        case Start(body):
            return f"who starts {TEXTS[body]!r}"
        case Steer(command):
            return f"who says {command}"
        case Run(order, name):
            order_ = "the recount" if order.body < 0 else f"{TEXTS[order.body]!r}"
            return f"run {name} with {order_}"
        case Deliver(i):
            return f"the sender with message {i}"
        case Redrive(i):
            return f"the sender with redriven message {i}"


CONFIGURATIONS: Mapping[str, Configuration] = {
    "starts": Configuration(starts=3, bodies=2, faults=2, apart=(Start,)),
    "starts and runs": Configuration(starts=2, bodies=2, faults=0, subscribers=1),
    "runs": Configuration(apart=(Run,)),
    "runs, chunk by chunk": Configuration(subscribers=3, page=1, hurried=True, at_once=1),
    "commands": Configuration(commands=COMMANDS, most_commands=2, at_once=1),
    "commands, two runs": Configuration(
        commands=COMMANDS, most_commands=1, faults=0, page=1, apart=(Run,)
    ),
    "commands at once": Configuration(
        commands=COMMANDS, most_commands=2, apart=(Steer,), subscribers=1
    ),
    "a stop between chunks": Configuration(
        commands=(Command.STOP,), most_commands=1, subscribers=3, page=1, faults=1, at_once=1
    ),
    "a pause too long": Configuration(
        commands=COMMANDS, most_commands=2, at_once=1, faults=0, long=LONGEST_PAUSE + 86400.0
    ),
    "counts": Configuration(queued=True, rejected=True, redrives=1, apart=(Deliver, Redrive)),
    "counts and recounts": Configuration(
        queued=True, rejected=True, redrives=2, subscribers=1, apart=(Run, Deliver, Redrive)
    ),
    "recounts, chunk by chunk": Configuration(
        queued=True, rejected=True, redrives=1, page=1, hurried=True, apart=(Run, Redrive)
    ),
}
