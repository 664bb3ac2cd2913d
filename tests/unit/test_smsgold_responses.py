"""What each of the provider's responses means, and that every one means something."""

import email.utils
import json
import socket
import ssl
from collections.abc import Mapping
from http.client import IncompleteRead, RemoteDisconnected

import pytest
import urllib3.exceptions as urllib3_errors
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from smsgold.echoes import Echoes
from smsgold.errors import (
    CredentialsRefusedError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    TransportError,
    transport_error,
)
from smsgold.responses import (
    DETAIL_BYTES,
    Outcome,
    Response,
    Verdict,
    bots,
    classify,
    provider_error,
    retry_after,
    subscribers,
)

NOW = 1_800_000_000.0


def response(
    status: int = 200,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
    cut: str | None = None,
) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, headers or {}, content, cut)


# ---------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (300, Outcome.MISDIRECTED, "redirect"),
        (301, Outcome.MISDIRECTED, "redirect"),
        (302, Outcome.MISDIRECTED, "redirect"),
        (303, Outcome.MISDIRECTED, "redirect"),
        (304, Outcome.MISDIRECTED, "redirect"),
        (307, Outcome.MISDIRECTED, "redirect"),
        (308, Outcome.MISDIRECTED, "redirect"),
        (399, Outcome.MISDIRECTED, "redirect"),
        (400, Outcome.REFUSED, "http_400"),
        (401, Outcome.CREDENTIALS, "http_401"),
        (402, Outcome.REFUSED, "http_402"),
        (403, Outcome.CREDENTIALS, "http_403"),
        (404, Outcome.REFUSED, "http_404"),
        (407, Outcome.REFUSED, "http_407"),
        (408, Outcome.NOT_SENT, "http_408"),
        (409, Outcome.REFUSED, "http_409"),
        (413, Outcome.REFUSED, "http_413"),
        (422, Outcome.REFUSED, "http_422"),
        (425, Outcome.NOT_SENT, "http_425"),
        (429, Outcome.NOT_SENT, "http_429"),
        (499, Outcome.REFUSED, "http_499"),
        (500, Outcome.UNKNOWN, "http_500"),
        (501, Outcome.UNKNOWN, "http_501"),
        (502, Outcome.UNKNOWN, "http_502"),
        (503, Outcome.NOT_SENT, "http_503"),
        (504, Outcome.UNKNOWN, "http_504"),
        (599, Outcome.UNKNOWN, "http_599"),
        (101, Outcome.UNKNOWN, "http_101"),
        (600, Outcome.UNKNOWN, "http_600"),
        (999, Outcome.UNKNOWN, "http_999"),
    ],
)
@pytest.mark.parametrize("body", [b"", b'{"id": 7}', b'{"error": "no"}', b"<html>"])
def test_the_status_decides_first(status: int, outcome: Outcome, reason: str, body: bytes) -> None:
    verdict = classify(response(status, body), NOW)
    assert (verdict.outcome, verdict.reason, verdict.status) == (outcome, reason, status)
    assert verdict.provider_id is None


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_any_2xx_with_an_object_is_accepted(status: int) -> None:
    assert classify(response(status, {"id": 1}), NOW).outcome is Outcome.ACCEPTED


