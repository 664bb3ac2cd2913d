"""Two stacks live in one account and region, and what one leaves behind when it goes."""

import json

from ops.remove import remove
from ops.stack import LOCAL_NAME, Stack, describe, find
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox

SECOND = "smsgold-relay-second"
SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d101"


def test_a_second_stack_stands_beside_the_first_and_leaves_its_data(
    deployment: Deployment,
) -> None:
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    first = find(None, deployment.home / "stack.json")
    second = deploy_beside(first)
    said: list[str] = []
    try:
        shared = set(first.resources.values()) & set(second.resources.values())
        # A stage's name is its API's own affair; any other shared name would collide.
        assert shared == {"v1"}

        sqs = second.client("sqs")
        sqs.send_message(
            QueueUrl=second.outputs["MessagesQueueUrl"],
            MessageBody=json.dumps({"subscriberId": SUBSCRIBER, "text": "by the second stack"}),
        )
        until(lambda: sandbox.ledger(text="by the second stack"), "message")
        # What is still undelivered when somebody deletes the stack by mistake:
        sqs.send_message(
            QueueUrl=second.outputs["DeadLetterQueueUrl"], MessageBody="still undelivered"
        )
        rows = second.client("dynamodb").scan(TableName=second.outputs["TableName"])["Count"]
        assert rows > 0
    finally:
        remove(second, lambda _: SECOND, said.append)

    assert second.outputs["TableName"] in "".join(said), "it says what stays and how to delete it"
    assert second.client("dynamodb").scan(TableName=second.outputs["TableName"])["Count"] == rows
    [kept] = sqs.receive_message(QueueUrl=second.outputs["DeadLetterQueueUrl"])["Messages"]
    assert kept["Body"] == "still undelivered"
    assert find(None, deployment.home / "stack.json").status.endswith("_COMPLETE")


def deploy_beside(first: Stack) -> Stack:
    """Deploy what the first stack was deployed from once more, under another name."""
    formation, secrets = first.client("cloudformation"), first.client("secretsmanager")
    answer = formation.get_template(StackName=LOCAL_NAME, TemplateStage="Original")
    template, s3 = answer["TemplateBody"], first.client("s3")
    # A template that is given in the request may have 51,200 bytes; one on S3, 1 MB.
    s3.create_bucket(Bucket=SECOND)
    s3.put_object(
        Bucket=SECOND,
        Key="template",
        Body=template if isinstance(template, str) else json.dumps(template),
    )
    formation.create_stack(
        StackName=SECOND,
        TemplateURL=f"{first.endpoint}/{SECOND}/template",
        Parameters=[
            {"ParameterKey": name, "ParameterValue": first.parameters[name]}
            for name in ("Stage", "ProviderBaseUrl")
        ],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    formation.get_waiter("stack_create_complete").wait(
        StackName=SECOND, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    second = describe(SECOND, first.session, first.endpoint)
    secret = secrets.get_secret_value(SecretId=first.outputs["ProviderCredentialsArn"])
    secrets.put_secret_value(
        SecretId=second.outputs["ProviderCredentialsArn"], SecretString=secret["SecretString"]
    )
    return second
