"""The envelope: every rule of addressing, and each limit at its edge and one beyond."""

import json
from typing import Any

import pytest

from relay.messages.envelope import (
    MAX_BUTTON_TEXT,
    MAX_BUTTONS,
    MAX_ID,
    MAX_REFERENCE,
    MAX_TEXT,
    MAX_URL,
    KeyedMessage,
    Message,
    QueuedMessage,
)
from relay.validation import InvalidMessageError, Location, NotJsonError, parse, validate

TO_A_SUBSCRIBER = {"subscriberId": "s-1"}
TO_A_NUMBER = {"botId": "b-1", "number": "79000000001"}
BUTTON = {"text": "Open", "url": "https://shop.example/1"}


def message(**fields: Any) -> KeyedMessage:
    return validate(KeyedMessage, {"subscriberId": "s-1", "text": "a text", **fields})


def refused(**fields: Any) -> dict[Location, str]:
    with pytest.raises(InvalidMessageError) as refusal:
        message(**fields)
    return dict(refusal.value.problems)


# ------------------------------------------------------------------------------------- addressing


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        (TO_A_SUBSCRIBER, TO_A_SUBSCRIBER),
        (TO_A_NUMBER, TO_A_NUMBER),
        (TO_A_SUBSCRIBER | TO_A_NUMBER, TO_A_SUBSCRIBER),
        ({**TO_A_SUBSCRIBER, "botId": None, "number": None}, TO_A_SUBSCRIBER),
        ({**TO_A_NUMBER, "subscriberId": None}, TO_A_NUMBER),
    ],
)
def test_an_address_that_is_one(address: dict[str, Any], kept: dict[str, str]) -> None:
    found = validate(Message, {**address, "text": "x"})
    assert found.model_dump(exclude_defaults=True, exclude={"text"}) == kept


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "subscriberId"),
        (["botId"], "number"),
        (["number"], "botId"),
        (["subscriberId", "botId"], "botId"),
        (["subscriberId", "number"], "number"),
    ],
)
def test_an_address_that_is_none_names_the_field(given: list[str], named: str) -> None:
    everything = TO_A_SUBSCRIBER | TO_A_NUMBER
    with pytest.raises(InvalidMessageError) as refusal:
        validate(Message, {"text": "x"} | {name: everything[name] for name in given})
    assert [where for where, _ in refusal.value.problems] == [(named,)]


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        ("79000000001", "79000000001"),
        ("+7 (900) 000-00-01", "79000000001"),
        (" +7900\u00a0000 00 01 ", "79000000001"),
        ("12345", "12345"),
        ("123456789012345", "123456789012345"),
    ],
)
def test_a_number_is_stripped_to_its_digits(number: str, digits: str) -> None:
    assert validate(Message, {"botId": "b", "number": number, "text": "x"}).number == digits


@pytest.mark.parametrize(
    "number",
    [
        "",
        "1234",
        "1234567890123456",
        "++79000000001",
        "7900+0000001",
        "79000000001a",
        "٧٩٠٠٠٠٠٠٠٠١",
        79000000001,
    ],
)
def test_a_number_that_is_none(number: object) -> None:
    with pytest.raises(InvalidMessageError) as refusal:
        validate(Message, {"botId": "b", "number": number, "text": "x"})
    assert [where for where, _ in refusal.value.problems] == [("number",)]


# ----------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("field", "longest"),
    [
        ("text", MAX_TEXT),
        ("reference", MAX_REFERENCE),
        ("subscriberId", MAX_ID),
        ("id", MAX_ID),
    ],
)
def test_a_text_at_its_limit_and_one_beyond(field: str, longest: int) -> None:
    for length in (1, longest):
        assert getattr(message(**{field: "x" * length}), field.replace("Id", "_id"))
    for length in (0, longest + 1):
        assert set(refused(**{field: "x" * length})) == {(field,)}


@pytest.mark.parametrize("character", ["😀", "ж", "e\u0301"])
def test_a_text_is_counted_in_code_points(character: str) -> None:
    most = MAX_TEXT // len(character)
    message(text=character * most)
    assert ("text",) in refused(text=character * (most + 1))


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0", None, 5, ["x"]])
def test_a_text_that_says_nothing(text: object) -> None:
    assert set(refused(text=text)) == {("text",)}


