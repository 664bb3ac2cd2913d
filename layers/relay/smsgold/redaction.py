"""Hide secrets in text, whatever their encoding."""

import base64
import html
import json
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus

MASK = "***"

MIN_LENGTH = 4
"""Shorter secrets are not hidden: they occur in ordinary text by chance."""

_BACKSLASHES = r"\\{1,32}"
"""In front of an escape that was escaped up to five times; without a bound, a text of backslashes
would take time quadratic in its length."""


class Redactor:
    """Replaces every registered secret in a text with a mask; thread-safe."""

    def __init__(self, *secrets: str) -> None:
        self._patterns: tuple[re.Pattern[str], ...] = ()
        for secret in secrets:
            self.register(secret)

    def register(self, secret: str) -> None:
        """Hide this secret from now on, if it is at least `MIN_LENGTH` characters long."""
        if len(secret) >= MIN_LENGTH and (found := patterns(secret))[0] not in self._patterns:
            self._patterns = (*self._patterns, *found)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._patterns) // 2} secrets)"


@lru_cache(maxsize=16)
def patterns(secret: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns for a secret in text, URLs, JSON, Python literals and HTML, and in base64.

    Each character matches in all its spellings, mixed or nested, because encoders differ in what
    they escape: PHP's JSON escapes a slash, a URL may or may not. There are two patterns because
    one for both takes four times as long.
    """
    spelled = "".join(f"(?:{'|'.join(_spellings(char))})" for char in secret)
    alphabets = (
        text.replace("+", r"(?:\+|-|%2[bB])").replace("/", rf"(?:(?:{_BACKSLASHES})?/|_|%2[fF])")
        for text in in_base64(secret)
    )
    return re.compile(spelled), re.compile("|".join(alphabets))


def _spellings(char: str) -> list[str]:
    """Return a pattern for each spelling of a character; repeated escaping only adds in front."""
    utf8 = char.encode()
    utf16 = char.encode("utf-16-be")
    units = [utf16[i : i + 2] for i in range(0, len(utf16), 2)]
    number = ord(char)
    found = [
        re.escape(char),
        "".join(f"%(?:25)*{_hex(byte)}" for byte in utf8),
        "".join(rf"{_BACKSLASHES}x{_hex(byte)}" for byte in utf8),
        "".join(rf"{_BACKSLASHES}u{_hex(*unit)}" for unit in units),
        rf"{_BACKSLASHES}U{_hex(*number.to_bytes(4, 'big'))}",
        f"&(?:amp;)*#(?:0*{number}|[xX]0*{_digits(f'{number:x}')});",
    ]
    if number < 256:
        found.append(rf"{_BACKSLASHES}x{_hex(number)}")
    if char == " ":
        found.append(r"\+")
    if char in "\"'/\\":
        found.append(rf"{_BACKSLASHES}{re.escape(char)}")
    if len(short := json.dumps(char)[1:-1]) == 2:  # such as \n
        found.append(rf"{_BACKSLASHES}{re.escape(short[1])}")
    if (named := html.escape(char)) != char:
        found.append(f"&(?:amp;)*{named[1:]}")
    return found


def _hex(*numbers: int) -> str:
    return "".join(_digits(f"{number:02x}") for number in numbers)


def _digits(text: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in text)


def in_base64(secret: str) -> set[str]:
    """Return the base64 that depends on the secret alone, at all three alignments."""
    plain = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
    found = set()
    for text in plain:
        for shift in range(3):
            raw = bytes(shift) + text.encode()
            first, last = -(-shift * 8 // 6), len(raw) * 8 // 6
            found.add(base64.b64encode(raw).decode()[first:last])
    return found
