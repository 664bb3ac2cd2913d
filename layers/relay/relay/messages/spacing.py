"""How often a message is looked at while it waits, whatever it waits for.

Each look is a receive, and SQS allows 1,000 of them at most (maxReceiveCount), after which it moves
a message to the dead-letter queue without a reason; the sender ends one after LAST_RECEIVES. So the
looks must last for the 14 days that SQS keeps a message at most. They are spread by its age: the
first hundred come as often as asked for, and each later one after about a hundredth of the time
waited so far. That makes 861 receives in 14 days, and no message is sent much more than one per
cent later than it could have been.
"""

import math

FREE = 100
"""Receives that are not spaced out."""

RECEIVES = 100.0
"""Receives in which a long wait grows to e times its length: each adds a hundredth."""

SHORT = 600.0
"""Seconds; what is short beside this waits six seconds between two looks once it is spaced out."""


def spaced(seconds: float, receive_count: int, waited: float) -> float:
    """Return the seconds until the next look at a message that could be tried in `seconds`.

    It was put on its queue `waited` seconds ago and has been received so many times.
    """
    return max(seconds, soonest(receive_count) - waited)


def soonest(receive_count: int) -> float:
    """Return the age at which a message that was received so many times is due once more."""
    return SHORT * math.expm1(max(0.0, receive_count - FREE) / RECEIVES)
