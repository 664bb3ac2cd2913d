"""What delays a POST between its slot and its first byte: real sockets, threads and time.

However long a secret, a name, a connection or a handshake takes, no message leaves after its time,
and no second sees more than was promised.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest
import trustme

from relay.messages.breaker import Breaker
from relay.messages.chats import Chats
from relay.messages.dead_letters import DeadLetters
from relay.messages.dispatch import Dispatcher
from relay.messages.envelope import QueuedMessage
from relay.messages.pacing import CHATS_TO_HOLD_ALL, GRACE
from relay.messages.results import Done, Received
from relay.messages.sender import Sender
from relay.messages.states import Rules, State
from smsgold.client import Client
from smsgold.credentials import CredentialsSource
from smsgold.transport import pool_manager
from tests.support.poll import until
from tests.support.wire import Server, http
from tests.support.world import SEALS, MemoryGate, MemoryPacer, MemoryQueues, MemoryStore, World

PATIENCE = 40.0
"""Seconds until every message must have come to its end."""


class RealTime(World):
    """A world whose clock is the machine's."""

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, _: float) -> None:
        pass


class Line:
    """A sender with the real client and real threads, and its table and queues in memory."""

    def __init__(
        self,
        client: Client,
        executor: ThreadPoolExecutor,
        *,
        rate: float,
        fetch: Callable[[], str] | None = None,
        max_age: float = 300.0,
    ) -> None:
        world = RealTime()
        self.store = MemoryStore(world)
        pacer = MemoryPacer(world, rate)
        secret = json.dumps({"user": "10001", "pass": "a password"})
        chats = Chats()
        self.sender = Sender(
            store=self.store,
            gate=MemoryGate(world),
            pacer=pacer,
            chats=chats,
            dispatcher=Dispatcher(
                provider=client,
                credentials=CredentialsSource(fetch or (lambda: secret), max_age=max_age),
                breaker=Breaker(),
                pacer=pacer,
                chats=chats,
                executor=executor,
                provider_timeout=12.0,
            ),
            dead_letters=DeadLetters(self.store, MemoryQueues(world)),
            queues=MemoryQueues(world),
            seals=SEALS,
            rules=Rules(),
        )

    def deliver(self, messages: Sequence[QueuedMessage]) -> None:
        """Deliver messages again and again, as a queue does, until each has come to its end."""
        began = time.time()
        due = {str(message.id): began for message in messages}
        while due:
            assert time.time() < began + PATIENCE, f"not ended: {sorted(due)}"
            now = time.time()
            batch = [
                Received(message, "sqs", began)
                for message in messages
                if due.get(str(message.id), now + 1.0) <= now
            ]
            results = self.sender.deliver(batch, ends_at=time.time() + 60.0)
            for received, result in zip(batch, results, strict=True):
                id_ = str(received.message.id)
                if isinstance(result, Done):
                    del due[id_]
                else:
                    due[id_] = time.time() + result.seconds
            time.sleep(0.02)

    def states(self) -> list[State]:
        return [record.state for record in self.store.records.values()]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(34) as threads:
        yield threads


def messages(count: int, lives: float | None = None) -> list[QueuedMessage]:
    """Return messages to as many chats, each of which gets but one a second."""
    expires = datetime.fromtimestamp(time.time() + lives, UTC) if lives else None
    return [
        QueuedMessage(id=f"m-{i}", subscriberId=f"s-{i}", text="t", expiresAt=expires)
        for i in range(count)
    ]


def accepts(sock: socket.socket) -> None:
    sock.sendall(http("200 OK", b'{"id": "1"}'))


@contextmanager
def client(server: Server, ssl_context: ssl.SSLContext | None = None) -> Iterator[Client]:
    pool = pool_manager(ssl_context=ssl_context)
    try:
        yield Client(server.url, http=pool)
    finally:
        pool.clear()


def assert_no_flood(times: Sequence[float], rate: float) -> None:
    most = int(rate * (1 + GRACE)) + 1
    for first, at in zip(sorted(times), sorted(times)[most:], strict=False):
        assert at - first >= 1.0, f"more than {most} POSTs within a second"


