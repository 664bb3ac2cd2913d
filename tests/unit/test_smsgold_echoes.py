"""Nothing of a message is kept with the provider's words, however it is spelled and cut."""

import base64
import html
import json
import re
import unicodedata
from collections.abc import Callable
from html.entities import codepoint2name
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from smsgold import echoes
from smsgold.echoes import LONGEST_WORDS, RUN, Echoes

TEXT = "Анна, ваш заказ № 4711 «Ромашка» оплачен: https://example.com/o?id=4711&x=1"
URL = "https://shop.example/orders/4711?token=Zq7xW"
PASSWORD = 'p@ss w&rd"é+%/'
NUMBER = "79990000000"

Spell = Callable[[str], str]


def utf16(char: str) -> list[str]:
    raw = char.encode("utf-16-be", "surrogatepass")
    return [raw[at : at + 2].hex() for at in range(0, len(raw), 2)]


# Each spells one character at a time, so that a cut spelling is a spelling of a cut text.
SPELLINGS: dict[str, Spell] = {
    "as it is": lambda char: char,
    "json": lambda char: json.dumps(char)[1:-1],
    "json in upper case": lambda char: "".join(f"\\u{unit.upper()}" for unit in utf16(char)),
    "json, unescaped": lambda char: json.dumps(char, ensure_ascii=False)[1:-1],
    "escaped slashes": lambda char: char.replace("/", "\\/"),
    "html": html.escape,
    "html, names": lambda char: (
        f"&{codepoint2name[ord(char)]};" if ord(char) in codepoint2name else char
    ),
    "html, decimal": lambda char: f"&#{ord(char)};",
    "html, padded": lambda char: f"&#{ord(char):07};",
    "html, hex": lambda char: f"&#x{ord(char):x};",
    "html, upper hex": lambda char: f"&#X{ord(char):X};",
    "url": lambda char: quote(char, safe=""),
    "url, lower case": lambda char: quote(char, safe="").lower(),
    "form": quote_plus,
    "url, of JavaScript": lambda char: "".join(f"%u{unit}" for unit in utf16(char)),
    "literal": lambda char: ascii(char)[1:-1],
    "literal of bytes": lambda char: repr(char.encode())[2:-1],
    "upper case": lambda char: char.upper() if char.upper().casefold() == char.casefold() else char,
    "decomposed": lambda char: unicodedata.normalize("NFD", char),
    "folded": lambda char: char + "\r\n ",
    "with nothing to see": lambda char: f"{char}\u00ad\u200b",
}


def spelled(text: str, *names: str) -> list[str]:
    found = list(text)
    for name in names:
        found = ["".join(map(SPELLINGS[name], part)) for part in found]
    return found


def shown(text: str) -> str:
    """Return the characters that count, one at least for each that does."""
    return re.sub(r"[\s\\+_-]", "", "".join(filter(str.isprintable, text)))


@pytest.mark.parametrize("second", SPELLINGS)
@pytest.mark.parametrize("first", SPELLINGS)
def test_no_spelling_of_a_spelling_is_kept(first: str, second: str) -> None:
    for own in (TEXT, URL):
        said = f"Bad Request: {''.join(spelled(own, first, second))}"
        assert Echoes([own]).words(said) == ""
    said = f"Bad Request: {''.join(spelled(PASSWORD, first, second))}"
    assert Echoes(secrets=[PASSWORD]).words(said) == ""


CHARS = st.sampled_from("аяЙё№«»—éß😀💀 \n\"'/\\&<>+%#;xun0419Az") | st.characters(
    exclude_categories=["Cs", "Cc"]  # HTML has other characters at the numbers of controls
)
TEXTS = st.text(CHARS, min_size=RUN, max_size=60)
FIRST, LAST = ["upper case", "decomposed"], ["folded", "with nothing to see"]
ESCAPES = [name for name in SPELLINGS if name not in (*FIRST, *LAST)]
# In this order: an escape inside which a line is folded is none to who escapes it again.
NAMES = st.builds(
    lambda first, escapes, last: [*first, *escapes, *last],
    st.lists(st.sampled_from([*FIRST, "folded"]), max_size=1),
    st.lists(st.sampled_from(ESCAPES), max_size=3),
    st.lists(st.sampled_from(LAST), max_size=1),
)


@given(TEXTS, NAMES, st.data())
@example(TEXT, ["json", "html, decimal", "url"], None)
def test_any_part_of_any_text_in_any_spelling_is_dropped(
    text: str, names: list[str], data: st.DataObject | None
) -> None:
    parts = spelled(text, *names)
    begin, end = 0, len(text)
    if data:
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, len(text)))
    echo = "".join(parts[begin:end])
    words = Echoes([text]).words(f"no such subscriber: {echo}")
    if len(shown(text[begin:end])) >= RUN and len(echo) < LONGEST_WORDS - 50:
        assert words == ""


