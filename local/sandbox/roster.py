"""The account: its credentials, its bots and their subscribers."""

import hmac
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

Listed = dict[str, Any]
"""A bot or a subscriber as the provider lists it."""

FIRST_NAMES = ("Анна", "Olivia", "Дмитрий", "James", "Екатерина", "Emma", "Михаил", "Noah")
CITIES = (
    ("Москва", "Europe/Moscow"),
    ("Екатеринбург", "Asia/Yekaterinburg"),
    ("London", "Europe/London"),
    ("Калининград", "Europe/Kaliningrad"),
)
TAGS = (("vip",), (), ("new", "shop"))
LAST_NAMES = ("Белова", "Smith", "Орлов", "Taylor", "Ким", "Walker", "Лебедев")


@dataclass
class Credentials:
    """The account's user and its valid passwords."""

    user: str
    passwords: list[str] = field(repr=False)

    def admit(self, user: str, password: str) -> bool:
        """Return whether they are the account's."""
        return user == self.user and any(
            hmac.compare_digest(password.encode(), valid.encode()) for valid in self.passwords
        )


@dataclass
class Bot:
    """A connected bot and its list of subscribers, which may hold odd entries."""

    id: str
    name: str
    username: str
    subscribers: list[Listed] = field(default_factory=list)

    def entry(self) -> Listed:
        """Return the bot as the provider lists it."""
        return {"id": self.id, "name": self.name, "username": self.username}


class Roster:
    """The bots by id, and their subscribers by id and by phone number."""

    def __init__(self) -> None:
        self.bots: dict[str, Bot] = {}
        self._by_id: dict[str, tuple[Bot, Listed]] = {}
        self._by_number: dict[tuple[str, str], tuple[Bot, Listed]] = {}
        self._numbers = (str(number) for number in range(79990000000, 80000000000))

    def add_bot(self, name: str, username: str, bot_id: str | None = None) -> Bot:
        """Add a bot, or rename the one that has this id."""
        bot = Bot(bot_id or secrets.token_hex(12), name, username)
        if known := self.bots.get(bot.id):
            known.name, known.username = name, username
            return known
        self.bots[bot.id] = bot
        return bot

    def add_subscribers(self, bot: Bot, entries: Iterable[Listed]) -> int:
        """Append entries unchanged, even if they repeat one or have no id."""
        added = list(entries)
        bot.subscribers += added
        for entry in added:
            if isinstance(entry.get("id"), str):
                self._by_id[entry["id"]] = (bot, entry)
            if isinstance(entry.get("number"), str):
                self._by_number[bot.id, entry["number"]] = (bot, entry)
        return len(added)

    def empty(self, bot: Bot) -> None:
        """Remove all of a bot's subscribers."""
        bot.subscribers.clear()
        self._by_id = {key: found for key, found in self._by_id.items() if found[0] is not bot}
        self._by_number = {k: found for k, found in self._by_number.items() if found[0] is not bot}

    def made_up(self, count: int, *, blocked: bool = False) -> Iterator[Listed]:
        """Yield made-up subscribers with new ids and phone numbers."""
        names = zip(cycle(FIRST_NAMES), cycle(LAST_NAMES), self._numbers, strict=False)
        for first, last, number in islice(names, count):
            entry: Listed = {"id": secrets.token_hex(12), "name": f"{first} {last}"}
            about = about_them(int(number))
            yield entry | {"number": number} | about | ({"blocked": True} if blocked else {})

    def by_id(self, subscriber_id: str) -> tuple[Bot, Listed] | None:
        """Return the subscriber with this id, of whichever bot."""
        return self._by_id.get(subscriber_id)

    def by_number(self, bot_id: str, number: str) -> tuple[Bot, Listed] | None:
        """Return the bot's subscriber with this phone number."""
        return self._by_number.get((bot_id, number))


def about_them(n: int) -> Listed:
    """Return what else is known of somebody made up."""
    city, timezone = CITIES[n % len(CITIES)]
    return {"city": city, "timezone": timezone, "tags": list(TAGS[n % len(TAGS)])}


def furnished() -> Roster:
    """Return the roster that every sandbox starts with."""
    roster = Roster()
    shop = roster.add_bot("Магазин «Ромашка»", "romashka_shop_bot", "65f1c0a2b3d4e5f6a7b8c901")
    clinic = roster.add_bot("Northside Clinic", "northside_clinic_bot", "65f1c0a2b3d4e5f6a7b8c902")
    for bot, people in (
        (shop, ("Анна Белова", "Дмитрий Орлов", "Olivia Smith", "Тимур Ким")),
        (clinic, ("James Taylor", "Екатерина Лебедева", "Emma Walker")),
    ):
        last = bot.id[-1]
        roster.add_subscribers(
            bot,
            (
                {
                    "id": f"65f1c0a2b3d4e5f6a7b8d{last}{n:02}",
                    "name": name,
                    "number": f"7916000{last}0{n:02}",
                    **about_them(n),
                }
                for n, name in enumerate(people, start=1)
            ),
        )
    return roster
