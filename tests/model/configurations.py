"""The searches: together they hold all that may happen, each a part of it, so that each ends."""

from relay.messages.envelope import OnUnknown
from tests.model.records import Copy, Hour
from tests.model.world import Scope, World

QUEUED = World(copies=(Copy(),), accepted=True)
"""A message that a producer put on the queue."""

ANNOUNCED = QUEUED._replace(status="running", counts=())
"""A broadcast's message."""

NOT_YET = QUEUED._replace(hour=Hour.SHUT)
"""A message that may not go yet."""

IN_LINE = QUEUED._replace(copies=(Copy(line=True),))
"""A message on the Ordered queue."""


def scopes() -> list[Scope]:
    """Return all searches of one message."""
    return [s for policy in OnUnknown for s in [*_scopes(policy), *_for_later(policy)]]


def _scopes(policy: OnUnknown) -> list[Scope]:
    one_call, two_calls = World(calls_left=1), World(calls_left=2)
    return [
        Scope("three copies", policy, QUEUED, copies=3, runs=3, duplicates=True, late=1),
        Scope("two late writes", policy, QUEUED, copies=3, duplicates=True, late=2),
        Scope("worn copies", policy, QUEUED, duplicates=True, wears=True, generations=1),
        Scope("redriven twice", policy, QUEUED, generations=2, twice=True),
        Scope("redriven among copies", policy, QUEUED, copies=3, generations=1, twice=True),
        Scope("redriven, late writes", policy, QUEUED, generations=1, late=1, twice=True),
        Scope("redriven too late", policy, QUEUED, generations=2, expires=True, resolves=True),
        Scope("expiring", policy, QUEUED, duplicates=True, expires=True, generations=1),
        Scope("expiring, late writes", policy, QUEUED, late=1, expires=True, generations=1),
        Scope("canceled, resolved", policy, QUEUED, generations=1, cancels=True, resolves=True),
        Scope("letters refused", policy, QUEUED, generations=2, refusals=True),
        Scope("broadcast", policy, ANNOUNCED, generations=1, duplicates=True),
        Scope("broadcast, canceled", policy, ANNOUNCED, cancels=True, duplicates=True),
        Scope("two calls", policy, two_calls, cancels=True, late=1),
        Scope("a call that waits", policy, one_call, late=1, waits=True),
    ]


def _for_later(policy: OnUnknown) -> list[Scope]:
    in_line = IN_LINE._replace(hour=Hour.SHUT)
    calls = World(calls_left=2, hour=Hour.SHUT)
    line_closes, line_closes_twice = IN_LINE._replace(closings=1), IN_LINE._replace(closings=2)
    closes_again = NOT_YET._replace(closings=1)
    announced, call = ANNOUNCED._replace(closings=1), World(calls_left=1, closings=1)
    return [
        Scope("for later", policy, in_line, copies=3, late=1, cancels=True, moment=True),
        Scope("for later, two calls", policy, calls, late=1, cancels=True, moment=True),
        Scope("hours", policy, line_closes_twice, late=1, cancels=True, expires=True, hours=True),
        Scope("hours, worn", policy, line_closes, late=1, cancels=True, hours=True, wears=True),
        Scope(
            "hours, redriven",
            policy,
            closes_again,
            generations=1,
            resolves=True,
            expires=True,
            hours=True,
        ),
        Scope("hours, broadcast", policy, announced, duplicates=True, cancels=True, hours=True),
        Scope("hours, a call that waits", policy, call, hours=True, waits=True),
    ]
