"""hooks.toml: what it may say, how its mistakes are reported, what its examples render."""

import json
import tomllib
from collections.abc import Iterator
from copy import copy
from typing import Any
from urllib.parse import quote_plus

import pytest

from relay.broadcasts.model import Broadcast
from relay.messages.envelope import MAX_TEXT, Message
from relay.webhooks.hooks import (
    Hook,
    HooksFileError,
    Ignored,
    Rendered,
    RenderResult,
    Request,
    Unrenderable,
    load,
    render,
)
from relay.webhooks.secrets import HookSecrets
from smsgold.errors import CredentialsError
from tests.support.webhooks import PLAIN, SECRETS, SHIPPED, changed, payload, signed

NOW = 1_800_000_000.0
FORM = "application/x-www-form-urlencoded"
GITHUB_FORM = b"payload=%7B%22text%22%3A+%22a%26b%22%7D"


def hook(toml: str = PLAIN, **fields: Any) -> Hook:
    """Return the one hook of a file, with some of its fields replaced."""
    [(name, found)] = tomllib.loads(toml).items()
    return load(_toml({name: {**found, **fields}}))[name]


def _toml(hooks: dict[str, Any]) -> str:
    def write(value: Any) -> str:
        match value:
            case dict():
                return "{" + ", ".join(f"{k} = {write(v)}" for k, v in value.items()) + "}"
            case list():
                return "[" + ", ".join(write(v) for v in value) + "]"
            case _:
                return json.dumps(value, ensure_ascii=False)

    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{k} = {write(v)}" for k, v in fields.items())
        for name, fields in hooks.items()
    )


def outcome(name: str, body: bytes, found: Hook | None = None, **headers: str) -> RenderResult:
    sent = {**(signed(name, body, NOW) if name in SECRETS else {}), **headers}
    request = Request({key.lower(): value for key, value in sent.items()}, body)
    return render(name, found or SHIPPED[name], request)


def rendered(name: str, body: bytes, found: Hook | None = None, **headers: str) -> Message:
    result = outcome(name, body, found, **headers)
    assert isinstance(result, Rendered), result
    assert isinstance(result.message, Message)
    return result.message


# ---------------------------------------------------------------------------------- the examples

EXAMPLES = {
    "hook_github_push.json": (
        "github",
        (
            "🔨 romashka/storefront: a-belova pushed to main\n"
            "• Round the cart's total once, at the end (Анна Белова)\n"
            "• Show the delivery date in the order's mail (Dmitry Orlov)"
        ),
        ["Compare"],
        "d-1",
    ),
    "hook_github_workflow_run.json": (
        "github",
        (
            "❌ romashka/storefront: CI #562 ended with failure\n"
            "main: Show the delivery date in the order's mail (Dmitry Orlov)"
        ),
        ["Open the run"],
        "d-1",
    ),
    "hook_grafana.json": (
        "grafana",
        (
            "🔥 [FIRING:2] Shop (shop)\n"
            "• HighMemoryUsage: Memory of shop-1 over 90 %\n"
            "• HighCPUUsage: CPU of shop-2 over 80 % for 10 minutes"
        ),
        ["Panel", "Silence"],
        (
            "c6eadffa33fcdf37 firing 2026-11-23T09:51:03.157076+03:00\n"
            "bc97ff14869b13e3 firing 2026-11-23T09:56:03.157076+03:00"
        ),
    ),
    "hook_alertmanager.json": (
        "alertmanager",
        (
            "🔥 FIRING ProbeFailure\n"
            "Severity: critical\n"
            "• https://shop.romashka.example does not answer\n"
            "• https://api.romashka.example does not answer"
        ),
        ["Alertmanager"],
        (
            "1a30ba71cca2921f firing 2026-11-23T13:08:45.828Z\n"
            "9be1b4fd12c3a7e0 firing 2026-11-23T13:09:15.828Z"
        ),
    ),
    "hook_stripe.json": (
        "stripe",
        "💳 2499.00 eur received\nOrder 4711",
        ["Open in Stripe"],
        "evt_3QOqk2LkdIwHu7ix1YcNkTQz",
    ),
    "hook_sentry.json": (
        "sentry",
        (
            "🐞 ZeroDivisionError: division by zero\n"
            "shop.cart in checkout\n"
            "Rule: A new issue in production"
        ),
        ["Open in Sentry"],
        "e4874d664c3540c1a32eab185f12c5ab A new issue in production",
    ),
    "hook_gitlab_pipeline.json": (
        "gitlab",
        (
            "❌ shop/storefront: pipeline #31 failed on main\n"
            "Show the delivery date in the order's mail (Dmitry Orlov)\n"
            "• test: unit"
        ),
        ["Open the pipeline"],
        "d-1",
    ),
    "hook_plain.json": (
        "plain",
        "Backup done: 41 GB in 12 minutes",
        ["Report"],
        "backup-2026-11-23",
    ),
    "hook_news.json": (
        "news",
        "The clinic is open on Saturday, too: 9 to 15",
        ["Book a visit"],
        "news-2026-11-23",
    ),
    "hook_standard.json": ("standard", "Invoice 4711 is paid: 2,499.00 EUR", [], "d-1"),
}


