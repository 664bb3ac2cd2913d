"""The verifier finds each broken promise: a stack that keeps them all is broken in every way."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from relay.messages.envelope import QueuedMessage
from relay.messages.lists import place
from relay.messages.queues import dead_letter_body
from relay.messages.states import Attempt, DeadLetter, Event, Record, Rules, State, first_record
from tests.support.verifier import Evidence, OnQueue, Sent, changed, violations

NOW = 1_800_000_000.0
READ_AT = NOW + 60.0
PASSWORD = 'p@ss w&rd"é+%/'
SENT = Sent("m-sent", "text of m-sent")
RESENT = Sent("m-resent", "text of m-resent", resend=True)
REJECTED = Sent("m-rejected", "text of m-rejected")
EXPIRED = Sent("m-expired", "text of m-expired")
ALL = [SENT, RESENT, REJECTED, EXPIRED]


def message(sent: Sent) -> QueuedMessage:
    return QueuedMessage(id=sent.id, subscriberId="s-1", text=sent.text)


def record(sent: Sent, state: State, **fields: Any) -> Record:
    fresh = first_record(message(sent), door="sqs", accepted_at=NOW, now=NOW, rules=Rules())
    return replace(fresh, **{"state": state, **fields})


def told(record: Record, **changed: Any) -> dict[str, Any]:
    """Return the event of a message's end, as the verifier reads it."""
    known = {"status": str(record.state), "generation": record.generation}
    return {"detail": {"id": record.id, "version": record.version, **known, **changed}}


def good() -> Evidence:
    refused = (Attempt(NOW, "refused", "http_400"),)
    records = [
        record(SENT, State.SENT, provider_id="p-1", tries=1),
        record(RESENT, State.SENT, provider_id="p-3", tries=2, ambiguous=1),
        record(
            REJECTED,
            State.REJECTED,
            reason="http_400",
            tries=1,
            attempts=refused,
            dead_letter=DeadLetter.WRITTEN,
        ),
        record(EXPIRED, State.EXPIRED, reason="expired"),
    ]
    attributes = {"reason": "http_400", "attempts": "1", "failedAt": "2027-01-15T08:00:00.000Z"}
    return Evidence(
        records={r.id: r for r in records},
        events=[told(r) for r in records] * 2,
        told="all",
        dead=[
            OnQueue("d-1", dead_letter_body(message(REJECTED), 0), attributes),
            OnQueue("d-2", "junk", {"reason": "invalid", "detail": "must be JSON"}),
            OnQueue("d-3", '{"hook": "x", "payload": ""}', {"reason": "hook_payload"}),
        ],
        ledger=[
            {"id": "p-1", "text": SENT.text},
            {"id": "p-2", "text": RESENT.text},
            {"id": "p-3", "text": RESENT.text},
        ],
        written={"functions.log": "sent m-sent", "the Messages queue": ""},
        lists={
            "byReference": {},
            "byListed": {
                "m-rejected": ("rejected", "001800000000.000#m-rejected"),
                "m-expired": ("expired", place(NOW, "m-expired")),
                "m-sent": ("none", "none"),
            },
        },
        at=READ_AT,
    )


def with_record(id_: str, **fields: Any) -> Callable[[Evidence], Evidence]:
    def broken(seen: Evidence) -> Evidence:
        return replace(seen, records={**seen.records, id_: replace(seen.records[id_], **fields)})

    return broken


def with_log(text: str) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, written={**seen.written, "functions.log": text})


def with_letter(body: str, **attributes: str) -> Callable[[Evidence], Evidence]:
    letter = OnQueue("d-3", body, attributes)
    return lambda seen: replace(seen, dead=[*seen.dead, letter])


def without(id_: str) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, records={k: v for k, v in seen.records.items() if k != id_})


def in_ledger(sent: Sent) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, ledger=[*seen.ledger, {"id": "p-9", "text": sent.text}])


def in_line(*sent: Sent) -> list[Sent]:
    return [replace(s, line="c-1") for s in sent]


def redriven_and_told(id_: str) -> Callable[[Evidence], Evidence]:
    """Return the evidence with a message redriven once, and the events of both its ends."""
    both = told_of(id_, status="failed") + told_of(id_, version=7, generation=1)
    redriven = with_record(id_, history=(Event(NOW, "redriven"),), generation=1, version=7)
    return lambda seen: redriven(with_events(both, id_)(seen))


def told_of(id_: str, **changed: Any) -> list[dict[str, Any]]:
    return [told(good().records[id_], **changed)]


def with_events(events: list[dict[str, Any]], id_: str) -> Callable[[Evidence], Evidence]:
    """Return the evidence with other events of one message."""
    return lambda seen: replace(
        seen, events=[*(e for e in seen.events if e["detail"]["id"] != id_), *events]
    )