def test_buttons_at_their_limits_and_one_beyond() -> None:
    longest = "https://" + "x" * (MAX_URL - 8)
    message(buttons=[BUTTON] * MAX_BUTTONS)
    message(buttons=[{"text": "x" * MAX_BUTTON_TEXT, "url": longest}])
    assert set(refused(buttons=[BUTTON] * (MAX_BUTTONS + 1))) == {("buttons",)}
    wrong = [BUTTON, {"text": "x" * (MAX_BUTTON_TEXT + 1), "url": longest + "x"}, {}]
    assert set(refused(buttons=wrong)) == {
        ("buttons", 1, "text"),
        ("buttons", 1, "url"),
        ("buttons", 2, "text"),
        ("buttons", 2, "url"),
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://a",
        "tg://resolve?domain=x",
        "https:// ссылка для кнопки 1",
        "https://магазин.рф/заказ 4711?сумма=1 000",
        "https://user:pass@shop.example:65535/a\\b#c",
        "http://[::1]:080?q",
        "https://a%41.example",
        "https://[2001:db8::1]/",
    ],
)
def test_a_button_s_address_passes_as_it_is(url: str) -> None:
    assert message(buttons=[{"text": "x", "url": url}]).buttons[0].url == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "https://", "ftp://a", "javascript:x", " https://a", 5, "tg://"),
        *(
            "https://a.example/\n",
            "https://a.example/\r\nb",
            "tg://resolve?domain=x\u2028",
            "https://a\0",
        ),
        *(
            "https://a.example/\u202egpj.exe",
            "https://\u2066a.example",
            "tg://\u200fx",
            "https://a\x85b",
        ),
        *("https:///path", "https://?q", "https://:80", "https://user@", "https://user@/x"),
        *("https://a:port", "https://a:65536", "https://a:0", "https://a:", "https://a:1:2"),
        *(
            "https://[::1",
            "https://::1",
            "https://[x]",
            "https://a]b",
            "https://a%zz",
            "https://a%4",
        ),
        *(
            "https://a\\b",
            "https://a\\@b.example",
            "https://<a>",
            "https://a|b",
            "https://{a}",
            'https://"',
        ),
    ],
)
def test_a_button_s_address_that_is_none(url: object) -> None:
    assert set(refused(buttons=[{"text": "x", "url": url}])) == {("buttons", 0, "url")}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-12-01T10:00:00Z", "2026-12-01T10:00:00.000Z"),
        ("2026-12-01T13:00:00.123456+03:00", "2026-12-01T10:00:00.123Z"),
        ("0001-01-01T00:00:00+14:00", "1970-01-01T00:00:01.000Z"),
        ("9999-12-31T23:59:59.999999-12:00", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_is_kept_in_utc(given: str, kept: str) -> None:
    assert message(expiresAt=given).model_dump()["expiresAt"] == kept


@pytest.mark.parametrize(
    "given", ["2026-12-01T10:00:00", "2026-12-01", "1764583200", 1764583200, "2026-13-01T10:00:00Z"]
)
def test_a_time_that_is_none(given: object) -> None:
    assert set(refused(expiresAt=given)) == {("expiresAt",)}


@pytest.mark.parametrize("id_", ["a b", "a/b", "ключ", "a\n", "x" * 65])
def test_an_id_that_is_none(id_: str) -> None:
    assert set(refused(id=id_)) == {("id",)}


@pytest.mark.parametrize("in_order", [0, 1, "false", "no", 0.0, None])
def test_whether_it_keeps_its_order_is_true_or_false(in_order: object) -> None:
    assert refused(inOrder=in_order) == {("inOrder",): "must be a valid boolean"}
    assert not message(inOrder=False).in_order


@pytest.mark.parametrize("field", ["subscriber_id", "Text", "txet", "auth", "generation"])
def test_a_field_nobody_knows_is_refused(field: str) -> None:
    assert refused(**{field: "x"}) == {(field,): "is not a known field; check its spelling"}


# ------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("{", "must be valid JSON"),
        ('{"text": NaN}', "NaN"),
        ('{"text": -Infinity}', "-Infinity"),
        ('{"text": "a", "text": "b"}', "text twice"),
        ('{"buttons": [{"url": "a", "url": "b"}]}', "url twice"),
        ("[" * 200_000, "must be valid JSON"),
        ('{"a":' * 200_000, "must be valid JSON"),
        (b'{"text": "\xff"}', "must be valid JSON"),
    ],
)
def test_what_not_everybody_reads_alike_is_refused(raw: str | bytes, problem: str) -> None:
    with pytest.raises(NotJsonError, match=problem):
        parse(Message, raw)


