"""The settings for modules that read them as they are imported."""

import os

from tests.support.environment import ENVIRONMENT

for name, value in {
    **ENVIRONMENT,
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_METRICS_NAMESPACE": "smsgold-relay",
}.items():
    os.environ.setdefault(name, value)
