"""Keep what a message says, and to whom, out of what is kept of the provider's words.

The provider may answer with the message's text, buttons, number or password, in any spelling and
cut anywhere. So its words are not searched for spellings to mask: their escapes are undone, and if
a part of the message is in what is left, none of the words are kept.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from urllib.parse import unquote

from smsgold.redaction import MASK, MIN_LENGTH, in_base64

LONGEST_WORDS = 4096
"""Characters of the provider's words that are looked at; the work is linear in them."""

RUN = 12
"""So many characters in a row of a message's are an echo; of what is shorter, all of it."""

SECRET_RUN = 8
"""The same for a password."""

FEW = 64
"""Parts that are looked for one by one: an id has no more."""

LAYERS = 8
"""Escapes within escapes that are undone; words with more are not kept."""


class Echoes:
    """Keeps words that repeat neither a message's own strings nor secrets."""

    def __init__(self, own: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        self._own = tuple(own)
        self._secrets = tuple(secrets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._own)} own, {len(self._secrets)} secret)"

    def words(self, text: str) -> str:
        """Return words as one line, long numbers masked, or "" if they may be an echo."""
        line = one_line(text[:LONGEST_WORDS])
        forms, _ = _undone(line)
        masked = _LONG_NUMBER.sub(MASK, line)
        hidden_number = any(map(_LONG_NUMBER.search, (_folded(masked), *forms[1:])))
        return "" if hidden_number or self._may_be_in(line) else masked

    def id(self, text: str) -> str:
        """Return an id as one line, or "" if it may be an echo; its digits stay."""
        line = one_line(text[:LONGEST_WORDS])
        return "" if self._may_be_in(line) else line

    def _may_be_in(self, line: str) -> bool:
        if not line:
            return False
        forms, all_undone = _undone(line)
        return (
            not all_undone
            or any(_shared(forms, _forms(text), RUN) for text in self._own)
            or any(_shared(forms, _secret_forms(secret), SECRET_RUN) for secret in self._secrets)
        )


def one_line(text: str) -> str:
    """Return text as one line without control characters, which no SQS attribute may hold."""
    return _printable(" ".join(text.split()))


# ----------------------------------------------------------------------------------- comparing


def _shared(theirs: Iterable[str], ours: Iterable[str], length: int) -> bool:
    """Return whether a text of theirs has so many characters in a row of ours, or all of it."""
    for their in theirs:
        parts = set(_cut(their, length))
        # Each search takes as long as our text, so many parts are compared with its own instead.
        few = len(parts) <= FEW
        for our in ours:
            if len(our) < length:
                found = our in their
            elif few:
                found = any(part in our for part in parts)
            else:
                found = not parts.isdisjoint(_cut(our, length))
            if found:
                return True
    return False


def _cut(text: str, length: int) -> Iterator[str]:
    """Yield all parts of this length."""
    return (text[at : at + length] for at in range(len(text) - length + 1))


def _forms(text: str) -> list[str]:
    """Return the texts of which a part is an echo of this one; none for a short one."""
    return _undone(text)[0] if len(text) >= MIN_LENGTH else []


@lru_cache(maxsize=16)
def _secret_forms(secret: str) -> frozenset[str]:
    if len(secret) < MIN_LENGTH:
        return frozenset()
    # In a literal, two characters may be written as if they were the bytes of another.
    spelled = (secret, ascii(secret)[1:-1], *in_base64(secret))
    return frozenset(chain.from_iterable(map(_forms, spelled)))


def _undone(text: str) -> tuple[list[str], bool]:
    """Return a text to compare, as it is and after each layer of escapes undone.

    Also whether no escapes are left.
    """
    stage = _dense(text)
    stages = [stage]
    while (following := _dense(_decoded(stage))) != stage and len(stages) <= LAYERS:
        stage = following
        stages.append(stage)
    return [_folded(stage) for stage in stages], following == stage


def _dense(text: str) -> str:
    """Return a text without white space and what has no shape: where lines end is chance."""
    return _printable(text).replace(" ", "")


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(filter(str.isprintable, text))


def _folded(text: str) -> str:
    """Return a text in which case, composition and what encoders add or exchange do not differ."""
    text = _dense(unicodedata.normalize("NFKD", text).casefold())
    # An escape left over, a space in a form, and the two characters in which base64 differs.
    return text.replace("\\", "").replace("+", "").replace("-", "").replace("_", "/")


_LONG_NUMBER = re.compile(r"\d(?:[\s().\[\]\u2010-\u2015\u2212-]*\d){6,}")
"""Seven digits or more: a phone number, however it is set."""


# ----------------------------------------------------------------------------------- decoding

_BACKSLASH = re.compile(
    r"\\(?:U(00(?:0[0-9a-f]|10)[0-9a-f]{4})|u([0-9a-f]{4})|(x)(?=[0-9a-f]{2})|([\\/\"'])|[abfnrtv0])",
    re.IGNORECASE,
)
"""An escape of JSON or of a program's literal."""

_PERCENT_U = re.compile("%u([0-9a-f]{4})", re.IGNORECASE)
_NO_CHARACTER = re.compile("&#0*+(?:[0-9]{8,})?")
"""The start of a reference, its zeros, and what no character has: `int` takes only 4300 digits."""

_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
"""What `surrogateescape` makes of a byte that is not UTF-8, and the byte's own character."""


def _decoded(text: str) -> str:
    """Return a text with one layer of escapes undone: of JSON and literals, of URLs, of HTML."""
    if not any(sign in text for sign in "\\%&"):
        return text
    text = _PERCENT_U.sub(_meant, _BACKSLASH.sub(_meant, text))
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = unquote(text, errors="surrogateescape").translate(_LATIN_1)
    return html.unescape(_NO_CHARACTER.sub("&#", text))


def _meant(escape: re.Match[str]) -> str:
    if not escape.lastindex:
        return " "
    code = escape[escape.lastindex]
    if code in "xX":
        return "%"  # a byte may be UTF-8 with its neighbours
    return code if len(code) == 1 else chr(int(code, 16))