@pytest.mark.parametrize("raw", ["[]", "5", "null", '"text"'])
def test_what_is_no_object_is_refused(raw: str) -> None:
    with pytest.raises(InvalidMessageError, match="must be a JSON object"):
        parse(Message, raw)


@pytest.mark.parametrize("half", [r"\ud83d", r"\udc00 and \ud800"])
def test_half_of_a_character_is_refused(half: str) -> None:
    with pytest.raises(InvalidMessageError, match="text"):
        parse(Message, f'{{"subscriberId": "s-1", "text": "x{half}"}}')


def test_a_refusal_does_not_repeat_what_was_given() -> None:
    with pytest.raises(InvalidMessageError) as refusal:
        message(text=["SECRET"], number="SECRET", expiresAt="SECRET", onUnknown="SECRET")
    assert "SECRET" not in str(refusal.value)


# -------------------------------------------------------------------------------------- the queue


def test_the_provider_s_own_example_passes_as_printed() -> None:
    example = {
        "subscriberId": "XXXXXXXXXXXXXXXXXXXXXXXX",
        "text": "Текст Вашего сообщения",
        "buttons": [
            {"text": "Текст на кнопке 1", "url": "https:// ссылка для кнопки 1"},
            {"text": "Текст на кнопке 2", "url": "https:// ссылка для кнопки 2"},
        ],
    }
    body = validate(QueuedMessage, example).to_body()
    assert json.loads(body) == example
    assert "Текст" in body, "not escaped: a queue counts bytes"


@pytest.mark.parametrize("text", ["\x00\x1f\x7f", "\ufffe \uffff", "😀", 'a "quote" \\ \n'])
def test_any_text_survives_the_queue(text: str) -> None:
    body = validate(QueuedMessage, {"subscriberId": "s-1", "text": f"x{text}"}).to_body()
    # What XML 1.0, and so SQS, allows.
    assert all(c in "\t\n\r" or (c >= "\x20" and c not in "\ufffe\uffff") for c in body)
    assert parse(QueuedMessage, body).text == f"x{text}"


def test_the_same_envelope_has_the_same_fingerprint_however_it_is_written() -> None:
    one = message(expiresAt="2026-12-01T10:00:00Z", buttons=[], reference=None, id="a")
    other = message(expiresAt="2026-12-01T13:00:00+03:00", id="b")
    assert one.fingerprint == other.fingerprint
    changes: list[dict[str, Any]] = [
        {"text": "b"},
        {"reference": "b"},
        {"buttons": [BUTTON]},
        {"onUnknown": "resend"},
        {"subscriberId": "s-2"},
        {"expiresAt": "2026-12-01T10:00:01Z"},
    ]
    prints = {message(**change).fingerprint for change in [{}, *changes]}
    assert len(prints) == len(changes) + 1


@pytest.mark.parametrize(
    ("fields", "fingerprint"),
    [
        (
            {"subscriberId": "s-1", "text": "a text"},
            "9e01deee7d81fe90152dfe459ea74a8c842fcb24eca674cea16f6d6ddc1e38a5",
        ),
        (
            {**TO_A_NUMBER, "text": "Привет 😀"},
            "6ad27d3a14966b8fc08cc483fe61fc86f2711d1df79c731b1f705b9b4a063a14",
        ),
        (
            {
                "subscriberId": "s-1",
                "text": "line\nline",
                "buttons": [BUTTON],
                "onUnknown": "resend",
                "expiresAt": "2026-12-01T13:00:00+03:00",
                "reference": "order 1",
            },
            "559be8aa3df75d3d5c5da4cefc40459f5caaa589706ae6d10099f0ece6354ec7",
        ),
        (
            {"subscriberId": "s-1", "text": "a text", "broadcast": "b-20261201"},
            "b9e03da151cd11a8394c01c7afdc15d7521e39fbd441ed660835ae3767b4b97a",
        ),
    ],
    ids=["to a subscriber", "to a number", "with everything", "of a broadcast"],
)
def test_a_fingerprint_is_what_version_0_1_0_made_of_the_same_envelope(
    fields: dict[str, Any], fingerprint: str
) -> None:
    # If it must change, raise FINGERPRINTS: what is in flight then would be refused otherwise.
    assert validate(QueuedMessage, {"id": "order-1", **fields}).fingerprint == fingerprint
