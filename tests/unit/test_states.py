"""Every decision of `relay.messages.states`, case by case."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from relay.messages.envelope import OnUnknown, QueuedMessage
from relay.messages.states import (
    KEPT_ATTEMPTS,
    LONGEST_LIFE,
    REDRIVABLE,
    STEPS,
    TERMINAL,
    Change,
    DeadLetter,
    Drop,
    Finish,
    Record,
    Refuse,
    Rules,
    Send,
    State,
    Wait,
    WriteDeadLetter,
    backoff,
    cancel,
    claim,
    decide,
    first_record,
    marked_dead_lettered,
    release,
    resolve,
    settle,
    step,
)
from smsgold.responses import Outcome, Verdict

NOW = 1_800_000_000.0
RULES = Rules(retry_window=3600.0, backoff_min=5.0, backoff_max=600.0)
ACCEPTED = Verdict(Outcome.ACCEPTED, "accepted", provider_id="p-1", status=200)
REFUSED = Verdict(Outcome.REFUSED, "http_400", "no such subscriber", status=400)
BUSY = Verdict(Outcome.NOT_SENT, "http_503", status=503)
UNAUTHORISED = Verdict(Outcome.CREDENTIALS, "http_401", status=401)
REDIRECTED = Verdict(Outcome.MISDIRECTED, "redirect", status=302)
LOST = Verdict(Outcome.UNKNOWN, "read_timeout")


def message(**fields: Any) -> QueuedMessage:
    given = {"id": "m-1", "subscriberId": "s-1", "text": "hello", **fields}
    return QueuedMessage.model_validate(given)


def record(state: State = State.QUEUED, **fields: Any) -> Record:
    fresh = first_record(message(), door="http", accepted_at=NOW, now=NOW, rules=RULES)
    if state in REDRIVABLE:
        fields = {"dead_letter": DeadLetter.WRITTEN, "tries": 1, **fields}
    return replace(fresh, **{"state": state, **fields})


def decision(
    known: Record | None, now: float = NOW + 10, *, proven: bool = True, **fields: Any
) -> Any:
    envelope = message(**fields)
    return decide(known, envelope, door="sqs", sent_at=NOW, now=now, rules=RULES, proven=proven)


# ----------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(("was", "now"), list(product([None, *State], State)))
def test_a_change_goes_along_the_table_of_steps_and_nowhere_else(
    was: State | None, now: State
) -> None:
    before = record(was) if was else None
    after = record(now, attempt="next", dead_letter=DeadLetter.NONE, version=2 if was else 1)

    if now in STEPS[was]:
        assert Change(before, after).after is after
    else:
        with pytest.raises(ValueError, match="no step leads"):
            Change(before, after)


def test_what_is_final_is_left_by_redrive_alone() -> None:
    assert {state for state in TERMINAL if STEPS[state]} == REDRIVABLE
    for state in REDRIVABLE:
        assert State.CANCELED not in STEPS[state]
        assert State.QUEUED not in STEPS[state]


def test_a_claimed_message_cannot_be_cancelled() -> None:
    assert State.CANCELED not in STEPS[State.SENDING]


@pytest.mark.parametrize("version", [0, 1, 7])
def test_every_step_raises_the_version_by_one(version: int) -> None:
    before = record(version=version)

    assert step(before, replace(before, state=State.CANCELED)).after.version == version + 1
    for wrong in {0, version, version + 2}:
        with pytest.raises(ValueError, match="version"):
            Change(before, replace(before, state=State.CANCELED, version=wrong))


# ---------------------------------------------------------------------------------------- decide


def test_an_unknown_message_is_sent_under_a_record_of_its_own() -> None:
    match decision(None, reference="order-1"):
        case Send(None, base):
            assert (base.id, base.door, base.accepted_at) == ("m-1", "sqs", NOW)
            assert (base.reference, base.deadline) == ("order-1", NOW + 3600)
        case other:
            pytest.fail(str(other))


@pytest.mark.parametrize("state", [State.SENT, State.CANCELED, State.EXPIRED, *sorted(REDRIVABLE)])
def test_a_duplicate_of_a_finished_message_is_dropped(state: State) -> None:
    known = record(state)

    assert decision(known) == Drop(known)


def test_a_copy_goes_by_its_id_and_may_not_say_something_else() -> None:
    match decision(record(), text="something else"):
        case Refuse(reason, detail):
            assert reason == "id_reused"
            assert "id:" in detail
        case other:
            pytest.fail(str(other))


@pytest.mark.parametrize(
    ("known", "fields"),
    [
        (None, {"generation": 1}),
        (None, {"broadcast": "b-1"}),
        (None, {"id": "k-1"}),
        (record(State.UNKNOWN), {"generation": 1}),
        (record(State.SENT), {"generation": 1_000_000}),
    ],
)
def test_what_only_the_relay_may_say_is_refused_from_others(
    known: Record | None, fields: dict[str, Any]
) -> None:
    match decision(known, proven=False, **fields):
        case Refuse("not_sealed", detail):
            assert next(iter(fields)) in detail
        case other:
            pytest.fail(str(other))


@pytest.mark.parametrize("known", [record(State.UNKNOWN, generation=2), record(version=0)])
def test_an_unsealed_copy_that_says_no_more_than_its_record_is_a_copy(known: Record) -> None:
    """Release 0.1.0 sealed nothing: what it left on the queues is delivered all the same."""
    generation = known.generation

    assert decision(known, proven=False, generation=generation) == decision(
        known, generation=generation
    )


def test_a_redrive_of_what_release_0_1_0_buried_needs_no_seal() -> None:
    assert isinstance(decision(record(State.FAILED, version=0), proven=False, generation=1), Send)
    resolved = resolve(record(State.UNKNOWN, version=0), State.FAILED, NOW)
    assert resolved
    assert isinstance(decision(resolved.after, proven=False, generation=1), Send)


def test_a_redrive_of_what_this_release_resolved_needs_its_seal() -> None:
    resolved = resolve(record(State.UNKNOWN, version=2), State.FAILED, NOW)
    assert resolved
    assert isinstance(decision(resolved.after, proven=False, generation=1), Refuse)


@pytest.mark.parametrize("seconds", [700.0, 10_072.0, 1e9])
def test_a_429_waits_for_the_whole_of_its_retry_after(seconds: float) -> None:
    """Also past the message's deadline, which ends it without another attempt."""
    banned = Verdict(Outcome.NOT_SENT, "http_429", status=429, retry_after=seconds)
    settled = settle(
        record(State.SENDING), banned, began=NOW, now=NOW, on_unknown=None, rules=RULES
    )

    assert settled.retry_in is not None
    assert settled.retry_in >= seconds
    assert settled.change.after.lease >= NOW + seconds
    late = decision(settled.change.after, now=NOW + RULES.retry_window)
    assert isinstance(late, Finish)
    assert (late.change.after.state, late.change.after.reason) == (State.FAILED, "http_429")


