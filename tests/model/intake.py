"""Every interleaving of the calls that hand in one message, at each door, over the real classes.

A call runs up to its next effect on the table or the queue; the search then answers that effect in
every way there is, and runs the call again from its start with all its answers so far. So a call is
known by its answers, no thread is needed, and two worlds are the same if they are equal. Between
any two effects of one call another may go on, the call may end for ever, and the sender may take a
message. An effect may be done, refused, done without an answer, or done later, after the call was
told that there is no answer.

`make model` searches everything; tests/unit/test_model_intake.py a part.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from relay.messages.envelope import Message, QueuedMessage
from relay.messages.intake import (
    Accepted,
    Answer,
    Intake,
    KeyReused,
    queued,
    scoped_id,
)
from relay.messages.queues import DeadLetterEntry
from relay.messages.service import Messages
from relay.messages.states import (
    TERMINAL,
    Change,
    Drop,
    Finish,
    Record,
    Refuse,
    Rules,
    Send,
    State,
    claim,
    decide,
    settle,
)
from relay.messages.store import (
    Applied,
    Conflict,
    StoreUnavailableError,
    Unwritten,
    Written,
)
from relay.problems import ProblemError
from relay.schedules.firings import FiringDoor, NotAcceptedError
from relay.webhooks.hooks import load
from relay.webhooks.receiver import Receiver
from relay.webhooks.secrets import HookSecrets
from smsgold.responses import Outcome, Verdict
from tests.model.found import Found, breadth_first
from tests.support.webhooks import api_event

NOW = 1_800_000_000.0
LATE_BY = 3600.0
RULES = Rules()
BODIES = ("a text", "another text")
ACCEPTED = Verdict(Outcome.ACCEPTED, "accepted", provider_id="p-1", status=200)
HOOK = """
[plain]
verify = { scheme = "token" }
to = { subscriberId = "s-1" }
delivery = "id"
messages = [{ text = "{{ text }}" }]
"""
TOKEN = "a secret token"


# ------------------------------------------------------------------------------- one call


class Load(NamedTuple):
    """A call reads the record."""


class Put(NamedTuple):
    """A call puts a body on the queue."""

    body: int


class Write(NamedTuple):
    """A call writes a step."""

    change: Change


Effect = Load | Put | Write


class Pause(BaseException):
    """The call is at an effect that has no answer yet."""

    def __init__(self, effect: Effect) -> None:
        super().__init__(effect)
        self.effect = effect


class Tape:
    """A table and queues that answer as they are told, and stop the call after the last answer."""

    def __init__(self) -> None:
        self.answers: Sequence[Any] = ()
        self.messages: dict[int, QueuedMessage] = {}
        """The messages that were put on the queue, by their bodies."""
        self._at = 0

    def rewind(self, answers: Sequence[Any]) -> None:
        self.answers, self._at = answers, 0

    def _next(self, effect: Effect) -> Any:
        if self._at == len(self.answers):
            raise Pause(effect)
        self._at += 1
        return self.answers[self._at - 1]

    def load(self, ids: Iterable[str]) -> dict[str, Record]:
        if not list(ids):
            return {}
        answer = self._next(Load())
        if answer == "fails":
            raise StoreUnavailableError(answer)
        return {answer.id: answer} if answer else {}

    def apply(self, changes: Sequence[Change]) -> list[Written]:
        return [self._next(Write(change)) for change in changes]

    def enqueue(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        del delays
        bodies = [BODIES.index(message.text) for message in messages]
        self.messages |= zip(bodies, messages, strict=True)
        answers = [self._next(Put(body)) for body in bodies]
        return [None if answer == "on the queue" else answer for answer in answers]

    def has_room_to_wait(self) -> bool:
        raise NotImplementedError

    def enqueue_dead_letters(self, letters: Sequence[DeadLetterEntry]) -> list[str | None]:
        raise NotImplementedError

    def enqueue_broadcast(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        raise NotImplementedError

    def enqueue_notifier(self, body: str) -> None:
        raise NotImplementedError

    def change_visibility(self, source: str, receipts: Mapping[str, float]) -> None:
        raise NotImplementedError


class Request(NamedTuple):
    """What a caller sends: the body, and whether it comes too late."""

    body: int
    late: bool = False


class Door:
    """A door's real classes over a tape; `ask` makes one request of it and returns the answer."""

    def __init__(self, name: str, ask: Callable[["Door", Request], "Told"], id_: str) -> None:
        self.name = name
        self.id = id_
        self.tape = Tape()
        self.now = NOW
        self.serial = 0
        self.intake = Intake(
            self.tape,
            self.tape,
            RULES,
            clock=lambda: self.now,
            new_id=lambda: str(self.serial),
        )
        self._ask = ask
        self._known: dict[tuple[Any, ...], Effect | Told] = {}

    def run(self, request: Request, serial: int, answers: Sequence[Any]) -> "Effect | Told":
        """Return a call's next effect after these answers, or what it tells its caller."""
        key = (request, serial, *answers)
        if key not in self._known:
            self.tape.rewind(answers)
            self.serial = serial
            self.now = NOW + (2 * LATE_BY if request.late else 0.0)
            try:
                self._known[key] = self._ask(self, request)
            except Pause as pause:
                self._known[key] = pause.effect
        return self._known[key]