# ------------------------------------------------------------------------------ bodies of a 2xx


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": 7},
        {"error": None},
        {"error": ""},
        {"errors": []},
        {"errorCode": 0, "errorMessage": None, "error_code": False},
        {"success": True, "ok": True, "status": "ok"},
        {"status": "queued"},
        {"status": 1},
        {"data": {"error": "of something else"}},
    ],
)
def test_objects_that_report_no_error_are_accepted(body: object) -> None:
    verdict = classify(response(200, body), NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.ACCEPTED, "accepted")
    assert verdict.detail == ""


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"error": "blocked by the user"}, "blocked by the user"),
        ({"error": {"code": 17, "text": "no"}}, '{"code": 17, "text": "no"}'),
        ({"errors": ["нет", "no"]}, '["нет", "no"]'),
        ({"errorCode": 17, "errorMessage": "blocked"}, "blocked"),
        ({"error_code": 17}, '{"error_code": 17}'),
        ({"error": True, "message": "blocked"}, "blocked"),
        ({"errorMessage": "a\n\tb\x00\x1b[0m"}, "a b[0m"),
        ({"success": False}, '{"success": false}'),
        ({"ok": False, "description": "bot was blocked"}, "bot was blocked"),
        ({"status": "error", "id": 7}, '{"status": "error", "id": 7}'),
        ({"status": "fail", "message": "no"}, "no"),
        ({"status": "failed", "data": {"id": 1}}, '{"status": "failed", "data": {"id": 1}}'),
        ({"status": "Error"}, '{"status": "Error"}'),
    ],
)
def test_objects_that_report_an_error_are_refused_with_its_text(body: object, detail: str) -> None:
    verdict = classify(response(200, body), NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSED, "provider_said_no")
    assert verdict.detail == detail
    assert verdict.provider_id is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"OK", "not_json"),
        (b"<html>200</html>", "not_json"),
        (b'{"id": 7', "not_json"),
        (b'{"id": 7} x', "not_json"),
        (b'{"id": NaN}', "not_json"),
        (b"\xff\xfe\xfd", "not_json"),
        (b'{"id": "\xe9"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not_json"),
        (b"[]", "not_an_object"),
        (b'[{"id": 7}]', "not_an_object"),
        (b'"OK"', "not_an_object"),
        (b"true", "not_an_object"),
        (b"null", "not_an_object"),
        (b"7", "not_an_object"),
    ],
)
def test_a_2xx_without_a_json_object_is_unknown(body: bytes, reason: str) -> None:
    verdict = classify(response(200, body), NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, reason)


@pytest.mark.parametrize("cut", ["read_timeout", "connection_lost", "body_too_large"])
def test_an_incomplete_2xx_is_unknown(cut: str) -> None:
    verdict = classify(response(200, {"id": 7}, cut=cut), NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, cut)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(302, Outcome.MISDIRECTED), (400, Outcome.REFUSED), (503, Outcome.NOT_SENT)],
)
def test_any_other_status_counts_even_if_the_body_is_cut(status: int, outcome: Outcome) -> None:
    assert classify(response(status, b"x", cut="read_timeout"), NOW).outcome is outcome


def test_json_may_start_with_a_byte_order_mark() -> None:
    assert classify(response(200, b'\xef\xbb\xbf{"id": 7}'), NOW).provider_id == "7"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"id": 7}, "7"),
        ({"id": "abc"}, "abc"),
        ({"messageId": 7}, "7"),
        ({"message_id": 7}, "7"),
        ({"result": {"id": 7}}, "7"),
        ({"data": {"message_id": "x"}}, "x"),
        ({"id": 0}, "0"),
        ({"id": "outer", "data": {"id": "inner"}}, "outer"),
        ({"id": None, "messageId": 7}, "7"),
        ({"id": ""}, None),
        ({"id": True}, None),
        ({"id": {"nested": 7}}, None),
        ({"data": {"deep": {"id": 7}}}, None),
        ({"data": [{"id": 7}]}, None),
        ({"result": "7"}, None),
        ({}, None),
    ],
)
def test_the_providers_id_is_found(body: object, found: str | None) -> None:
    assert classify(response(200, body), NOW).provider_id == found


def test_kept_texts_are_capped() -> None:
    accepted = classify(response(200, {"id": "я" * 10_000}), NOW)
    assert accepted.provider_id
    assert len(accepted.provider_id.encode()) <= 256
    refused = classify(response(400, ("я" * 10_000).encode()), NOW)
    assert 0 < len(refused.detail.encode()) <= DETAIL_BYTES


def test_an_echo_at_the_end_of_what_is_kept_is_seen_whole() -> None:
    echoes = Echoes(secrets=["hunter22"])
    for at in range(DETAIL_BYTES - 10, DETAIL_BYTES + 2):
        assert classify(response(400, b"x" * at + b"hunter22"), NOW, echoes).detail == ""


