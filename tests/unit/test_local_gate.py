"""What the local stack's gate lets in: the stack's own signatures, and no page of another site."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.aws import Message, RefusedError, Request, claimed, gated, verify
from local.gate import foreign, hosts

OWN = Credentials("own", "own-secret")
ROLE = Credentials("ASIAROLE", "role-secret", "a-token")
SECRETS = {by.access_key: by.secret_key for by in (OWN, ROLE)}
HERE = hosts(4566)
HOST = "127.0.0.1:4566"
API = "/_aws/execute-api/58dc127b/v1/messages"


def request(
    path: str = "/", query: str = "", *, method: str = "POST", raw_path: str = "", **headers: str
) -> Request:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, raw_path or path, query, {"host": HOST, **given})


def signed(
    plain: Request,
    body: bytes = b"",
    *,
    by: Credentials = OWN,
    service: str = "sqs",
) -> Request:
    """Sign a request as botocore's clients do."""
    url = f"http://{HOST}{plain.raw_path}" + (f"?{plain.query}" if plain.query else "")
    made = AWSRequest(plain.method, url, dict(plain.headers), data=body)
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    kind(by, service, "us-east-1").add_auth(made)
    return replace(plain, headers={name.lower(): value for name, value in made.headers.items()})


def refusal(given: Request, body: bytes = b"") -> str:
    """Return why the gate refuses a request; nothing if it lets it in."""
    try:
        if signature := claimed(given, HERE, "own"):
            verify(signature, given, sha256(body).hexdigest(), SECRETS.get(signature.key))
    except RefusedError as error:
        return str(error)
    return ""


# ------------------------------------------------------------------------- pages of other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:4566"},
        {"host": "localhost:4566"},
        {"host": "LOCALHOST:4566"},
        {"host": HOST, "origin": f"http://{HOST}", "sec-fetch-site": "same-origin"},
        {"host": HOST, "sec-fetch-site": "none"},  # someone typed the address
    ],
)
def test_programs_people_and_the_servers_own_pages_come_in(headers: Mapping[str, str]) -> None:
    assert foreign(headers, HERE) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "Host"),
        ({"host": "evil.example:4566"}, "Host"),  # its name now leads to 127.0.0.1
        ({"host": "127.0.0.1.evil.example:4566"}, "Host"),
        ({"host": "localhost.:4566"}, "Host"),
        ({"host": "127.0.0.1"}, "Host"),
        ({"host": "127.0.0.1:4567"}, "Host"),
        ({"host": f"{HOST}, evil.example"}, "Host"),
        ({"host": HOST, "origin": "https://evil.example"}, "page of https://evil.example"),
        ({"host": HOST, "origin": "null"}, "page of null"),
        ({"host": HOST, "origin": ""}, "page of"),
        ({"host": HOST, "origin": "http://127.0.0.1:3000"}, "page of http://127.0.0.1:3000"),
        ({"host": HOST, "origin": "http://localhost:4566"}, "page of http://localhost:4566"),
        ({"host": HOST, "origin": f"https://{HOST}"}, "page of https://"),
        ({"host": HOST, "sec-fetch-site": "cross-site"}, "cross-site"),
        ({"host": HOST, "sec-fetch-site": "same-site"}, "same-site"),  # another port
        ({"host": HOST, "sec-fetch-site": ""}, "Sec-Fetch-Site"),
    ],
)
def test_pages_of_other_sites_do_not(headers: Mapping[str, str], reason: str) -> None:
    assert reason in (foreign(headers, HERE) or "")


def test_browsers_leave_the_usual_port_out() -> None:
    assert foreign({"host": "localhost", "origin": "http://localhost"}, hosts(80)) is None


def test_a_signature_or_an_api_key_does_not_help_a_page() -> None:
    page = {"origin": "https://evil.example"}

    assert "evil.example" in refusal(signed(request(**page)))
    assert "evil.example" in refusal(request(API, **page, x_api_key="a-key"))


# ------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    ("plain", "body", "service"),
    [
        (request(content_type="application/x-amz-json-1.0"), b'{"a": 1}', "sqs"),
        (request("/", "b=2&a=%2F&a=1", method="GET"), b"", "iam"),
        (request("/restapis/x y", raw_path="/restapis/x%20y", method="GET"), b"", "apigateway"),
        (request("/bucket/a//../b c", raw_path="/bucket/a//../b%20c", method="PUT"), b"zip", "s3"),
        (request("/_ministack/health", method="GET"), b"", "ministack"),
        (request(API), b"{}", "execute-api"),
    ],
)
def test_what_the_stacks_key_has_signed_comes_in(plain: Request, body: bytes, service: str) -> None:
    assert refusal(signed(plain, body, service=service), body) == ""


def test_a_roles_session_comes_in_but_not_to_ministacks_own_addresses() -> None:
    assert refusal(signed(request(), b"{}", by=ROLE), b"{}") == ""
    for path in ("/_ministack/reset", "/_localstack/health"):
        assert "only the stack's own key" in refusal(signed(request(path), by=ROLE))


@pytest.mark.parametrize("key", ["test", "000000000000", "AKIAIOSFODNN7EXAMPLE", "Own"])
def test_no_other_key_comes_in(key: str) -> None:
    assert f"access key {key!r}" in refusal(signed(request(), by=Credentials(key, "own-secret")))


