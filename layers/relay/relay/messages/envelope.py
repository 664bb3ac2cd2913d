"""The envelope every door takes, and what may be wrong with one."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

MAX_TEXT = 4096
"""Characters of a text, each code point one, as the Bot API's server counts them: TDLib refuses a
bot's message by `utf8_length(text) > message_text_length_max` (td/telegram/MessageContent.cpp)."""
MAX_BUTTONS = 100
MAX_BUTTON_TEXT = 256
MAX_URL = 2048
MAX_ID = 64
MAX_REFERENCE = 256

ID_PATTERN = rf"^[A-Za-z0-9._:-]{{1,{MAX_ID}}}$"
"""A message's id: what SQS, a URL and a log line take as it is."""

ADDRESS = ("subscriberId", "botId", "number")

Location = tuple[str | int, ...]
"""Where in a document something is: the keys and indices that lead there."""

M = TypeVar("M", bound=BaseModel)


class OnUnknown(StrEnum):
    """What to do when nobody can say whether the provider took the message."""

    HOLD = "hold"
    RESEND = "resend"


@dataclass(frozen=True)
class _Matching:
    """Makes a text match a pattern, in the model and in its JSON schema alike."""

    pattern: str
    problem: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # In a JSON schema $ is the end; in Python a line break may follow it.
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


def _rfc3339_text(value: object) -> object:
    """Refuse what pydantic would take for a time besides, such as a number of seconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise PydanticCustomError(
        "time", "must be a time with its zone as in RFC 3339, such as 2026-12-01T10:00:00Z"
    )


def _within_what_numbers_hold(at: datetime) -> datetime:
    """Move a time so far off that a table or a float could not hold it; nothing depends on it."""
    return min(max(at, _EARLIEST), _LATEST)


_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EARLIEST = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

model_config = ConfigDict(
    extra="forbid",
    frozen=True,
    alias_generator=to_camel,
    serialize_by_alias=True,
    json_schema_mode_override="validation",  # one schema, also where a model is answered with
)
"""For every model a caller fills in: the contract's names and no others, in Python too."""

ProviderId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]

Number = Annotated[
    str,
    Field(max_length=MAX_ID),
    _Matching(
        "^ *[+]?[ \u00a0()-]*([0-9][ \u00a0()-]*){5,15}$",
        "must be a phone number of 5 to 15 digits in international format",
    ),
    AfterValidator(lambda number: "".join(filter(str.isdigit, number))),
]

Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT),
    _Matching(r"\S", "must not be blank"),
]

Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339_text),
    AfterValidator(_within_what_numbers_hold),
    PlainSerializer(lambda at: rfc3339(at.timestamp()), return_type=str),
]
"""A time as a caller writes it: RFC 3339, with its zone."""


class Button(BaseModel):
    """A button under the message that opens an address."""

    model_config = model_config

    text: Annotated[str, Field(min_length=1, max_length=MAX_BUTTON_TEXT)]
    url: Annotated[
        str,
        Field(max_length=MAX_URL, examples=["https://shop.example/orders/4711"]),
        _Matching(
            r"^([hH][tT][tT][pP][sS]?|[tT][gG])://[\s\S]",
            "must be an address that starts with http://, https:// or tg://",
        ),
    ]


class Content(BaseModel):
    """What is said and how, to whomever it goes."""

    model_config = model_config

    text: Text = Field(
        description="1 to 4096 characters, each Unicode code point one, as Telegram counts them."
    )
    buttons: Annotated[tuple[Button, ...], Field(max_length=MAX_BUTTONS)] = ()
    on_unknown: OnUnknown | None = Field(
        None, description="What to do if the outcome is unknown; the stack's default otherwise."
    )
    expires_at: Time | None = Field(None, description="Never sent later than this.")
    reference: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)] | None = Field(
        None, description="The caller's own tag, returned with the state."
    )

    @property
    def fingerprint(self) -> str:
        """Tell two envelopes apart without keeping what they say."""
        content = self.model_dump(
            mode="json", exclude={"id", "generation"}, exclude_defaults=True, exclude_none=True
        )
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


_TO_A_SUBSCRIBER: JsonDict = {
    "title": "To a subscriber",
    "required": ["subscriberId"],
    "properties": {
        "subscriberId": {"type": "string"},
        "botId": {"type": "null"},
        "number": {"type": "null"},
    },
}
_TO_A_NUMBER: JsonDict = {
    "title": "To a number",
    "required": ["botId", "number"],
    "properties": {
        "subscriberId": {"type": "null"},
        "botId": {"type": "string"},
        "number": {"type": "string"},
    },
}
_TO_A_SUBSCRIBER_AFTER_ALL: JsonDict = {
    "title": "All three: subscriberId wins",
    "required": [*ADDRESS],
    "properties": {name: {"type": "string"} for name in ADDRESS},
}