class Told(NamedTuple):
    """What a caller was told, and of which request."""

    request: Request
    words: str
    """`accepted`, `reused` or `unavailable`."""
    status: str = ""
    heard: bool = False
    """The queue had told the call that it has the message."""


def message(body: int, id_: str) -> QueuedMessage:
    """Return the message of a body as the HTTP API makes it."""
    return queued(Message(subscriberId="s-1", text=BODIES[body]), id_)


def _told(request: Request, answer: Answer) -> Told:
    match answer:
        case Accepted(record):
            return Told(request, "accepted", record.state)
        case KeyReused(record):
            return Told(request, "reused", record.state)
        case _:
            return Told(request, "unavailable")


def http() -> Door:
    """Return the HTTP door, asked with an Idempotency-Key."""

    def ask(door: Door, request: Request) -> Told:
        [answer] = _messages(door).accept([message(request.body, door.id)])
        return _told(request, answer)

    return Door("http", ask, scoped_id("http", "caller", "key"))


def http_without_a_key() -> Door:
    """Return the HTTP door, asked without a key: the id is made for the one call."""

    def ask(door: Door, request: Request) -> Told:
        [answer] = _messages(door).accept([message(request.body, door.id)], fresh=(door.id,))
        return _told(request, answer)

    return Door("http without a key", ask, "fresh")


def _messages(door: Door) -> Messages:
    nobody: Any = None
    return Messages(
        store=door.tape,
        lists=nobody,
        queues=door.tape,
        intake=door.intake,
        sender=nobody,
        gate=nobody,
    )


def hook() -> Door:
    """Return the webhooks' door."""
    hooks, secrets = load(HOOK), HookSecrets(lambda: json.dumps({"plain": TOKEN}))

    def ask(door: Door, request: Request) -> Told:
        receiver = Receiver(hooks, secrets, door.intake, cast("Any", None), door.tape)
        body = json.dumps({"id": 1, "text": BODIES[request.body]}).encode()
        try:
            handled = receiver.receive("plain", api_event("plain", body, {"Authorization": TOKEN}))
        except ProblemError:
            return Told(request, "unavailable")
        return Told(request, "accepted", handled.status)

    return Door("hook", ask, scoped_id("hook", "plain", "1"))


def event() -> Door:
    """Return the schedules' door: a firing has one body."""
    planned = datetime.fromtimestamp(NOW, UTC).isoformat()

    def ask(door: Door, request: Request) -> Told:
        firings = FiringDoor(door.intake, cast("Any", None), clock=lambda: door.now)
        content = {"message": {"subscriberId": "s-1", "text": BODIES[request.body]}}
        firing = {"schedule": "s", "time": planned, "skipIfLateBy": LATE_BY, **content}
        try:
            answer = firings.accept(firing, "r-1")
        except NotAcceptedError:
            return Told(request, "unavailable")
        return Told(request, "accepted", answer["status"])

    return Door("event", ask, scoped_id("schedule", "s", planned))


# ------------------------------------------------------------------------------ the world


class Call(NamedTuple):
    """A call under way: known by the answers it got."""

    request: Request
    serial: int
    answers: tuple[Any, ...] = ()