def test_an_id_that_is_the_number_or_the_password_is_not_kept() -> None:
    echoes = Echoes(["79990000000"], ["hunter22"])
    for echo in ("79990000000", 79990000000, "+7 999 000-00-00", "x-hunter22"):
        assert classify(response(200, {"id": echo}), NOW, echoes).provider_id is None
    assert classify(response(200, {"id": 79990000001}), NOW, echoes).provider_id == "79990000001"


# -------------------------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("5", 5.0),
        (" 120 ", 120.0),
        ("9" * 400, 1e9),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        ("Friday, 15-Jan-27 08:01:30 GMT", 90.0),
        ("Fri Jan 15 08:01:30 2027", 90.0),
        ("Fri, 15 Jan 2027 11:01:30 +0300", 90.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("5, 6", None),
        ("Fri, 99 Jan 2027 08:01:30 GMT", None),
        ("Fri, 15 Jan 2027 99:01:30 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_parsed(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
def test_header_names_may_be_in_any_case(name: str) -> None:
    assert classify(response(429, b"", {name: "7"}), NOW).retry_after == 7.0


# --------------------------------------------------------------------------------- exceptions

CONNECTION = HTTPConnection("localhost")
POOL = HTTPConnectionPool("localhost")
SECRET_URL = "/bots/?user=1&pass=hunter22"


def wrapped(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


ALWAYS_NOT_SENT: dict[str, list[BaseException]] = {
    "dns": [
        urllib3_errors.NameResolutionError("x", CONNECTION, socket.gaierror(-2, "unknown")),
        socket.gaierror(-3, "try again"),
    ],
    "connect_refused": [
        ConnectionRefusedError(111, "refused"),
        wrapped(
            urllib3_errors.NewConnectionError(CONNECTION, "x"), ConnectionRefusedError(111, "x")
        ),
    ],
    "connect_failed": [
        wrapped(urllib3_errors.NewConnectionError(CONNECTION, "x"), OSError(113, "no route")),
        urllib3_errors.LocationParseError(SECRET_URL),
        urllib3_errors.EmptyPoolError(POOL, "x"),
        urllib3_errors.ClosedPoolError(POOL, "x"),
        urllib3_errors.HostChangedError(POOL, SECRET_URL),
    ],
    "connect_timeout": [
        urllib3_errors.ConnectTimeoutError(CONNECTION, "x"),
        urllib3_errors.MaxRetryError(
            POOL, SECRET_URL, urllib3_errors.ConnectTimeoutError(CONNECTION, "x")
        ),
    ],
    "proxy": [urllib3_errors.ProxyError("x", OSError(111, "refused"))],
    "tls": [
        ssl.SSLCertVerificationError(1, "certificate verify failed"),
        urllib3_errors.SSLError(ssl.SSLCertVerificationError(1, "x")),
    ],
}

DEPENDS_ON_WHEN: list[tuple[BaseException, str, str]] = [
    (urllib3_errors.ReadTimeoutError(POOL, SECRET_URL, "x"), "connect_timeout", "read_timeout"),
    (TimeoutError("timed out"), "connect_timeout", "read_timeout"),
    (
        urllib3_errors.ProtocolError("Connection aborted.", TimeoutError()),
        "connect_timeout",
        "read_timeout",
    ),
    (
        urllib3_errors.ProtocolError("x", ConnectionResetError(104, "x")),
        "connection_lost",
        "connection_lost",
    ),
    (
        urllib3_errors.ProtocolError("x", RemoteDisconnected("x")),
        "connection_lost",
        "connection_lost",
    ),
    (urllib3_errors.ProtocolError("x", IncompleteRead(b"")), "connection_lost", "connection_lost"),
    (BrokenPipeError(32, "x"), "connection_lost", "connection_lost"),
    (urllib3_errors.InvalidHeader("x"), "connection_lost", "connection_lost"),
    (urllib3_errors.SSLError(ssl.SSLError(1, "bad record mac")), "tls", "connection_lost"),
    (ssl.SSLEOFError(8, "x"), "tls", "connection_lost"),
    (ValueError(SECRET_URL), "unexpected_error", "unexpected_error"),
    (KeyboardInterrupt(), "unexpected_error", "unexpected_error"),
]


@pytest.mark.parametrize(
    ("error", "reason"), [(e, reason) for reason, errors in ALWAYS_NOT_SENT.items() for e in errors]
)
@pytest.mark.parametrize("began", [False, True])
def test_connection_errors_mean_not_sent(error: BaseException, reason: str, began: bool) -> None:
    verdict = classify(transport_error(error, began=began), NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_SENT, reason)
    assert "pass" not in repr(verdict)


@pytest.mark.parametrize(("error", "before", "after"), DEPENDS_ON_WHEN)
def test_other_errors_mean_not_sent_only_before_the_first_byte(
    error: BaseException, before: str, after: str
) -> None:
    early = classify(transport_error(error, began=False), NOW)
    late = classify(transport_error(error, began=True), NOW)
    assert (early.outcome, early.reason) == (Outcome.NOT_SENT, before)
    assert (late.outcome, late.reason) == (Outcome.UNKNOWN, after)
    assert "pass" not in repr((early, late))


@pytest.mark.parametrize(("error", "after"), [(e, after) for e, _, after in DEPENDS_ON_WHEN])
def test_a_bare_exception_may_have_been_sent(error: BaseException, after: str) -> None:
    verdict = classify(error, NOW)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, after)


def test_a_cycle_of_causes_is_followed_once() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert transport_error(one, began=True).reason == "unexpected_error"


# ---------------------------------------------------------------------------------- any input

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["id", "error", "ok", "status", "data", "result", "x"]), inner
        )
    ),
    max_leaves=8,
)
BODIES = st.binary() | JSON.map(lambda value: json.dumps(value).encode())
DATES = st.text("0123456789 :,-+GMTFriJan", max_size=40)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after", "Content-Type"]), DATES | st.text(max_size=60)
)


