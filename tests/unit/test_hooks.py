"""hooks.toml: what it may say, how its mistakes are reported, what its examples render."""

import json
import re
import tomllib
from collections.abc import Iterator
from copy import copy
from typing import Any
from urllib.parse import quote_plus

import pytest

from relay.broadcasts.model import Broadcast
from relay.messages.envelope import MAX_TEXT, Message
from relay.webhooks.hooks import (
    Addressed,
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
from tests.support.webhooks import (
    HOOKS_FILE,
    PLAIN,
    ROOT,
    SECRETS,
    SHIPPED,
    changed,
    payload,
    signed,
)

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
    message = only(result)
    assert isinstance(message, Message)
    return message


def only(result: RenderResult) -> Message | Broadcast:
    """Return what a hook with one recipient sends."""
    assert isinstance(result, Rendered), result
    [one] = result.results
    assert isinstance(one, Addressed), one
    assert one.recipient == ""
    return one.message


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
            "🔥 HighMemoryUsage: Memory of shop-1 over 90 %\n"
            "🔥 HighCPUUsage: CPU of shop-2 over 80 % for 10 minutes"
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
            "🔥 https://shop.romashka.example does not answer\n"
            "🔥 https://api.romashka.example does not answer"
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


ALARM = json.loads(payload("hook_alarm.json"))
EXAMPLES["hook_alarm.json"] = (
    "alarms",
    "\n".join(
        [
            "🔴 ServerCpuTooHigh: ALARM",
            "was OK",
            "Goes into alarm when server CPU utilization is too high!",
            ALARM["detail"]["state"]["reason"],
            "123456789012 · us-east-1",
        ]
    ),
    ["Open the alarm"],
    ALARM["id"],
)

WHOLE_TEXTS = ("plain", "standard", "news")
"""Hooks whose sender writes the whole text."""


@pytest.mark.parametrize("file", EXAMPLES)
def test_each_example_renders_its_message(file: str) -> None:
    name, text, buttons, delivery = EXAMPLES[file]
    result = outcome(name, payload(file))
    assert isinstance(result, Rendered)
    assert only(result).text == text
    assert [button.text for button in only(result).buttons] == buttons
    assert result.delivery == delivery
    assert only(result).reference == name


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
        if isinstance(result, Rendered) and "forged" in (said := only(result).text):
            seen += 1
            assert len(said.splitlines()) == len(text.splitlines())
    assert seen


@pytest.mark.parametrize("name", WHOLE_TEXTS)
def test_a_senders_own_text_keeps_its_lines(name: str) -> None:
    result = outcome(name, b'{"text": "one\\n\\ntwo"}')
    assert isinstance(result, Rendered)
    assert only(result).text == "one\n\ntwo"


def test_every_shipped_hook_has_an_example() -> None:
    assert {name for name, *_ in EXAMPLES.values()} == set(SHIPPED)
    assert set(SHIPPED) - set(SECRETS) == {"alarms"}


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
    assert only(after).text.startswith("✅ RESOLVED ProbeFailure")


@pytest.mark.parametrize("name", ["alertmanager", "grafana"])
def test_each_alert_of_a_group_has_its_own_status(name: str) -> None:
    body = json.loads(payload(f"hook_{name}.json"))
    body["alerts"][0]["status"] = "resolved"
    title, *lines = rendered(name, json.dumps(body).encode()).text.splitlines()
    assert title.startswith("🔥")
    assert [line[0] for line in lines[-2:]] == ["✅", "🔥"]


def test_alarms_reach_nobody_until_the_file_names_somebody() -> None:
    assert load(HOOKS_FILE)["alarms"].to == ()
    assert {name for name, found in load(HOOKS_FILE).items() if not found.to} == {"alarms"}


def alarm(**detail: Any) -> RenderResult:
    return outcome("alarms", changed(payload("hook_alarm.json"), detail=ALARM["detail"] | detail))


UNCHECKED = {"value": "INSUFFICIENT_DATA", "reason": "Unchecked: Initial alarm creation"}
NO_DATA = {"value": "INSUFFICIENT_DATA", "reason": "Insufficient Data: 1 datapoint was unknown."}


@pytest.mark.parametrize(
    ("before", "state", "told"),
    [
        (UNCHECKED, "OK", False),
        (UNCHECKED, "ALARM", True),
        (NO_DATA, "OK", True),  # it may have gone off before
        ({"value": "ALARM", "reason": "Threshold Crossed"}, "OK", True),
        ({"value": "ALARM", "reason": "Threshold Crossed"}, "INSUFFICIENT_DATA", False),
        ({}, "OK", True),
    ],
)
def test_a_new_alarm_that_is_ok_is_no_news(before: dict[str, str], state: str, told: bool) -> None:
    result = alarm(state={"value": state}, previousState=before)
    assert (result != Ignored()) is told


def test_an_alarm_needs_no_more_than_its_name_and_state() -> None:
    event = changed(
        payload("hook_alarm.json"), detail={"alarmName": "composite", "state": {"value": "OK"}}
    )
    text = rendered("alarms", event).text
    assert text == "🟢 composite: OK\n123456789012 · us-east-1"


@pytest.mark.parametrize(
    ("name", "region", "url"),
    [
        ("a/b c%", "us-east-1", "us-east-1.console.aws.amazon.com/{}us-east-1{}a%2Fb%20c%25"),
        ("a", "cn-north-1", "cn-north-1.console.amazonaws.cn/{}cn-north-1{}a"),
        ("a", "us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com/{}us-gov-west-1{}a"),
    ],
)
def test_the_console_of_each_partition(name: str, region: str, url: str) -> None:
    detail = {**ALARM["detail"], "alarmName": name}
    body = changed(payload("hook_alarm.json"), region=region, detail=detail)
    [button] = rendered("alarms", body).buttons
    expected = url.format("cloudwatch/home?region=", "#alarmsV2:alarm/")
    assert button.url == f"https://{expected}"


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
    message = only(result)
    assert isinstance(message, Broadcast)
    assert (message.bot_id, message.text) == ("b1", "t")
    with pytest.raises(HooksFileError, match="not a known field"):
        hook(to={"broadcast": "b1", "subscriberId": "s1"})


# ---------------------------------------------------------------------------- several recipients

CUSTOMER = {"botId": "b1", "number": "{{ customer.phone }}"}


def test_the_file_can_let_the_payload_choose_the_recipient() -> None:
    found = hook(to=CUSTOMER)
    for phone in ("+7 (916) 000-10-01", 79160001001):
        body = json.dumps({"text": "t", "customer": {"phone": phone}}).encode()
        message = rendered("x", body, found)
        assert (message.bot_id, message.number) == ("b1", "79160001001")


@pytest.mark.parametrize(
    "phone",
    [
        "",
        None,
        "nobody",
        '79160001001", "subscriberId": "s2',
        "79160001001\n79160001002",
        ["79160001001", "79160001002"],
        {"number": "79160001001"},
        "7" * 16,
        "{{ customer.other }}",
    ],
)
def test_a_recipient_that_a_payload_chooses_is_validated_as_at_every_door(phone: object) -> None:
    customer = {"phone": phone, "other": "79160001002"}
    body = json.dumps({"text": "t", "customer": customer}).encode()
    result = outcome("x", body, hook(to=CUSTOMER))
    assert isinstance(result, Rendered)
    [failed] = result.results
    assert isinstance(failed, Unrenderable)
    assert (failed.reason, failed.detail.partition("must")[0]) == ("hook_template", "x: number: ")


def test_a_payload_chooses_nobody_unless_the_file_says_so() -> None:
    body = json.dumps(
        {"text": "t", "to": "s2", "subscriberId": "s2", "subscriber_id": "s2", "botId": "b2"}
    ).encode()
    message = rendered("x", body, hook())
    assert (message.subscriber_id, message.bot_id, message.number) == ("s1", None, None)


def test_each_recipient_gets_a_message_and_no_address_two() -> None:
    to = [
        {"subscriberId": "s1"},
        {"subscriberId": "s2"},
        {"subscriberId": "{{ owner }}"},
        {"broadcast": "b1"},
    ]
    told: dict[str, list[str]] = {}
    for owner in ("s2", "s3"):
        result = outcome("x", json.dumps({"text": "t", "owner": owner}).encode(), hook(to=to))
        assert isinstance(result, Rendered)
        sent = [each for each in result.results if isinstance(each, Addressed)]
        assert len({each.recipient for each in sent}) == len(sent)
        told[owner] = [
            m.bot_id if isinstance(m, Broadcast) else m.subscriber_id or ""
            for m in (each.message for each in sent)
        ]
    assert told == {"s2": ["s1", "s2", "b1"], "s3": ["s1", "s2", "s3", "b1"]}


def test_one_of_several_that_cannot_be_addressed_costs_itself_alone() -> None:
    result = outcome("x", b'{"text": "t"}', hook(to=[{"subscriberId": "s1"}, CUSTOMER]))
    assert isinstance(result, Rendered)
    sent, failed = result.results
    assert isinstance(sent, Addressed)
    assert isinstance(failed, Unrenderable)
    assert failed.detail.startswith("x: to.1: number: must be a phone number")


def test_what_is_wrong_with_the_text_is_one_failure_for_all() -> None:
    result = outcome("x", b"{}", hook(to=[{"subscriberId": "s1"}, {"subscriberId": "s2"}]))
    assert isinstance(result, Unrenderable)


DOCUMENTED = re.findall(
    r"```toml\n(.*?)```", (ROOT / "docs/webhooks.md").read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize("toml", DOCUMENTED, ids=range(len(DOCUMENTED)))
def test_what_the_documentation_shows_is_valid(toml: str) -> None:
    assert load(PLAIN.replace('to = { subscriberId = "s1" }', toml) if toml[:2] == "to" else toml)


def test_a_hook_with_nobody_to_tell_ignores_everything() -> None:
    assert outcome("x", b'{"text": "t"}', hook(to=[])) == Ignored()


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
            PLAIN.replace("{ subscriberId", "[{ subscriberId").replace(" }\nm", " }, {}]\nm"),
            "plain.to.1: subscriberId: give subscriberId, or botId with number",
        ),
        (
            PLAIN.replace('"s1"', '"{{ a }}", number = "79160001001"'),
            "plain.to: number: goes with botId, not with subscriberId",
        ),
        (PLAIN.replace('"s1"', '"{{ a. }}"'), "plain.to.subscriberId: 'a.' is not JMESPath"),
        (
            PLAIN.replace('"s1"', '""'),
            "plain.to: subscriberId: string must have at least 1 character",
        ),
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
    [addressed] = to_all.results
    assert isinstance(addressed, Addressed)
    assert addressed.message.between
    assert addressed.message.between.model_dump() == hours


def test_a_hook_s_wrong_zone_is_named() -> None:
    hours = {"from": "09:00", "to": "21:00", "timezone": "Europe/Moskva"}
    with pytest.raises(
        HooksFileError, match=r"plain\.between\.timezone: must be an IANA time zone"
    ):
        hook(between=hours)