def test_the_key_must_have_made_the_signature() -> None:
    for secret in ("guessed", ROLE.secret_key):
        given = signed(request(), by=Credentials("own", secret))
        assert "not that of the access key 'own'" in refusal(given)


@pytest.mark.parametrize(
    "other",
    [
        request("/queue", "a=1", method="DELETE"),
        request("/other", "a=1", method="GET"),
        request("/queue", "a=2", method="GET"),
    ],
)
def test_a_signature_is_good_for_its_own_request_alone(other: Request) -> None:
    given = signed(request("/queue", "a=1", method="GET"))

    assert refusal(given) == ""
    assert "not that of" in refusal(replace(other, headers=given.headers))


@pytest.mark.parametrize(
    "header", ["x-amz-date", "x-amz-target", "x-amz-security-token", "content-type"]
)
def test_every_header_that_was_signed_counts(header: str) -> None:
    plain = request(x_amz_target="AmazonSQS.SendMessage", content_type="application/json")
    given = signed(plain, by=ROLE)
    without = {name: value for name, value in given.headers.items() if name != header}

    assert refusal(given) == ""
    assert refusal(replace(given, headers={**given.headers, header: "other"}))
    assert refusal(replace(given, headers=without))


@pytest.mark.parametrize("service", ["sqs", "s3"])
def test_the_body_must_be_the_one_that_was_signed(service: str) -> None:
    assert refusal(signed(request("/x"), b"signed", service=service), b"another")


def test_a_hash_that_was_not_signed_does_not_count() -> None:
    given = signed(request("/x"), b"signed")
    claim = {**given.headers, "x-amz-content-sha256": sha256(b"signed").hexdigest()}

    assert refusal(replace(given, headers=claim), b"another")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer a-token",
        "AWS own:c2lnbmF0dXJl",
        "AWS4-HMAC-SHA256 Credential=own/20260101/us-east-1/sqs/aws4_request",
        "AWS4-ECDSA-P256-SHA256 Credential=own/20260101/sqs/aws4_request, Signature=00",
    ],
)
def test_what_is_not_signed_stays_out_and_hears_how_to_sign(authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}

    assert 'eval "$(make -s env)"' in refusal(request("/", **headers))
    assert 'eval "$(make -s env)"' in refusal(request("/_ministack/health", **headers))


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test/20260101/us-east-1/s3/aws4_request",
        "Action=ListQueues&x-amz-credential=test",
        "X%2DAmz%2DCredential=test",
        "AWSAccessKeyId=test&Signature=x",
    ],
)
@pytest.mark.parametrize("path", ["/bucket/key", API])
def test_a_signed_address_is_refused_everywhere(path: str, query: str) -> None:
    assert "in its query" in refusal(request(path, query))


# ------------------------------------------------------------------------------- open paths


@pytest.mark.parametrize("headers", [{"x_api_key": "a-key"}, {"authorization": "Bearer a-secret"}])
def test_the_deployed_apis_are_open_for_they_have_their_own_keys(
    headers: Mapping[str, str],
) -> None:
    assert refusal(request(API, **headers)) == ""


@pytest.mark.parametrize(
    "path",
    [
        "/_aws/execute-api",
        "/_aws/execute-api/58dc127b",
        "/_aws/execute-api/58dc127b/",
        "/_aws/execute-api//v1/messages",  # MiniStack takes it for a call to AWS
        "/x/_aws/execute-api/58dc127b/v1",
        "/_aws/sqs/messages",
        "/_ministack/../_aws/execute-api/58dc127b/v1",
    ],
)
def test_nothing_beside_them_is(path: str) -> None:
    assert "not signed" in refusal(request(path))


def test_an_aws_key_is_checked_there_too() -> None:
    assert "'test'" in refusal(
        signed(request(API), by=Credentials("test", "test"), service="execute-api")
    )


# ------------------------------------------------------------------------------- the gate


def ask(headers: Mapping[str, str], *parts: bytes, kind: str = "http") -> tuple[int, bytes]:
    """Return the status that the client sees, and the body that the application saw."""
    sent: list[Message] = []
    seen = []
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": i < len(parts)}
        for i, part in enumerate(parts, 1)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(_scope: Message, receive: object, send: object) -> None:
        assert callable(receive)
        assert callable(send)
        while (message := await receive())["type"] == "http.request":
            seen.append(message["body"])
        await send({"type": "http.response.start", "status": 200})

    scope = {
        "type": kind,
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(name.title().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(gated(app, HERE, "own", SECRETS.get)(scope, receive, send))
    status = next((message.get("status", message.get("code")) for message in sent), 0)
    return status, b"".join(seen)


def test_the_application_gets_the_whole_body_once() -> None:
    assert ask(signed(request(), b"in two parts").headers, b"in two", b" parts") == (
        200,
        b"in two parts",
    )


def test_the_application_hears_of_no_refused_request() -> None:
    assert ask(signed(request(), b"signed").headers, b"another") == (403, b"")
    assert ask({"host": HOST}, b"{}") == (403, b"")


def test_a_client_that_leaves_in_the_middle_is_not_answered() -> None:
    assert ask(signed(request(), b"signed").headers) == (0, b"")


def test_nothing_opens_a_socket() -> None:
    assert ask(signed(request()).headers, kind="websocket") == (1008, b"")
