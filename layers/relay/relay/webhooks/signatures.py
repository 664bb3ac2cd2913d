"""How senders sign webhooks: each scheme checks a request's raw bytes. Pure.

A failed check raises UnverifiedError and nothing else, whatever the headers and the body hold.
Every comparison takes constant time.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

TOLERANCE = 300
"""Seconds a timestamp may be in the past or the future, as in the schemes' own libraries."""

MIN_KEY = 8
"""Bytes; a shorter key keeps nobody out."""

USABLE = f"a secret with a key of at least {MIN_KEY} bytes, or a list of such secrets"

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=128)]


class UnverifiedError(Exception):
    """Nothing proves that the sender made the request; `reason` is a code for the log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class _Scheme(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Raise UnverifiedError unless a holder of one of the secrets has just sent this.

        Header names are lower-case. A scheme without a timestamp cannot tell when it was sent.
        """
        raise NotImplementedError

    def key(self, secret: str) -> bytes:
        """Return the key that a secret stands for."""
        return _bytes(secret)

    @property
    def delivery(self) -> str | None:
        """The JMESPath expression for a delivery's id, if the scheme has one."""
        return None

    @property
    def form_field(self) -> str | None:
        """The field with the JSON, if the scheme's senders may post a form."""
        return None

    @property
    def secret_header(self) -> str | None:
        """The lower-case name of the header that holds the secret itself, if one does."""
        return None


class StandardWebhooks(_Scheme):
    """Standard Webhooks 1.0 with a symmetric secret: `whsec_` and base64."""

    scheme: Literal["standard-webhooks"]

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Check `webhook-signature` over the id, the timestamp and the body."""
        id_ = _header(headers, "webhook-id")
        timestamp = _header(headers, "webhook-timestamp")
        signatures = [s.partition(",") for s in _header(headers, "webhook-signature").split()]
        signed = b".".join([_bytes(id_), _bytes(timestamp), body])
        expected = [_base64(_hmac(self.key(secret), signed)) for secret in secrets]
        _require_match(expected, [s for version, _, s in signatures if version == "v1"])
        _require_recent(timestamp, now)

    def key(self, secret: str) -> bytes:
        """Return the key that a secret stands for in base64, if it does."""
        text = secret.removeprefix("whsec_")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            return _bytes(secret)

    @property
    def delivery(self) -> str:
        """The JMESPath expression for a delivery's id."""
        return "header('webhook-id')"


class GitHub(_Scheme):
    """GitHub's `X-Hub-Signature-256`."""

    scheme: Literal["github"]

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Check `X-Hub-Signature-256` over the body; it has no timestamp."""
        del now
        given = _header(headers, "x-hub-signature-256")
        expected = ["sha256=" + _hmac(_bytes(secret), body).hex() for secret in secrets]
        _require_match(expected, [given])

    @property
    def delivery(self) -> str:
        """The JMESPath expression for a delivery's id."""
        return "header('X-GitHub-Delivery')"

    @property
    def form_field(self) -> str:
        """The field with the JSON: a form is GitHub's default."""
        return "payload"


class Stripe(_Scheme):
    """Stripe's `Stripe-Signature`."""

    scheme: Literal["stripe"]

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Check the `v1` signatures over the timestamp `t` and the body."""
        pairs = [p.strip().partition("=") for p in _header(headers, "stripe-signature").split(",")]
        timestamps = [value for key, _, value in pairs if key == "t"]
        if len(timestamps) != 1:
            raise UnverifiedError("no_timestamp")
        signed = b".".join([_bytes(timestamps[0]), body])
        expected = [_hmac(_bytes(secret), signed).hex() for secret in secrets]
        _require_match(expected, [value for key, _, value in pairs if key == "v1"])
        _require_recent(timestamps[0], now)

    @property
    def delivery(self) -> str:
        """The JMESPath expression for a delivery's id."""
        return "id"