class Run(NamedTuple):
    """A run of the sender between its claim and its settlement."""

    body: int
    claimed: Record


class World(NamedTuple):
    """Everything there is, and what must be remembered to judge it."""

    record: Record | None = None
    copies: tuple[int, ...] = ()
    """The bodies that lie on the queue."""
    calls: tuple[Call, ...] = ()
    begun: int = 0
    late: bool = False
    """The hour from which a call comes too late has struck."""
    faults: int = 0
    pending: tuple[Put | Write, ...] = ()
    """Effects that nobody waits for any more."""
    run: Run | None = None
    posted: tuple[int, ...] = ()
    told: tuple[Told, ...] = ()
    in_time: bool = False
    """A call came in time."""


class Move(NamedTuple):
    """A step of the story."""

    words: str
    world: World


@dataclass(frozen=True)
class Configuration:
    """What is searched: a door, and how much may happen."""

    door: Callable[[], Door]
    calls: int = 2
    at_once: int = 2
    """Calls under way at the same time."""
    faults: int = 1
    """Effects that do not go as they should; that a call dies is free."""
    bodies: int = 2
    late: bool = False
    """Whether calls may come too late."""


def explore(configuration: Configuration) -> Found:
    """Search breadth first; keep the shortest story of each broken promise."""
    search = _Search(configuration)
    return breadth_first(World(faults=configuration.faults), search.broken, search.moves)