@given(
    st.integers(-1, 1000),
    HEADERS,
    BODIES,
    st.none() | st.just("read_timeout"),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_classify_decides_any_response(
    status: int, headers: dict[str, str], body: bytes, cut: str | None, now: float
) -> None:
    verdict = classify(Response(status, headers, body, cut), now)
    assert isinstance(verdict, Verdict)
    if verdict.outcome is Outcome.ACCEPTED:
        assert 200 <= status <= 299
        assert isinstance(json.loads(body), dict)
    assert len(verdict.detail.encode()) <= DETAIL_BYTES
    assert verdict.retry_after is None or verdict.retry_after >= 0


@given(st.integers(0, 600), BODIES)
def test_lists_are_read_or_raise_a_provider_error(status: int, body: bytes) -> None:
    for read in (bots, subscribers):
        try:
            entries = read(Response(status, {}, body), NOW)
        except ProviderError as error:
            assert error.reason  # noqa: PT017 - either outcome is right
        else:
            assert all(isinstance(entry.get("id", ""), str) for entry in entries)


# -------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "body",
    [
        [{"id": 7, "name": "Anna", "x": [1]}],
        {"bots": [{"id": 7, "name": "Anna", "x": [1]}]},
        {"subscribers": [{"id": "7", "name": "Anna", "x": [1]}]},
        {"items": [{"id": "7", "name": "Anna", "x": [1]}], "total": 1},
        {"result": [{"id": 7, "name": "Anna", "x": [1]}], "ok": True},
        {"data": [{"id": 7, "name": "Anna", "x": [1]}], "error": None},
    ],
)
def test_lists_are_read_in_every_known_shape(body: object) -> None:
    expected = [{"id": "7", "name": "Anna", "x": [1]}]
    assert bots(response(200, body), NOW) == expected
    assert subscribers(response(200, body), NOW) == expected


@pytest.mark.parametrize("body", [[], {"bots": []}, {"data": []}])
def test_an_empty_list_is_a_list(body: object) -> None:
    assert bots(response(200, body), NOW) == []


