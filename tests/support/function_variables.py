"""The environment that template.yaml gives every function."""

ENVIRONMENT = {
    "STAGE": "local",
    "PROVIDER_BASE_URL": "https://provider.example",
    "PROVIDER_CREDENTIALS": "secret",
    "HOOK_SECRETS": "hooks",
    "PROVIDER_TIMEOUT": "12",
    "MESSAGES_QUEUE_URL": "https://sqs.example/1/messages",
    "ORDERED_QUEUE_URL": "https://sqs.example/1/ordered.fifo",
    "BROADCAST_QUEUE_URL": "https://sqs.example/1/broadcast",
    "NOTIFIER_QUEUE_URL": "https://sqs.example/1/notifier",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.example/1/dead",
    "RELAY_TABLE": "Relay",
    "RELAY_BUCKET": "relay-bucket",
    "MESSAGES_PER_SECOND": "25",
    "BROADCAST_REFUSALS_PERCENT": "20",
    "ON_UNKNOWN": "resend",
    "RETRY_WINDOW": "3600",
    "BACKOFF_MIN": "5",
    "BACKOFF_MAX": "600",
    "SENDER_TIMEOUT": "60",
}
