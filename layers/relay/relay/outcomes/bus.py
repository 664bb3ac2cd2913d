"""EventBridge's PutEvents, signed and sent by the parts that botocore's clients are made of.

The publisher starts for a handful of events, and a whole client takes half as long again to import
and make: docs/performance.md.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from relay.outcomes.events import SOURCE, Event

SERVICE = "events"
HEADERS = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AWSEvents.PutEvents"}
TIMEOUT = 5
"""Seconds for connecting, and for each read."""

MOST = 10
"""Events in one call: "You can send up to 10 events per request" (EventBridge API Reference)."""


class PutError(Exception):
    """EventBridge took none of a call's events, as far as anybody knows; the text says why."""


def from_environment(environment: Mapping[str, str]) -> "Bus":
    """Return the stack's bus, from the variables that the template and Lambda set."""
    return Bus(
        # Set by the local AWS alone.
        environment.get("AWS_ENDPOINT_URL") or environment["EVENTS_ENDPOINT"],
        environment["EVENT_BUS"],
        environment["AWS_REGION"],
        Credentials(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            environment.get("AWS_SESSION_TOKEN"),
        ),
    )


class Bus:
    """One bus; its connection is kept between calls."""

    def __init__(self, endpoint: str, bus: str, region: str, credentials: Credentials) -> None:
        self._url = f"{endpoint.rstrip('/')}/"
        self._bus = bus
        self._signer = SigV4Auth(credentials, SERVICE, region)
        self._http = URLLib3Session(timeout=TIMEOUT)

    def put(self, events: Sequence[Event]) -> list[str]:
        """Put up to ten events on the bus; return each one's error code, "" for one that is there.

        Raises PutError.
        """
        body = json.dumps({"Entries": [self._entry(event) for event in events]}).encode()
        answer = self._post(body)
        return [str(entry.get("ErrorCode", "")) for entry in answer["Entries"]]

    def _entry(self, event: Event) -> dict[str, Any]:
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": event.kind,
            "Time": event.at,
            "Detail": json.dumps(event.detail, ensure_ascii=False, separators=(",", ":")),
        }

    def _post(self, body: bytes) -> Any:
        request = AWSRequest("POST", self._url, HEADERS, body)
        self._signer.add_auth(request)
        try:
            response = self._http.send(request.prepare())
        except BotoCoreError as error:
            raise PutError(type(error).__name__) from None
        if response.status_code != 200:
            raise PutError(f"{response.status_code} {_code(response.content)}")
        try:
            return json.loads(response.content)
        except ValueError:
            raise PutError("the answer is not JSON") from None


def _code(content: bytes) -> str:
    """Return the error's code in an answer, such as ThrottlingException."""
    try:
        return str(json.loads(content)["__type"]).rpartition("#")[2]
    except (ValueError, KeyError, TypeError):
        return "without a code"