class Hmac(_Scheme):
    """Any other HMAC in a header, over the body or over what `signed` says."""

    scheme: Literal["hmac"]
    header: HeaderName
    digest: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    timestamp: HeaderName | None = None
    """The header with the Unix time of sending, in seconds."""
    signed: str = "{body}"
    """What is signed: `{body}` and, with `timestamp`, also `{timestamp}`."""

    @model_validator(mode="after")
    def _signs_the_body(self) -> Self:
        if self.signed.count("{body}") != 1:
            problem = "signed must contain {body} exactly once"
        elif self.signed.count("{timestamp}") != (self.timestamp is not None):
            problem = "give both timestamp and one {timestamp} in signed, or neither"
        else:
            return self
        raise PydanticCustomError("signed", "{problem}", {"problem": problem})

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Check the header against the HMAC of the body, and the timestamp if there is one."""
        given = _header(headers, self.header.lower())
        timestamp = _header(headers, self.timestamp.lower()) if self.timestamp else ""
        before, _, after = (
            _bytes(part.replace("{timestamp}", timestamp))
            for part in self.signed.partition("{body}")
        )
        digests = [_hmac(_bytes(s), before + body + after, self.digest) for s in secrets]
        if self.encoding == "hex":
            # Hex digits may be in either case.
            given = given[: len(self.prefix)] + given[len(self.prefix) :].lower()
            expected = [self.prefix + digest.hex() for digest in digests]
        else:
            expected = [self.prefix + _base64(digest) for digest in digests]
        _require_match(expected, [given])
        if self.timestamp:
            _require_recent(timestamp, now)


class Token(_Scheme):
    """The secret itself in a header."""

    scheme: Literal["token"]
    header: HeaderName = "Authorization"
    prefix: str = ""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Check the header against the secrets; it proves neither the body nor the time."""
        del body, now
        given = _header(headers, self.header.lower())
        _require_match([self.prefix + secret for secret in secrets], [given])

    @property
    def secret_header(self) -> str:
        """The lower-case name of the header that holds the secret itself."""
        return self.header.lower()


class EventBridge(_Scheme):
    """No signature: a rule of EventBridge invokes the function, and no HTTP request is let in."""

    scheme: Literal["eventbridge"]

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        """Refuse: what there is to verify came over HTTP."""
        del headers, body, secrets, now
        raise UnverifiedError("not_by_http")

    @property
    def delivery(self) -> str:
        """The JMESPath expression for a delivery's id: the event's own, which EventBridge makes."""
        return "id"


Scheme = Annotated[
    StandardWebhooks | GitHub | Stripe | Hmac | Token | EventBridge, Field(discriminator="scheme")
]


def usable(scheme: Scheme, secrets: Sequence[str]) -> bool:
    """Return whether a hook with these secrets keeps strangers out."""
    return bool(secrets) and all(len(scheme.key(secret)) >= MIN_KEY for secret in secrets)


def _header(headers: Mapping[str, str], name: str) -> str:
    if not (value := headers.get(name)):
        raise UnverifiedError("no_signature")
    return value


def _require_match(expected: Iterable[str], given: Iterable[str]) -> None:
    """Raise UnverifiedError unless an expected value was given; compare all, even after a match."""
    candidates = [_bytes(value) for value in given]
    matches = [
        hmac.compare_digest(_bytes(e), candidate) for e in expected for candidate in candidates
    ]
    if not any(matches):
        raise UnverifiedError("signature_mismatch")


def _require_recent(timestamp: str, now: float) -> None:
    if not re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII):
        raise UnverifiedError("no_timestamp")
    age = now - int(timestamp)
    if abs(age) > TOLERANCE:
        raise UnverifiedError("too_old" if age > 0 else "from_the_future")


def _hmac(key: bytes, data: bytes, digest: str = "sha256") -> bytes:
    return hmac.digest(key, data, getattr(hashlib, digest))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
