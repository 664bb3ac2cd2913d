"""EventBridge's PutEvents, signed and sent by the standard library alone.

The publisher starts for a handful of events, and botocore takes four times as long to import as it
takes to do this.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from relay.outcomes.events import SOURCE, Event

SERVICE = "events"
TARGET = "AWSEvents.PutEvents"
TIMEOUT = 5.0
"""Seconds for connecting, and for each read."""

MOST = 10
"""Events in one call: "You can send up to 10 events per request" (EventBridge API Reference)."""


class PutError(Exception):
    """EventBridge took none of a call's events, as far as anybody knows; the text says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """The function's own credentials, as Lambda gives them to it."""

    id: str
    secret: str
    token: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Key":
        """Read them from the variables that Lambda sets."""
        return cls(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            environment.get("AWS_SESSION_TOKEN", ""),
        )


def from_environment(environment: Mapping[str, str]) -> "Bus":
    """Return the stack's bus, from the variables that the template and Lambda set."""
    return Bus(
        # Set by the local AWS alone.
        environment.get("AWS_ENDPOINT_URL") or environment["EVENTS_ENDPOINT"],
        environment["EVENT_BUS"],
        environment["AWS_REGION"],
        Key.of(environment),
    )


def _now() -> datetime:
    return datetime.now(UTC)


class Bus:
    """One bus; its connection is kept between calls."""

    def __init__(
        self,
        endpoint: str,
        bus: str,
        region: str,
        key: Key,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        scheme, _, self._host = endpoint.rstrip("/").partition("://")
        kind = HTTPConnection if scheme == "http" else HTTPSConnection  # http: the local AWS
        self._connection = kind(self._host, timeout=TIMEOUT)
        self._bus = bus
        self._region = region
        self._key = key
        self._clock = clock

    def put(self, events: Sequence[Event]) -> list[str]:
        """Put up to ten events on the bus; return each one's error code, "" for one that is there.

        Raises PutError.
        """
        body = json.dumps({"Entries": [self._entry(event) for event in events]}).encode()
        answer = self._post(body)
        return [str(entry.get("ErrorCode", "")) for entry in answer["Entries"]]

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._connection.close()

    def _entry(self, event: Event) -> dict[str, Any]:
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": event.kind,
            "Time": event.at,
            "Detail": json.dumps(event.detail, ensure_ascii=False, separators=(",", ":")),
        }

    def _post(self, body: bytes) -> Any:
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "host": self._host,
            "x-amz-target": TARGET,
        }
        try:
            signed = sign(headers, body, self._region, self._key, self._clock())
            self._connection.request("POST", "/", body, signed)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            self.close()
            raise PutError(type(error).__name__) from None
        if response.status != 200:
            raise PutError(f"{response.status} {_code(content)}")
        try:
            return json.loads(content)
        except ValueError:
            raise PutError("the answer is not JSON") from None


def _code(content: bytes) -> str:
    """Return the error's code in an answer, such as ThrottlingException."""
    try:
        return str(json.loads(content)["__type"]).rpartition("#")[2]
    except (ValueError, KeyError, TypeError):
        return "without a code"


def sign(
    headers: Mapping[str, str], body: bytes, region: str, key: Key, now: datetime
) -> dict[str, str]:
    """Return a POST's headers with Signature Version 4 added; names in lower case, path `/`."""
    at = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {**headers, "x-amz-date": at}
    if key.token:
        signed["x-amz-security-token"] = key.token
    names = ";".join(sorted(signed))
    lines = [f"{name}:{signed[name]}\n" for name in sorted(signed)]
    digest = hashlib.sha256(body).hexdigest()
    request = "\n".join(["POST", "/", "", "".join(lines), names, digest])
    scope = f"{at[:8]}/{region}/{SERVICE}/aws4_request"
    hashed = hashlib.sha256(request.encode()).hexdigest()
    secret = f"AWS4{key.secret}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.id}/{scope}, SignedHeaders={names}, "
        f"Signature={secret.hex()}"
    )
    return signed
