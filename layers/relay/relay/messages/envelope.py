"""The envelope that every door takes."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from relay.messages.hours import Hours
from relay.validation import Matching, model_config

MAX_TEXT = 4096
"""Characters of a text, each code point one, as the Bot API's server counts them: TDLib refuses a
bot's message by `utf8_length(text) > message_text_length_max` (td/telegram/MessageContent.cpp)."""
MAX_BUTTONS = 100
MAX_BUTTON_TEXT = 256
MAX_URL = 2048
MAX_ID = 64
MAX_REFERENCE = 256

ID_PATTERN = rf"^[A-Za-z0-9._:-]{{1,{MAX_ID}}}$"
"""A message's id: safe in SQS, a URL and a log line without escaping."""

ADDRESS = ("subscriberId", "botId", "number")

FINGERPRINTS = ""
"""What every fingerprint begins with: it tells how the fingerprint was made. To be raised to "2:",
and so on, whenever that changes; else what is in flight then is refused as another message."""


class OnUnknown(StrEnum):
    """What to do when a send's outcome is unknown."""

    HOLD = "hold"
    RESEND = "resend"


def _rfc3339_text(value: object) -> object:
    """Refuse what pydantic also accepts as a time, such as a number of seconds."""
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise PydanticCustomError(
        "time", "must be a time with its zone as in RFC 3339, such as 2026-12-01T10:00:00Z"
    )


def _within_what_numbers_hold(at: datetime) -> datetime:
    """Clamp a time to what the table and a float can hold; no real time is affected."""
    return min(max(at, _EARLIEST), _LATEST)


def _within_what_calendars_hold(at: datetime) -> datetime:
    """Clamp a time from which days are counted, in any time zone; no real time is affected."""
    return min(at, _LATEST_BEGIN)


_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EARLIEST = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_LATEST_BEGIN = datetime(9999, 1, 1, tzinfo=UTC)

ProviderId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]

Number = Annotated[
    str,
    Field(max_length=MAX_ID),
    Matching(
        "^ *[+]?[ \u00a0()-]*([0-9][ \u00a0()-]*){5,15}$",
        "must be a phone number of 5 to 15 digits in international format",
    ),
    AfterValidator(lambda number: "".join(filter(str.isdigit, number))),
]

Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT),
    Matching(r"\S", "must not be blank"),
]

Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339_text),
    AfterValidator(_within_what_numbers_hold),
    PlainSerializer(lambda at: rfc3339(at.timestamp()), return_type=str),
]
"""A time as a caller writes it: RFC 3339, with its zone."""


_UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Control characters, line breaks, and what turns the direction of a text round."""

_USER = rf"([^{_UNSEEN}/?#@\\]*@)?"
_HOST = rf'(\[[0-9A-Fa-f:.]+\]|([^{_UNSEEN}/?#@\\:\[\]%"<>^`{{|}}]|%[0-9A-Fa-f]{{2}})+)'
_PORT = (
    "(:0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_REST = rf"([/?#][^{_UNSEEN}]*)?"
URL_PATTERN = rf"^([hH][tT][tT][pP][sS]?://{_USER}{_HOST}{_PORT}{_REST}|[tT][gG]://[^{_UNSEEN}]+)$"
"""What Telegram's server takes for an address: a host as in TDLib's td/utils/HttpUrl.cpp, where any
other is an error and costs the message. It is laxer in one point: a host may hold spaces, since the
provider's own example of a button has some."""


class Button(BaseModel):
    """A button under the message that opens an address."""

    model_config = model_config

    text: Annotated[str, Field(min_length=1, max_length=MAX_BUTTON_TEXT)]
    url: Annotated[
        str,
        Field(max_length=MAX_URL, examples=["https://shop.example/orders/4711"]),
        Matching(
            URL_PATTERN,
            "must be an address that starts with http://, https:// or tg://, with a valid host and "
            "without line breaks or control characters",
        ),
    ]


