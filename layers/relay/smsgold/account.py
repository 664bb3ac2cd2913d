"""The provider's lists for one account, whose credentials may change at any time."""

from collections.abc import Callable
from typing import Protocol

from smsgold.credentials import Credentials
from smsgold.errors import CredentialsRefusedError
from smsgold.responses import Entry


class Lists(Protocol):
    """The list operations of `client.Client`."""

    def bots(self, credentials: Credentials) -> list[Entry]:
        """Return the account's bots; raise ProviderError."""
        ...

    def subscribers(self, credentials: Credentials, bot_id: str) -> list[Entry]:
        """Return a bot's subscribers; raise ProviderError."""
        ...


class RenewableCredentials(Protocol):
    """What an account needs of a `credentials.CredentialsSource`."""

    def get(self) -> Credentials:
        """Return the credentials; raise CredentialsError if there are none."""
        ...

    def renew(self, refused: Credentials) -> Credentials | None:
        """Return what to try instead of refused credentials, or None."""
        ...


class Account:
    """One account's lists; refused credentials are renewed once and the request repeated.

    Sending is not here: only its caller can say whether a message may be posted twice.
    """

    def __init__(self, provider: Lists, credentials: RenewableCredentials) -> None:
        self._provider = provider
        self._credentials = credentials

    def bots(self) -> list[Entry]:
        """Return the account's bots; raise ProviderError or CredentialsError."""
        return self._list(self._provider.bots)

    def subscribers(self, bot_id: str) -> list[Entry]:
        """Return a bot's subscribers; raise ProviderError or CredentialsError."""
        return self._list(lambda credentials: self._provider.subscribers(credentials, bot_id))

    def _list(self, operation: Callable[[Credentials], list[Entry]]) -> list[Entry]:
        credentials = self._credentials.get()
        try:
            return operation(credentials)
        except CredentialsRefusedError:
            renewed = self._credentials.renew(credentials)
            if renewed is None:
                raise
        return operation(renewed)
