"""The Relay table as template.yaml has it, made without a stack."""

import json
from typing import TYPE_CHECKING, Any

from tools.translated import template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NAMES = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")


def definition() -> dict[str, Any]:
    """Return the keys and indexes of the template's table."""
    properties: dict[str, Any] = template()["Resources"]["RelayTable"]["Properties"]
    return json.loads(json.dumps({name: properties[name] for name in NAMES}))  # type: ignore[no-any-return]


def create_table(client: "DynamoDBClient", name: str = "Relay") -> None:
    """Create a table with the keys and indexes of the template's."""
    client.create_table(TableName=name, **definition())
