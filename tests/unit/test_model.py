"""A part of the exhaustive search of tests/model: each kind of trouble, in a small search."""

import pytest

from relay.messages.envelope import OnUnknown
from tests.model.__main__ import LONGEST, searches
from tests.model.configurations import ANNOUNCED, IN_LINE, NOT_YET, QUEUED
from tests.model.found import told
from tests.model.records import Hour
from tests.model.search import search
from tests.model.world import Scope, World

HOLD, RESEND = OnUnknown.HOLD, OnUnknown.RESEND
CLOSES, CLOSES_IN_LINE = QUEUED._replace(closings=1), IN_LINE._replace(closings=1)


@pytest.mark.parametrize(
    ("scope", "worlds"),
    [
        (Scope("two copies", HOLD, QUEUED, duplicates=True), 500),
        (Scope("two copies", RESEND, QUEUED, duplicates=True), 1_000),
        (Scope("a late write", HOLD, QUEUED, late=1), 300),
        (Scope("a late write", RESEND, QUEUED, late=1), 800),
        (Scope("redriven too late", HOLD, QUEUED, generations=1, expires=True), 7_000),
        (Scope("redriven too late", RESEND, QUEUED, generations=1, expires=True), 8_000),
        (Scope("worn", HOLD, QUEUED, wears=True, generations=1, copies=1, late=1), 5_000),
        (Scope("worn", RESEND, QUEUED, wears=True, generations=1, copies=1, late=1), 6_000),
        (Scope("letters refused", HOLD, QUEUED, refusals=True), 150),
        (Scope("letters refused", RESEND, QUEUED, refusals=True), 300),
        (
            Scope("by hand", HOLD, QUEUED, 1, generations=1, late=1, cancels=True, resolves=True),
            4_000,
        ),
        (Scope("canceled", RESEND, QUEUED, cancels=True), 300),
        (Scope("broadcast", HOLD, ANNOUNCED, generations=1, copies=1, late=1), 11_000),
        (Scope("broadcast", RESEND, ANNOUNCED, generations=1, copies=1, late=1), 16_000),
        (Scope("a call", HOLD, World(calls_left=1), waits=True), 1_500),
        (Scope("two calls", RESEND, World(calls_left=2), cancels=True), 4_000),
        (Scope("for later", HOLD, NOT_YET, late=1, cancels=True, moment=True), 700),
        (Scope("a call for later", HOLD, World(calls_left=1, hour=Hour.SHUT), moment=True), 1_000),
        (Scope("hours", RESEND, CLOSES_IN_LINE, cancels=True, expires=True, hours=True), 8_000),
        (
            Scope("hours, redriven", HOLD, CLOSES, 1, 1, generations=1, expires=True, hours=True),
            6_000,
        ),
    ],
    ids=lambda value: f"{value.name}, {value.policy}" if isinstance(value, Scope) else "",
)
def test_no_interleaving_breaks_a_promise(scope: Scope, worlds: int) -> None:
    found = search(scope)

    assert not found.violations, told("the search", found)
    assert found.worlds > worlds, "the search does not go where it should"


def test_the_longest_searches_are_made_first() -> None:
    names = [search.name for search in searches()]

    assert set(names[: len(LONGEST)]) == LONGEST
    assert len(set(names)) == len(names)
