"""Broadcasts and their fan-out over a real client's table, with runs that die where a test says."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import boto3

from relay.broadcasts.audience import Audience
from relay.broadcasts.bucket import Bucket
from relay.broadcasts.fanout import FanOut
from relay.broadcasts.gate import BroadcastGate
from relay.broadcasts.model import (
    Broadcast,
    BroadcastRecord,
    QueuedBroadcast,
    message_id,
    queued_broadcast,
    recount_order,
)
from relay.broadcasts.reach import Reach
from relay.broadcasts.recounts import Recounts, Turn
from relay.broadcasts.service import Broadcasts, Reused, Started
from relay.broadcasts.table import BroadcastTable
from relay.messages.envelope import QueuedMessage
from relay.messages.queues import QueueUnavailableError
from relay.messages.refusals import Refusals
from relay.messages.states import Record, Rules, State
from relay.validation import parse, validate
from tests.support.table import create_table
from tests.support.world import Crash, Relay

LONGEST_RUN = 60.0
RULES = Rules(retry_window=3600.0)


class Faulty:
    """A DynamoDB client in whose calls the run may end, and that may lose the answer to a write."""

    def __init__(self, client: Any, beside: "Faulty | None" = None) -> None:
        self._client = client
        self._beside = beside
        self.dies_in: int | None = None
        """How many effects from now the run ends: before a call or after it."""
        self.meanwhile: Callable[[], object] | None = None
        """The next write's answer is lost, this happens, and botocore makes the write again."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def made(**arguments: Any) -> Any:
            self._step()
            if (meanwhile := self.meanwhile) and name == "update_item":
                self.meanwhile = None
                call(**arguments)
                meanwhile()
            answer = call(**arguments)
            self._step()
            return answer

        return made

    def _step(self) -> None:
        if self._beside:
            self._beside._step()
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Crash("here")


class Fanned:
    """Broadcasts and their fan-out over moto's table and a world in memory."""

    def __init__(self) -> None:
        client = boto3.client("dynamodb", region_name="us-east-1")
        create_table(client)
        self.client = client
        self.faulty = Faulty(client)
        self.relay = Relay(RULES)
        self.s3 = boto3.client("s3", region_name="us-east-1")
        self.s3.create_bucket(Bucket="stack")
        self.faulty_s3: Any = Faulty(self.s3, self.faulty)
        self.bucket = Bucket(lambda: self.faulty_s3, "stack")
        anything: Any = self.faulty
        self.table = BroadcastTable(anything, "Relay", self.bucket)
        self.queued: list[str] = []
        self.relay.queues.enqueue_notifier = self.queued.append  # type: ignore[method-assign, assignment]
        self.listed: list[Mapping[str, object]] = []
        self.error: Exception | None = None
        self.meanwhile: Callable[[], list[Mapping[str, object]]] | None = None
        self.names = 0
        self.recounts = Recounts(
            self.table,
            self.relay.store,
            RULES,
            longest_run=LONGEST_RUN,
            clock=self.relay.world.clock,
        )
        self.refusals = Refusals(client, "Relay", clock=self.relay.world.clock)
        self.reach = Reach(self.refusals, self.table, refusals_percent=50)
        self.audience = Audience(
            subscribers=self._subscribers,
            table=self.table,
            store=self.relay.store,
            bucket=self.bucket,
            unreachable=self.reach.unreachable,
        )
        self.broadcasts = Broadcasts(
            self.table,
            self.relay.store,
            self.relay.queues,
            self.audience,
            self.reach,
            rate=25.0,
            clock=self.relay.world.clock,
        )
        self.fan_out = FanOut(
            table=self.table,
            queues=self.relay.queues,
            recounts=self.recounts,
            audience=self.audience,
            rules=RULES,
            rate=25.0,
            clock=self.relay.world.clock,
            new_name=self._name,
        )

    def _subscribers(self, bot_id: str) -> list[Mapping[str, object]]:
        assert bot_id == "b-1"
        if self.meanwhile:
            return self.meanwhile()
        if self.error:
            raise self.error
        return self.listed

    def _name(self) -> str:
        self.names += 1
        return f"s{self.names}"

    def start(
        self, text: str = "To all", *, late: bool = False, id_: str = "x", **fields: object
    ) -> Started | Reused:
        broadcast = validate(Broadcast, {"botId": "b-1", "text": text, **fields})
        return self.broadcasts.start(queued_broadcast(broadcast, id_), late=late)

    def run(self, ends_in: float = 60.0, *, order: int = 0) -> float | None:
        """Run the fan-out for an order that was put on the queue, the first or another."""
        turn = Turn(self.relay.world.now + ends_in)
        return self.fan_out.run(parse(QueuedBroadcast, self.queued[order]), turn)

    def recount(self, *, asked_at: float) -> float | None:
        """Work on the last order, which is to be one for a recount."""
        assert self.queued[-1] == recount_order("x")
        return self.recounts.again("x", Turn(self.relay.world.now + 60.0), asked_at=asked_at)

    def counts(self) -> dict[State, int]:
        """Return the counts that are not zero."""
        return {state: n for state, n in self.progress().counts.items() if n}

    def gate(self) -> BroadcastGate:
        """Return the gate of a fresh environment of the sender."""
        return BroadcastGate(
            self.table, self.relay.queues, refusals_percent=50, clock=self.relay.world.clock
        )

    def progress(self) -> BroadcastRecord:
        return self.table.load(["x"])["x"]

    def enqueued(self) -> Counter[str]:
        messages = [parse(QueuedMessage, copy.body) for copy in self.relay.queues.messages]
        assert all(m.id == message_id("x", str(m.subscriber_id)) for m in messages)
        assert all(m.broadcast == "x" for m in messages)
        return Counter(str(m.subscriber_id) for m in messages)

    def settle(self, ids: list[str], state: State, *, at: float, broadcast: str = "x") -> None:
        """Write the records of messages that came to an end."""
        for id_ in ids:
            key = message_id(broadcast, id_)
            self.relay.store.put(Record(key, state, "f", "sqs", at, at, at))


def refused(_: str) -> None:
    """The notifier's queue, that does not say that it took an order."""
    raise QueueUnavailableError("no answer")


def ids(count: int) -> list[str]:
    return [f"s-{n}" for n in range(count)]


def entries(count: int) -> list[Mapping[str, object]]:
    return [{"id": id_} for id_ in ids(count)]