def with_broadcast(found: tuple[str, int], *statuses: str) -> Callable[[Evidence], Evidence]:
    """Return the evidence with a broadcast and an event for each status that it had."""
    events = [
        {"detail": {"id": "b-1", "status": status, "version": version}}
        for version, status in enumerate(statuses, start=1)
    ]
    return lambda seen: replace(seen, broadcasts={"b-1": found}, events=[*seen.events, *events])


BROKEN: list[tuple[str, Callable[[Evidence], Evidence]]] = [
    ("m-sent is lost: it has no record", without("m-sent")),
    ("m-sent is lost: sending, and on no queue", with_record("m-sent", state=State.SENDING)),
    (
        "m-sent is lost: queued, 60 s past its deadline, and on no queue: hand it in again",
        with_record("m-sent", state=State.QUEUED, deadline=READ_AT - 60),
    ),
    (
        "m-sent is not finished: queued, 60 s past its deadline, on the queue: wait, or start",
        lambda seen: replace(
            with_record("m-sent", state=State.QUEUED, deadline=READ_AT - 60)(seen),
            waiting=[OnQueue("q-1", message(SENT).to_body())],
        ),
    ),
    (
        "m-sent is not finished",
        lambda seen: replace(
            with_record("m-sent", state=State.QUEUED)(seen),
            waiting=[OnQueue("q-1", message(SENT).to_body())],
        ),
    ),
    (
        "q-1 is still on the Messages queue",
        lambda seen: replace(seen, waiting=[OnQueue("q-1", message(SENT).to_body())]),
    ),
    (
        "q-1 is still on the Ordered queue",
        lambda seen: replace(seen, waiting=[OnQueue("q-1", "not JSON", queue="Ordered")]),
    ),
    (
        "m-sent is sent, and still on the Ordered queue before its chat's",
        lambda seen: replace(
            seen, waiting=[OnQueue("q-1", message(SENT).to_body(), queue="Ordered")]
        ),
    ),
    (
        "the queue's own net took it",
        lambda seen: with_letter(message(SENT).to_body())(
            with_record("m-sent", state=State.QUEUED)(seen)
        ),
    ),
    ("m-expired is expired without a reason", with_record("m-expired", reason="")),
    (
        "m-sent has more attempts than tries",
        with_record("m-sent", tries=0, attempts=(Attempt(NOW, "x"),)),
    ),
    (
        "no answer of the provider's says so",
        with_record("m-rejected", attempts=(Attempt(NOW, "credentials"),)),
    ),
    ("dead letter d-3 has no reason", with_letter(dead_letter_body(message(REJECTED), 0))),
    (
        "dead letter d-3 belongs to no record",
        with_letter(dead_letter_body(message(Sent("x", "x")), 0), reason="http_400"),
    ),
    ("m-sent is sent, and a dead letter", with_letter(message(SENT).to_body(), reason="http_400")),
    ("a redrive of its dead letter would do nothing", with_record("m-rejected", generation=1)),
    ("its letter says http_400", with_record("m-rejected", reason="http_404")),
    (
        "its dead letter lacks attempts, failedAt",
        lambda seen: replace(seen, dead=[replace(seen.dead[0], attributes={"reason": "http_400"})]),
    ),
    ("m-rejected is rejected and has 0 dead letters", lambda seen: replace(seen, dead=[])),
    (
        "m-rejected is rejected and has 2 dead letters",
        lambda seen: replace(seen, dead=[*seen.dead, seen.dead[0]]),
    ),
    ("its dead letter is not recorded", with_record("m-rejected", dead_letter=DeadLetter.DUE)),
    ("which the ledger does not have", with_record("m-sent", provider_id="p-0")),
    ("share the provider's id", with_record("m-resent", provider_id="p-1")),
    ("m-sent is in the ledger 2 times, 1 allowed", in_ledger(SENT)),
    ("m-resent is in the ledger 3 times, 2 allowed", in_ledger(RESENT)),
    (
        "m-resent is in the ledger 2 times, 1 allowed",
        with_record("m-resent", ambiguous=0),
    ),
    ("m-sent is sent, and not in the ledger", lambda seen: replace(seen, ledger=seen.ledger[1:])),
    ("m-rejected is rejected, and in the ledger", in_ledger(REJECTED)),
    ("m-expired is expired, and in the ledger", in_ledger(EXPIRED)),
    (
        "m-rejected is rejected; byListed has it as None",
        lambda seen: replace(seen, lists={"byReference": {}, "byListed": {}}),
    ),
    ("m-rejected is rejected; byListed has it as", with_record("m-rejected", updated_at=NOW + 1)),
    ("m-expired is sent; byListed has it as", with_record("m-expired", state=State.SENT)),
    ("m-sent is sent; byReference has it as None", with_record("m-sent", reference="order-1")),
    ("a redirect was followed", lambda seen: replace(seen, elsewhere=[{"path": "/"}])),
    (
        "m-sent has ended 1 times, and 0 events tell of it",
        with_events(told_of("m-sent") * 0, "m-sent"),
    ),
    (
        "m-rejected has ended 2 times, and 1 events tell of it",
        with_record("m-rejected", history=(Event(NOW, "redriven"),)),
    ),
    (
        "m-sent has ended 1 times, and 2 events tell of it",
        with_events(told_of("m-sent", version=1) + told_of("m-sent", version=2), "m-sent"),
    ),
    (
        "m-sent: an event tells of version 9, which is not there",
        with_events(told_of("m-sent", version=9), "m-sent"),
    ),
    (
        "m-sent is sent, and its last event says unknown",
        with_events(told_of("m-sent", status="unknown"), "m-sent"),
    ),
    (
        "m-sent: two events of version 1 differ",
        with_events(told_of("m-sent") + told_of("m-sent", status="failed"), "m-sent"),
    ),
    (
        "an event tells of m-none, which is not there",
        lambda seen: replace(seen, events=[*seen.events, *told_of("m-sent", id="m-none")]),
    ),
    (
        "broadcast b-1 changed 2 times, its events are [1]",
        with_broadcast(("running", 2), "preparing"),
    ),
    (
        "broadcast b-1 is running, its last event says paused",
        with_broadcast(("running", 2), "preparing", "paused"),
    ),
    ("functions.log holds the text of m-sent", with_log(f"… {SENT.text} …")),
    *(
        ("functions.log holds a secret", with_log(f"xx{spelled}yy"))
        for spelled in (
            PASSWORD,
            "p%40ss%20w%26rd%22%C3%A9%2B%25%2F",
            "p%40ss+w%26rd%22%C3%A9%2B%25%2F",
            json.dumps({"pass": PASSWORD}),
            json.dumps({"pass": PASSWORD}, ensure_ascii=False),
            repr({"pass": PASSWORD}),
            base64.b64encode(PASSWORD.encode()).decode(),
            base64.b64encode(f"1{PASSWORD}".encode()).decode(),
            base64.b64encode(f"10001:{PASSWORD}".encode()).decode(),
        )
    ),
]


