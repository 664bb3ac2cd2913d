"""What the integration tests share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from tests.support.fanned import Fanned
from tests.support.ministack import KEY, SECRET, ministack
from tests.support.sandbox import Sandbox
from tests.support.table import create_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

REGION = "us-east-1"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a MiniStack that is the module's own."""
    with ministack(tmp_path_factory.mktemp("ministack")) as address:
        yield address


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point every AWS client at the module's MiniStack; return its address."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return endpoint


@pytest.fixture(scope="module")
def dynamodb(endpoint: str) -> "DynamoDBClient":
    """Return a client of the module's MiniStack."""
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


@pytest.fixture
def table(dynamodb: "DynamoDBClient", request: pytest.FixtureRequest) -> str:
    """Return the name of a Relay table that is the test's own."""
    name = f"relay-{abs(hash(request.node.nodeid))}"
    create_table(dynamodb, name)
    return name


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """Return the session's sandbox, as good as new except for added bots."""
    running_sandbox.forget()
    running_sandbox.set_passwords(["sandbox-password"], user="10001")
    return running_sandbox


@pytest.fixture
def fanned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fanned]:
    """Broadcasts and their fan-out on a table that is new."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield Fanned()
