"""What a team would write first, to set the sender's figures against.

Powertools' batch processor, one `requests.post` after the other, each made idempotent by
Powertools' utility.
"""

import json
import os
from typing import Any

import requests
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="reference")
processor = BatchProcessor(event_type=EventType.SQS)
persistence = DynamoDBPersistenceLayer(table_name=os.environ["RELAY_TABLE"])
config = IdempotencyConfig(event_key_jmespath="messageId")
url = f"{os.environ['PROVIDER_BASE_URL']}/sendMessage/"


@idempotent_function(data_keyword_argument="record", persistence_store=persistence, config=config)
def send(record: dict[str, Any]) -> dict[str, Any]:
    """Send one message."""
    message = json.loads(record["body"])
    message["auth"] = {"user": "10001", "pass": "a password of the benchmark"}
    response = requests.post(url, json=message, timeout=12, verify=os.environ["SSL_CERT_FILE"])
    response.raise_for_status()
    logger.info("sent", extra={"message_id": record["messageId"]})
    return {"id": response.json()["id"]}


def handle(record: SQSRecord) -> dict[str, Any]:
    """Send one record's message, once."""
    return send(record={"messageId": record.message_id, "body": record.body})


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Send a batch."""
    config.register_lambda_context(context)
    return dict(process_partial_response(event, handle, processor, context))