def test_a_stack_that_keeps_its_promises_is_found_so() -> None:
    assert violations(good(), ALL, secrets=[PASSWORD]) == []
    assert violations(good(), secrets=[PASSWORD]) == []


@pytest.mark.parametrize(("says", "broken"), BROKEN, ids=[says for says, _ in BROKEN])
def test_each_broken_promise_is_found(says: str, broken: Callable[[Evidence], Evidence]) -> None:
    found = violations(broken(good()), ALL, secrets=[PASSWORD])

    assert any(says in violation for violation in found), found


def test_what_passes_another_of_its_chat_is_found() -> None:
    swapped = replace(good(), ledger=[*good().ledger[1:], good().ledger[0]])
    between = replace(good(), ledger=[good().ledger[i] for i in (1, 0, 2)])

    assert violations(good(), in_line(SENT, REJECTED, RESENT, EXPIRED)) == []
    for seen in (swapped, between):
        assert violations(seen, ALL) == [], "without a line nothing has to be in order"
    assert violations(swapped, in_line(SENT, RESENT)) == [
        "m-resent came before m-sent, which was accepted earlier"
    ]
    assert violations(between, in_line(SENT, RESENT)), "its first attempt counts"
    assert violations(between, in_line(RESENT, SENT)) == [
        "m-sent came before m-resent, which was accepted earlier"
    ], "it may not come between two attempts either"
    other = [replace(SENT, line="c-1"), replace(RESENT, line="c-2")]
    assert violations(swapped, other) == []
    redriven = redriven_and_told("m-sent")
    assert violations(redriven(swapped), in_line(SENT, RESENT)) == []


def test_of_problems_a_message_that_was_simply_sent_has_no_event() -> None:
    simply = with_events([], "m-sent")(
        with_events([], "m-resent")(replace(good(), told="problems"))
    )

    assert violations(simply, ALL) == []
    assert violations(with_events([], "m-rejected")(simply), ALL)
    assert violations(replace(good(), told="problems"), ALL), "it was not to be told of"
    assert violations(replace(good(), told="none", events=[]), ALL) == []


def test_a_redrive_allows_one_more() -> None:
    redriven = redriven_and_told("m-sent")

    assert violations(redriven(in_ledger(SENT)(good())), ALL) == []
    assert violations(redriven(in_ledger(SENT)(in_ledger(SENT)(good()))), ALL)


def test_terminal_states_change_only_by_redrive() -> None:
    moved = with_record("m-rejected", state=State.SENT)(good())
    redriven = with_record("m-rejected", state=State.SENT, history=(Event(NOW, "redriven"),))

    assert changed(good(), good()) == []
    assert changed(good(), moved) == ["m-rejected went from rejected to sent without a redrive"]
    assert changed(good(), without("m-sent")(good())) == ["m-sent: its record is gone"]
    assert changed(good(), redriven(good())) == []
