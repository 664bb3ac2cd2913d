"""A step as a statement to the table. What the table makes of it: tests/integration."""

import re
from dataclasses import replace

from relay.messages.envelope import QueuedMessage
from relay.messages.lists import keys_of
from relay.messages.states import Change, DeadLetter, Event, Record, Rules, State, first_record
from relay.messages.store import from_item, statement, to_item

NOW = 1_800_000_000.0


def record() -> Record:
    message = QueuedMessage(id="m-1", subscriberId="s-1", text="Hi")
    first = first_record(message, door="http", accepted_at=NOW, now=NOW, rules=Rules())
    return replace(
        first,
        state=State.SENDING,
        attempt="a-1",
        version=3,
        lease=NOW + 60,
        reason="http_503",
        detail="busy",
        dead_letter=DeadLetter.DUE,
        history=(Event(NOW, "redriven"),),
    )


def test_an_update_has_one_form_and_clears_what_it_sets_to_nothing() -> None:
    before = record()
    after = replace(
        before,
        state=State.QUEUED,
        version=4,
        lease=0.0,
        reason="",
        detail="",
        dead_letter=DeadLetter.NONE,
        history=(),
    )

    made = statement("relay", Change(before, after))

    clauses = r'UPDATE "relay"( SET "\w+" = \?)+ WHERE ("\w+" (= \?|IS MISSING)( AND )?)+'
    assert re.fullmatch(clauses, made["Statement"])
    names = re.findall(r'SET "(\w+)"', made["Statement"])
    assert {"lease", "reason", "detail", "deadLetter", "history"} <= set(names)
    set_ = dict(zip(names, made["Parameters"], strict=False))
    assert from_item(to_item(before) | set_) == after


def test_a_step_puts_a_record_of_release_0_1_0_on_its_lists() -> None:
    before = replace(record(), version=0, reference="order-1")
    after = replace(before, state=State.REJECTED, version=1)

    made = statement("relay", Change(before, after))

    expected = {name: {"S": value} for name, value in keys_of(after).items()}
    names = re.findall(r'SET "(\w+)"', made["Statement"])
    assert dict(zip(names, made["Parameters"], strict=False)).items() >= expected.items()
    assert set(expected) == {"referenceHash", "referencePlace", "listed", "listedPlace"}
