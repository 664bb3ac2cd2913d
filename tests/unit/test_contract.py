"""The committed contract is the code's, valid, and says what the limits are."""

import json
from typing import Any

import openapi_spec_validator
import pytest

from relay import problems
from relay.http import requests
from relay.http.messages import MAX_BATCH
from relay.messages.envelope import MAX_BUTTONS, MAX_ID, MAX_TEXT, Message
from relay.validation import validate
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
            if "requestBody" in operation:
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


def test_it_names_both_ways_in(contract: dict[str, Any]) -> None:
    assert contract["security"] == [{"apiKey": []}, {"iam": []}]
    assert contract["components"]["securitySchemes"].keys() == {"apiKey", "iam"}


def test_examples_are_messages(contract: dict[str, Any]) -> None:
    examples = contract["components"]["schemas"]["Message"]["examples"]
    assert examples
    for example in examples:
        validate(Message, example)
