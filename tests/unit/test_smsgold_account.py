"""Lists under an account whose credentials may be refused."""

from collections.abc import Callable

import pytest

from smsgold.account import Account
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsError, CredentialsRefusedError, ProviderUnavailableError
from smsgold.responses import Entry

OLD = Credentials("10001", "old-password")
NEW = Credentials("10001", "new-password")

OPERATIONS: dict[str, Callable[[Account], list[Entry]]] = {
    "bots": lambda account: account.bots(),
    "subscribers of b1": lambda account: account.subscribers("b1"),
}


class Provider:
    """Lists for whoever has the password; notes each call."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.calls: list[str] = []

    def bots(self, credentials: Credentials) -> list[Entry]:
        return self._answer("bots", credentials)

    def subscribers(self, credentials: Credentials, bot_id: str) -> list[Entry]:
        return self._answer(f"subscribers of {bot_id}", credentials)

    def _answer(self, operation: str, credentials: Credentials) -> list[Entry]:
        self.calls.append(f"{operation} by {credentials.password}")
        if credentials.password != self.password:
            raise CredentialsRefusedError("http_401")
        return [{"id": "1"}]


class Source:
    """Gives the old credentials, and on renewal what it is told to."""

    def __init__(self, renewed: Credentials | None = None) -> None:
        self.renewed = renewed
        self.renewals = 0

    def get(self) -> Credentials:
        return OLD

    def renew(self, refused: Credentials) -> Credentials | None:
        assert refused == OLD
        self.renewals += 1
        return self.renewed


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_accepted_credentials_are_not_renewed(operation: str) -> None:
    provider, source = Provider(OLD.password), Source(NEW)
    assert OPERATIONS[operation](Account(provider, source)) == [{"id": "1"}]
    assert provider.calls == [f"{operation} by old-password"]
    assert source.renewals == 0


def test_refused_credentials_are_renewed_and_tried_once_more(operation: str) -> None:
    provider = Provider(NEW.password)
    assert OPERATIONS[operation](Account(provider, Source(NEW))) == [{"id": "1"}]
    assert provider.calls == [f"{operation} by old-password", f"{operation} by new-password"]


def test_a_second_refusal_is_final(operation: str) -> None:
    provider, source = Provider("another password"), Source(NEW)
    with pytest.raises(CredentialsRefusedError):
        OPERATIONS[operation](Account(provider, source))
    assert len(provider.calls) == 2
    assert source.renewals == 1


def test_without_newer_credentials_the_first_refusal_is_final(operation: str) -> None:
    provider = Provider(NEW.password)
    with pytest.raises(CredentialsRefusedError):
        OPERATIONS[operation](Account(provider, Source(None)))
    assert len(provider.calls) == 1


def test_other_errors_are_not_retried() -> None:
    class Down(Provider):
        def _answer(self, operation: str, credentials: Credentials) -> list[Entry]:
            super()._answer(operation, credentials)
            raise ProviderUnavailableError("http_503")

    provider, source = Down(OLD.password), Source(NEW)
    with pytest.raises(ProviderUnavailableError):
        Account(provider, source).bots()
    assert (len(provider.calls), source.renewals) == (1, 0)


def test_unreadable_credentials_reach_the_caller() -> None:
    class Unreadable(Source):
        def get(self) -> Credentials:
            raise CredentialsError("the secret cannot be read")

    provider = Provider(OLD.password)
    with pytest.raises(CredentialsError):
        Account(provider, Unreadable()).bots()
    assert not provider.calls
