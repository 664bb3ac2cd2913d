"""The provider's three operations."""

import ipaddress
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.util import parse_url

from smsgold import __version__, responses
from smsgold.credentials import Credentials
from smsgold.echoes import Echoes
from smsgold.errors import BaseUrlError, TransportError
from smsgold.responses import Response, Verdict, classify
from smsgold.transport import Pool, Withhold, connect, exchange, hide_content, pool_manager

DEFAULT_BASE_URL = "https://webapi.smsgold.ru/v1/telegram/bot"
USER_AGENT = f"smsgold-relay/{__version__}"

CONNECT_SECONDS = 2.0
"""What `connect` may take; a message that finds no connection makes one within its own deadline."""

MAX_RESPONSE = 256 * 1024
"""Bytes read of the response to a message; a few hundred are expected."""

MAX_LIST = 16 * 1024 * 1024
"""Bytes read of a list: over 100,000 subscribers, within a small function's memory."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message as the provider accepts it: to a subscriber, or to a number through a bot."""

    text: str = field(repr=False)
    subscriber_id: str | None = None
    bot_id: str | None = None
    number: str | None = field(default=None, repr=False)
    buttons: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(text, url) pairs."""

    def __post_init__(self) -> None:
        by_subscriber = bool(self.subscriber_id) and not self.bot_id and not self.number
        by_number = bool(self.bot_id) and bool(self.number) and not self.subscriber_id
        if not by_subscriber and not by_number:
            raise ValueError("a message needs subscriber_id, or bot_id with number, but not both")

    def body(self, credentials: Credentials) -> bytes:
        """Return the request body that the provider documents."""
        address = (
            {"subscriberId": self.subscriber_id}
            if self.subscriber_id
            else {"botId": self.bot_id, "number": self.number}
        )
        buttons = [{"text": text, "url": url} for text, url in self.buttons]
        content = {
            **address,
            "text": self.text,
            **({"buttons": buttons} if buttons else {}),
            "auth": {"user": credentials.user, "pass": credentials.password},
        }
        return json.dumps(content, ensure_ascii=False).encode()


class Client:
    """The provider at one address; one instance serves all threads, which share its connections.

    `deadline` is in seconds and covers connecting, sending and reading together. `http` must be
    made with `transport.pool_manager`: other pools have no such deadline.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        *,
        http: urllib3.PoolManager | None = None,
        deadline: float = 12.0,
        connections: int = 32,
        user_agent: str = USER_AGENT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = checked_base_url(base_url)
        pool = (http or pool_manager(connections)).connection_from_url(self._base_url)
        if not isinstance(pool, Pool):
            raise TypeError("`http` must be made with smsgold.transport.pool_manager")
        self._pool = pool
        self._path = parse_url(self._base_url).path or ""
        self._deadline = deadline
        self._clock = clock
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": user_agent,
        }
        hide_content()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r})"

    def bots(self, credentials: Credentials) -> list[dict[str, object]]:
        """Return the account's bots, each with its `id`; raise ProviderError."""
        return responses.bots(self._get("/bots/", credentials, {}), self._clock())

    def subscribers(self, credentials: Credentials, bot_id: str) -> list[dict[str, object]]:
        """Return a bot's subscribers, each with its `id`; raise ProviderError."""
        result = self._get("/subscribers/", credentials, {"botId": bot_id})
        return responses.subscribers(result, self._clock())

    def connect(self) -> None:
        """Have a connection at hand for the next message, if one can be made; never raise."""
        connect(self._pool, min(self._deadline, CONNECT_SECONDS))

    def send(
        self,
        credentials: Credentials,
        message: OutgoingMessage,
        *,
        withhold: Withhold | None = None,
    ) -> Verdict:
        """Make at most one POST and return what came of it, whatever the provider or network do.

        `withhold` is asked once, when there is a connection, right before the first byte: if it
        gives a reason, nothing is sent, and the verdict's outcome is WITHHELD with that reason.
        """
        result = exchange(
            self._pool,
            "POST",
            f"{self._path}/sendMessage/",
            headers={**self._headers, "Content-Type": "application/json"},
            body=message.body(credentials),
            deadline=self._deadline,
            max_body=MAX_RESPONSE,
            withhold=withhold,
        )
        own = (message.text, message.number or "", *chain.from_iterable(message.buttons))
        return classify(result, self._clock(), Echoes(own, (credentials.password,)))

    def _get(
        self, path: str, credentials: Credentials, parameters: Mapping[str, str]
    ) -> Response | TransportError:
        query = {"user": credentials.user, "pass": credentials.password, **parameters}
        return exchange(
            self._pool,
            "GET",
            f"{self._path}{path}?{urlencode(query, quote_via=quote, safe='')}",
            headers=self._headers,
            deadline=self._deadline,
            max_body=MAX_LIST,
        )


def checked_base_url(url: str) -> str:
    """Return the URL without its trailing slash; raise BaseUrlError if it is invalid or unsafe."""
    try:
        # Parsers differ about a backslash, and drop line breaks.
        [printable] = re.findall(r"\A[!-\[\]-~]*\Z", url)
        parts = urlsplit(printable)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise BaseUrlError("the provider's address is not a URL") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise BaseUrlError(f"the provider's address must be a URL such as {DEFAULT_BASE_URL}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise BaseUrlError(
            f"the provider's address must start with https:// (its host is {host}): plain http is "
            "allowed only for 127.0.0.0/8, ::1 and localhost, because requests carry the password"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise BaseUrlError("the provider's address must have no user, query or fragment")
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
