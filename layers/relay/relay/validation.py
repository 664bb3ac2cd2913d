"""JSON and models in, problems by field out.

Every door reads its input here, so that the same mistake gets the same answer everywhere. What is
wrong is told as (where, what to change) pairs that never repeat a value.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

Location = tuple[str | int, ...]
"""A place in a document: the keys and indices that lead to it."""

M = TypeVar("M", bound=BaseModel)

model_config = ConfigDict(
    extra="forbid",
    frozen=True,
    alias_generator=to_camel,
    serialize_by_alias=True,
    defer_build=True,  # most are only used within others, or by few requests: docs/performance.md
    json_schema_mode_override="validation",  # one schema, also where a model is answered with
)
"""For models that callers fill in: camelCase names, unknown fields refused."""


@dataclass(frozen=True)
class Matching:
    """Requires a text to match a pattern, in the model and in its JSON schema alike."""

    pattern: str
    problem: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # In a JSON schema $ is the end; in Python it also matches before a final line break.
        compiled = re.compile(re.sub(r"\$$", r"\\Z", self.pattern))

        def match(text: str) -> str:
            if not compiled.search(text):
                raise PydanticCustomError("pattern", "{problem}", {"problem": self.problem})
            return text

        return no_info_after_validator_function(match, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}


class InvalidMessageError(ValueError):
    """The input breaks a rule; `problems` holds (where, what to change) pairs."""

    def __init__(self, problems: list[tuple[Location, str]]) -> None:
        self.problems = problems
        named = ((".".join(str(part) for part in where), problem) for where, problem in problems)
        super().__init__("; ".join(f"{name}: {what}" if name else what for name, what in named))


class NotJsonError(InvalidMessageError):
    """The text is not JSON, or JSON that parsers read differently, such as with a field twice."""


def parse(model: type[M], raw: str | bytes) -> M:
    """Read a model from a JSON text; raise InvalidMessageError naming each bad field."""
    return validate(model, read_json(raw))


def read_json(raw: str | bytes) -> dict[str, Any]:
    """Read a JSON object from a text; raise InvalidMessageError if it holds none."""
    try:
        data = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _JsonRuleError) else "must be valid JSON"
        raise NotJsonError([((), f"the body {problem}")]) from None
    if not isinstance(data, dict):
        raise InvalidMessageError([((), "the body must be a JSON object")])
    return data


def validate(model: type[M], data: object) -> M:
    """Make a model of a value; raise InvalidMessageError naming each bad field."""
    if not isinstance(data, dict):
        raise InvalidMessageError([((), "must be a JSON object")])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidMessageError(field_problems(found)) from None


def field_problems(errors: Iterable[Mapping[str, Any]]) -> list[tuple[Location, str]]:
    """Return pydantic's errors as (where, what to change) pairs that repeat no value."""
    found: list[tuple[Location, str]] = []
    for item in errors:
        context = item.get("ctx") or {}
        where = [*item["loc"], *([context["field"]] if "field" in context else [])]
        match item["type"]:
            case "extra_forbidden":
                problem = "is not a known field; check its spelling"
            case "missing":
                problem = "is required"
            case "tuple_type" | "list_type":
                problem = "must be an array"
            case "model_type" | "model_attributes_type" | "dict_type":
                problem = "must be a JSON object"
            case _:
                problem = item["msg"].removeprefix("Input ").replace("should", "must", 1)
                problem = problem[:1].lower() + problem[1:]
        path = tuple(part if isinstance(part, int) else _printable(part) for part in where)
        found.append((path, _printable(problem, 300)))
    return found


class _JsonRuleError(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _JsonRuleError(f"has the field {_printable(twice)} twice; give it once")
    return found


def _no_constants(name: str) -> object:
    raise _JsonRuleError(f"holds {name}, which JSON does not have")


def _printable(text: str, limit: int = 64) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
