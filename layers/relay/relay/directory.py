"""The provider's lists of bots and subscribers, cached for a few seconds."""

import time
from collections.abc import Callable
from functools import partial

from smsgold.account import Account
from smsgold.responses import Entry

FRESH_SECONDS = 30.0
"""How long a list is served from the cache."""

MAX_CACHED = 50
"""Lists; the longest take megabytes."""

Entries = list[Entry]


class Directory:
    """The account's bots and their subscribers; one per Lambda environment."""

    def __init__(
        self,
        account: Callable[[], Account],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account = account
        self._clock = clock
        self._cache: dict[str, tuple[float, Entries]] = {}

    def bots(self) -> Entries:
        """Return the account's bots; raise ProviderError or CredentialsError."""
        return self._cached("", self._account().bots)

    def subscribers(self, bot_id: str) -> Entries:
        """Return a bot's subscribers; raise ProviderError or CredentialsError."""
        return self._cached(bot_id, partial(self._account().subscribers, bot_id))

    def _cached(self, name: str, fetch: Callable[[], Entries]) -> Entries:
        cached = self._cache.get(name)
        if cached and self._clock() < cached[0] + FRESH_SECONDS:
            return cached[1]
        entries = fetch()
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[name] = (self._clock(), entries)
        return entries
