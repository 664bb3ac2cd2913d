"""Which credentials are valid, and when they are fetched."""

import json
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from smsgold.credentials import Credentials, CredentialsSource, from_secrets_manager
from smsgold.errors import CredentialsError
from tests.support import poll

PASSWORD = 'p@ss w&rd"é+%/'


def secret(password: str = PASSWORD, user: object = "12345") -> str:
    return json.dumps({"user": user, "pass": password})


# ------------------------------------------------------------------------------------- the value


@pytest.mark.parametrize("user", ["1", "12345", "12345.6", "10001.12"])
def test_a_valid_secret_is_parsed(user: str) -> None:
    assert Credentials.parse(secret(user=user)) == Credentials(user, PASSWORD)


def test_other_keys_of_a_secret_are_ignored() -> None:
    text = json.dumps({"user": "1", "pass": "word", "rotated": "2026-11-01"})
    assert Credentials.parse(text) == Credentials("1", "word")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "JSON object"),
        (PASSWORD, "JSON object"),
        (f'{{"user": "12345", "pass": "{PASSWORD}"', "JSON object"),
        (json.dumps([PASSWORD]), "JSON object"),
        (json.dumps(PASSWORD), "JSON object"),
        ("[" * 100_000, "JSON object"),
        (json.dumps({"pass": PASSWORD}), '"user" as a string'),
        (json.dumps({"user": "12345"}), '"pass" as a string'),
        (json.dumps({"user": "12345", PASSWORD: PASSWORD}), '"pass" as a string'),
        (secret(user=12345), '"user" as a string'),
        (json.dumps({"user": "12345", "pass": 1234567}), '"pass" as a string'),
        (secret(user=""), "XXXXX"),
        (secret(user="12345."), "XXXXX"),
        (secret(user="12345.6.7"), "XXXXX"),
        (secret(user="12345\n"), "XXXXX"),
        (secret(user=" 12345"), "XXXXX"),
        (secret(user="١٢٣٤٥"), "XXXXX"),
        (secret(user=PASSWORD), "XXXXX"),
        (secret(password=""), "empty"),
        (secret(password=PASSWORD + "\ud800"), "surrogate"),
    ],
)
def test_a_malformed_secret_says_what_is_wrong_without_showing_it(text: str, says: str) -> None:
    with pytest.raises(CredentialsError, match=says) as caught:
        Credentials.parse(text)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for part in (PASSWORD, json.dumps(PASSWORD), "1234567"):
        assert part not in shown
    assert caught.value.__context__ is None or PASSWORD not in repr(vars(caught.value.__context__))


@given(st.text() | st.text().map(lambda text: json.dumps({"user": text, "pass": text})))
def test_parse_raises_nothing_but_credentials_errors(text: str) -> None:
    try:
        Credentials.parse(text)
    except CredentialsError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_the_password_is_not_shown() -> None:
    credentials = Credentials("12345", PASSWORD)
    assert repr(credentials) == str(credentials) == "Credentials(user='12345')"


# ------------------------------------------------------------------------------------- the source


class Vault:
    """A secret that can be changed, broken or held up, and counts its reads."""

    def __init__(self, text: str = "") -> None:
        self.text = text or secret("one1")
        self.error: CredentialsError | None = None
        self.reads = 0
        self.open = threading.Event()
        self.open.set()

    def fetch(self) -> str:
        self.reads += 1
        self.open.wait()
        if self.error:
            raise self.error
        return self.text


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes() -> list[Credentials]:
    return []


@pytest.fixture
def stale() -> list[CredentialsError]:
    return []


@pytest.fixture
def source(
    vault: Vault, clock: Clock, changes: list[Credentials], stale: list[CredentialsError]
) -> CredentialsSource:
    return CredentialsSource(
        vault.fetch, clock=clock, on_change=changes.append, on_stale=stale.append
    )


ONE = Credentials("12345", "one1")
TWO = Credentials("12345", "two2")


def test_credentials_are_fetched_once(source: CredentialsSource, vault: Vault) -> None:
    assert vault.reads == 0
    assert [source.get() for _ in range(3)] == [ONE] * 3
    assert vault.reads == 1


def test_credentials_are_refreshed_after_max_age(
    source: CredentialsSource, vault: Vault, clock: Clock, changes: list[Credentials]
) -> None:
    source.get()
    vault.text = secret("two2")
    clock.now += 299
    assert source.get() == ONE
    clock.now += 1
    assert source.get() == TWO
    clock.now += 300
    assert source.get() == TWO
    assert vault.reads == 3
    assert changes == [ONE, TWO]


@pytest.mark.parametrize("broken", ["unreadable", "malformed"])
def test_a_failed_refresh_keeps_the_last_good_value(
    source: CredentialsSource,
    vault: Vault,
    clock: Clock,
    stale: list[CredentialsError],
    broken: str,
) -> None:
    source.get()
    if broken == "unreadable":
        vault.error = CredentialsError("AccessDeniedException")
    else:
        vault.text = "two2"
    clock.now += 300
    assert [source.get() for _ in range(5)] == [ONE] * 5
    assert vault.reads == 2
    assert len(stale) == 1
    clock.now += 30
    assert source.get() == ONE
    assert (vault.reads, len(stale)) == (3, 2)
    vault.error, vault.text = None, secret("two2")
    clock.now += 30
    assert source.get() == TWO
    assert len(stale) == 2


