"""A part of the exhaustive search of tests/model/intake.py, at each door."""

import pytest

from tests.model.found import told
from tests.model.intake import Configuration, event, explore, hook, http, http_without_a_key


@pytest.mark.parametrize(
    ("configuration", "worlds"),
    [
        (Configuration(http, faults=2), 8_000),
        (Configuration(http, calls=3, bodies=1), 4_000),
        (Configuration(http_without_a_key, calls=1, faults=2, bodies=1), 40),
        (Configuration(hook), 3_000),
        (Configuration(event, faults=2, bodies=1, late=True), 4_000),
    ],
    ids=["http", "http, one body", "http without a key", "hook", "event"],
)
def test_what_was_accepted_is_sent_once_and_what_is_left_ends(
    configuration: Configuration, worlds: int
) -> None:
    found = explore(configuration)

    assert not found.violations, told("the search", found)
    assert found.worlds > worlds, "the search does not go where it should"
