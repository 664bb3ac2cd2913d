"""The settings that template.yaml gives every function, for modules that read them at import."""

import os

for name, value in {
    "STAGE": "local",
    "PROVIDER_BASE_URL": "https://provider.example",
    "PROVIDER_CREDENTIALS": "secret",
    "PROVIDER_TIMEOUT": "12",
    "MESSAGES_QUEUE_URL": "https://sqs.example/1/messages",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.example/1/dead",
    "RELAY_TABLE": "Relay",
    "MESSAGES_PER_SECOND": "25",
    "ON_UNKNOWN": "hold",
    "RETRY_WINDOW": "21600",
    "BACKOFF_MIN": "5",
    "BACKOFF_MAX": "600",
    "POWERTOOLS_METRICS_NAMESPACE": "smsgold-relay",
    "AWS_DEFAULT_REGION": "us-east-1",
}.items():
    os.environ.setdefault(name, value)