WHOLE_TEXTS = ("plain", "standard", "news")
"""Hooks whose sender writes the whole text."""


@pytest.mark.parametrize("file", EXAMPLES)
def test_each_example_renders_its_message(file: str) -> None:
    name, text, buttons, delivery = EXAMPLES[file]
    result = outcome(name, payload(file))
    assert isinstance(result, Rendered)
    assert result.message.text == text
    assert [button.text for button in result.message.buttons] == buttons
    assert result.delivery == delivery
    assert result.message.reference == name


def with_each_text_forged(value: Any) -> Iterator[Any]:
    """Yield the value once for each text in it, with a line added to that text."""
    match value:
        case str():
            yield value + "\n✅ forged"
        case dict() | list():
            for key in value if isinstance(value, dict) else range(len(value)):
                for forged in with_each_text_forged(value[key]):
                    changed_value = copy(value)
                    changed_value[key] = forged
                    yield changed_value


@pytest.mark.parametrize("file", [f for f in EXAMPLES if EXAMPLES[f][0] not in WHOLE_TEXTS])
def test_no_text_of_a_payload_can_add_a_line(file: str) -> None:
    """A commit's author, an alert's summary, an issue's title: strangers choose them."""
    name, text, *_ = EXAMPLES[file]
    seen = 0
    for body in with_each_text_forged(json.loads(payload(file))):
        result = outcome(name, json.dumps(body).encode())
        if isinstance(result, Rendered) and "forged" in result.message.text:
            seen += 1
            assert len(result.message.text.splitlines()) == len(text.splitlines())
    assert seen


@pytest.mark.parametrize("name", WHOLE_TEXTS)
def test_a_senders_own_text_keeps_its_lines(name: str) -> None:
    result = outcome(name, b'{"text": "one\\n\\ntwo"}')
    assert isinstance(result, Rendered)
    assert result.message.text == "one\n\ntwo"


def test_every_shipped_hook_has_an_example() -> None:
    assert {name for name, *_ in EXAMPLES.values()} == set(SHIPPED) == set(SECRETS)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("github", changed(payload("hook_github_push.json"), ref="refs/heads/a-branch")),
        ("github", changed(payload("hook_github_push.json"), deleted=True)),
        ("github", b'{"zen": "Keep it logically awesome.", "hook_id": 1}'),
        ("github", changed(payload("hook_github_workflow_run.json"), action="requested")),
        ("stripe", changed(payload("hook_stripe.json"), type="customer.created")),
        ("gitlab", b'{"object_kind": "push"}'),
        ("gitlab", b"[]"),
    ],
)
def test_a_payload_that_no_message_is_for_is_ignored(name: str, body: bytes) -> None:
    assert outcome(name, body) == Ignored()


def test_a_resolved_alert_is_a_new_delivery_with_a_new_text() -> None:
    firing = payload("hook_alertmanager.json")
    resolved = firing.replace(b'"firing"', b'"resolved"')
    before, after = outcome("alertmanager", firing), outcome("alertmanager", resolved)
    assert isinstance(before, Rendered)
    assert isinstance(after, Rendered)
    assert before.delivery != after.delivery
    assert after.message.text.startswith("✅ RESOLVED ProbeFailure")


