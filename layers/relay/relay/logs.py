"""The functions' logs: JSON lines without any registered secret, whatever its encoding."""

import logging

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from smsgold.redaction import Redactor

redact = Redactor()
"""Hides secrets in every line. Register each secret as soon as it is known."""

OURS = ("relay", "smsgold")
THEIRS = ("boto3", "botocore", "urllib3")
"""Never below WARNING, where botocore logs the secrets that it fetches, still unregistered."""


class RedactingFormatter(LambdaPowertoolsFormatter):
    """Powertools' formatter with secrets hidden in the finished line, tracebacks included.

    A logging filter would see only the message and its arguments.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        return redact(super().format(record))


def logger(service: str) -> Logger:
    """Return a function's logger; the layer and the libraries log through it as well."""
    log = Logger(service=service, logger_formatter=RedactingFormatter(utc=True, use_rfc3339=True))
    _detach(service)
    for name in OURS:
        _route(name, log, log.log_level)
    for name in THEIRS:
        _route(name, log, max(log.log_level, logging.WARNING))
    return log


def _route(name: str, log: Logger, level: int) -> None:
    other = logging.getLogger(name)
    other.setLevel(level)
    other.handlers = [log.registered_handler]
    _detach(name)


def _detach(name: str) -> None:
    """Keep records from the root logger, whose handlers would write them unredacted."""
    logging.getLogger(name).propagate = False
