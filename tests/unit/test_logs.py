"""The functions' logs: one JSON line per record, without secrets."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from moto import mock_aws

from relay import logs
from smsgold.credentials import Credentials, CredentialsSource, from_secrets_manager
from smsgold.redaction import MASK, Redactor

PASSWORD = 'p@ss w&rd"é+%/'
SPELLINGS = [PASSWORD, quote(PASSWORD), json.dumps(PASSWORD)[1:-1], repr(PASSWORD.encode())[2:-1]]


@pytest.fixture(autouse=True)
def untouched_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "redact", Redactor())
    monkeypatch.setattr(logs, "_about", {})
    names = [*logs.OURS, *logs.THEIRS]
    before = {
        name: (logger.level, logger.handlers, logger.propagate)
        for name in names
        for logger in [logging.getLogger(name)]
    }
    yield
    for name, (level, handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = handlers
        logger.propagate = propagate


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """Name each test's logger differently: Python keeps loggers by name."""
    return str(request.node.name)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def fail(secret: str) -> None:
    cause = KeyError(secret)
    cause.add_note(f"noted {secret}")
    raise RuntimeError(f"because of {secret}") from cause


def test_a_record_is_a_line_of_json(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.logger(service).info("settled", extra={"id": "order-4711", "state": "sent"})
    (line,) = lines(capsys)
    assert line["level"] == "INFO"
    assert line["function"] == service
    assert (line["message"], line["id"], line["state"]) == ("settled", "order-4711", "sent")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta()
    assert line.keys() == {"level", "timestamp", "function", "message", "id", "state"}


def test_trouble_names_the_request_that_it_belongs_to(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logs.logger(service)
    logs.begin("r-1")
    log.info("accepted")
    logging.getLogger("relay.messages.store").warning("table not readable")
    accepted, warned = lines(capsys)
    assert "request_id" not in accepted
    assert warned["request_id"] == "r-1"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_registered_secret_is_hidden_everywhere(
    service: str, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    log = logs.logger(service)
    logs.redact.register(PASSWORD)
    log.info("said %s", spelling)
    log.info({"nested": [spelling]})
    log.info("said", extra={"url": f"http://x/?pass={spelling}", "raw": spelling.encode()})
    logs.begin(spelling)
    log.warning("said")
    try:
        fail(spelling)
    except RuntimeError:
        log.exception("failed")
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert all(MASK in line for line in out.splitlines())
    assert "KeyError" in out
    assert "noted" in out
    for needle in SPELLINGS:
        assert needle not in out


def test_the_layers_own_records_are_redacted_too(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.logger(service)
    logs.redact.register(PASSWORD)
    logging.getLogger("relay.messages.sender").info("told %s", PASSWORD)
    logging.getLogger("relay.messages.sender").debug("not told")
    (line,) = lines(capsys)
    assert line["message"] == f"told {MASK}"


def test_a_librarys_warning_is_redacted_too(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.logger(service)
    logs.redact.register(PASSWORD)
    logging.getLogger("urllib3.util.retry").warning("url=%s", f"/bots/?pass={quote(PASSWORD)}")
    (line,) = lines(capsys)
    assert line["message"] == f"url=/bots/?pass={MASK}"


def test_a_second_logger_does_not_duplicate_lines(
    service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = logs.logger(service), logs.logger(service)
    first.info("one")
    second.info("two")
    logging.getLogger("relay.messages.store").warning("three")
    assert [line["message"] for line in lines(capsys)] == ["one", "two", "three"]


def test_fetching_a_secret_does_not_log_it(
    service: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "DEBUG")
    caplog.set_level(logging.DEBUG)  # of the root logger, from which others inherit it
    log = logs.logger(service)
    with mock_aws():
        client = boto3.client("secretsmanager", region_name="eu-west-1")
        client.create_secret(
            Name="provider", SecretString=json.dumps({"user": "12345", "pass": PASSWORD})
        )
        source = CredentialsSource(
            from_secrets_manager(client, "provider"),
            on_change=lambda found: logs.redact.register(found.password),
        )
        found = source.get()
    log.debug("fetched %s, that is %s", found, found.password)
    captured = capsys.readouterr()
    shown = captured.out + captured.err + caplog.text
    assert found == Credentials("12345", PASSWORD)
    assert f"fetched Credentials(user='12345'), that is {MASK}" in shown
    assert "SecretString" not in shown, "botocore's own debug lines have what it fetches"
    for needle in SPELLINGS:
        assert needle not in shown
