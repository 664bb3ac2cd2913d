"""A message as a queue hands it out, and what a run makes of it."""

from collections import Counter
from dataclasses import dataclass

from relay.messages.envelope import QueuedMessage
from relay.messages.states import Change, Record, State, tally
from smsgold.responses import Verdict

SOON = 5.0
"""Seconds until another look at a message that another copy or run is busy with."""


@dataclass(frozen=True, slots=True)
class Received:
    """A received message: when it was put on the queue, and how often it was received."""

    message: QueuedMessage
    door: str
    sent_at: float
    receive_count: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """Take the message off the queue: it has ended; `repeated` if it had before this run."""

    record: Record | None
    verdict: Verdict | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """Keep the message on the queue and look again in so many seconds."""

    seconds: float
    reason: str
    record: Record | None = None
    verdict: Verdict | None = None


Result = Done | Later


class Counts(dict[str, Counter[State]]):
    """What a run adds to the counts of each broadcast; written once, at its end."""

    def note(self, message: QueuedMessage, change: Change) -> None:
        """Note a step that this run has written."""
        if message.broadcast and (step := tally(change)):
            self.setdefault(message.broadcast, Counter()).update(step)
