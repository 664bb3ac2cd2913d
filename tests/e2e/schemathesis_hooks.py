"""What a run of schemathesis against the API needs to know that no contract can say."""

import re
from typing import Any
from uuid import uuid4

import schemathesis

from relay.http.requests import KEY_PATTERN


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Give each message a key of its own: another one under the same key is refused, rightly."""
    del context, kwargs
    for name, value in dict(case.headers or {}).items():
        if name.lower() == "idempotency-key" and re.fullmatch(KEY_PATTERN, str(value)):
            case.headers[name] = uuid4().hex
