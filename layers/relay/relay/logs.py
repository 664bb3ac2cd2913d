"""The functions' logs: JSON lines in which no registered secret stands, in any encoding."""

import logging

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from smsgold.redaction import Redactor

redact = Redactor()
"""Hides secrets in every line; `redact.register(secret)` as soon as one is known."""

OURS = ("relay", "smsgold")
THEIRS = ("boto3", "botocore", "urllib3")
"""Below WARNING botocore logs the secrets that it fetches, before anyone can register them."""


class RedactingFormatter(LambdaPowertoolsFormatter):
    """Powertools' formatter with secrets hidden in the finished line, tracebacks included.

    A logging filter would see the message and its arguments only.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        return redact(super().format(record))


def logger(service: str) -> Logger:
    """Return a function's logger, and send the layer's and the libraries' logs the same way."""
    log = Logger(service=service, logger_formatter=RedactingFormatter(utc=True, use_rfc3339=True))
    _keep(service)
    for name in OURS:
        _route(name, log, log.log_level)
    for name in THEIRS:
        _route(name, log, max(log.log_level, logging.WARNING))
    return log


def _route(name: str, log: Logger, level: int) -> None:
    other = logging.getLogger(name)
    other.setLevel(level)
    other.handlers = [log.registered_handler]
    _keep(name)


def _keep(name: str) -> None:
    """Keep records from the root logger, whose handlers would write them as they are."""
    logging.getLogger(name).propagate = False
