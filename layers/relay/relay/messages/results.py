"""A message as a queue hands it out, and what a run makes of it."""

import math
from collections import Counter
from dataclasses import dataclass

from relay.messages.envelope import QueuedMessage
from relay.messages.seals import Sealed
from relay.messages.states import LONGEST_LIFE, Change, Record, State, tally
from smsgold.responses import Verdict

SOON = 5.0
"""Seconds until another look at a message that another copy or run is busy with."""


LAST_RECEIVES = 900
"""Receives after which a message ends, however it came to so many: at 1,000 SQS gives it up
(maxReceiveCount in template.yaml) without a record of it, a reason, or the id of one that has none
in its body. What is left is for messages that are taken up while the table is out of order."""


LAST_RECEIVES_IN_LINE = 3000
"""The same on the Ordered queue, which gives up none: a message in a line is received as often as
those before it, up to ten of them at once, and says nothing by it. It is for what kills its run
each time, which would hold up its chat until SQS forgets it."""


def ends_by(sent_at: float, receive_count: int, *, in_line: bool = False) -> float:
    """Return when a message has to end because its queue will not keep this copy much longer.

    SQS forgets a copy 14 days after it was put on the queue, however long it waited there before
    its message got a record.
    """
    last = LAST_RECEIVES_IN_LINE if in_line else LAST_RECEIVES
    return sent_at + LONGEST_LIFE if receive_count < last else sent_at


@dataclass(frozen=True, slots=True)
class Received:
    """A received message: when it was put on the queue, and how often it was received."""

    message: QueuedMessage
    door: str
    sent_at: float
    receive_count: int = 1
    ends_by: float = math.inf
    """When the message has to end, if no other copy of it is newer."""
    in_line: bool = False
    """It came from the Ordered queue, where the count of receives says nothing."""
    sealed: Sealed | None = None
    """What proves that the relay wrote it; None where nobody else can have."""
    fresh: bool = False
    """No door has made its record, and this is its first receive: only a second copy can have."""


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
        """Note that a step which this run has written ends a message."""
        # What a redrive takes away was counted before its step was written.
        if message.broadcast and (step := +tally(change)):
            self.setdefault(message.broadcast, Counter()).update(step)


def reopened(change: Change) -> Counter[State]:
    """Return the state, counted once, out of which a step leads a message that had ended."""
    return -tally(change)