@given(TEXTS, NAMES, st.integers(0, 5000))
def test_what_is_kept_has_no_run_in_common_with_the_text(
    text: str, names: list[str], cut: int
) -> None:
    words = Echoes([text]).words("no: " + "".join(spelled(text, *names))[:cut])
    runs = {text[at : at + RUN] for at in range(len(text) - RUN + 1)}
    assert not any(run in words for run in runs if len(shown(run)) == RUN)


@pytest.mark.parametrize("own", ["4711", "Анна", "Открыть", "+79990000000"])
def test_a_short_string_is_an_echo_as_a_whole(own: str) -> None:
    echo = Echoes([own])
    assert echo.words(f"no: {html.escape(json.dumps(own))}") == ""
    assert echo.words(f"no: {own[:-1]}") == f"no: {own[:-1]}".replace("+7999000000", "+***")


def test_other_words_stay() -> None:
    echo = Echoes([TEXT, URL, NUMBER, "ок", ""], [PASSWORD, "abc"])
    for words in (
        "no such subscriber",
        '{"code": 17, "text": "bot was blocked by the user"}',
        "Неверный формат, ошибка 12-34",
        "abc ок",
        "C:\\new folder 100% &c",
    ):
        assert echo.words(words) == words
    assert echo.words("a\n\tb\x00\x1b[0m") == "a b[0m"
    assert Echoes().words("x") == "x"


@pytest.mark.parametrize(
    "number",
    ["1234567", "79990000000", "+7 (999) 000-00-00", "8.999.000.00.00", "7 999 000 00 00"],
)
def test_a_long_number_is_masked_however_it_is_set(number: str) -> None:
    assert Echoes().words(f"to {number}, 123456 times").lstrip("to +") == "***, 123456 times"


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_long_number_is_dropped_or_masked_in_any_spelling(name: str) -> None:
    for number in ("79990000000", "8 (999) 000-00-00"):
        words = Echoes().words(f"to {''.join(spelled(number, name))}!")
        assert words in {"", "to ***!", "to *** !"}


@given(st.text("0123456789 -().", max_size=80), NAMES)
def test_no_seven_digits_in_a_row_are_kept(text: str, names: list[str]) -> None:
    said = "".join(spelled(text, *names))
    assume(len(said) < LONGEST_WORDS - 50)
    words = Echoes().words(f"no {said}")
    assert not re.search(r"\d{7}", re.sub(r"[ ().-]", "", words))
    if re.search(r"\d{7}", re.sub(r"[ ().-]", "", text)):
        assert "***" in words or not words


@pytest.mark.parametrize("password", [PASSWORD, "hunter22", "пароль", "++++", "a\\b'c\"d/e"])
@pytest.mark.parametrize("shift", range(4))
def test_a_password_in_base64_is_dropped(password: str, shift: int) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(b"." * shift + password.encode() + b"...").decode()
        assert Echoes(secrets=[password]).words(f"no: {encoded}") == ""
        assert Echoes(secrets=[password]).words(f"no: {quote(encoded, safe='')}") == ""


@given(st.text(CHARS, min_size=4, max_size=30), NAMES)
@example("000Â¡", ["literal"])
def test_any_password_is_dropped(password: str, names: list[str]) -> None:
    echo = "".join(spelled(password, *names))
    assume(len(echo) < LONGEST_WORDS - 50)
    assert Echoes(secrets=[password]).words(f"no {echo}") == ""


def test_escapes_without_end_are_not_kept() -> None:
    words = "no %41"
    for _ in range(4):
        assert Echoes().words(words) == words
        words = words.replace("%", "&#37;").replace("&", "%26")
    for _ in range(4):
        words = words.replace("%", "&#37;").replace("&", "%26")
    assert Echoes().words(words) == ""


HOSTILE = ["\\", "&", "%25", "&amp;", "&#0", "&#9", "\\u", "1 ", "(", "%", "\\x", " ", "%u", "&#x0"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_answer_takes_more_work_than_a_short_one(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def counted(text: str) -> str:
        done.append(len(text))
        return original(text)

    original = echoes._decoded
    monkeypatch.setattr(echoes, "_decoded", counted)

    def work(length: int) -> int:
        done.clear()
        Echoes().words((unit * length)[:length])
        return sum(done)

    assert work(128 * 1024) == work(LONGEST_WORDS)
    assert max(done) <= LONGEST_WORDS


def test_its_description_holds_nothing() -> None:
    assert repr(Echoes([TEXT], [PASSWORD])) == "Echoes(1 own, 1 secret)"
