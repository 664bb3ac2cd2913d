"""The provider's lists, kept for a moment."""

import time
from collections.abc import Callable
from typing import Protocol

from relay.messages.dispatch import CredentialsKeeper
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsRefusedError

FRESH_SECONDS = 30.0
"""How old a list may be that is answered with."""

KEPT = 50
"""Lists kept at most: the longest take megabytes."""

Entries = list[dict[str, object]]


class Lists(Protocol):
    """What the directory needs of the provider's client."""

    def bots(self, credentials: Credentials) -> Entries:
        """Return the account's bots; raise ProviderError."""
        ...

    def subscribers(self, credentials: Credentials, bot_id: str) -> Entries:
        """Return a bot's subscribers; raise ProviderError."""
        ...


class Directory:
    """Bots and subscribers as the provider lists them; one for each environment."""

    def __init__(
        self,
        provider: Lists,
        credentials: CredentialsKeeper,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._credentials = credentials
        self._clock = clock
        self._kept: dict[str, tuple[float, Entries]] = {}

    def bots(self) -> Entries:
        """Return the connected bots; raise ProviderError or CredentialsError."""
        return self._fresh("", self._provider.bots)

    def subscribers(self, bot_id: str) -> Entries:
        """Return a bot's subscribers; raise ProviderError or CredentialsError."""
        return self._fresh(bot_id, lambda account: self._provider.subscribers(account, bot_id))

    def _fresh(self, name: str, fetch: Callable[[Credentials], Entries]) -> Entries:
        kept = self._kept.get(name)
        if kept and self._clock() < kept[0] + FRESH_SECONDS:
            return kept[1]
        entries = self._fetch(fetch)
        if len(self._kept) >= KEPT:
            self._kept.clear()
        self._kept[name] = (self._clock(), entries)
        return entries

    def _fetch(self, fetch: Callable[[Credentials], Entries]) -> Entries:
        credentials = self._credentials.get()
        try:
            return fetch(credentials)
        except CredentialsRefusedError:
            renewed = self._credentials.renew(credentials)
            if renewed is None:
                raise
        return fetch(renewed)
