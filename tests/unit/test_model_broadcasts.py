"""A part of the exhaustive search of tests/model/broadcasts.py, from each side."""

from dataclasses import replace

import pytest

from relay.broadcasts.model import Command
from tests.model.broadcasts import (
    COMMANDS,
    Configuration,
    Deliver,
    Redrive,
    Run,
    Start,
    Steer,
    explore,
)

STEERED = Configuration(subscribers=1, commands=COMMANDS, most_commands=1, faults=0, apart=(Run,))
COUNTED = Configuration(queued=True, rejected=True, faults=0)


@pytest.mark.parametrize(
    ("configuration", "worlds"),
    [
        (Configuration(starts=2, bodies=2, faults=2, apart=(Start,)), 3_000),
        (Configuration(faults=0, page=1, apart=(Run,)), 6_000),
        (Configuration(subscribers=3, at_once=1, apart=(Run,)), 1_000),
        (replace(STEERED, faults=1, at_once=1), 6_000),
        (replace(STEERED, commands=(Command.STOP,), subscribers=3, page=1, at_once=1), 5_000),
        (replace(STEERED, most_commands=2, apart=(Steer,)), 3_000),
        (replace(COUNTED, subscribers=1, faults=1, apart=(Run, Deliver)), 800),
        (replace(COUNTED, faults=1, apart=(Deliver,)), 1_000),
        (replace(COUNTED, subscribers=1, redrives=2, apart=(Deliver, Redrive)), 5_000),
        (replace(COUNTED, redrives=1, subscribers=1, apart=(Run, Deliver, Redrive)), 6_000),
        (replace(COUNTED, redrives=1, page=1, hurried=True, apart=(Run, Redrive)), 15_000),
    ],
    ids=[
        "starts",
        "two runs",
        "a run that fails",
        "commands in a run",
        "a stop between chunks",
        "commands at once",
        "counts",
        "two counts",
        "redrives",
        "recounts",
        "recounts, chunk by chunk",
    ],
)
def test_what_was_accepted_gets_to_everybody_and_its_counts_come_right(
    configuration: Configuration, worlds: int
) -> None:
    found = explore(configuration)

    assert not found.violations, "\n".join(next(iter(found.violations.values())))
    assert found.worlds > worlds, "the search does not go where it should"
