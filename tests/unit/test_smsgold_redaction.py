"""Secrets are hidden in every encoding."""

import base64
import html
import json
import re
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsgold.redaction import MASK, Redactor

PASSWORD = 'p@ss w&rd"é+%/'
PASSWORDS = [
    PASSWORD,
    "hunter22",
    "пароль",
    "a\\b'c\"d/e",
    "tab\tnew\nline",
    "ключ 😀 &<>",
    "....",
    "$1\\1(?x)[a-z]*",
]


Encode = Callable[[str], str]


def base64_after(shift: int, encode: Callable[[bytes], bytes]) -> Encode:
    return lambda text: encode(b"." * shift + text.encode()).decode()


def php_json(text: str) -> str:
    return json.dumps(text)[1:-1].replace("/", "\\/")


BASE64: dict[str, Encode] = {
    f"base64 {name}, shifted by {shift}": base64_after(shift, encode)
    for shift in range(4)
    for name, encode in {
        "standard": base64.b64encode,
        "for URLs": base64.urlsafe_b64encode,
        "quoted": lambda raw: quote(base64.b64encode(raw), safe="").encode(),
    }.items()
}

ENCODERS: dict[str, Encode] = {
    "raw": lambda text: text,
    "quote": quote,
    "quote everything": lambda text: quote(text, safe=""),
    "quote nearly nothing": lambda text: quote(text, safe="/@&+ \"'"),
    "quote_plus": quote_plus,
    "quoted twice": lambda text: quote(quote(text)),
    "quoted in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text, safe="")
    ),
    "urlencode": lambda text: urlencode({"user": "12345", "pass": text}),
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "php's json": php_json,
    "json in json": lambda text: json.dumps(json.dumps({"pass": text})),
    "json in json in json": lambda text: json.dumps(json.dumps(json.dumps({"pass": text}))),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "repr of repr": lambda text: repr(repr(text)),
    "repr of json": lambda text: repr(json.dumps(text).encode()),
    "html": html.escape,
    "html twice": lambda text: html.escape(html.escape(text)),
    "html, numbers": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "html, hex numbers": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "basic authorization": lambda text: base64.b64encode(f"12345:{text}".encode()).decode(),
    "base64 of json": lambda text: base64.b64encode(
        json.dumps({"user": "1", "pass": text}).encode()
    ).decode(),
    "base64 of a query": lambda text: base64.b64encode(
        urlencode({"user": "1", "pass": text}).encode()
    ).decode(),
    **BASE64,
}


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_a_secret_is_hidden(encode: Encode, password: str) -> None:
    encoded = encode(password)
    text = Redactor(password)(f"before {encoded} after")
    assert MASK in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert encoded not in text
    # Base64 may keep characters that also depend on the secret's neighbours.
    rest = text.replace(MASK, "")
    assert password not in rest


@given(st.text(min_size=4, max_size=30).filter(lambda text: text.isprintable()), st.data())
def test_any_printable_secret_is_hidden(password: str, data: st.DataObject) -> None:
    encode = data.draw(st.sampled_from(list(ENCODERS.values())))
    encoded = encode(password)
    assert MASK in Redactor(password)(encoded)


@given(st.text(string.ascii_letters + string.digits + " {}:,\"'%\\", max_size=300))
def test_other_text_is_unchanged(text: str) -> None:
    assert Redactor(PASSWORD, "Zq7-Zq7-Zq7")(text) == text


def test_backslashes_are_looked_at_a_few_at_a_time() -> None:
    text = "\\" * 1000 + "u0068unter22"
    assert Redactor("hunter22")(text) == "\\" * (1000 - 32) + MASK


def test_a_secret_that_is_too_short_is_not_hidden() -> None:
    assert Redactor("1", "ab", "abc")("1 ab abc") == "1 ab abc"
    assert Redactor("abcd")("abc abcd") == f"abc {MASK}"


def test_every_registered_secret_is_hidden() -> None:
    redact = Redactor("first-secret")
    redact.register("second-secret")
    redact.register("second-secret")
    assert redact("first-secret second-secret") == f"{MASK} {MASK}"
    assert repr(redact) == "Redactor(2 secrets)"
