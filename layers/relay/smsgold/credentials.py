"""The account's user and password, and where they come from."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from smsgold.errors import CredentialsError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager.client import SecretsManagerClient

COLD_RETRY = 2.0
"""Seconds to wait after a failed first fetch, so that a batch's messages share one failure."""

EXPECTED = '{"user": "XXXXX", "pass": "…"}'


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account's user (`XXXXX` or `XXXXX.X`, digits) and password; shows only the user."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", self.user):
            raise CredentialsError(
                '"user" must look like XXXXX or XXXXX.X: digits, optionally followed by a dot and '
                "the sub-user's digits, without spaces"
            )
        if not self.password:
            raise CredentialsError('"pass" must not be empty')
        try:
            self.password.encode()
        except UnicodeEncodeError:
            raise CredentialsError('"pass" contains half of a surrogate pair') from None

    @classmethod
    def parse(cls, secret: str) -> "Credentials":
        """Read `{"user": …, "pass": …}`; raise CredentialsError, which never shows the secret."""
        try:
            found = json.loads(secret)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CredentialsError(f"the secret must be a JSON object: {EXPECTED}")
        for name in ("user", "pass"):
            if not isinstance(found.get(name), str):
                raise CredentialsError(f'the secret needs "{name}" as a string: {EXPECTED}')
        return cls(found["user"], found["pass"])


S = TypeVar("S")


class SecretSource(Generic[S]):
    """A secret, fetched on demand and cached for `max_age` seconds; thread-safe.

    While one caller refreshes it, the others get the last good value; if that fails, it stays in
    use and `on_stale` gets the error. `on_change` gets every new value before any caller does.
    """

    @staticmethod
    def parse(secret: str) -> S:
        """Read the secret's text; raise CredentialsError, which never shows the secret."""
        raise NotImplementedError

    def __init__(
        self,
        fetch: Callable[[], str],
        *,
        max_age: float = 300.0,
        min_refresh: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[S], None] = lambda _: None,
        on_stale: Callable[[CredentialsError], None] = lambda _: None,
    ) -> None:
        self._fetch = fetch
        self._max_age = max_age
        self._min_refresh = min_refresh
        self._clock = clock
        self._on_change = on_change
        self._on_stale = on_stale
        self._lock = threading.Lock()
        self._held: S | None = None
        self._failure: CredentialsError | None = None
        self._next_fetch = float("-inf")
        self._next_renewal = float("-inf")

    def get(self) -> S:
        """Return the secret; raise CredentialsError if there is none yet."""
        if (held := self._held) is not None and self._clock() < self._next_fetch:
            return held
        # Only the first fetch is waited for: a later one can take seconds, and there is a value.
        if held is None:
            self._lock.acquire()
        elif not self._lock.acquire(blocking=False):
            return held
        try:
            if self._clock() >= self._next_fetch:
                self._refresh()
            if self._held is not None:
                return self._held
            raise CredentialsError(*(self._failure.args if self._failure else ()))
        finally:
            self._lock.release()

    def last(self) -> S | None:
        """Return the secret as it was last fetched, however old, without fetching anything."""
        return self._held

    def renew(self, refused: S) -> S | None:
        """Return what to try instead of a refused secret, or None; it may be the same, refetched.

        All callers together fetch at most once per `min_refresh` seconds. A caller refused with an
        older value gets the current one without a fetch.
        """
        with self._lock:
            if self._held is not None and self._held != refused:
                return self._held
            if self._clock() < self._next_renewal:
                return None
            self._next_renewal = self._clock() + self._min_refresh
            return self._held if self._refresh() else None

    def _refresh(self) -> bool:
        """Fetch, set when to fetch next, and return whether it worked. Call with the lock held."""
        try:
            fetched = self.parse(self._fetch())
        except CredentialsError as error:
            self._failure = error
            wait = COLD_RETRY if self._held is None else self._min_refresh
            self._next_fetch = self._clock() + wait
            if self._held is not None:
                self._on_stale(error)
            return False
        self._next_fetch = self._clock() + self._max_age
        if fetched != self._held:
            self._on_change(fetched)
            self._held = fetched
        return True


class CredentialsSource(SecretSource[Credentials]):
    """The source of an account's credentials."""

    parse = staticmethod(Credentials.parse)


def from_secrets_manager(client: "SecretsManagerClient", secret_id: str) -> Callable[[], str]:
    """Return a function that fetches the current text of a Secrets Manager secret."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - needed only here

    def fetch() -> str:
        try:
            response: Mapping[str, object] = client.get_secret_value(SecretId=secret_id)
        except ClientError as error:
            reason = str(error.response.get("Error", {}).get("Code", "ClientError"))
        except BotoCoreError as error:
            reason = type(error).__name__
        else:
            if isinstance(text := response.get("SecretString"), str):
                return text
            reason = "it is binary; store it as text"
        raise CredentialsError(f"the secret {secret_id} cannot be read: {reason}")

    return fetch
