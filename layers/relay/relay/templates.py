"""A small, safe template language: plain text with `{{ JMESPath }}` over a JSON payload. Pure.

An expression that finds nothing renders as nothing, and a line with nothing but such expressions is
left out. A list renders one element per line, and any other value on one line: whoever chooses a
title cannot add lines to the message. Expressions may call `FUNCTIONS`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import quote

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions, signature
from jmespath.parser import ParsedResult

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NOTHING = "\0"
"""Marks where an expression found nothing, so that lines with nothing else can be left out."""


class TemplateError(ValueError):
    """An expression cannot be parsed, or fails on this payload; the text says why."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What expressions can see: the payload, and the request's headers under lower-case names."""

    data: object
    headers: Mapping[str, str]


class _Lines(str):
    """A text that keeps its line breaks."""

    __slots__ = ()


class _Functions(Functions):
    """JMESPath's functions, and the templates' own."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    @signature({"types": ["string"]})
    def _func_header(self, name: str) -> str | None:
        return self._headers.get(name.lower())

    @signature({"types": [], "variadic": True})
    def _func_text(self, *parts: object) -> str:
        return "".join(_text(part) for part in parts)

    @signature({"types": []})
    def _func_first_line(self, value: object) -> str:
        return next(iter(_text(value).strip().splitlines()), "")

    @signature({"types": []})
    def _func_lines(self, value: object) -> str:
        return _Lines(_text(value))

    @signature({"types": []}, {"types": ["number"]})
    def _func_cut(self, value: object, limit: float) -> str:
        return cut(_text(value), max(1, int(limit)))

    @signature({"types": []}, {"types": ["number"]})
    def _func_decimal(self, value: object, places: float) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= places <= 18:
            return None
        return f"{Decimal(value).scaleb(-int(places)):f}"

    @signature({"types": []})
    def _func_urlencode(self, value: object) -> str:
        return quote(_text(value), safe="")


FUNCTIONS = frozenset(_Functions.FUNCTION_TABLE)
"""The functions an expression may call."""


class Expression:
    """One JMESPath expression."""

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        try:
            self._parsed: ParsedResult = jmespath.compile(self.source)
        except JMESPathError as error:
            raise TemplateError(f"{self.source!r} is not JMESPath: {_one_line(error)}") from None
        for name in _called(self._parsed.parsed):
            if name not in FUNCTIONS:
                raise TemplateError(f"{self.source!r} calls {name}(), which does not exist")

    def value(self, payload: Payload) -> object:
        """Return what the expression finds; raise TemplateError if it cannot be evaluated."""
        options = jmespath.Options(custom_functions=_Functions(payload.headers))
        try:
            return self._parsed.search(payload.data, options=options)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise TemplateError(f"{self.source!r}: {_one_line(error)}") from None

    def text(self, payload: Payload) -> str:
        """Return what the expression finds, as rendered; raise TemplateError as `value` does."""
        try:
            return _rendered(self.value(payload))
        except RecursionError:
            raise TemplateError(f"{self.source!r}: the result is nested too deeply") from None

    def holds(self, payload: Payload) -> bool:
        """Return whether JMESPath counts what the expression finds as true."""
        value = self.value(payload)
        return value is not None and value is not False and value not in ("", [], {})


class Template:
    """A text with `{{ expressions }}` in it."""

    def __init__(self, source: str) -> None:
        self.source = source
        pieces = _PLACEHOLDER.split(source)
        if any("{{" in text or "}}" in text for text in pieces[::2]):
            raise TemplateError(f"{source!r} has unbalanced braces; write {{{{ expression }}}}")
        self._constants = pieces[::2]
        self._expressions = [Expression(piece) for piece in pieces[1::2]]
        self.is_constant = len(pieces) == 1
        self.holes = len(self._expressions)

    def render(self, payload: Payload) -> str:
        """Return the text for a payload; raise TemplateError if it cannot be rendered."""
        return self.fill(self.values(payload))

    def values(self, payload: Payload) -> list[str]:
        """Return what each expression finds, as rendered; raise TemplateError if one fails."""
        return [expression.text(payload) for expression in self._expressions]

    def fill(self, values: Sequence[str]) -> str:
        """Return the text with what its expressions have found: all it says of a payload."""
        text = self._constants[0]
        for value, constant in zip(values, self._constants[1:], strict=True):
            text += (value or _NOTHING) + (constant or _NOTHING)
        lines = [
            line.replace(_NOTHING, "")
            for line in text.split("\n")
            if _NOTHING not in line or line.replace(_NOTHING, "").strip()
        ]
        return "\n".join(lines).strip()


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text; if it was cut, it ends in …."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _rendered(value: object) -> str:
    match value:
        case _Lines():
            return value
        case list():
            return "\n".join(text for item in value if (text := _rendered(item)))
        case _:
            return _on_one_line(_text(value))


def _on_one_line(text: str) -> str:
    lines = text.splitlines()
    return text if lines == [text] else " ".join(line for each in lines if (line := each.strip()))


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            # No queue or encoder takes NUL or half of a surrogate pair.
            return (
                value.replace(_NOTHING, "")
                .encode("utf-16", "surrogatepass")
                .decode("utf-16", "replace")
            )
        case list():
            return "\n".join(text for item in value if (text := _text(item)))
        case _:
            return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _called(node: object) -> list[str]:
    """Return the names of the functions that a parsed expression calls."""
    if not isinstance(node, dict):
        return []
    own = [str(node["value"])] if node.get("type") == "function_expression" else []
    return own + [name for child in node.get("children", []) for name in _called(child)]


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