class _Search:
    def __init__(self, configuration: Configuration) -> None:
        self._of = configuration
        self._door = configuration.door()

    # ------------------------------------------------------------------------------ moves

    def moves(self, world: World) -> Iterator[Move]:
        """Yield everything that may happen next."""
        of = self._of
        if of.late and not world.late:
            yield Move("it gets late", world._replace(late=True))
        if world.begun < of.calls and len(world.calls) < of.at_once:
            for body in range(of.bodies):
                request = Request(body, world.late)
                call = Call(request, world.begun)
                yield Move(
                    f"call {call.serial} brings {BODIES[body]!r}{' too late' * world.late}",
                    self._gone_on(
                        world._replace(
                            begun=world.begun + 1, in_time=world.in_time or not world.late
                        ),
                        call,
                    ),
                )
        for call in world.calls:
            rest = world._replace(calls=tuple(c for c in world.calls if c is not call))
            yield Move(f"call {call.serial} dies", rest)
            effect = self._door.run(*call)
            for words, there, answer in self._answers(rest, cast("Effect", effect)):
                yield Move(
                    f"call {call.serial} {words}",
                    self._gone_on(there, call._replace(answers=(*call.answers, answer))),
                )
        for i, effect in enumerate(world.pending):
            rest = world._replace(pending=world.pending[:i] + world.pending[i + 1 :])
            done, _ = self._done(rest, effect)
            yield Move(f"late, {_words(effect)} is done", done)
        yield from self._sender(world)

    def _gone_on(self, world: World, call: Call) -> World:
        """Return the world in which a call waits for its next answer, or has told its caller."""
        match self._door.run(*call):
            case Told() as told:
                heard = "on the queue" in call.answers
                return world._replace(told=(*world.told, told._replace(heard=heard)))
        return world._replace(calls=(*world.calls, call))

    def _answers(self, world: World, effect: Effect) -> Iterator[tuple[str, World, Any]]:
        """Yield the ways in which an effect may go: the words, the world after it, the answer."""
        less = world._replace(faults=world.faults - 1)
        match effect:
            case Load():
                found = world.record.state if world.record else "nothing"
                yield f"reads {found}", world, world.record
                if world.faults:
                    yield "cannot read", less, "fails"
            case Put() | Write():
                what = _words(effect)
                there, answer = self._done(world, effect)
                conflict = isinstance(answer, Conflict)
                yield f"does {what}{', which is refused: it is there' * conflict}", there, answer
                if world.faults:
                    silence = "no answer" if isinstance(effect, Put) else Unwritten("no answer")
                    yield f"is refused {what}", less, silence
                    there, _ = self._done(less, effect)
                    yield f"does {what} and does not hear so", there, silence
                    late = less._replace(pending=(*less.pending, effect))
                    yield f"hears nothing of {what}, which is under way", late, silence

    def _done(self, world: World, effect: Put | Write) -> tuple[World, Any]:
        if isinstance(effect, Put):
            copies = tuple(sorted((*world.copies, effect.body)))
            return world._replace(copies=copies), "on the queue"
        change = effect.change
        if world.record != change.before:
            return world, Conflict(world.record)
        return world._replace(record=change.after), Applied(change.after)

    def _sender(self, world: World) -> Iterator[Move]:
        """Yield what a sender may do: it works on one copy at a time and makes no mistakes."""
        if world.run:
            settled = settle(
                world.run.claimed, ACCEPTED, began=NOW, now=NOW, on_unknown=None, rules=RULES
            ).change.after
            posted = (*world.posted, world.run.body)
            yield Move(
                f"the sender sends {BODIES[world.run.body]!r}",
                world._replace(record=settled, run=None, posted=posted),
            )
            return
        for body in sorted(set(world.copies)):
            copies = list(world.copies)
            copies.remove(body)
            rest = world._replace(copies=tuple(copies))
            words = f"the sender takes {BODIES[body]!r}"
            match decide(
                world.record,
                self._door.tape.messages[body],
                door="sqs",
                sent_at=NOW,
                now=NOW,
                rules=RULES,
            ):
                case Send() as send:
                    claimed = claim(send, attempt="claim", now=NOW, lease=NOW + 60).after
                    yield Move(
                        f"{words} and claims it",
                        rest._replace(record=claimed, run=Run(body, claimed)),
                    )
                case Finish(change):
                    yield Move(f"{words} and ends it", rest._replace(record=change.after))
                case Refuse():
                    yield Move(f"{words}, and its id is another's: a dead letter", rest)
                case Drop():
                    yield Move(f"{words} and drops it", rest)

    # --------------------------------------------------------------------------- promises

    def broken(self, world: World) -> str:
        """Return the promise that is broken in a world, if one is."""
        if len(world.posted) > 1:
            return "sent twice"
        for told in world.told:
            if problem := self._untrue(world, told):
                return problem
        if world.posted and not world.in_time:
            return "sent, although every call came too late"
        if not (world.copies or world.calls or world.pending or world.run):
            return self._at_rest(world)
        return ""

    def _untrue(self, world: World, told: Told) -> str:
        """Return how what a caller was told is not true, now or any more."""
        if told.words == "unavailable" and told.heard and self._of.door is http_without_a_key:
            return "its caller is told to repeat it, under another id, and it is on the queue"
        if told.words != "accepted" or told.status == State.EXPIRED:
            return ""
        if world.record and (world.record.tries or world.record.state in TERMINAL):
            return ""
        mine = {told.request.body} if self._of.door is not hook else set(range(len(BODIES)))
        under_way = {*world.copies, *([world.run.body] if world.run else [])}
        if not mine & under_way:
            return "accepted, but neither on the queue nor tried"
        return ""

    def _at_rest(self, world: World) -> str:
        if world.record and world.record.state not in TERMINAL:
            return f"nothing goes on, and the record is {world.record.state} for ever"
        for told in world.told:
            match told.words:
                case "accepted" if told.status == State.EXPIRED:
                    if world.posted:
                        return "a caller was told that it is skipped, and it was sent"
                case "accepted" if not world.posted:
                    if world.record is None or world.record.state is not State.EXPIRED:
                        return "accepted, and never sent"
                case "accepted" if self._of.door is not hook:
                    if world.posted != (told.request.body,):
                        return "accepted, and another body was sent"
                case "reused" if not world.posted or world.posted == (told.request.body,):
                    return "refused as another message's key, and no other was sent"
        return ""


def _words(effect: Put | Write) -> str:
    if isinstance(effect, Put):
        return f"putting {BODIES[effect.body]!r} on the queue"
    return f"writing the record as {effect.change.after.state}"


CONFIGURATIONS: Mapping[str, Configuration] = {
    "http": Configuration(http, calls=3, faults=2),
    "http, three at once": Configuration(http, calls=3, at_once=3, faults=2),
    "http without a key": Configuration(http_without_a_key, calls=1, faults=3, bodies=1),
    "hook": Configuration(hook, calls=3, faults=2),
    "event": Configuration(event, calls=3, faults=2, bodies=1, late=True),
}
