"""Print a stack's addresses and keys as shell variables: eval "$(make -s env)"."""

import shlex
import sys
from pathlib import Path

from ops.stack import Stack

AWS = Path(sys.executable).with_name("aws")


def script(stack: Stack) -> str:
    """Return the lines for a shell to evaluate; they contain keys."""
    key = stack.client("apigateway").get_api_key(
        apiKey=stack.outputs["ApiKeyId"], includeValue=True
    )
    variables = {
        "API_URL": stack.outputs["ApiUrl"],
        "API_KEY": key["value"],
        "MESSAGES_QUEUE_URL": stack.outputs["MessagesQueueUrl"],
        "ORDERED_QUEUE_URL": stack.outputs["OrderedQueueUrl"],
        "DEAD_LETTER_QUEUE_URL": stack.outputs["DeadLetterQueueUrl"],
        "BUCKET": stack.outputs["BucketName"],
        "EVENT_BUS": stack.outputs["EventBusName"],
        "HOOK_SECRETS_ARN": stack.outputs["HookSecretsArn"],
    }
    if not stack.is_local:
        return _exports(variables)
    credentials = stack.session.get_credentials()
    assert credentials
    assert stack.endpoint
    variables |= {
        "API_URL": f"{stack.endpoint}/_aws/execute-api/{stack.outputs['RestApiId']}/v1",
        "AWS_ENDPOINT_URL": stack.endpoint,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_DEFAULT_REGION": stack.session.region_name,
    }
    # Version 1 of the AWS CLI ignores AWS_ENDPOINT_URL for SQS.
    aws = f'aws() {{ {shlex.quote(str(AWS))} --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }}'
    return _exports(variables) + f"\n{aws}"


def _exports(variables: dict[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
