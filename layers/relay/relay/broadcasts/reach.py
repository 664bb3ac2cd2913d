"""Who cannot be reached: chats whose last messages were refused, by broadcasts that went to others.

A refusal counts only if most of its broadcast's other messages were sent: a provider that refuses
everybody says nothing about anybody.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from relay.broadcasts.model import BroadcastRecord, refuses_everybody
from relay.broadcasts.table import BroadcastTable
from relay.messages.envelope import chat_of
from relay.messages.refusals import BROADCAST, IN_A_ROW, SHARDS, Mark, Refusals

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Some of those who cannot be reached, and where the next ones are, if there are any."""

    marks: list[Mark]
    next: int | None = None


class Reach:
    """Those who cannot be reached. All methods raise StoreUnavailableError."""

    def __init__(
        self, refusals: Refusals, table: BroadcastTable, *, refusals_percent: float
    ) -> None:
        self._refusals = refusals
        self._table = table
        self._percent = refusals_percent

    def unreachable(self) -> Iterator[str]:
        """Yield the chats that a broadcast leaves out."""
        for _, marks in self._trusted():
            yield from (mark.chat for mark in marks)

    def page(self, first: int = 0) -> Page:
        """Return a part of those who cannot be reached, from a page's `next` on."""
        found: list[Mark] = []
        for n, marks in self._trusted(first):
            found += marks
            if len(found) >= PAGE and n + 1 < SHARDS:
                return Page(found, n + 1)
        return Page(found)

    def clear(self, id_: str) -> bool:
        """Forget the refusals of a subscriber, or of a chat; return whether there were any."""
        chats = [chat_of(id_), id_]
        marks = self._refusals.marks(chats)
        for mark in marks.values():
            self._refusals.clear(mark)
        return bool(marks)

    def clear_all(self, goes_on: Callable[[], bool]) -> tuple[int, bool]:
        """Forget everybody's refusals in a row; return of how many, and whether that was all."""
        cleared = 0
        for _, marks in self._refusals.listed():
            for mark in marks:
                if not goes_on():
                    return cleared, False
                self._refusals.clear(mark)
                cleared += 1
        return cleared, True

    def _trusted(self, first: int = 0) -> Iterator[tuple[int, list[Mark]]]:
        """Yield the marks with enough refusals that count."""
        known: dict[str, BroadcastRecord | None] = {}
        for n, marks in self._refusals.listed(first):
            ids = {id_ for mark in marks for id_ in _broadcasts(mark)} - known.keys()
            loaded = self._table.load(ids) if ids else {}
            known |= {id_: loaded.get(id_) for id_ in ids}
            yield n, [mark for mark in marks if self._counting(mark, known) >= IN_A_ROW]

    def _counting(self, mark: Mark, known: dict[str, BroadcastRecord | None]) -> int:
        own = _broadcasts(mark)
        trusted = [id_ for id_ in own if not refuses_everybody(known[id_], self._percent)]
        return len(mark.sources) - len(own) + len(trusted)


def _broadcasts(mark: Mark) -> list[str]:
    return [s.removeprefix(BROADCAST) for s in mark.sources if s.startswith(BROADCAST)]
