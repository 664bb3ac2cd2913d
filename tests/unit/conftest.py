"""The settings for modules that read them as they are imported."""

import os

from tests.support.function_variables import ENVIRONMENT

# Over whatever the caller has: make exports its own PROVIDER_BASE_URL.
os.environ |= {
    **ENVIRONMENT,
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_METRICS_NAMESPACE": "smsgold-relay",
    "POWERTOOLS_SERVICE_NAME": "smsgold-relay-dev",
}
