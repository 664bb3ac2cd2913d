"""Signatures: published vectors, the schemes' own libraries, and every way to be wrong."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from gidgethub import ValidationFailure, sansio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from standardwebhooks import Webhook

from relay.webhooks.signatures import TOLERANCE, Scheme, UnverifiedError
from tests.support.webhooks import SECRETS, payload, signed

NOW = 1_800_000_000.0
BODY = '{"text": "Готово ✅"}'.encode()
GRAFANA = {
    "scheme": "hmac",
    "header": "X-Grafana-Alerting-Signature",
    "timestamp": "X-Grafana-Alerting-Signature-Timestamp",
    "signed": "{timestamp}:{body}",
}


def scheme(**fields: Any) -> Scheme:
    found: Scheme = TypeAdapter[Any](Scheme).validate_python(fields)
    return found


SCHEMES: dict[str, Scheme] = {
    "standard": scheme(scheme="standard-webhooks"),
    "github": scheme(scheme="github"),
    "stripe": scheme(scheme="stripe"),
    "grafana": scheme(**GRAFANA),
    "sentry": scheme(scheme="hmac", header="Sentry-Hook-Signature"),
    "gitlab": scheme(scheme="token", header="X-Gitlab-Token"),
    "plain": scheme(scheme="token", prefix="Bearer "),
}
TIMED = ["standard", "stripe", "grafana"]
OVER_THE_BODY = [*TIMED, "github", "sentry"]


def verify(
    kind: str | Scheme,
    headers: Mapping[str, str],
    body: bytes = BODY,
    secrets: tuple[str, ...] = (),
    now: float = NOW,
) -> None:
    known = SCHEMES[kind] if isinstance(kind, str) else kind
    name = kind if isinstance(kind, str) else ""
    lower = {key.lower(): value for key, value in headers.items()}
    known.verify(lower, body, secrets or (SECRETS[name],), now)


def reason(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(UnverifiedError) as raised:
        verify(*args, **kwargs)
    return raised.value.reason


# ---------------------------------------------------------------------- the schemes' own vectors


def test_standard_webhooks_vector() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    for secret in ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"):
        verify("standard", headers, body, (secret,), 1614265330)
    assert reason("standard", headers, body, now=1614265330 + TOLERANCE + 1) == "too_old"


def test_githubs_vector() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"X-Hub-Signature-256": f"sha256={digest}"}
    verify("github", headers, b"Hello, World!", ("It's a Secret to Everybody",))


def test_slacks_vector_with_the_generic_scheme() -> None:
    slack = scheme(
        scheme="hmac",
        header="X-Slack-Signature",
        prefix="v0=",
        timestamp="X-Slack-Request-Timestamp",
        signed="v0:{timestamp}:{body}",
    )
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
        b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
        b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015"
        b".47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "X-Slack-Request-Timestamp": "1531420618",
    }
    verify(slack, headers, body, ("8f742231b10e8888abcd99yyyzzz85a5",), 1531420618)


@pytest.mark.parametrize("file", ["hook_github_push.json", "hook_github_workflow_run.json"])
def test_a_signature_that_githubs_library_verifies_is_verified(file: str) -> None:
    body, secret = payload(file), SECRETS["github"]
    headers = {**signed("github", body, NOW), "Content-Type": "application/json"}
    lower = {name.lower(): value for name, value in headers.items()}
    event = sansio.Event.from_http(lower, body, secret=secret)
    assert event.delivery_id == "d-1"
    verify("github", headers, body)
    forged = body + b" "
    with pytest.raises(ValidationFailure):
        sansio.validate_event(forged, signature=lower["x-hub-signature-256"], secret=secret)
    assert reason("github", headers, forged) == "signature_mismatch"


def test_a_signature_that_stripes_library_verifies_is_verified() -> None:
    now = datetime.now(UTC).timestamp()
    headers = signed("stripe", BODY, now)
    stripe.WebhookSignature.verify_header(
        BODY.decode(), headers["Stripe-Signature"], SECRETS["stripe"], tolerance=TOLERANCE
    )
    verify("stripe", headers, now=now)


def test_a_signature_that_the_standards_library_verifies_is_verified() -> None:
    now = datetime.now(UTC).timestamp()
    headers = signed("standard", BODY, now)
    Webhook(SECRETS["standard"]).verify(BODY, headers)
    verify("standard", headers, now=now)


# ------------------------------------------------------------------------- every way to be wrong


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_signed_request_is_verified(kind: str) -> None:
    verify(kind, signed(kind, BODY, NOW))


@pytest.mark.parametrize("kind", OVER_THE_BODY)
def test_a_body_with_any_byte_changed_is_not_verified(kind: str) -> None:
    headers = signed(kind, BODY, NOW)
    for at in range(len(BODY)):
        forged = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
        assert reason(kind, headers, forged) == "signature_mismatch"
    assert reason(kind, headers, BODY + b" ") == "signature_mismatch"
    assert reason(kind, headers, b"") == "signature_mismatch"


@pytest.mark.parametrize("kind", SCHEMES)
def test_another_secret_is_not_verified(kind: str) -> None:
    headers = signed(kind, BODY, NOW, secret="whsec_" + base64.b64encode(b"other" * 5).decode())
    assert reason(kind, headers) == "signature_mismatch"


@pytest.mark.parametrize("kind", SCHEMES)
def test_both_secrets_are_valid_during_a_rotation(kind: str) -> None:
    old, new = "whsec_" + base64.b64encode(b"old" * 9).decode(), SECRETS[kind]
    for secret in (old, new):
        verify(kind, signed(kind, BODY, NOW, secret=secret), secrets=(new, old))
    assert reason(kind, signed(kind, BODY, NOW, secret=old), secrets=(new,)) == "signature_mismatch"


@pytest.mark.parametrize("kind", TIMED)
def test_timestamps_too_far_in_the_past_or_future_are_refused(kind: str) -> None:
    headers = signed(kind, BODY, NOW)
    for now in (NOW - TOLERANCE, NOW + TOLERANCE):
        verify(kind, headers, now=now)
    assert reason(kind, headers, now=NOW + TOLERANCE + 1) == "too_old"
    assert reason(kind, headers, now=NOW - TOLERANCE - 1) == "from_the_future"


@pytest.mark.parametrize("kind", TIMED)
def test_a_replay_with_a_fresh_timestamp_is_not_verified(kind: str) -> None:
    later = NOW + 3600
    fresh = {
        name: value.replace(f"{NOW:.0f}", f"{later:.0f}")
        for name, value in signed(kind, BODY, NOW).items()
    }
    assert reason(kind, fresh, now=later) == "signature_mismatch"


@pytest.mark.parametrize("kind", SCHEMES)
def test_each_signed_header_is_required(kind: str) -> None:
    headers = signed(kind, BODY, NOW)
    needed = [n for n in headers if n not in UNSIGNED]
    assert needed
    for name in needed:
        for value in ("", None):
            without = {k: v for k, v in headers.items() if k != name}
            given = without if value is None else {**without, name: value}
            assert reason(kind, given) == "no_signature"


UNSIGNED = {
    *("X-GitHub-Delivery", "X-GitHub-Event", "Request-ID", "Idempotency-Key"),
    *("Sentry-Hook-Resource", "Sentry-Hook-Timestamp"),
}


def test_one_of_several_signatures_must_match() -> None:
    headers = signed("standard", BODY, NOW)
    good = headers["webhook-signature"]
    for several in (f"v1,AAAA {good}", f"{good} v1,AAAA", f"v1a,xx {good}"):
        verify("standard", {**headers, "webhook-signature": several})
    for none in ("v1,AAAA v1,BBBB", good.replace("v1,", "v2,"), "v1," * 50, good[3:]):
        assert reason("standard", {**headers, "webhook-signature": none}) == "signature_mismatch"
    stamp, _, signature = signed("stripe", BODY, NOW)["Stripe-Signature"].split(",")
    verify("stripe", {"Stripe-Signature": f"{stamp},v1=00,{signature}"})
    only_v0 = f"{stamp},{signature.replace('v1', 'v0')}"
    assert reason("stripe", {"Stripe-Signature": only_v0}) == "signature_mismatch"


@pytest.mark.parametrize("stamp", ["", "1e9", "-1", "٣", "9" * 400, "1800000000.0", " 1800000000"])
def test_a_signed_timestamp_must_be_unix_seconds(stamp: str) -> None:
    key = base64.b64decode(SECRETS["standard"].removeprefix("whsec_"))
    mac = hmac.digest(key, f"id.{stamp}.".encode() + BODY, hashlib.sha256)
    headers = {
        "webhook-id": "id",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
    assert reason("standard", headers) == ("no_timestamp" if stamp else "no_signature")


def test_stripe_requires_exactly_one_timestamp() -> None:
    good = signed("stripe", BODY, NOW)["Stripe-Signature"]
    assert reason("stripe", {"Stripe-Signature": "v1=00"}) == "no_timestamp"
    assert reason("stripe", {"Stripe-Signature": f"t=1,{good}"}) == "no_timestamp"


@dataclass
class Spelling:
    fields: dict[str, str]
    write: Callable[[bytes], str]


SPELLINGS = {
    "upper-case hex": Spelling({}, lambda mac: mac.hex().upper()),
    "a prefix": Spelling({"prefix": "sha256="}, lambda mac: "sha256=" + mac.hex()),
    "base64": Spelling({"encoding": "base64"}, lambda mac: base64.b64encode(mac).decode()),
    "sha1": Spelling({"digest": "sha1"}, lambda mac: mac.hex()),
    "sha512 in base64": Spelling(
        {"digest": "sha512", "encoding": "base64"}, lambda mac: base64.b64encode(mac).decode()
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_generic_scheme_reads_every_spelling(name: str) -> None:
    spelling = SPELLINGS[name]
    generic = scheme(scheme="hmac", header="X-Sig", **spelling.fields)
    digest = spelling.fields.get("digest", "sha256")
    header = spelling.write(hmac.digest(b"some secret", BODY, digest))
    verify(generic, {"X-Sig": header}, secrets=("some secret",))
    for wrong in (header[:-1], header + "0", "x" + header):
        assert reason(generic, {"X-Sig": wrong}, secrets=("some secret",)) == "signature_mismatch"


def test_every_secret_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("relay.webhooks.signatures.hmac.compare_digest", compare)
    for kind in SCHEMES:
        compared.clear()
        # The first secret matches; the second must be compared nevertheless.
        verify(kind, signed(kind, BODY, NOW), secrets=(SECRETS[kind], "another secret"))
        assert len(compared) == 2


# ------------------------------------------------------------------------------------- garbage

TEXT = st.text(max_size=60) | st.sampled_from(
    ["v1,", "v1,é", "t=,v1=", "t=1800000000,v1=\ud800", "sha256=", "Bearer ", "=", ",", "\0"]
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        name.lower(): TEXT for kind in SCHEMES for name in [*signed(kind, BODY, NOW), "webhook-id"]
    },
)


@given(kind=st.sampled_from(sorted(SCHEMES)), headers=HEADERS, body=st.binary(max_size=100))
def test_garbage_raises_nothing_but_unverified(
    kind: str, headers: dict[str, str], body: bytes
) -> None:
    assert reason(kind, headers, body)


@given(
    kind=st.sampled_from(OVER_THE_BODY),
    body=st.text(max_size=200).map(lambda t: t.encode()),
    at=st.integers(0, 2**33),
)
def test_any_signed_body_is_verified(kind: str, body: bytes, at: int) -> None:
    verify(kind, signed(kind, body, at), body, now=float(at))


@given(secret=st.text(min_size=1, max_size=40), body=st.binary(max_size=40))
def test_any_secret_can_be_checked_against(secret: str, body: bytes) -> None:
    headers = signed("standard", b"x", NOW)
    assert reason("standard", headers, body, (secret,))


# ------------------------------------------------------------------------------ its configuration


@pytest.mark.parametrize(
    "fields",
    [
        {"scheme": "magic"},
        {"scheme": "hmac"},
        {"scheme": "hmac", "header": "not a header"},
        {"scheme": "hmac", "header": "X", "digest": "md5"},
        {"scheme": "hmac", "header": "X", "signed": "nothing"},
        {"scheme": "hmac", "header": "X", "signed": "{body}{body}"},
        {"scheme": "hmac", "header": "X", "timestamp": "Y"},
        {"scheme": "hmac", "header": "X", "signed": "{timestamp}.{body}"},
        {"scheme": "github", "secret": "in the file"},
    ],
)
def test_an_invalid_configuration_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        scheme(**fields)
