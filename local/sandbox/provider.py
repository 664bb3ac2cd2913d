"""What the provider's documentation demands of a request, as pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from local.sandbox.roster import Bot, Credentials, Listed, Roster

Json = Any  # whatever JSON can hold

TEXT_LIMIT = 4096  # characters; Telegram's limit
FIELDS = {"subscriberId", "botId", "number", "text", "buttons", "auth"}


class RefusedError(Exception):
    """The provider refuses the request, with an HTTP status and a reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """A message that the provider accepts: its recipient and its content."""

    bot: Bot
    subscriber: Listed
    number: str | None
    text: str
    buttons: list[dict[str, str]]


def read_query(query: Sequence[tuple[str, str]], names: set[str]) -> dict[str, str]:
    """Read a GET's parameters: these, each once and not empty, and no others."""
    values = dict(query)
    if len(values) < len(query):
        raise RefusedError(400, "a parameter is given twice")
    if unknown := sorted(values.keys() - names):
        raise RefusedError(400, f"unknown parameter: {', '.join(unknown)}")
    if missing := sorted(name for name in names if not values.get(name)):
        raise RefusedError(400, f"missing parameter: {', '.join(missing)}")
    return values


def check_credentials(credentials: Credentials, user: str, password: str) -> None:
    """Refuse credentials that are not the account's."""
    if not credentials.admit(user, password):
        raise RefusedError(401, "wrong user or pass")


def find_bot(roster: Roster, bot_id: str) -> Bot:
    """Return the bot with this id, or refuse."""
    bot = roster.bots.get(bot_id)
    if bot is None:
        raise RefusedError(404, "botId: no such bot")
    return bot


def read_body(content_type: str, raw: bytes) -> dict[str, Json]:
    """Read a POST's body: a JSON object in UTF-8 without NaN or duplicate keys."""
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
    """Refuse a body whose `auth` is malformed or not the account's."""
    auth = body.get("auth")
    if not isinstance(auth, dict):
        raise RefusedError(400, "auth: missing, or not an object")
    _no_others("auth", auth, {"user", "pass"})
    check_credentials(
        credentials, _text("auth.user", auth.get("user")), _text("auth.pass", auth.get("pass"))
    )


def read_message(roster: Roster, body: Mapping[str, Json]) -> Message:
    """Read the message from a body whose `auth` was checked."""
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
        case ["subscriberId"] | ["botId", "number", "subscriberId"]:  # of all three, it wins
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
            raise RefusedError(400, "give subscriberId, or botId with number")
        case ["botId"]:
            raise RefusedError(400, "botId without number")
        case ["number"]:
            raise RefusedError(400, "number without botId")
        case _:
            raise RefusedError(400, "give either subscriberId, or botId with number")
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
        raise RefusedError(400, f"{name}: contains half of a surrogate pair") from None
    return value


def _no_others(where: str, value: Mapping[str, Json], known: set[str]) -> None:
    if value.keys() - known:
        raise RefusedError(400, f"{where}: only {', '.join(sorted(known))} are allowed")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("duplicate key")
    return value