class Content(BaseModel):
    """What a message says and how it is treated, whoever gets it."""

    model_config = model_config

    text: Text = Field(
        description="1 to 4096 characters, each Unicode code point one, as Telegram counts them."
    )
    buttons: Annotated[tuple[Button, ...], Field(max_length=MAX_BUTTONS)] = ()
    on_unknown: OnUnknown | None = Field(
        None, description="What to do if the outcome is unknown; the stack's default otherwise."
    )
    send_at: Annotated[Time, AfterValidator(_within_what_calendars_hold)] | None = Field(
        None,
        description="Not sent before this: up to 12 days ahead. It waits outside its chat's line.",
    )
    between: Hours | None = Field(
        None, description="Only sent within these hours of the day, retries included."
    )
    expires_at: Time | None = Field(
        None, description="Never sent later than this; it must be later than `sendAt`."
    )
    reference: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)] | None = Field(
        None, description="The caller's own tag, returned with the state."
    )

    @model_validator(mode="after")
    def _expires_later_than_it_is_sent(self) -> Self:
        if self.send_at and self.expires_at and self.expires_at <= self.send_at:
            problem = {"field": "expiresAt", "problem": "must be later than sendAt"}
            raise PydanticCustomError("expiry", "{problem}", problem)
        return self

    def may_go_at(self, at: float) -> float:
        """Return the first moment from `at` on at which it may be sent."""
        if self.send_at:
            at = max(at, self.send_at.timestamp())
        return self.between.opens_at(at) if self.between else at

    def may_go_throughout(self, since: float, until: float) -> bool:
        """Return whether it may be sent at any moment from the one to the other."""
        if self.may_go_at(since) > since:
            return False
        return self.between is None or self.between.closes_at(since) > until

    @property
    def fingerprint(self) -> str:
        """A hash that differs for different envelopes, so that none of their text is kept."""
        content = self.model_dump(
            mode="json",
            exclude={"id", "generation", "in_order"},
            exclude_defaults=True,
            exclude_none=True,
        )
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return FINGERPRINTS + hashlib.sha256(canonical.encode()).hexdigest()


def differ(fingerprint: str, other: str) -> bool:
    """Return whether two fingerprints are of different envelopes.

    Two that were not made in the same way say nothing: the envelopes count as the same.
    """
    return fingerprint != other and _made(fingerprint) == _made(other)


def _made(fingerprint: str) -> str:
    return fingerprint.rpartition(":")[0]


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


def one_address(data: Any) -> Any:
    """Return the fields of what is addressed, unless they are no address."""
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
    in_order: StrictBool = Field(
        True,
        description="Whether it waits until earlier messages to the same chat have ended. `false`: "
        "it overtakes those that are being retried.",
    )

    @property
    def chat(self) -> str:
        """The chat it goes to, as a hash that tells no number: 32 characters.

        One chat has two, if it is addressed by subscriber and by number.
        """
        return chat_of(self.subscriber_id, self.bot_id, self.number)

    @model_validator(mode="before")
    @classmethod
    def _one_address(cls, data: Any) -> Any:
        return one_address(data)

    @model_validator(mode="after")
    def _subscriber_wins(self) -> Self:
        if self.subscriber_id is None or self.bot_id is None:
            return self
        return self.model_copy(update={"bot_id": None, "number": None})


class KeyedMessage(Message):
    """A message that may carry its own idempotency key."""

    id: (
        Annotated[str, Matching(ID_PATTERN, "must be 1 to 64 letters, digits and . _ : -")] | None
    ) = Field(None, description="The idempotency key: 1 to 64 letters, digits and . _ : -")


class QueuedMessage(KeyedMessage):
    """A message as it lies on a queue.

    `generation` counts redrives: a dead letter carries one more than the message that failed, so
    moving it back to the Messages queue sends it once more.
    """

    model_config = {"defer_build": False}  # every function's first message needs it

    generation: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    broadcast: Annotated[str, Field(max_length=MAX_ID)] = ""
    """The id of the broadcast it belongs to, which may hold or cancel it, and counts it."""

    def to_body(self) -> str:
        """Return the message as a queue body: compact JSON that any SQS message may hold.

        Which queue it lies on says whether it is to keep its order.
        """
        content = self.model_dump(
            mode="json", exclude={"in_order"}, exclude_defaults=True, exclude_none=True
        )
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # SQS takes only characters that XML 1.0 allows; JSON escapes all the others but these two.
        return body.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def chat_of(*address: str | None) -> str:
    """Return the chat at an address: a subscriber's id, or a bot's and a number."""
    return hashlib.sha256("\0".join(filter(None, address)).encode()).hexdigest()[:32]


def rfc3339(at: float) -> str:
    """Return an epoch time as RFC 3339 in UTC, to the millisecond."""
    # Rounded as the table rounds, so that every answer shows the same time.
    rounded = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=round(at * 1000))
    text = rounded.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
