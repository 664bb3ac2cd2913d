"""The lists in which messages and broadcasts are found, newest first.

Two indexes of the Relay table hold them, each sparse: a table item is in an index only while it has
the index's two key attributes, a partition and a place. A place is a time and an id, so that each
item has one of its own and a list has one order. A message that is sent, and has no reference, is
in neither index and costs nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.messages.states import Record, State

BAD_ENDS = (State.REJECTED, State.UNKNOWN, State.FAILED, State.EXPIRED)
"""The ends that somebody looks for; each has a list."""

OFF_THE_LIST = "none"
"""What both key attributes say once a message has left a bad end: an index takes no empty text, and
no statement can both set attributes and remove others. Nobody reads that partition."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of the Relay table, with the names of its key attributes."""

    name: str
    partition: str
    place: str


BY_REFERENCE = Index("byReference", "referenceHash", "referencePlace")
"""A caller's reference, hashed; a message's place is when it was accepted."""

BY_LISTED = Index("byListed", "listed", "listedPlace")
"""A bad end, with when a message came to it; or "broadcast", with when one was accepted."""

INDEXES = (BY_REFERENCE, BY_LISTED)


@dataclass(frozen=True, slots=True)
class Listing:
    """One list: a partition of an index, no further back than `since` (seconds)."""

    index: Index
    partition: str
    since: float = 0.0
    kind: str = "message"
    """What the table's keys of its items begin with."""

    def holds(self, keys: Mapping[str, str], at: str) -> bool:
        """Return whether an item with these key attributes is in it, and at this very place.

        An index follows its table a moment later: an item may have left, or moved up.
        """
        return (keys.get(self.index.partition), keys.get(self.index.place)) == (self.partition, at)


def with_reference(reference: str, since: float = 0.0) -> Listing:
    """Return the list of the messages with a reference, by when they were accepted."""
    return Listing(BY_REFERENCE, hashed(reference), since)


def that_ended(state: State, since: float = 0.0) -> Listing:
    """Return the list of the messages in one of `BAD_ENDS`, by when they came to it."""
    return Listing(BY_LISTED, state.value, since)


BROADCASTS = Listing(BY_LISTED, "broadcast", kind="broadcast")
"""The list of the broadcasts, by when they were accepted."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some places of a list, in its order; `after` is where the next page begins, "" at the end."""

    places: Sequence[str]
    after: str = ""


class Lists(Protocol):
    """What reads the indexes."""

    def page(self, listing: Listing, *, limit: int, after: str = "") -> Page:
        """Return up to `limit` places after a place; raise StoreUnavailableError."""
        ...


def keys_of(record: Record) -> dict[str, str]:
    """Return the key attributes that a message has now."""
    keys = {}
    if record.reference:
        keys[BY_REFERENCE.partition] = hashed(record.reference)
        keys[BY_REFERENCE.place] = place(record.accepted_at, record.id)
    if record.state in BAD_ENDS:
        keys[BY_LISTED.partition] = record.state.value
        # Nothing but another end changes this time: see `states`.
        keys[BY_LISTED.place] = place(record.updated_at, record.id)
    return keys


def broadcast_keys(created_at: float, id_: str) -> dict[str, str]:
    """Return the key attributes of a broadcast."""
    return {
        BROADCASTS.index.partition: BROADCASTS.partition,
        BROADCASTS.index.place: place(created_at, id_),
    }


def hashed(reference: str) -> str:
    """Return a reference as its index knows it, since it may tell about a person."""
    return hashlib.sha256(reference.encode()).hexdigest()[:40]


def place(at: float, id_: str = "") -> str:
    """Return the place of what happened then, or the earliest of that moment without an id."""
    return f"{at:016.3f}#{id_}"


def id_at(place: str) -> str:
    """Return the id of what is at a place."""
    return place.partition("#")[2]


@dataclass(frozen=True, slots=True)
class Found:
    """Messages of a list, in its order; `after` is where the next ones begin, "" at the end."""

    records: Sequence[Record]
    after: str = ""