def test_any_other_retry_after_is_cut_to_the_longest_wait() -> None:
    busy = Verdict(Outcome.NOT_SENT, "http_503", status=503, retry_after=10_072.0)
    settled = settle(record(State.SENDING), busy, began=NOW, now=NOW, on_unknown=None, rules=RULES)

    assert settled.retry_in == RULES.backoff_max


@pytest.mark.parametrize("state", sorted(REDRIVABLE))
def test_a_redrive_sends_once_more(state: State) -> None:
    known = record(state, generation=2, reason="why")

    match decision(known, generation=3, now=NOW + 7200):
        case Send(before, base):
            assert before is known
            assert (base.generation, base.reason, base.dead_letter) == (3, "", DeadLetter.NONE)
            assert base.deadline == NOW + 7200 + 3600, "a redrive has a retry window of its own"
            assert base.ambiguous == (state is State.UNKNOWN)
            assert [event.what for event in base.history] == ["redriven"]
        case other:
            pytest.fail(str(other))


@pytest.mark.parametrize("state", sorted(REDRIVABLE))
@pytest.mark.parametrize("generation", [0, 1, 2])
def test_a_redrive_works_once(state: State, generation: int) -> None:
    known = record(state, generation=2)

    assert decision(known, generation=generation) == Drop(known)


@pytest.mark.parametrize(
    ("fields", "caller", "told"),
    [
        ({}, "key:a1", "key:a1"),
        ({}, "", "sqs"),
        ({"broadcast": "k-1"}, "", "broadcast:k-1"),
    ],
)
def test_a_record_tells_who_handed_its_message_in(
    fields: dict[str, str], caller: str, told: str
) -> None:
    envelope = message(**fields)
    fresh = first_record(envelope, door="sqs", caller=caller, accepted_at=NOW, now=NOW, rules=RULES)
    assert fresh.caller == told