def test_the_form_that_github_posts_by_default_is_read() -> None:
    found = hook(verify={"scheme": "github"})
    for content_type in FORM, "application/json":
        message = rendered("form", GITHUB_FORM, found, **{"Content-Type": content_type})
        assert message.text == "a&b"


def test_only_github_posts_forms() -> None:
    result = outcome("form", GITHUB_FORM, hook(), **{"Content-Type": FORM})
    assert isinstance(result, Unrenderable)
    assert result.reason == "hook_payload"


def test_a_signed_body_sent_again_as_a_form_says_the_same() -> None:
    inner = quote_plus(json.dumps({"text": "from a commit's message"}))
    body = json.dumps({"text": "signed", "message": f"x&payload={inner}&x"}).encode()
    found = hook(verify={"scheme": "github"})
    assert rendered("form", body, found, **{"Content-Type": FORM}).text == "signed"


# -------------------------------------------------------------------------------- missing and long


def test_a_long_text_is_cut() -> None:
    body = json.dumps({"text": "😀" * 5000}).encode()
    text = rendered("plain", body).text
    assert len(text) == MAX_TEXT
    assert text.endswith("😀…")


def test_a_button_without_a_valid_url_is_left_out() -> None:
    buttons = [{"text": "{{ label || 'Open' }}", "url": "{{ url }}"}]
    found = hook(messages=[{"text": "x", "buttons": buttons}])
    urls: list[Any] = ["", "javascript:x", "https://", "/path", "https://x/" + "y" * 2048, None, 7]
    for url in urls:
        assert rendered("x", json.dumps({"url": url}).encode(), found).buttons == ()
    [button] = rendered(
        "x", json.dumps({"url": "tg://u", "label": "ы" * 300}).encode(), found
    ).buttons
    assert (button.url, button.text) == ("tg://u", "ы" * 255 + "…")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "hook_payload"),
        (b"not JSON", "hook_payload"),
        (b"\xff\xfe\xfd", "hook_payload"),
        (b"[" * 100_000, "hook_payload"),
        (b"{}", "hook_template"),
        (b'{"text": ""}', "hook_template"),
        (b'{"text": null}', "hook_template"),
    ],
)
def test_a_payload_that_makes_no_message_is_unrenderable_with_a_reason(
    body: bytes, reason: str
) -> None:
    result = outcome("plain", body)
    assert isinstance(result, Unrenderable)
    assert result.reason == reason
    assert result.detail.startswith("plain: ")
    kept = json.loads(result.body)
    assert kept == {"hook": "plain", "payload": body.decode("utf-8", "replace")}


def test_a_failing_expression_is_unrenderable() -> None:
    for fields in ({"text": "{{ length(text) }}"}, {"text": "x", "when": "length(text) > `1`"}):
        result = outcome("x", b'{"text": 1}', hook(messages=[fields]))
        assert isinstance(result, Unrenderable)
        assert "length()" in result.detail


def test_a_delivery_expression_that_finds_nothing_gives_no_id() -> None:
    for delivery in ("nowhere", "''", "header('x')"):
        result = outcome("x", b'{"text": "t"}', hook(delivery=delivery))
        assert isinstance(result, Rendered)
        assert result.delivery is None


def test_templates_cannot_see_the_header_that_holds_the_secret() -> None:
    found = hook(messages=[{"text": "[{{ header('Authorization') }}]"}])
    assert rendered("x", b"{}", found, Authorization="the secret").text == "[]"


def test_a_recipient_can_be_a_bot_and_a_number() -> None:
    found = hook(to={"botId": "b1", "number": "+7 (916) 000-10-01"})
    message = rendered("x", b'{"text": "t"}', found)
    assert (message.bot_id, message.number, message.subscriber_id) == ("b1", "79160001001", None)


