"""The searches: together they hold all that may happen, each a part of it, so that each ends."""

from relay.messages.envelope import OnUnknown
from tests.model.records import Copy
from tests.model.world import Scope, World

QUEUED = World(copies=(Copy(),), accepted=True)
"""A message that a producer put on the queue."""

ANNOUNCED = QUEUED._replace(status="running", counts=())
"""A broadcast's message."""


def scopes() -> list[Scope]:
    """Return all searches of one message."""
    return [scope for policy in OnUnknown for scope in _scopes(policy)]


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
