"""The local AWS, MiniStack behind a gate: `python -m local.aws`.

MiniStack checks no signature of its root user, whose key is `test` and any account's number as
well as the configured one, and lets pages of every origin create and run functions. The gate lets
in what is signed with the stack's own key or with one that MiniStack has issued, and whatever is
for the deployed APIs, which have their own keys; nothing from a web page. It runs in MiniStack's
process, so that no request takes another hop.

The environment is MiniStack's, with the stack's key in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY.
"""

import hmac
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import requests
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local import streams
from local.gate import foreign, hosts

ACCOUNT = "000000000000"
REGION = "us-east-1"
EVENTS_LOG = "events.jsonl"
"""The file, in the stack's folder, with what was put on the stack's event bus: JSON Lines."""
APIS = re.compile(r"/_aws/execute-api/[^/]+/[^/]+")
INTERNAL = ("/_ministack", "/_localstack")
QUERY_CREDENTIALS = {
    *("x-amz-algorithm", "x-amz-credential", "x-amz-signature"),
    *("awsaccesskeyid", "signature"),
}
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/, ]+)/\d{8}/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)"
    r"/aws4_request, ?SignedHeaders=(?P<headers>[^, ]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]

log = logging.getLogger("gate")


class RefusedError(Exception):
    """The gate stays shut; the text says why."""


@dataclass(frozen=True)
class Request:
    """A request without its body; path and query as they were sent, header names in lower case."""

    method: str
    path: str
    raw_path: str
    query: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, scope: Message) -> "Request":
        """Read an ASGI scope; a header sent twice has both values, joined as they are signed."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        return cls(
            scope["method"],
            scope["path"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            headers,
        )


@dataclass(frozen=True)
class Signature:
    """What an Authorization header claims."""

    key: str
    region: str
    service: str
    headers: str
    signature: str


# -- the decisions ------------------------------------------------------------------------------


def claimed(request: Request, hosts: Collection[str], own_key: str) -> Signature | None:
    """Return the signature that the request must prove; None if it needs none.

    Raises RefusedError for what no signature would let in.
    """
    if reason := foreign(request.headers, hosts):
        raise RefusedError(reason)
    names = {name.lower() for name, _ in parse_qsl(request.query, keep_blank_values=True)}
    if names & QUERY_CREDENTIALS:
        raise RefusedError("it is signed in its query, and not in its Authorization header")
    authorization = request.headers.get("authorization", "")
    if APIS.match(request.path) and not authorization.startswith("AWS"):
        return None
    match = SIGNATURE.fullmatch(authorization)
    if not match:
        raise RefusedError('it is not signed; `eval "$(make -s env)"` sets the key of the stack')
    signature = Signature(**match.groupdict())
    if request.path.startswith(INTERNAL) and signature.key != own_key:
        raise RefusedError("only the stack's own key opens this path")
    return signature


def verify(signature: Signature, request: Request, body_hash: str, secret: str | None) -> None:
    """Raise RefusedError unless the secret, None if the key is unknown, made the signature.

    The body's hash is SHA-256 in hexadecimal digits.
    """
    if secret is None:
        raise RefusedError(f"the access key {signature.key!r} is neither the stack's nor issued")
    signed = {
        name: request.headers[name]
        for name in signature.headers.split(";")
        if name in request.headers
    }
    declared = signed.get("x-amz-content-sha256", body_hash)
    if re.fullmatch("[0-9a-f]{64}", declared) and declared != body_hash:
        raise RefusedError("its body is not the one that was signed")
    url = f"http://{request.headers['host']}{request.raw_path}?{request.query}"
    unsigned = AWSRequest(request.method, url, signed)
    unsigned.context |= {"timestamp": signed.get("x-amz-date", ""), "body_hash": declared}
    kind = _S3Signer if signature.service == "s3" else _Signer
    signer = kind(Credentials(signature.key, secret), signature.service, signature.region)
    text = signer.string_to_sign(unsigned, signer.canonical_request(unsigned))
    if not hmac.compare_digest(signer.signature(text, unsigned), signature.signature):
        raise RefusedError(
            f"the signature is not that of the access key {signature.key!r}; a stack that was "
            'started again has a new one: `eval "$(make -s env)"`'
        )


class _HashedBody:
    def payload(self, request: AWSRequest) -> str:
        return str(request.context["body_hash"])


class _Signer(_HashedBody, SigV4Auth):
    pass


class _S3Signer(_HashedBody, S3SigV4Auth):  # S3 alone signs the path as it is sent
    pass


# -- the gate -----------------------------------------------------------------------------------


def gated(
    app: App, hosts: Collection[str], own_key: str, secret_of: Callable[[str], str | None]
) -> App:
    """Return the application behind the gate; `secret_of` knows the access keys that exist."""

    async def gate(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # nothing here needs one
            return
        request = Request.of(scope)
        try:
            if signature := claimed(request, hosts, own_key):
                body = await _read(receive)
                if body is None:
                    return
                digest = sha256(body).hexdigest()
                verify(signature, request, digest, secret_of(signature.key))
                receive = _again(body, receive)
        except RefusedError as error:
            log.warning("Refused %s %s: %s", request.method, request.raw_path, error)
            await _refuse(send, str(error))
            return
        await app(scope, receive, send)

    return gate


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body; None if the client has gone."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with a body that has been read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _refuse(send: Send, reason: str) -> None:
    text = f"The local stack refused this request: {reason}."
    body = json.dumps({"__type": "AccessDeniedException", "message": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# -- from outside -------------------------------------------------------------------------------


def environment(
    home: Path, port: int, access_key_id: str, secret_access_key: str
) -> dict[str, str]:
    """Return the environment for a local AWS on 127.0.0.1 that keeps its files in a folder."""
    return {
        "AWS_ACCESS_KEY_ID": access_key_id,  # the root user's; functions get their roles' instead
        "AWS_SECRET_ACCESS_KEY": secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "EVENTS_LOG": str(home / EVENTS_LOG),
        "TMPDIR": str(home),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "AUTH": "true",  # enforces the functions' roles
        "IOT_MTLS_ENABLED": "0",  # otherwise it listens on another port
        # With a Docker daemon it would remove the containers of any other MiniStack.
        "DOCKER_HOST": f"unix://{home}/no-docker",
    }


def get(url: str, access_key_id: str, secret_access_key: str, timeout: float) -> requests.Response:
    """Ask one of MiniStack's own addresses, /_ministack/…, with the stack's key."""
    request = AWSRequest("GET", url)
    credentials = Credentials(access_key_id, secret_access_key)
    SigV4Auth(credentials, "ministack", REGION).add_auth(request)
    return requests.get(url, headers=dict(request.headers), timeout=timeout)


def main() -> None:
    """Run MiniStack behind the gate."""
    from ministack import app  # noqa: PLC0415 - it reads its environment and sets up logging

    own_key, own_secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]

    def secret_of(key: str) -> str | None:
        return own_secret if key == own_key else _issued(key)

    streams.fitted(Path(os.environ["EVENTS_LOG"]))
    app.app = gated(app.app, hosts(int(os.environ["GATEWAY_PORT"])), own_key, secret_of)
    app.main()


def _issued(key: str) -> str | None:
    """Return the secret of a key that MiniStack has issued to a role or a user."""
    from ministack.core import iam_evaluator  # noqa: PLC0415

    if iam_evaluator.is_root_access_key(key):  # its own names for the root user
        return None
    found = iam_evaluator.resolve_credential(key, ACCOUNT)
    return getattr(found, "secret_access_key", None)


if __name__ == "__main__":
    main()