def test_a_failed_first_fetch_is_not_repeated_at_once(
    source: CredentialsSource, vault: Vault, clock: Clock, stale: list[CredentialsError]
) -> None:
    vault.error = CredentialsError("AccessDeniedException")
    for _ in range(5):
        with pytest.raises(CredentialsError, match="AccessDenied"):
            source.get()
    assert vault.reads == 1
    assert stale == []
    vault.error = None
    clock.now += 2
    assert source.get() == ONE


def test_renewals_fetch_at_most_once_per_min_refresh(
    source: CredentialsSource, vault: Vault, clock: Clock
) -> None:
    source.get()
    assert source.renew(ONE) == ONE  # refetched, unchanged: worth one more try
    assert source.renew(ONE) is None
    assert vault.reads == 2
    clock.now += 29
    assert source.renew(ONE) is None
    clock.now += 1
    vault.text = secret("two2")
    assert source.renew(ONE) == TWO
    assert source.renew(ONE) == TWO
    assert source.renew(TWO) is None
    assert source.get() == TWO
    assert vault.reads == 3


def test_a_failed_renewal_keeps_the_last_good_value(
    source: CredentialsSource, vault: Vault, stale: list[CredentialsError]
) -> None:
    source.get()
    vault.error = CredentialsError("ThrottlingException")
    assert source.renew(ONE) is None
    assert source.get() == ONE
    assert [str(error) for error in stale] == ["ThrottlingException"]


def test_credentials_refused_before_the_first_fetch_are_renewed(source: CredentialsSource) -> None:
    assert source.renew(TWO) == ONE


def test_many_threads_cause_one_fetch(source: CredentialsSource, vault: Vault) -> None:
    vault.open.clear()
    with ThreadPoolExecutor(16) as threads:
        first = [threads.submit(source.get) for _ in range(16)]
        vault.open.set()
        assert {future.result() for future in first} == {ONE}
        assert vault.reads == 1
        vault.open.clear()
        vault.text = secret("two2")
        renewed = [threads.submit(source.renew, ONE) for _ in range(16)]
        vault.open.set()
        assert {future.result() for future in renewed} == {TWO}
    assert vault.reads == 2


def test_the_last_good_value_is_there_while_one_caller_refreshes_it(
    source: CredentialsSource, vault: Vault, clock: Clock
) -> None:
    source.get()
    vault.text = secret("two2")
    clock.now += 300
    vault.open.clear()
    with ThreadPoolExecutor(2) as threads:
        refreshed = threads.submit(source.get)
        poll.until(lambda: vault.reads == 2, "second fetch", every=0.01)
        meanwhile = threads.submit(source.get)
        try:
            assert meanwhile.result(timeout=10) == ONE
        finally:
            vault.open.set()
        assert refreshed.result() == TWO
    assert source.get() == TWO
    assert vault.reads == 2


def test_the_last_value_is_had_without_a_fetch(
    source: CredentialsSource, vault: Vault, clock: Clock
) -> None:
    assert source.last() is None
    source.get()
    clock.now += 1e6
    assert source.last() == ONE
    assert vault.reads == 1


def test_on_change_gets_a_value_before_any_caller(vault: Vault) -> None:
    held_before: list[Credentials | None] = []
    source: CredentialsSource

    def on_change(new: Credentials) -> None:
        held_before.append(source._held)
        assert new == ONE

    source = CredentialsSource(vault.fetch, on_change=on_change)
    assert source.get() == ONE
    assert held_before == [None]


# --------------------------------------------------------------------------------- Secrets Manager


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
def test_a_secret_comes_from_secrets_manager() -> None:
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    client.create_secret(Name="provider", SecretString=secret())
    source = CredentialsSource(from_secrets_manager(client, "provider"))
    assert source.get() == Credentials("12345", PASSWORD)


@pytest.mark.usefixtures("aws")
def test_a_missing_or_binary_secret_is_an_error_that_says_so() -> None:
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    with pytest.raises(CredentialsError, match=r"nothing .*ResourceNotFoundException"):
        from_secrets_manager(client, "nothing")()
    client.create_secret(Name="binary", SecretBinary=secret().encode())
    with pytest.raises(CredentialsError, match="binary") as caught:
        from_secrets_manager(client, "binary")()
    assert PASSWORD not in str(caught.value)


def test_an_unreachable_secrets_manager_is_an_error_that_says_so() -> None:
    client = boto3.client(
        "secretsmanager",
        region_name="eu-west-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    with Stubber(client) as stub:
        stub.add_client_error("get_secret_value", "ThrottlingException", "slow down")
        with pytest.raises(CredentialsError, match="ThrottlingException"):
            from_secrets_manager(client, "provider")()
    client.meta.events.register("before-send", _unreachable)
    with pytest.raises(CredentialsError, match="EndpointConnectionError") as caught:
        from_secrets_manager(client, "provider")()
    assert caught.value.__context__ is None


def _unreachable(**_: object) -> None:
    raise EndpointConnectionError(endpoint_url="http://localhost")
