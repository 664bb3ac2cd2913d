"""AWS and the provider on loopback: answers after a fixed time, and counts what it is asked for.

It knows the few calls that the functions make. It keeps the table's items, so that a write counts
as many units as DynamoDB would bill, and grants every condition: one function at a time writes.
"""

import asyncio
import json
import math
import os
import re
import ssl
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any, TypeVar

import trustme

from relay.messages.lists import INDEXES, Index
from tests.support.template import settings

T = TypeVar("T")
Answer = Callable[[bytes, bytes], Any]
"""From a request's head and body to what the response holds as JSON."""

KILOBYTE = 1024
ACCOUNT = {"user": "10001", "pass": "a password of the stub"}
HOOK_SECRETS = {"plain": "a hook's secret of the stub"}


class Stub:
    """What the functions asked for, and the settings of a function that asks here."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.provider = self.aws = self.certificates = ""
        self._items: dict[str, dict[str, Any]] = {}
        self._bodies: list[str] = []

    def environment(self, *, rate: int = 0) -> dict[str, str]:
        """Return the environment variables of a function that sends `rate` messages a second."""
        return {
            **settings(self.aws),
            "MESSAGES_PER_SECOND": str(rate),  # 0: as fast as it can
            "PROVIDER_BASE_URL": self.provider,
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "stub",
            "AWS_SECRET_ACCESS_KEY": "stub",
            "SSL_CERT_FILE": self.certificates,
        }

    def reset(self) -> None:
        """Forget the counts, the table's items and the queue's bodies."""
        for kept in (self.counts, self._items, self._bodies):
            kept.clear()

    def bodies(self) -> list[str]:
        """Return the bodies that were put on the queue, and forget them."""
        found, self._bodies = self._bodies, []
        return found

    def answer_provider(self, _head: bytes, _body: bytes) -> Any:
        """Accept a message."""
        self.counts["posts"] += 1
        return {"id": "8f14e45f-ceea-467f", "status": "queued"}

    def answer_aws(self, head: bytes, body: bytes) -> Any:
        """Answer a call of AWS's JSON protocol."""
        target = re.search(rb"\r\nx-amz-target: *\w+\.(\w+)", head, re.IGNORECASE)
        operation = target[1].decode() if target else ""
        request = json.loads(body)
        self.counts[f"call:{operation}"] += 1
        match operation:
            case "BatchGetItem":
                return self._get(request)
            case "BatchExecuteStatement":
                return {"Responses": [self._execute(**s) for s in request["Statements"]]}
            case "UpdateItem":
                return self._update(request)
            case "PutItem":
                self.counts["write units"] += 1
                return {}
            case "SendMessage":
                return self._send(request["MessageBody"])
            case "SendMessageBatch":
                sent = [self._send(e["MessageBody"]) | {"Id": e["Id"]} for e in request["Entries"]]
                return {"Successful": sent, "Failed": []}
            case "ChangeMessageVisibilityBatch" | "PutEvents":
                taken = [{"Id": e.get("Id"), "EventId": "e"} for e in request["Entries"]]
                return {"Successful": taken, "Failed": [], "Entries": taken}
            case "GetSecretValue":
                secret = HOOK_SECRETS if request["SecretId"] == "HookSecrets" else ACCOUNT
                return {"SecretString": json.dumps(secret), "Name": "s", "VersionId": "v"}
            case _:
                raise NotImplementedError(operation)

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        ((table, asked),) = request["RequestItems"].items()
        items = [self._items.get(key["pk"]["S"], {}) for key in asked["Keys"]]
        for item in items:
            # That of an item which is not there costs as much as a small one.
            units: float = max(1, math.ceil(size_of(item) / (4 * KILOBYTE)))
            if not asked.get("ConsistentRead"):
                units /= 2
            self.counts["read units"] += units  # type: ignore[assignment] # there are half ones
        return {"Responses": {table: [item for item in items if item]}, "UnprocessedKeys": {}}

    def _execute(self, Statement: str, Parameters: list[Any], **_: Any) -> dict[str, Any]:  # noqa: N803 - AWS's
        """Carry out an INSERT or an UPDATE of a record."""
        if Statement.startswith("INSERT"):
            before: dict[str, Any] = {}
            after = dict(zip(re.findall(r"'([^']+)': \?", Statement), Parameters, strict=True))
        else:
            names = re.findall(r'SET "([^"]+)" = \?', Statement)
            before = self._items[Parameters[len(names)]["S"]]
            after = before | dict(zip(names, Parameters, strict=False))
        self.counts["writes"] += 1
        self.counts["write units"] += math.ceil(max(size_of(before), size_of(after)) / KILOBYTE)
        self.counts["index units"] += sum(_in_an_index(before, after, index) for index in INDEXES)
        self._items[after["pk"]["S"]] = after
        return {}

    def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        self.counts["write units"] += 1
        if "next" not in request.get("ExpressionAttributeNames", {}).values():
            return {}
        self.counts["pace writes"] += 1
        return {"Attributes": {"next": {"N": f"{time.time():.6f}"}}}  # the next slot is now

    def _send(self, body: str) -> dict[str, Any]:
        self._bodies.append(body)
        digest = md5(body.encode(), usedforsecurity=False).hexdigest()
        return {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": digest}


def _in_an_index(before: dict[str, Any], after: dict[str, Any], index: Index) -> int:
    """Return the units that a write costs in an index of small keys: what goes, what comes."""
    was, now = (
        [item.get(name) for name in (index.partition, index.place)] for item in (before, after)
    )
    return 0 if was == now else (None not in was) + (None not in now)


def size_of(item: dict[str, Any]) -> int:
    """Return an item's size as DynamoDB counts it: names and values, a number by its digits."""

    def of(value: Any) -> int:
        ((kind, content),) = value.items()
        match kind:
            case "S":
                return len(content.encode())
            case "N":
                return math.ceil(len(content.strip("-.")) / 2) + 1
            case "L":
                return 3 + sum(1 + of(v) for v in content)
            case "M":
                return 3 + sum(1 + len(k) + of(v) for k, v in content.items())
            case _:
                return 1

    return sum(len(name) + of(value) for name, value in item.items())


class _Connection(asyncio.Protocol):
    """A keep-alive connection whose every answer waits for the latency.

    As little of HTTP as the two clients need: the functions are measured, not their stub.
    """

    def __init__(self, answer: Answer, latency: float, opened: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._latency = latency
        self._opened = opened
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened.add(transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._opened.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            content = json.dumps(self._answer(head, rest[:length])).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            answer += b"%d\r\n\r\n" % len(content) + content
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)


@contextmanager
def stub(*, provider: float = 0.1, aws: float = 0.005) -> Iterator[Stub]:
    """Answer in a thread of this process, the provider and AWS after so many seconds each."""
    found, authority, opened = Stub(), trustme.CA(), set[asyncio.Transport]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=10)

    def serve(answer: Answer, latency: float, tls: ssl.SSLContext | None) -> asyncio.Server:
        connection = partial(_Connection, answer, latency, opened)
        return run(loop.create_server(connection, "127.0.0.1", 0, ssl=tls, backlog=1024))

    async def close() -> None:
        for server in servers:
            server.close()
        for transport in list(opened):
            transport.abort()
        await asyncio.sleep(0.1)  # lets the connections end

    servers = serve(found.answer_provider, provider, context), serve(found.answer_aws, aws, None)
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    found.provider = f"https://127.0.0.1:{ports[0]}/v1/telegram/bot"
    found.aws = f"http://127.0.0.1:{ports[1]}"
    try:
        with tempfile.NamedTemporaryFile(suffix=".pem") as certificates:
            # Added to the system's authorities, all of which a function loads.
            system = Path(ssl.get_default_verify_paths().cafile or os.devnull)
            certificates.write(system.read_bytes() + authority.cert_pem.bytes())
            certificates.flush()
            found.certificates = certificates.name
            yield found
    finally:
        run(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
