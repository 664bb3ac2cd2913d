"""The committed contract is the code's, valid, and says what the limits are."""

import json
from typing import Any
from unittest.mock import Mock

import jsonschema  # type: ignore[import-untyped]
import openapi_spec_validator
import pytest

from relay import problems
from relay.http import requests
from relay.http.api import api
from relay.http.messages import MAX_BATCH
from relay.messages.envelope import MAX_BUTTONS, MAX_ID, MAX_TEXT, Message
from relay.problems import NOT_FOUND, TOO_LARGE, UNAVAILABLE, UNVERIFIED
from relay.validation import validate
from relay.webhooks.receiver import Handled
from tests.support.webhooks import ROOT
from tools.openapi import PATH, made

METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    return made()


def test_the_committed_contract_is_current(contract: dict[str, Any]) -> None:
    committed = json.loads(PATH.read_text(encoding="utf-8"))
    assert committed == contract, "make openapi, and commit docs/openapi.json"


def test_it_is_valid_openapi_3_1(contract: dict[str, Any]) -> None:
    assert contract["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(contract)


def test_every_operation_tells_its_errors_as_problems(contract: dict[str, Any]) -> None:
    for path, operations in contract["paths"].items():
        for method, operation in operations.items():
            assert method in METHODS
            where = f"{method} {path}"
            responses = operation["responses"]
            assert {"403", "404", "429", "500", "503"} <= responses.keys(), where
            if "requestBody" in operation and path != "/hooks/{name}":
                assert {"400", "413", "415", "422"} <= responses.keys(), where
            for status, response in responses.items():
                if int(status) >= 400:
                    assert list(response["content"]) == [problems.CONTENT_TYPE], where


def test_it_tells_the_limits(contract: dict[str, Any]) -> None:
    schemas = contract["components"]["schemas"]
    message = schemas["Message"]["properties"]
    assert message["text"]["maxLength"] == MAX_TEXT
    assert message["buttons"]["maxItems"] == MAX_BUTTONS
    assert message["subscriberId"]["anyOf"][0]["maxLength"] == MAX_ID
    assert schemas["Batch"]["properties"]["messages"]["maxItems"] == MAX_BATCH
    parameters = contract["paths"]["/messages"]["post"]["parameters"]
    patterns = {each["name"]: each["schema"].get("pattern") for each in parameters}
    assert patterns == {"Idempotency-Key": requests.KEY_PATTERN, "Prefer": None}


@pytest.mark.parametrize(
    "handled",
    [
        Handled("ignored"),
        Handled("failed"),
        Handled("queued", "k-1"),
        Handled("accepted", results=(Handled("sent", "k-1"), Handled("failed"))),
    ],
)
def test_webhooks_are_answered_as_it_says(contract: dict[str, Any], handled: Handled) -> None:
    operation = contract["paths"]["/hooks/{name}"]["post"]
    schema = operation["responses"]["202"]["content"]["application/json"]["schema"]
    jsonschema.validate(handled.body(), {**schema, "components": contract["components"]})
    receipt = contract["components"]["schemas"]["WebhookReceipt"]
    assert handled.body().keys() <= receipt["properties"].keys()


def test_webhooks_alone_need_no_key(contract: dict[str, Any]) -> None:
    own = {
        path: operation["security"]
        for path, operations in contract["paths"].items()
        for operation in operations.values()
        if "security" in operation
    }
    assert own == {"/hooks/{name}": []}
    for kind in (UNVERIFIED, NOT_FOUND, TOO_LARGE, UNAVAILABLE):
        assert str(int(kind.status)) in contract["paths"]["/hooks/{name}"]["post"]["responses"]


def test_it_is_served_compactly() -> None:
    app = api(Mock(), Mock(), Mock(), Mock())
    event = json.loads((ROOT / "events" / "api_contract.json").read_text("utf-8"))
    body = app.resolve(event, Mock())["body"]
    assert json.loads(body) == made()
    assert len(body) < 0.6 * len(PATH.read_text("utf-8"))


def test_it_names_both_ways_in(contract: dict[str, Any]) -> None:
    assert contract["security"] == [{"apiKey": []}, {"iam": []}]
    assert contract["components"]["securitySchemes"].keys() == {"apiKey", "iam"}


def test_examples_are_messages(contract: dict[str, Any]) -> None:
    examples = contract["components"]["schemas"]["Message"]["examples"]
    assert examples
    for example in examples:
        validate(Message, example)
