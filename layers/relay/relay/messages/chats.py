"""When each chat may get its next message, as far as one environment knows.

Telegram limits each chat, and can ask for hours of quiet in one of them. What the provider answered
to one run is a matter of all runs: the pacer keeps it in the table, and each run hears of it with
its slots. What was sent a moment ago is remembered here alone: the Ordered queue has the runs take
turns, so that the next message to a chat mostly comes to the same environment, or a second later.
"""

import time
from collections.abc import Callable, Mapping

from relay.messages.lines import CHAT_SECONDS

REMEMBERED = 10_000
"""Chats that are remembered at most; those that are over are forgotten first."""


class Chats:
    """The chats that have to wait; may be used by many threads."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._free_at: dict[str, float] = {}
        self._held_until: dict[str, float] = {}

    def posted(self, chat: str, at: float) -> None:
        """Note that a message was sent to a chat."""
        self._free_at[chat] = at + CHAT_SECONDS
        self._free_at = self._remembered(self._free_at)

    def free_at(self, chat: str) -> float:
        """Return when the chat's pace lets another message go."""
        return self._free_at.get(chat, 0.0)

    def hold(self, holds: Mapping[str, float]) -> None:
        """Note until when the provider wants quiet in each of these chats."""
        for chat, until in holds.items():
            if until > self._held_until.get(chat, 0.0):
                self._held_until[chat] = until
        self._held_until = self._remembered(self._held_until)

    def held_until(self, chat: str) -> float:
        """Return until when the provider wants quiet in a chat."""
        return self._held_until.get(chat, 0.0)

    def _remembered(self, moments: dict[str, float]) -> dict[str, float]:
        """Return the moments without those that are over, where there are too many."""
        if len(moments) <= REMEMBERED:
            return moments
        now = self._clock()
        # A copy: another thread may add a chat while this one looks through them.
        return {chat: at for chat, at in moments.copy().items() if at > now}