class Vault:
    """A secret whose reads take so long, the first one excepted."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.readers: list[threading.Thread] = []

    def __call__(self) -> str:
        self.readers.append(threading.current_thread())
        if len(self.readers) > 1:
            time.sleep(self.seconds)
        return json.dumps({"user": "10001", "pass": "a password"})


def test_a_slow_secret_makes_no_flood(executor: ThreadPoolExecutor) -> None:
    with Server(accepts) as server, client(server) as provider:
        vault = Vault(1.5)
        line = Line(provider, executor, rate=25.0, fetch=vault, max_age=1.0)
        line.deliver(messages(100))
        line.deliver([m.model_copy(update={"id": f"again-{m.id}"}) for m in messages(25)])
    assert len(server.times) == 125
    assert_no_flood(server.times, 25.0)
    assert len(vault.readers) > 1
    assert set(vault.readers) == {threading.main_thread()}, "no thread that has a slot waits for it"


def test_a_slow_secret_sends_nothing_that_has_expired(executor: ThreadPoolExecutor) -> None:
    with Server(accepts) as server, client(server) as provider:
        vault = Vault(2.0)
        line = Line(provider, executor, rate=1.0, fetch=vault, max_age=0.5)
        ends = time.time() + 1.5
        line.deliver(messages(3, lives=1.5))
    assert max(server.times) <= ends
    assert sorted(line.states()) == [State.EXPIRED, State.SENT, State.SENT]


@contextmanager
def _resolver(until: Callable[[], float]) -> Iterator[None]:
    """Resolve every name no sooner than that."""
    resolve = socket.getaddrinfo

    def slowly(*args: object, **options: object) -> object:
        if options:  # as the transport asks; connecting to what it found asks once more
            time.sleep(max(0.0, until() - time.time()))
        return resolve(*args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", slowly)
        yield


@contextmanager
def slow(what: str, seconds: float) -> Iterator[tuple[Server, Client]]:
    """Yield a provider to which every connection takes so long, by one cause."""
    with ExitStack() as stack:
        if what == "handshake":
            authority = trustme.CA()
            theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("localhost").configure_cert(theirs)
            ours = ssl.create_default_context()
            authority.configure_trust(ours)
            server = stack.enter_context(Server(accepts, tls=theirs, handshake_after=seconds))
            yield server, stack.enter_context(client(server, ours))
            return
        busy_for = seconds if what == "connect" else 0.0
        server = stack.enter_context(Server(accepts, busy_for=busy_for))
        if what == "resolver":
            stack.enter_context(_resolver(lambda: time.time() + seconds))
        yield server, stack.enter_context(client(server))


@pytest.mark.parametrize("what", ["resolver", "connect", "handshake"])
def test_what_expires_while_it_connects_is_not_sent(
    what: str, executor: ThreadPoolExecutor
) -> None:
    with slow(what, 2.5) as (server, provider):
        line = Line(provider, executor, rate=25.0)
        line.deliver(messages(3, lives=1.0))
    assert server.requests == []
    assert set(line.states()) == {State.EXPIRED}
    assert {record.tries for record in line.store.records.values()} == {0}


@pytest.mark.parametrize("what", ["resolver", "connect", "handshake"])
def test_what_misses_its_slot_by_connecting_is_sent_in_another(
    what: str, executor: ThreadPoolExecutor
) -> None:
    """Each connection takes longer than a slot's grace: that must not keep all out for ever."""
    with slow(what, 2.5 * GRACE) as (server, provider):
        line = Line(provider, executor, rate=5.0)
        line.deliver(messages(12))
    assert set(line.states()) == {State.SENT}
    assert {record.tries for record in line.store.records.values()} == {1}
    assert_no_flood(server.times, 5.0)


def test_a_resolver_that_comes_back_makes_no_flood(executor: ThreadPoolExecutor) -> None:
    """All who waited for it go on at the same moment."""
    ends = time.time() + 3.0
    with Server(accepts) as server, client(server) as provider, _resolver(lambda: ends):
        line = Line(provider, executor, rate=25.0)
        line.deliver(messages(75))
    assert set(line.states()) == {State.SENT}
    assert_no_flood(server.times, 25.0)


def test_a_hold_that_begins_while_a_message_connects_holds_it_too(
    executor: ThreadPoolExecutor,
) -> None:
    """Three chats are told to slow down while a fourth is still on its way to the provider."""
    resolve = socket.getaddrinfo
    calls: list[float] = []

    def fourth_slowly(*args: object, **options: object) -> object:
        calls.extend([time.time()] if options else [])
        if len(calls) > CHATS_TO_HOLD_ALL and options:
            until(lambda: line.sender._dispatcher._held_until, "hold", every=0.01)
        return resolve(*args, **options)  # type: ignore[arg-type]

    def busy_at_first(sock: socket.socket) -> None:
        if len(server.requests) > CHATS_TO_HOLD_ALL:
            accepts(sock)
            return
        time.sleep(0.5)
        sock.sendall(http("429 Too Many Requests", b"", "Retry-After: 3"))

    with (
        Server(busy_at_first) as server,
        client(server) as provider,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(socket, "getaddrinfo", fourth_slowly)
        line = Line(provider, executor, rate=0.0)
        line.deliver(messages(CHATS_TO_HOLD_ALL + 1))
    told, held = server.times[:CHATS_TO_HOLD_ALL], server.times[CHATS_TO_HOLD_ALL:]
    assert min(held) - max(told) >= 3.0
    assert set(line.states()) == {State.SENT}