class Message(Content):
    """A message to one subscriber: by `subscriberId`, or by `botId` and phone `number`.

    With all three given, `subscriberId` wins and the other two are dropped, as the provider does.
    """

    model_config = {
        **model_config,
        "json_schema_extra": {
            "oneOf": [_TO_A_SUBSCRIBER, _TO_A_NUMBER, _TO_A_SUBSCRIBER_AFTER_ALL],
            "examples": [
                {
                    "subscriberId": "5f2b8c1d9e4a7b3c6d0e1f2a",
                    "text": "Order 4711 is paid. Thank you!",
                    "buttons": [{"text": "Open it", "url": "https://shop.example/orders/4711"}],
                    "reference": "order-4711",
                }
            ],
        },
    }

    subscriber_id: ProviderId | None = Field(None, description="The subscriber's id.")
    bot_id: ProviderId | None = Field(None, description="The bot's id; goes with `number`.")
    number: Number | None = Field(
        None,
        description="Phone number in international format; goes with `botId`. "
        "A leading +, spaces, dashes and brackets are stripped.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_address(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        match [name for name in ADDRESS if data.get(name) is not None]:
            case ["subscriberId"] | ["botId", "number"] | ["subscriberId", "botId", "number"]:
                return data
            case []:
                field, problem = "subscriberId", "give subscriberId, or botId with number"
            case ["botId"]:
                field, problem = "number", "is required with botId"
            case ["number"]:
                field, problem = "botId", "is required with number"
            case ["subscriberId", "botId"]:
                field, problem = "botId", "does not go with subscriberId; leave one of them out"
            case _:
                field, problem = "number", "goes with botId, not with subscriberId; leave it out"
        raise PydanticCustomError("addressing", "{problem}", {"field": field, "problem": problem})

    @model_validator(mode="after")
    def _subscriber_wins(self) -> Self:
        if self.subscriber_id is None or self.bot_id is None:
            return self
        return self.model_copy(update={"bot_id": None, "number": None})


class KeyedMessage(Message):
    """A message that may carry its own idempotency key."""

    id: (
        Annotated[str, _Matching(ID_PATTERN, "must be 1 to 64 letters, digits and . _ : -")] | None
    ) = Field(None, description="The idempotency key: 1 to 64 letters, digits and . _ : -")


class QueuedMessage(KeyedMessage):
    """A message as it lies on a queue.

    `generation` counts the orders to try it again: a dead letter carries one more than the message
    that died, so moving it back to the Messages queue sends it once more.
    """

    generation: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    broadcast: Annotated[str, Field(max_length=MAX_ID)] = ""
    """The broadcast it is one copy of, which may pause or stop it and counts what becomes of it."""

    def to_body(self) -> str:
        """Return the message as a queue body: compact JSON that any SQS message may hold."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # SQS takes only characters that XML 1.0 allows; JSON escapes all the others but these two.
        return body.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


class InvalidMessageError(ValueError):
    """The envelope breaks a rule; `problems` holds (where, what to change) pairs."""

    def __init__(self, problems: list[tuple[Location, str]]) -> None:
        self.problems = problems
        named = ((".".join(str(part) for part in where), problem) for where, problem in problems)
        super().__init__("; ".join(f"{name}: {what}" if name else what for name, what in named))


class NotJsonError(InvalidMessageError):
    """The text is no JSON document, or not one that everybody reads alike."""


def parse(model: type[M], raw: str | bytes) -> M:
    """Return the model that a JSON text holds; raise InvalidMessageError naming each bad field."""
    return validate(model, read_json(raw))


def read_json(raw: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a text holds; raise InvalidMessageError if it holds none."""
    try:
        data = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _JsonRuleError) else "must be valid JSON"
        raise NotJsonError([((), f"the body {problem}")]) from None
    if not isinstance(data, dict):
        raise InvalidMessageError([((), "the body must be a JSON object")])
    return data


def validate(model: type[M], data: object) -> M:
    """Return the model that a value holds; raise InvalidMessageError naming each bad field."""
    if not isinstance(data, dict):
        raise InvalidMessageError([((), "must be a JSON object")])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidMessageError(problems(found)) from None


def problems(errors: Iterable[Mapping[str, Any]]) -> list[tuple[Location, str]]:
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


def rfc3339(at: float) -> str:
    """Return an epoch time as RFC 3339 in UTC, to the millisecond."""
    # Rounded, as the table rounds: what is said at once is what is said later.
    rounded = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(at * 1000))
    text = rounded.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


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
