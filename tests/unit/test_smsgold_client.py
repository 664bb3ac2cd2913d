"""Base URLs and outgoing messages; the integration tests cover exchanges."""

import json

import pytest
import urllib3

from smsgold.client import DEFAULT_BASE_URL, Client, OutgoingMessage, checked_base_url
from smsgold.credentials import Credentials
from smsgold.errors import BaseUrlError


@pytest.mark.parametrize(
    ("url", "used"),
    [
        (DEFAULT_BASE_URL, DEFAULT_BASE_URL),
        ("https://example.com/v1/", "https://example.com/v1"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://127.0.0.1:9999/v1/telegram/bot", "http://127.0.0.1:9999/v1/telegram/bot"),
        ("http://127.3.2.1", "http://127.3.2.1"),
        ("http://localhost:80/", "http://localhost:80"),
        ("http://[::1]:9/x", "http://[::1]:9/x"),
        ("HTTP://LOCALHOST/x", "HTTP://LOCALHOST/x"),
    ],
)
def test_safe_base_urls_are_accepted(url: str, used: str) -> None:
    assert checked_base_url(url) == used


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://webapi.smsgold.ru/v1", "must start with https://"),
        ("http://128.0.0.1", "must start with https://"),
        ("http://localhost.example.com", "must start with https://"),
        ("http://127.0.0.1.example.com", "must start with https://"),
        ("http://0.0.0.0", "must start with https://"),
        ("http://[::2]", "must start with https://"),
        ("http://127.0.0.1@example.com", "must start with https://"),
        ("ftp://example.com", "must be a URL"),
        ("webapi.smsgold.ru/v1", "must be a URL"),
        ("https://", "must be a URL"),
        ("", "must be a URL"),
        ("https://example.com:port", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://\\example.com", "not a URL"),
        ("http://127.0.0.1\\.example.com", "not a URL"),
        ("http://localhost\\@example.com", "not a URL"),
        ("https://exam\nple.com", "not a URL"),
        ("https://example.com /v1", "not a URL"),
        ("https://1:hunter22@example.com", "no user, query or fragment"),
        ("https://example.com/?pass=hunter22", "no user, query or fragment"),
        ("https://example.com/#hunter22", "no user, query or fragment"),
    ],
)
def test_unsafe_or_invalid_base_urls_are_refused(url: str, says: str) -> None:
    with pytest.raises(BaseUrlError, match=says) as caught:
        Client(url)
    assert isinstance(caught.value, ValueError)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        {},
        {"bot_id": "1"},
        {"number": "7999"},
        {"subscriber_id": ""},
        {"subscriber_id": "1", "bot_id": "1"},
        {"subscriber_id": "1", "number": "7999"},
        {"subscriber_id": "1", "bot_id": "1", "number": "7999"},
    ],
)
def test_a_message_needs_exactly_one_address(address: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="subscriber_id, or bot_id with number"):
        OutgoingMessage("x", **address)  # type: ignore[arg-type]


def test_a_messages_repr_shows_only_ids() -> None:
    message = OutgoingMessage(
        "Привет", bot_id="bot", number="79990000000", buttons=(("Да", "https://example.com"),)
    )
    assert repr(message) == "OutgoingMessage(subscriber_id=None, bot_id='bot')"


def test_a_body_without_buttons_omits_the_field() -> None:
    body = OutgoingMessage("x", subscriber_id="1").body(Credentials("1", "word"))
    assert json.loads(body) == {
        "subscriberId": "1",
        "text": "x",
        "auth": {"user": "1", "pass": "word"},
    }


def test_a_pool_without_deadlines_is_refused() -> None:
    with pytest.raises(TypeError, match="pool_manager"):
        Client(DEFAULT_BASE_URL, http=urllib3.PoolManager())
