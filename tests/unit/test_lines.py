"""One chat's messages one after the other, the lines beside each other."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.messages.lines import CHAT_SECONDS, one_by_one
from relay.messages.results import Done, Later, Result
from smsgold.responses import Outcome, Verdict

SENT = Done(None, Verdict(Outcome.ACCEPTED, "accepted"))
UNNEEDED = Done(None)
BUSY = Later(60.0, "http_503")


class Runs:
    """Delivers what it is given, and remembers in which rounds."""

    def __init__(self, outcomes: dict[str, Result]) -> None:
        self.rounds: list[list[str]] = []
        self._outcomes = outcomes

    def __call__(self, messages: Sequence[str]) -> list[Result]:
        self.rounds.append(list(messages))
        return [self._outcomes.get(message, SENT) for message in messages]


def deliver(batch: Sequence[str], outcomes: dict[str, Result]) -> tuple[list[Result], Runs]:
    """Deliver messages such as "a1", the first of line "a"."""
    runs = Runs(outcomes)
    return one_by_one(batch, lambda message: message[0], runs), runs


def test_lines_are_delivered_beside_each_other() -> None:
    results, runs = deliver(["a1", "b1", "c1"], {})

    assert results == [SENT] * 3
    assert runs.rounds == [["a1", "b1", "c1"]]


def test_after_a_post_the_rest_of_a_chat_waits_a_second_on_the_queue() -> None:
    results, runs = deliver(["a1", "a2", "b1", "a3"], {})

    wait = Later(CHAT_SECONDS, "chat_pace")
    assert results == [SENT, wait, SENT, wait]
    assert runs.rounds == [["a1", "b1"]]


def test_what_stays_keeps_the_rest_of_its_chat_and_no_other() -> None:
    results, runs = deliver(["a1", "a2", "b1", "b2"], {"a1": BUSY, "b1": UNNEEDED})

    assert results == [BUSY, Later(60.0, "behind_another"), UNNEEDED, SENT]
    assert runs.rounds == [["a1", "b1"], ["b2"]]


def test_what_needs_no_post_holds_up_nobody() -> None:
    results, runs = deliver(["a1", "a2", "a3"], {"a1": UNNEEDED, "a2": UNNEEDED})

    assert results == [UNNEEDED, UNNEEDED, SENT]
    assert runs.rounds == [["a1"], ["a2"], ["a3"]]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([SENT, UNNEEDED, BUSY])), max_size=10
    )
)
def test_no_message_is_tried_past_one_of_its_chat_that_stays(
    batch: list[tuple[str, Result]],
) -> None:
    names = [f"{line}{i}" for i, (line, _) in enumerate(batch)]
    outcomes = {name: result for name, (_, result) in zip(names, batch, strict=True)}

    results, runs = deliver(names, outcomes)

    tried = [name for names in runs.rounds for name in names]
    assert len(results) == len(batch)
    assert len(set(tried)) == len(tried)
    for line in "abc":
        own = [(n, r) for n, r in zip(names, results, strict=True) if n[0] == line]
        assert [n for n in tried if n[0] == line] == [n for n, _ in own if n in tried], "in order"
        posts = [n for n, _ in own if n in tried and outcomes[n] is not UNNEEDED]
        assert len(posts) <= 1, "one POST to a chat in a run"
        stays = False
        for name, result in own:
            assert not (stays and not isinstance(result, Later)), f"{name} left the queue too early"
            assert (name in tried) == (result is outcomes[name]) or name not in tried
            stays = stays or isinstance(result, Later)


@pytest.mark.parametrize("batch", [[], ["a1"]])
def test_the_smallest_batches(batch: list[str]) -> None:
    assert deliver(batch, {})[0] == [SENT] * len(batch)
