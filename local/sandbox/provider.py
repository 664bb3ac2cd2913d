"""What the provider's documentation asks of a request, as pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from local.sandbox.roster import Bot, Credentials, Listed, Roster

Json = Any  # whatever JSON can hold

TEXT_LIMIT = 4096  # Telegram's own limit of a message
FIELDS = {"subscriberId", "botId", "number", "text", "buttons", "auth"}


class RefusedError(Exception):
    """A request that the provider refuses: an HTTP status and a reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """A message the provider takes: whom it goes to and what it says."""

    bot: Bot
    subscriber: Listed
    number: str | None
    text: str
    buttons: list[dict[str, str]]


def read_query(query: Sequence[tuple[str, str]], names: set[str]) -> dict[str, str]:
    """Read a GET's parameters: each named one once, not empty, and no other."""
    values = dict(query)
    if len(values) < len(query):
        raise RefusedError(400, "a parameter is given twice")
    if unknown := sorted(values.keys() - names):
        raise RefusedError(400, f"unknown parameter: {', '.join(unknown)}")
    if missing := sorted(name for name in names if not values.get(name)):
        raise RefusedError(400, f"missing parameter: {', '.join(missing)}")
    return values


def check_credentials(credentials: Credentials, user: str, password: str) -> None:
    """Refuse anyone but the account."""
    if not credentials.admit(user, password):
        raise RefusedError(401, "wrong user or pass")


def find_bot(roster: Roster, bot_id: str) -> Bot:
    """Find a connected bot, or refuse."""
    bot = roster.bots.get(bot_id)
    if bot is None:
        raise RefusedError(404, "botId: no such bot")
    return bot


def read_body(content_type: str, raw: bytes) -> dict[str, Json]:
    """Read a POST's body: one JSON object in UTF-8, without NaN and duplicate keys."""
    if content_type != "application/json":
        raise RefusedError(415, "Content-Type must be application/json")
    try:
        body = json.loads(
            raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates
        )
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not valid JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return body


def check_auth(credentials: Credentials, body: Mapping[str, Json]) -> None:
    """Check the body's `auth` block."""
    auth = body.get("auth")
    if not isinstance(auth, dict):
        raise RefusedError(400, "auth: missing, or not an object")
    _no_others("auth", auth, {"user", "pass"})
    check_credentials(
        credentials, _text("auth.user", auth.get("user")), _text("auth.pass", auth.get("pass"))
    )


def read_message(roster: Roster, body: Mapping[str, Json]) -> Message:
    """Read a message whose credentials were checked."""
    _no_others("the body", body, FIELDS)
    bot, subscriber = _recipient(roster, body)
    if subscriber.get("blocked"):
        raise RefusedError(400, "the subscriber has blocked the bot")
    text = _text("text", body.get("text"))
    if not text.strip():
        raise RefusedError(400, "text: empty")
    if len(text) > TEXT_LIMIT:
        raise RefusedError(400, f"text: longer than {TEXT_LIMIT} characters")
    number = None if "subscriberId" in body else body["number"]
    return Message(bot, subscriber, number, text, _buttons(body.get("buttons", [])))


def _recipient(roster: Roster, body: Mapping[str, Json]) -> tuple[Bot, Listed]:
    given = {
        name: _text(name, body[name])
        for name in ("subscriberId", "botId", "number")
        if name in body
    }
    match sorted(given):
        case ["subscriberId"] | ["botId", "number", "subscriberId"]:  # all three: this one wins
            found = roster.by_id(given["subscriberId"])
            if found is None:
                raise RefusedError(404, "subscriberId: no such subscriber")
        case ["botId", "number"]:
            if not (given["number"].isascii() and given["number"].isdigit()):
                raise RefusedError(400, "number: digits only, in international format without +")
            find_bot(roster, given["botId"])
            found = roster.by_number(given["botId"], given["number"])
            if found is None:
                raise RefusedError(404, "number: no such subscriber of this bot")
        case []:
            raise RefusedError(400, "subscriberId, or botId with number, is missing")
        case ["botId"]:
            raise RefusedError(400, "botId without number")
        case ["number"]:
            raise RefusedError(400, "number without botId")
        case _:
            raise RefusedError(400, "subscriberId and botId with number exclude each other")
    return found


def _buttons(buttons: Json) -> list[dict[str, str]]:
    if not isinstance(buttons, list):
        raise RefusedError(400, "buttons: not an array")
    for n, button in enumerate(buttons):
        if not isinstance(button, dict):
            raise RefusedError(400, f"buttons[{n}]: not an object")
        _no_others(f"buttons[{n}]", button, {"text", "url"})
        for name in ("text", "url"):
            _text(f"buttons[{n}].{name}", button.get(name))
    return buttons


def _text(name: str, value: Json) -> str:
    if value is None or value == "":
        raise RefusedError(400, f"{name}: missing or empty")
    if not isinstance(value, str):
        raise RefusedError(400, f"{name}: not a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError(400, f"{name}: half of a surrogate pair") from None
    return value


def _no_others(where: str, value: Mapping[str, Json], known: set[str]) -> None:
    if value.keys() - known:
        raise RefusedError(400, f"{where}: a field beside {', '.join(sorted(known))}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("duplicate key")
    return value
