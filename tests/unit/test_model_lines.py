"""A part of the exhaustive search of tests/model/lines.py."""

import pytest

from tests.model.lines import Configuration, explore


@pytest.mark.parametrize(
    ("configuration", "worlds"),
    [(Configuration(), 500), (Configuration(messages=4, most=2), 1_000)],
    ids=["three messages", "four messages, two at a time"],
)
def test_a_chat_gets_each_message_once_and_in_order(
    configuration: Configuration, worlds: int
) -> None:
    found = explore(configuration)

    assert not found.violations, "\n".join(next(iter(found.violations.values())))
    assert found.worlds > worlds, "the search does not go where it should"