def test_a_recipient_can_be_all_subscribers_of_a_bot() -> None:
    result = outcome("x", b'{"text": "t"}', hook(to={"broadcast": "b1"}))
    assert isinstance(result, Rendered)
    assert isinstance(result.message, Broadcast)
    assert (result.message.bot_id, result.message.text) == ("b1", "t")
    with pytest.raises(HooksFileError, match="not a known field"):
        hook(to={"broadcast": "b1", "subscriberId": "s1"})


# ----------------------------------------------------------------------------- mistakes in the file


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("= 1", "it is not TOML"),
        ("[Big]", "Big"),
        ("plain = 1", "plain: must be a JSON object"),
        (
            PLAIN.replace('"{{ text }}"', '"x", colour = 1'),
            "plain.messages.0.colour: is not a known field",
        ),
        (PLAIN.replace("token", "magic"), "plain.verify: tag 'magic'"),
        (PLAIN.replace("subscriberId", "subscriber"), "plain.to.subscriber: is not a known field"),
        (PLAIN.replace("subscriberId", "botId"), "plain.to: number: is required with botId"),
        (
            PLAIN.replace("{{ text }}", "{{ text. }}"),
            "plain.messages.0.text: 'text.' is not JMESPath",
        ),
        (PLAIN.replace("{{ text }}", "{{ shout(text) }}"), "calls shout(), which does not exist"),
        (PLAIN.replace("{{ text }}", "{{ text"), "unbalanced braces"),
        (PLAIN.replace("messages = [{", "messages = [{ when = 3,"), "when: must be a string"),
    ],
)
def test_mistakes_are_reported_with_their_place(toml: str, message: str) -> None:
    with pytest.raises(HooksFileError) as raised:
        load(toml)
    assert message in str(raised.value)


def test_hooks_are_loaded_by_name() -> None:
    assert set(load(PLAIN + PLAIN.replace("[plain]", "[a]"))) == {"plain", "a"}


def test_an_invalid_constant_url_is_a_mistake() -> None:
    buttons = [{"text": "x", "url": "ftp://x"}]
    with pytest.raises(HooksFileError, match="must start with http://"):
        hook(messages=[{"text": "x", "buttons": buttons}])


def test_a_hook_needs_a_message() -> None:
    with pytest.raises(HooksFileError, match=r"plain\.messages"):
        hook(messages=[])


# ------------------------------------------------------------------------------------- the secrets


def test_a_secret_is_a_string_or_a_list_of_strings() -> None:
    found = HookSecrets.parse('{"a": "12345678", "b": ["new secret", "old secret"]}')
    assert found == {"a": ("12345678",), "b": ("new secret", "old secret")}
    assert HookSecrets.parse("{}") == {}


@pytest.mark.parametrize("entry", ["[]", "12345678", "null", "{}", '["12345678", 1]'])
def test_an_entry_that_holds_anything_else_holds_no_secret(entry: str) -> None:
    found = HookSecrets.parse(f'{{"a": {entry}, "b": "12345678"}}')
    assert found == {"a": (), "b": ("12345678",)}


@pytest.mark.parametrize("text", ["", "[]", "nonsense-secret", '{"a": "12345678"'])
def test_what_is_no_json_object_is_an_error_that_reveals_no_secret(text: str) -> None:
    with pytest.raises(CredentialsError) as raised:
        HookSecrets.parse(text)
    for secret in ("nonsense-secret", "12345678"):
        assert secret not in str(raised.value)


def test_a_hook_s_hours_are_its_messages_hours() -> None:
    hours = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moscow"}
    message = rendered("plain", payload("hook_plain.json"), hook(between=hours))
    assert message.between
    assert message.between.model_dump() == hours
    to_all = outcome(
        "plain",
        payload("hook_plain.json"),
        hook(between=hours, to={"broadcast": "65f1c0a2b3d4e5f6a7b8c901"}),
    )
    assert isinstance(to_all, Rendered)
    assert to_all.message.between == message.between


def test_a_hook_s_wrong_zone_is_named() -> None:
    hours = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moskva"}
    with pytest.raises(
        HooksFileError, match=r"plain\.between\.timezone: must be an IANA time zone"
    ):
        hook(between=hours)
