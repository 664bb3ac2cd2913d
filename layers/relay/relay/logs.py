"""The functions' logs: lean lines of JSON without any registered secret, whatever its encoding.

Each byte is paid for, so a line has what somebody looks for. Lambda's level filter needs two keys:
"If the "level" value field is invalid or missing, Lambda will assign the log output the level
INFO. For Lambda to use the timestamp field, you must specify the time in valid RFC 3339 timestamp
format. If you don't supply a valid timestamp, Lambda will assign the log the level INFO and add a
timestamp for you" (Lambda Developer Guide, log-level filtering).
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from smsgold.redaction import Redactor

redact = Redactor()
"""Hides secrets in every line. Register each secret as soon as it is known."""

OURS = ("relay", "smsgold")
THEIRS = ("boto3", "botocore", "urllib3")
"""Never below WARNING, where botocore logs the secrets that it fetches, still unregistered."""

STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""What every record has; all else was given as `extra`."""


_about: dict[str, str] = {}
"""Whose request or run it is: an environment has one at a time."""


class LineFormatter(logging.Formatter):
    """Makes a record one line of JSON, with secrets hidden in the finished line, tracebacks too.

    A logging filter would see only the message and its arguments.
    """

    def __init__(self, function: str) -> None:
        super().__init__()
        self._function = function

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON; from warnings on, with the request's id."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = record.msg if isinstance(record.msg, dict) else record.getMessage()
        line = {
            "level": record.levelname,
            "timestamp": at.replace("+00:00", "Z"),
            "function": self._function,
            "message": said,
        }
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.levelno >= logging.WARNING:
            line |= _about
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":")))


def begin(request_id: str) -> None:
    """Have warnings and errors from here on name the request or the run that they belong to."""
    _about["request_id"] = request_id


def logger(function: str) -> logging.Logger:
    """Return a function's logger; the layer and the libraries log through its handler as well."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LineFormatter(function))
    # Lambda sets it to the function's ApplicationLogLevel.
    level: int = logging.getLevelNamesMapping().get(
        os.environ.get("AWS_LAMBDA_LOG_LEVEL", ""), logging.INFO
    )
    for name in (function, *OURS):
        _route(name, handler, level)
    for name in THEIRS:
        _route(name, handler, max(level, logging.WARNING))
    return logging.getLogger(function)


def _route(name: str, handler: logging.Handler, level: int) -> None:
    """Keep records from the root logger as well, whose handlers would write them unredacted."""
    log = logging.getLogger(name)
    log.setLevel(level)
    log.handlers = [handler]
    log.propagate = False