def test_each_list_is_looked_for_under_its_own_name_first() -> None:
    both = response(200, {"bots": [{"id": "bot"}], "subscribers": [{"id": "subscriber"}]})
    assert bots(both, NOW) == [{"id": "bot"}]
    assert subscribers(both, NOW) == [{"id": "subscriber"}]


def test_an_entry_without_an_id_stays_in_the_list_without_one() -> None:
    entries = [{"id": "a"}, {"name": "x"}, {"id": None, "name": "y"}, {"id": ""}, 7, {"id": "b"}]
    listed = [{"id": "a"}, {"name": "x"}, {"name": "y"}, {}, {}, {"id": "b"}]
    assert subscribers(response(200, entries), NOW) == listed


@pytest.mark.parametrize(
    ("result", "error", "reason"),
    [
        (response(200, {"error": "no such bot"}), ProviderRefusedError, "provider_said_no"),
        (response(200, {"ok": False, "bots": []}), ProviderRefusedError, "provider_said_no"),
        (response(404), ProviderRefusedError, "http_404"),
        (response(401), CredentialsRefusedError, "http_401"),
        (response(403), CredentialsRefusedError, "http_403"),
        (response(302), ProviderUnavailableError, "redirect"),
        (response(429), ProviderUnavailableError, "http_429"),
        (response(500), ProviderUnavailableError, "http_500"),
        (response(200, b"<html>"), ProviderUnavailableError, "not_json"),
        (response(200, {"id": 7}), ProviderUnavailableError, "not_a_list"),
        (response(200, {"bots": {"id": 7}}), ProviderUnavailableError, "not_a_list"),
        (response(200, b"7"), ProviderUnavailableError, "not_a_list"),
        (response(200, [], cut="connection_lost"), ProviderUnavailableError, "connection_lost"),
        (TransportError("dns", maybe_sent=False), ProviderUnavailableError, "dns"),
    ],
)
def test_a_missing_list_is_an_error_with_its_reason(
    result: Response | BaseException, error: type[ProviderError], reason: str
) -> None:
    with pytest.raises(error) as caught:
        bots(result, NOW)
    assert caught.value.reason == reason


LISTED = b'[{"id": 1, "number": "+7 (999) 000-00-00", "name": "\\u0410\\u043d\\u043d\\u0430"}'


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (response(200, b"<b>Notice</b>: Undefined index: x<br>" + LISTED + b"]"), "not_json"),
        (response(503, LISTED), "http_503"),
        (response(404, LISTED), "http_404"),
        (response(401, LISTED), "http_401"),
        (response(302, LISTED), "redirect"),
        (response(200, {"error": "no", "bots": json.loads(LISTED + b"]")}), "provider_said_no"),
        (response(200, {"errors": json.loads(LISTED + b"]")}), "provider_said_no"),
        (response(200, {"bots": {"7": json.loads(LISTED + b"]")}}), "not_a_list"),
        (response(200, LISTED, cut="connection_lost"), "connection_lost"),
    ],
)
def test_of_a_list_that_failed_only_the_reason_is_kept(result: Response, reason: str) -> None:
    with pytest.raises(ProviderError) as caught:
        subscribers(result, NOW)
    error = caught.value
    assert (str(error), error.args, error.detail) == (reason, (reason,), "")
    assert error.__context__ is None


def test_why_nothing_answered_is_kept_of_a_list_too() -> None:
    with pytest.raises(ProviderError, match="tls: SSLCertVerificationError: expired"):
        bots(TransportError("tls", "SSLCertVerificationError: expired", maybe_sent=False), NOW)


@pytest.mark.parametrize("reason", ["connect_timeout", "read_timeout"])
def test_timeouts_are_marked_as_such(reason: str) -> None:
    error = provider_error(classify(TransportError(reason, maybe_sent=False), NOW))
    assert isinstance(error, ProviderUnavailableError)
    assert error.timeout
    other = provider_error(classify(response(503, headers={"Retry-After": "7"}), NOW))
    assert isinstance(other, ProviderUnavailableError)
    assert (other.timeout, other.retry_after) == (False, 7.0)