def test_a_redrive_after_the_expiry_does_not_send() -> None:
    expires = datetime.fromtimestamp(NOW + 60, UTC)
    known = replace(
        first_record(
            message(expiresAt=expires.isoformat()),
            door="sqs",
            accepted_at=NOW,
            now=NOW,
            rules=RULES,
        ),
        state=State.REJECTED,
        tries=1,
        dead_letter=DeadLetter.WRITTEN,
    )

    match decision(known, now=NOW + 61, generation=1, expiresAt=expires.isoformat()):
        case Finish(Change(_, after)):
            assert (after.state, after.reason, after.generation) == (State.FAILED, "expired", 1)
        case other:
            pytest.fail(str(other))


def test_a_dead_letter_that_is_still_due_is_written() -> None:
    known = record(State.REJECTED, dead_letter=DeadLetter.DUE)

    assert decision(known) == WriteDeadLetter(known)


def test_a_live_lease_is_left_to_its_owner() -> None:
    known = record(State.SENDING, attempt="a1", lease=NOW + 65)

    assert decision(known) == Wait(NOW + 65, known)


def test_an_abandoned_claim_is_unknown_under_hold() -> None:
    known = record(State.SENDING, attempt="a1", lease=NOW + 5)

    match decision(known):
        case Finish(Change(before, after)):
            assert before is known
            assert (after.state, after.reason, after.tries) == (State.UNKNOWN, "abandoned", 1)
            assert after.dead_letter is DeadLetter.DUE
        case other:
            pytest.fail(str(other))


def test_an_abandoned_claim_is_tried_again_under_resend_and_the_doubt_recorded() -> None:
    said = message(onUnknown="resend")
    known = replace(
        first_record(said, door="sqs", accepted_at=NOW, now=NOW, rules=RULES),
        state=State.SENDING,
        attempt="a1",
        lease=NOW + 5,
    )

    match decision(known, onUnknown="resend"):
        case Send(before, base):
            assert before is known
            assert (base.ambiguous, base.tries) == (1, 1)
        case other:
            pytest.fail(str(other))


@pytest.mark.parametrize(
    ("tries", "expires_in", "state", "reason"),
    [
        (0, 60, State.EXPIRED, "expired"),
        (1, 60, State.FAILED, "expired"),
        (0, None, State.FAILED, "retry_window_ended"),
        (3, None, State.FAILED, "retry_window_ended"),
    ],
)
def test_a_message_whose_time_is_up_is_not_sent(
    tries: int, expires_in: float | None, state: State, reason: str
) -> None:
    expires_at = None if expires_in is None else NOW + expires_in
    known = record(tries=tries, expires_at=expires_at, deadline=expires_at or NOW + 3600)

    match decision(known, now=NOW + 3600):
        case Finish(Change(_, after)):
            assert (after.state, after.reason) == (state, reason)
            assert (after.dead_letter is DeadLetter.DUE) == (state is State.FAILED)
        case other:
            pytest.fail(str(other))


def test_no_deadline_outlives_the_queue() -> None:
    far = datetime.fromtimestamp(NOW + 100 * 86400, UTC).isoformat()

    fresh = first_record(message(expiresAt=far), door="http", accepted_at=NOW, now=NOW, rules=RULES)

    assert fresh.deadline == NOW + LONGEST_LIFE


# ---------------------------------------------------------------------------------------- settle


def claimed(**fields: Any) -> Record:
    send = Send(record(**fields), record(**fields))
    return claim(send, attempt="a1", now=NOW, lease=NOW + 65).after


def settled(verdict: Verdict, policy: OnUnknown | None = None, **fields: Any) -> Any:
    known = claimed(**{k: v for k, v in fields.items() if k != "now"})
    return settle(
        known,
        verdict,
        began=NOW,
        now=fields.get("now", NOW + 1),
        on_unknown=policy,
        rules=RULES,
        jitter=random.Random(1),
    )


def test_a_claim_has_an_owner_and_an_end() -> None:
    taken = claimed()

    assert (taken.state, taken.attempt, taken.lease) == (State.SENDING, "a1", NOW + 65)


def test_a_release_counts_no_attempt() -> None:
    after = release(claimed(), NOW + 1).after

    assert (after.state, after.tries, after.attempts) == (State.QUEUED, 0, ())


