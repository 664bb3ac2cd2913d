"""What each role may do, by resource: its logical id in the template, or "*".

A role that gains or loses a permission in the template must gain or lose it here too.
"""

from collections.abc import Mapping

Permissions = Mapping[str, frozenset[str]]

RECEIVE = {
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
}
SEND = frozenset({"sqs:SendMessage"})
COUNT = frozenset({"sqs:GetQueueAttributes"})
SECRET = frozenset({"secretsmanager:GetSecretValue"})

MANAGED = frozenset({"AWSLambdaBasicExecutionRole", "AWSXrayWriteOnlyAccess"})
"""AWS's own policies that every function has, for its logs and traces."""

ROLES: Mapping[str, Permissions] = {
    "ApiFunctionRole": {
        "RelayTable": frozenset(
            {
                "dynamodb:BatchGetItem",
                "dynamodb:GetItem",
                "dynamodb:PartiQLInsert",
                "dynamodb:PartiQLUpdate",
                "dynamodb:PutItem",
                "dynamodb:UpdateItem",
            }
        ),
        "RelayBucket": frozenset({"s3:GetObject"}),
        "RelayTable's indexes": frozenset({"dynamodb:Query"}),
        "MessagesQueue": SEND | COUNT,
        "OrderedQueue": SEND,
        "NotifierQueue": SEND,
        "DeadLetterQueue": SEND,
        "ScheduleGroup": frozenset(
            {
                "scheduler:CreateSchedule",
                "scheduler:DeleteSchedule",
                "scheduler:GetSchedule",
                "scheduler:UpdateSchedule",
            }
        ),
        "*": frozenset({"scheduler:ListSchedules"}),
        "SchedulerRole": frozenset({"iam:PassRole"}),
        "ProviderCredentials": SECRET,
    },
    "SenderFunctionRole": {
        "RelayTable": frozenset(
            {
                "dynamodb:BatchGetItem",
                "dynamodb:PartiQLInsert",
                "dynamodb:PartiQLUpdate",
                "dynamodb:UpdateItem",
            }
        ),
        "MessagesQueue": SEND | RECEIVE,
        "OrderedQueue": frozenset(RECEIVE),
        "BroadcastQueue": frozenset(RECEIVE),
        "NotifierQueue": SEND,
        "DeadLetterQueue": SEND,
        "ProviderCredentials": SECRET,
    },
    "HooksFunctionRole": {
        "RelayTable": frozenset(
            {
                "dynamodb:BatchGetItem",
                "dynamodb:PartiQLInsert",
                "dynamodb:PutItem",
            }
        ),
        "MessagesQueue": SEND | COUNT,
        "OrderedQueue": SEND,
        "NotifierQueue": SEND,
        "DeadLetterQueue": SEND,
        "HooksDeadLetterQueue": SEND,
        "HookSecrets": SECRET,
    },
    "NotifierFunctionRole": {
        "RelayTable": frozenset(
            {
                "dynamodb:BatchGetItem",
                "dynamodb:GetItem",
                "dynamodb:PartiQLInsert",
                "dynamodb:PutItem",
                "dynamodb:UpdateItem",
            }
        ),
        "RelayBucket": frozenset({"s3:GetObject", "s3:PutObject"}),
        "MessagesQueue": SEND | COUNT,
        "OrderedQueue": SEND,
        "BroadcastQueue": SEND,
        "NotifierQueue": SEND | RECEIVE,
        "NotifierDeadLetterQueue": SEND,
        "ProviderCredentials": SECRET,
    },
    "PublisherFunctionRole": {
        "EventBus": frozenset({"events:PutEvents"}),
        "RelayTable": frozenset(
            {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"}
        ),
        "*": frozenset({"dynamodb:ListStreams"}),
        "EventsFailureQueue": SEND,
    },
    "CanaryFunctionRole": {"ProviderCredentials": SECRET},
    "SchedulerRole": {
        "NotifierFunction": frozenset({"lambda:InvokeFunction"}),
        "NotifierDeadLetterQueue": SEND,
    },
}
