"""The Relay table as template.yaml has it, made without a stack."""

from typing import TYPE_CHECKING, Any

from tools.translated import translated

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

NAMES = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")


def create_table(client: "DynamoDBClient", name: str = "Relay") -> None:
    """Create a table with the keys and indexes of the template's."""
    properties: dict[str, Any] = translated()["Resources"]["RelayTable"]["Properties"]
    client.create_table(TableName=name, **{key: properties[key] for key in NAMES})
