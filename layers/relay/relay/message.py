"""The envelope every door takes, and what may be wrong with one."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MAX_TEXT = 4096
"""Length of a text, as `telegram_length` counts it (Telegram Bot API, sendMessage)."""
MAX_BUTTONS = 100
MAX_BUTTON_TEXT = 256
MAX_URL = 2048
MAX_ID = 64
MAX_REFERENCE = 256

BUTTON_SCHEMES = ("http://", "https://", "tg://")


M = TypeVar("M", bound=BaseModel)


class OnUnknown(StrEnum):
    """What to do when nobody can say whether the provider took the message."""

    HOLD = "hold"
    RESEND = "resend"


def telegram_length(text: str) -> int:
    """Return a text's length in UTF-16 code units, the unit Telegram counts in."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _at_most_a_telegram_text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    if (length := telegram_length(text)) > MAX_TEXT:
        raise PydanticCustomError(
            "too_long",
            "has {length} characters as Telegram counts them; shorten it to {limit}",
            {"length": length, "limit": MAX_TEXT},
        )
    return text


_model = ConfigDict(
    extra="forbid",
    frozen=True,
    alias_generator=to_camel,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
)

ProviderId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]


class Button(BaseModel):
    """A button under the message that opens an address."""

    model_config = _model

    text: Annotated[str, Field(min_length=1, max_length=MAX_BUTTON_TEXT)]
    url: Annotated[str, Field(max_length=MAX_URL)]

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        scheme = next((s for s in BUTTON_SCHEMES if url.lower().startswith(s)), None)
        if scheme is None or len(url) == len(scheme):
            raise PydanticCustomError(
                "button_url", "must be an address that starts with http://, https:// or tg://"
            )
        return url


class Message(BaseModel):
    """A message to one subscriber: by `subscriberId`, or by `botId` and phone `number`.

    With all three given, `subscriberId` wins and the other two are dropped, as the provider does.
    """

    model_config = _model

    subscriber_id: ProviderId | None = Field(None, description="The subscriber's id.")
    bot_id: ProviderId | None = Field(None, description="The bot's id; goes with `number`.")
    number: str | None = Field(
        None,
        description="Phone number in international format; goes with `botId`. "
        "A leading +, spaces, dashes and brackets are stripped.",
    )
    text: str = Field(description="1 to 4096 characters, as Telegram counts them.")
    buttons: Annotated[tuple[Button, ...], Field(max_length=MAX_BUTTONS)] = ()
    on_unknown: OnUnknown | None = Field(
        None, description="What to do if the outcome is unknown; the stack's default otherwise."
    )
    expires_at: AwareDatetime | None = Field(None, description="Never sent later than this.")
    reference: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)] | None = Field(
        None, description="The caller's own tag, returned with the state."
    )

    _text_fits = field_validator("text")(_at_most_a_telegram_text)

    @model_validator(mode="before")
    @classmethod
    def _one_address(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        names = {
            "subscriberId": ("subscriberId", "subscriber_id"),
            "botId": ("botId", "bot_id"),
            "number": ("number",),
        }
        given = {name for name, keys in names.items() if any(data.get(k) is not None for k in keys)}
        match sorted(given):
            case ["subscriberId"] | ["botId", "number"]:
                return data
            case ["botId", "number", "subscriberId"]:
                dropped = {*names["botId"], *names["number"]}
                return {key: value for key, value in data.items() if key not in dropped}
            case []:
                field, problem = "subscriberId", "give subscriberId, or botId with number"
            case ["botId"]:
                field, problem = "number", "is required with botId"
            case ["number"]:
                field, problem = "botId", "is required with number"
            case ["botId", "subscriberId"]:
                field, problem = "botId", "does not go with subscriberId; leave one of them out"
            case _:
                field, problem = "number", "goes with botId, not with subscriberId; leave it out"
        raise PydanticCustomError("addressing", "{problem}", {"field": field, "problem": problem})

    @field_validator("number")
    @classmethod
    def _digits_only(cls, number: str | None) -> str | None:
        if number is None:
            return None
        digits = number.strip().removeprefix("+").translate(str.maketrans("", "", " \u00a0-()"))
        if not (digits.isascii() and digits.isdigit() and 5 <= len(digits) <= 15):
            raise PydanticCustomError(
                "number", "must be a phone number of 5 to 15 digits in international format"
            )
        return digits

    @field_serializer("expires_at")
    def _in_utc(self, at: datetime | None) -> str | None:
        return rfc3339(at.timestamp()) if at else None

    @property
    def fingerprint(self) -> str:
        """Tell two envelopes apart without keeping what they say."""
        content = self.model_dump(mode="json", exclude={"id", "generation"}, exclude_defaults=True)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class KeyedMessage(Message):
    """A message that may carry its own idempotency key."""

    id: Annotated[str, Field(pattern=rf"^[A-Za-z0-9._:-]{{1,{MAX_ID}}}$")] | None = Field(
        None, description="The idempotency key: letters, digits and . _ : -"
    )


class QueuedMessage(KeyedMessage):
    """A message as it lies on a queue.

    `generation` counts the orders to try it again: a dead letter carries one more than the message
    that died, so moving it back to the Messages queue sends it once more.
    """

    generation: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    def to_body(self) -> str:
        """Return the message as a queue body: compact JSON that any SQS message may hold."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # SQS takes only characters that XML 1.0 allows; JSON escapes all the others but these two.
        return body.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


class InvalidMessageError(ValueError):
    """The envelope breaks a rule; `problems` holds (field, what to change) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__(
            "; ".join(f"{field}: {problem}" if field else problem for field, problem in problems)
        )


def parse(model: type[M], raw: str | bytes) -> M:
    """Return the model that a JSON text holds; raise InvalidMessageError naming each bad field."""
    try:
        data = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _JsonRuleError) else "must be valid JSON"
        raise InvalidMessageError([("", f"the body {problem}")]) from None
    return validate(model, data)


def validate(model: type[M], data: object) -> M:
    """Return the model that a value holds; raise InvalidMessageError naming each bad field."""
    if not isinstance(data, dict):
        raise InvalidMessageError([("", "the body must be a JSON object")])
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidMessageError(problems(error)) from None


def problems(error: ValidationError) -> list[tuple[str, str]]:
    """Return a validation error as (field, what to change) pairs that repeat no value."""
    found = []
    for item in error.errors(include_url=False, include_input=False):
        context = item.get("ctx", {})
        path = [*item["loc"], *([context["field"]] if "field" in context else [])]
        name = ".".join(_printable(str(part)) for part in path)
        match item["type"]:
            case "extra_forbidden":
                problem = "is not a known field; check its spelling"
            case "missing":
                problem = "is required"
            case _:
                problem = item["msg"][:1].lower() + item["msg"][1:]
        found.append((name, _printable(problem, 300)))
    return found


def rfc3339(at: float) -> str:
    """Return an epoch time as RFC 3339 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class _JsonRuleError(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _JsonRuleError(f"has the field {_printable(twice)} twice; give it once")
    return found


def _no_constants(name: str) -> object:
    raise _JsonRuleError(f"holds {name}, which JSON does not have")


def _printable(text: str, limit: int = 64) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
