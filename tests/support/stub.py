"""AWS and the provider on loopback, with a fixed latency: `python -m tests.support.stub`.

Knows the few calls that the functions make, keeps the table's items so that writes are counted as
DynamoDB bills them, and answers `GET /counts` with what it was asked for so far.
"""

import argparse
import asyncio
import hashlib
import json
import math
import re
import ssl
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

KILOBYTE = 1024
QUEUE_KILOBYTES = 64
"""SQS bills a request for each 64 KB of payload."""

PROVIDER_ANSWER = json.dumps({"id": "8f14e45f-ceea-467f", "status": "queued"}).encode()


class Aws:
    """The table, the queues and the secret, as far as the functions know them."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.bodies: list[str] = []

    def answer(self, target: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one call of the JSON protocol."""
        operation = target.partition(".")[2]
        self.counts[f"call:{operation}"] += 1
        match operation:
            case "BatchGetItem":
                return self._get(request)
            case "BatchExecuteStatement":
                return {"Responses": [self._execute(s) for s in request["Statements"]]}
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
            case "ChangeMessageVisibilityBatch":
                return {"Successful": [{"Id": e["Id"]} for e in request["Entries"]], "Failed": []}
            case "GetSecretValue":
                secret = {"user": "10001", "pass": "a password of the benchmark"}
                return {"SecretString": json.dumps(secret), "Name": "s", "VersionId": "v"}
            case _:
                raise NotImplementedError(target)

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        ((table, asked),) = request["RequestItems"].items()
        found = [self.items[k["pk"]["S"]] for k in asked["Keys"] if k["pk"]["S"] in self.items]
        for item in found:
            # A consistent read is billed by 4 KB; half of it were it eventually consistent.
            self.counts["read units"] += math.ceil(_size(item) / (4 * KILOBYTE))
        self.counts["read units"] += len(asked["Keys"]) - len(found)
        return {"Responses": {table: found}, "UnprocessedKeys": {}}

    def _execute(self, statement: dict[str, Any]) -> dict[str, Any]:
        text, values = statement["Statement"], statement["Parameters"]
        if text.startswith("INSERT"):
            names = re.findall(r"'([^']+)': \?", text)
            item = dict(zip(names, values, strict=True))
            if item["pk"]["S"] in self.items:
                return {"Error": {"Code": "DuplicateItem", "Message": ""}}
            self._put(item)
            return {}
        names = re.findall(r'SET "([^"]+)" = \?', text)
        pk, state, attempt = values[len(names) : len(names) + 3]
        item = self.items.get(pk["S"], {})
        if (item.get("state"), item.get("attempt")) != (state, attempt):
            code = {"Code": "ConditionalCheckFailed", "Message": "", "Item": item}
            self.counts["write units"] += 1
            return {"Error": code}
        if text.startswith("DELETE"):
            del self.items[pk["S"]]
            self.counts["write units"] += 1
            return {}
        removed = set(re.findall(r'REMOVE "([^"]+)"', text))
        kept = {name: value for name, value in item.items() if name not in removed}
        self._put(kept | dict(zip(names, values, strict=False)), before=item)
        return {}

    def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        if "next" in request.get("ExpressionAttributeNames", {}).values():
            self.counts["write units"] += 1
            self.counts["pace writes"] += 1
            # The pacer's line of slots, always free.
            return {"Attributes": {"next": {"N": f"{time.time():.6f}"}}}
        self.counts["write units"] += 1
        return {}

    def _put(self, item: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        size = max(_size(item), _size(before or {}))
        self.counts["writes"] += 1
        self.counts["write units"] += math.ceil(size / KILOBYTE)
        self.counts["largest item"] = max(self.counts["largest item"], size)
        self.items[item["pk"]["S"]] = item

    def _send(self, body: str) -> dict[str, Any]:
        self.bodies.append(body)
        self.counts["queue chunks"] += math.ceil(len(body.encode()) / KILOBYTE / QUEUE_KILOBYTES)
        return {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": _md5(body)}


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _size(item: dict[str, Any]) -> int:
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


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection whose every answer waits for the latency."""

    def __init__(self, stub: "Stub", *, latency: float) -> None:
        self._stub = stub
        self._latency = latency
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._stub.counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        """Answer each complete request after the latency."""
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            content = self._stub.answer(head, body)
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            answer += b"%d\r\n\r\n" % len(content) + content
            asyncio.get_running_loop().call_later(self._latency, self._write, answer)

    def _write(self, answer: bytes) -> None:
        assert self._transport is not None
        self._transport.write(answer)


class Stub:
    """Both servers."""

    def __init__(self) -> None:
        self.aws = Aws()
        self.counts = self.aws.counts

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Answer the provider's POST, an AWS call, or a question about what was asked for."""
        if b"/sendMessage/" in head.partition(b"\r\n")[0]:
            self.counts["posts"] += 1
            return PROVIDER_ANSWER
        if head.startswith(b"GET /counts"):
            return json.dumps(self.counts).encode()
        if head.startswith(b"GET /bodies"):
            bodies, self.aws.bodies = self.aws.bodies, []
            return json.dumps(bodies).encode()
        if head.startswith(b"POST /reset"):
            self.counts.clear()
            self.aws.items.clear()
            self.aws.bodies.clear()
            return b"{}"
        if not (found := re.search(rb"\r\nx-amz-target: *(\S+)", head, re.IGNORECASE)):
            return b"{}"
        return json.dumps(self.aws.answer(found[1].decode(), json.loads(body))).encode()


async def serve(provider_latency: float, aws_latency: float) -> None:
    """Serve until standard input ends; print the addresses as one line of JSON."""
    stub = Stub()
    loop = asyncio.get_running_loop()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    backlog = 1024
    provider = await loop.create_server(
        lambda: Connection(stub, latency=provider_latency),
        *("127.0.0.1", 0),
        ssl=context,
        backlog=backlog,
    )
    aws = await loop.create_server(
        lambda: Connection(stub, latency=aws_latency), "127.0.0.1", 0, backlog=backlog
    )
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(str(certificate))
        facts = {
            "provider": f"https://127.0.0.1:{provider.sockets[0].getsockname()[1]}",
            "aws": f"http://127.0.0.1:{aws.sockets[0].getsockname()[1]}",
            "certificate": str(certificate),
        }
        print(json.dumps(facts), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider-latency", type=float, default=0.1)
    parser.add_argument("--aws-latency", type=float, default=0.005)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.provider_latency, arguments.aws_latency))