@pytest.mark.parametrize(
    ("verdict", "policy", "state", "ambiguous"),
    [
        (ACCEPTED, None, State.SENT, 0),
        (REFUSED, None, State.REJECTED, 0),
        (BUSY, None, State.QUEUED, 0),
        (UNAUTHORISED, None, State.QUEUED, 0),
        (REDIRECTED, None, State.QUEUED, 0),
        (LOST, None, State.UNKNOWN, 0),
        (LOST, OnUnknown.HOLD, State.UNKNOWN, 0),
        (LOST, OnUnknown.RESEND, State.QUEUED, 1),
    ],
)
def test_what_an_outcome_leads_to(
    verdict: Verdict, policy: OnUnknown | None, state: State, ambiguous: int
) -> None:
    settlement = settled(verdict, policy)
    after = settlement.change.after

    assert (after.state, after.ambiguous, after.tries) == (state, ambiguous, 1)
    assert (settlement.retry_in is None) == (state is not State.QUEUED)
    assert (after.dead_letter is DeadLetter.DUE) == (state in REDRIVABLE)
    assert after.lease == (0 if settlement.retry_in is None else NOW + 1 + settlement.retry_in)
    assert [(a.outcome, a.reason, a.milliseconds) for a in after.attempts] == [
        (verdict.outcome, verdict.reason, 1000)
    ]


def test_a_sent_message_keeps_the_providers_id() -> None:
    after = settled(ACCEPTED).change.after

    assert (after.provider_id, after.reason, after.detail) == ("p-1", "", "")


def test_a_refusal_keeps_the_providers_reason() -> None:
    after = settled(REFUSED).change.after

    assert (after.reason, after.detail) == ("http_400", "no such subscriber")


@pytest.mark.parametrize("verdict", [BUSY, UNAUTHORISED, REDIRECTED])
def test_retries_end_as_failed_at_the_deadline(verdict: Verdict) -> None:
    settlement = settled(verdict, now=NOW + 3600)

    assert settlement.change.after.state is State.FAILED
    assert settlement.retry_in is None


def test_the_last_try_comes_before_the_deadline() -> None:
    settlement = settled(BUSY, tries=20, now=NOW + 3500)

    assert settlement.retry_in <= 99.0


def test_only_the_latest_attempts_are_kept() -> None:
    many = settled(BUSY).change.after.attempts * (KEPT_ATTEMPTS + 5)

    after = settled(BUSY, attempts=many, tries=len(many)).change.after

    assert len(after.attempts) == KEPT_ATTEMPTS
    assert after.tries == len(many) + 1


# --------------------------------------------------------------------------------------- backoff


@pytest.mark.parametrize(
    ("tries", "low", "high"), [(1, 5, 10), (2, 5, 20), (5, 5, 160), (30, 5, 600), (10**6, 5, 600)]
)
def test_backoff_grows_and_is_spread(tries: int, low: float, high: float) -> None:
    waits = [backoff(tries, None, RULES, jitter=random.Random(seed)) for seed in range(300)]

    assert low <= min(waits) < low + (high - low) * 0.1
    assert high - (high - low) * 0.1 < max(waits) <= high


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(30.0, 30, 30), (0.0, 5, 10), (86400.0, 600, 600)]
)
def test_retry_after_is_obeyed_and_capped(asked: float, least: float, most: float) -> None:
    assert least <= backoff(1, asked, RULES) <= most


@pytest.mark.parametrize("days", [1, 7, 12])
def test_a_long_life_does_not_use_up_the_queues_thousand_receives(days: int) -> None:
    rng = random.Random(days)
    left = days * 86400.0
    tries = 0
    while left > 0:
        tries += 1
        left -= backoff(tries, None, RULES, time_left=left, jitter=rng)

    assert tries < 900


# ---------------------------------------------------------------------------------------- cancel


@pytest.mark.parametrize("state", State)
def test_only_a_queued_message_is_cancelled(state: State) -> None:
    change = cancel(record(state), NOW + 1)

    assert (change is not None) == (state is State.QUEUED)
    if change:
        assert (change.after.state, change.after.reason) == (State.CANCELED, "canceled")


def test_a_message_that_may_have_been_sent_is_not_cancelled() -> None:
    assert cancel(record(ambiguous=1), NOW) is None


def test_a_burial_changes_nothing_else() -> None:
    known = record(State.FAILED, dead_letter=DeadLetter.DUE)

    buried = replace(known, dead_letter=DeadLetter.WRITTEN, version=known.version + 1)
    assert marked_dead_lettered(known).after == buried
