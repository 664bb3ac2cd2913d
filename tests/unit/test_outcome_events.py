"""Every end of a message becomes one event and nothing else does; filters say what is paid for."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from relay.broadcasts.model import BroadcastRecord, Command, Status
from relay.broadcasts.table import _attributes
from relay.messages import envelope
from relay.messages.envelope import OnUnknown, QueuedMessage
from relay.messages.states import (
    TERMINAL,
    Change,
    Finish,
    Record,
    Rules,
    Send,
    State,
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
from relay.messages.store import difference, to_item
from relay.outcomes import events, schemas
from relay.outcomes.events import BROADCAST_CHANGED, MESSAGE_ENDED, event_of
from smsgold.responses import Outcome, Verdict
from tools.openapi import EVENTS_PATH
from tools.translated import template

EVENTS = Path(__file__).resolve().parents[2] / "events"
NOW = 1_800_000_000.25
RULES = Rules(on_unknown=OnUnknown.HOLD)
MESSAGE = QueuedMessage.model_validate(
    {
        "id": "m-1",
        "botId": "b-1",
        "number": "79991234567",
        "text": "Ваш код 4711",
        "buttons": [{"text": "Иван", "url": "https://shop.example/ivan"}],
        "reference": "order-1",
    }
)
SECRETS = ("79991234567", "Ваш код 4711", "Иван", "shop.example")


def stream(change: Change) -> dict[str, Any]:
    """Return the stream's record of a step, with the images that the store's write leaves."""
    was = to_item(change.before) if change.before else None
    now = {**was, **difference(was, to_item(change.after))} if was else to_item(change.after)
    return record(change.after.id, was, now)


def record(id_: str, was: Any, now: Any, kind: str = "message") -> dict[str, Any]:
    images = {"OldImage": was, "NewImage": now}
    return {
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"pk": {"S": f"{kind}#{id_}"}},
            "SequenceNumber": "1",
            "ApproximateCreationDateTime": NOW,
            **{name: image for name, image in images.items() if image},
        },
    }


# ------------------------------------------------------------------------ a life, step by step

QUEUED = first_record(MESSAGE, door="http", accepted_at=NOW, now=NOW, rules=RULES)


def claimed(before: Record, base: Record | None = None) -> Record:
    return claim(Send(before, base or before), attempt="a", now=NOW, lease=NOW + 60).after


def ended(outcome: Outcome, before: Record = QUEUED, now: float = NOW) -> Change:
    verdict = Verdict(outcome, reason="a_reason", detail="Иван did not want it")
    return settle(claimed(before), verdict, began=now, now=now, on_unknown=None, rules=RULES).change


def redriven(before: Record, now: float = NOW) -> Any:
    again = MESSAGE.model_copy(update={"generation": before.generation + 1})
    return decide(before, again, door="sqs", sent_at=now, now=now, rules=RULES)


def lives() -> Iterator[tuple[str, Change, bool]]:
    """Yield steps of every kind: a name, the step, whether it ends the message."""
    sent, rejected, unknown = (
        ended(outcome).after for outcome in (Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN)
    )
    written = marked_dead_lettered(rejected).after
    yield "accepted", step(None, QUEUED), False
    yield "claimed", Change(QUEUED, claimed(QUEUED)), False
    yield "released", release(claimed(QUEUED), NOW), False
    yield "to be tried again", ended(Outcome.NOT_SENT), False
    yield "sent", ended(Outcome.ACCEPTED), True
    yield "rejected", ended(Outcome.REFUSED), True
    yield "unknown", ended(Outcome.UNKNOWN), True
    yield "failed", ended(Outcome.NOT_SENT, now=QUEUED.deadline + 1), True
    yield "canceled", _there(cancel(QUEUED, NOW)), True
    yield "dead letter noted", marked_dead_lettered(rejected), False
    yield "redriven", Change(written, claimed(written, redriven(written).base)), False
    again = claimed(written, redriven(written).base)
    for outcome in (Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN):
        yield f"redriven, {outcome}", ended(outcome, again), True
    late = redriven(marked_dead_lettered(unknown).after, QUEUED.deadline * 2)
    if isinstance(late, Finish):
        yield "redriven too late", late.change, True
    yield "resolved as sent", _there(resolve(unknown, State.SENT, NOW)), True
    yield "resolved as failed", _there(resolve(unknown, State.FAILED, NOW)), True
    noted = marked_dead_lettered(unknown).after
    yield "resolved as failed, noted before", _there(resolve(noted, State.FAILED, NOW)), True
    yield "touched", step(QUEUED, QUEUED), False
    expiring = replace(QUEUED, expires_at=NOW + 5, deadline=NOW + 5)
    over = decide(expiring, MESSAGE, door="http", sent_at=NOW, now=NOW + 6, rules=RULES)
    assert isinstance(over, Finish)
    yield "expired", over.change, True
    assert sent.state is State.SENT


def _there(change: Change | None) -> Change:
    assert change
    return change


LIVES = {name: (change, ends) for name, change, ends in lives()}
each_step = pytest.mark.parametrize("name", LIVES)


@each_step
def test_a_step_is_an_event_if_it_ends_the_message(name: str) -> None:
    change, ends = LIVES[name]
    event = event_of(stream(change))

    assert (event is not None) is ends
    if event:
        assert event.kind == MESSAGE_ENDED
        assert event.at == pytest.approx(change.after.updated_at, abs=0.001)
        assert event.detail["status"] == change.after.state
        assert event.detail["version"] == change.after.version


def test_the_events_know_the_states_and_times_of_the_others() -> None:
    """They cannot import them: see relay.outcomes.events."""
    assert events.TERMINAL == {str(state) for state in TERMINAL} == set(schemas.ENDS)
    assert set(schemas.STATUSES) == {str(status) for status in Status}
    for at in (NOW, 0.0, 1_799_999_999.9996, 1_700_000_000.0005):
        assert events.rfc3339(at) == envelope.rfc3339(at)


def test_an_event_says_what_the_record_says() -> None:
    change = ended(Outcome.REFUSED)
    event = event_of(stream(change))

    assert event
    assert event.detail == {
        "id": "m-1",
        "status": "rejected",
        "reason": "a_reason",
        "reference": "order-1",
        "door": "http",
        "tries": 1,
        "generation": 0,
        "version": 3,
        "acceptedAt": "2027-01-15T08:00:00.250Z",
        "endedAt": "2027-01-15T08:00:00.250Z",
    }


@each_step
def test_no_event_holds_a_text_a_number_or_a_name(name: str) -> None:
    event = event_of(stream(LIVES[name][0]))
    shown = json.dumps(event.detail, ensure_ascii=False) if event else ""

    assert not [secret for secret in SECRETS if secret in shown]


def test_what_time_to_live_deletes_is_no_event() -> None:
    change = ended(Outcome.ACCEPTED)
    assert event_of(record("m-1", to_item(change.after), None)) is None


@pytest.mark.parametrize("pk", ["seal", "pace", "broadcast#b-1#snapshot#0"])
def test_other_items_of_the_table_are_no_events(pk: str) -> None:
    kind, _, id_ = pk.partition("#")
    item = {"pk": {"S": pk}, "ids": {"S": "[]"}, "version": {"N": "7"}}
    assert event_of(record(id_, None, item, kind)) is None


# ---------------------------------------------------------------------------------- the filter


def filters(*, of_all: bool) -> list[dict[str, Any]]:
    """Return the patterns of the stream's event source, for Events=all or problems."""
    source = template()["Resources"]["PublisherSource"]["Properties"]
    found = []
    for each in source["FilterCriteria"]["Filters"]:
        pattern = each["Pattern"]
        if isinstance(pattern, dict):
            condition, if_all, otherwise = pattern["Fn::If"]
            assert condition == "AllEvents"
            pattern = if_all if of_all else otherwise
        found.append(json.loads(pattern))
    return found


def passes(pattern: Any, value: Any) -> bool:
    """Match as Lambda does what the template uses of its patterns."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(passes(p, value.get(k)) for k, p in pattern.items())
    return value in pattern or ({"exists": True} in pattern and value is not None)


def invokes(change: dict[str, Any], *, of_all: bool) -> bool:
    return any(passes(pattern, change) for pattern in filters(of_all=of_all))


@each_step
def test_the_filter_lets_all_ends_through_and_hardly_anything_else(name: str) -> None:
    change, ends = LIVES[name]
    assert invokes(stream(change), of_all=True) is ends


@each_step
def test_the_filter_of_problems_leaves_out_what_was_sent_without_one(name: str) -> None:
    """Whoever was told of a problem learns of its solution."""
    change, ends = LIVES[name]
    assert invokes(stream(change), of_all=False) is (ends and name != "sent")


@pytest.mark.parametrize("of_all", [False, True])
def test_lambda_takes_the_filter(*, of_all: bool) -> None:
    """Five patterns at the most, and "only … filtering on the dynamodb key" (AWS)."""
    found = filters(of_all=of_all)
    assert len(found) <= 5
    assert {key for pattern in found for key in pattern} == {"dynamodb"}
    assert sum(len(json.dumps(pattern)) for pattern in found) < 4096


def test_none_has_no_stream_source_and_the_others_start_where_nothing_is_lost() -> None:
    declared = template()
    source = declared["Resources"]["PublisherSource"]
    assert source["Condition"] == "HasEvents"
    assert declared["Conditions"]["HasEvents"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "Events"}, "none"]}]
    }
    assert declared["Parameters"]["Events"]["Default"] == "problems"
    properties = source["Properties"]
    assert properties["StartingPosition"] == "TRIM_HORIZON"
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert properties["BisectBatchOnFunctionError"] is True
    assert 12 * 3600 <= properties["MaximumRecordAgeInSeconds"] < 24 * 3600, "the stream's day"
    assert properties["MaximumRetryAttempts"] == -1


# ---------------------------------------------------------------------------------- broadcasts


def broadcast(**fields: Any) -> dict[str, Any]:
    made = BroadcastRecord(id="b-1", bot_id="bot", fingerprint="f", created_at=NOW)
    return _attributes(replace(made, **fields)) | {"pk": {"S": "broadcast#b-1"}}


@pytest.mark.parametrize(
    ("command", "finished_at", "snapshot"), [*itertools.product(Command, (0.0, NOW), ("", "s"))]
)
def test_a_broadcast_s_event_has_its_status(
    command: Command, finished_at: float, snapshot: str
) -> None:
    fields: dict[str, Any] = {"command": command, "finished_at": finished_at, "snapshot": snapshot}
    known = replace(BroadcastRecord("b-1", "bot", "f", NOW), reason="requested", **fields)
    item = broadcast(reason="requested", **fields) | {"version": {"N": "2"}}
    event = event_of(record("b-1", None, item, "broadcast"))

    assert event
    assert event.kind == BROADCAST_CHANGED
    assert event.detail["status"] == known.status
    assert event.detail.get("reason", "") == known.why


def test_a_broadcast_s_event_has_its_counts_and_no_debts() -> None:
    item = broadcast(
        command=Command.STOP,
        snapshot="s",
        total=10,
        enqueued=6,
        halted=True,
        counts={State.SENT: 5, State.CANCELED: 1, State.FAILED: -1},
    )
    event = event_of(record("b-1", broadcast(), item | {"version": {"N": "3"}}, "broadcast"))

    assert event
    assert event.detail["canceled"] == 5
    assert (event.detail["sent"], event.detail["failed"], event.detail["total"]) == (5, 0, 10)


def test_progress_of_a_broadcast_is_no_event_and_invokes_nothing() -> None:
    was = broadcast() | {"version": {"N": "3"}, "step": {"S": "status"}}
    now = was | {"sent": {"N": "4"}, "step": {"S": "progress"}}
    change = record("b-1", was, now, "broadcast")

    assert event_of(change) is None
    assert not invokes(change, of_all=True)
    assert invokes(record("b-1", now, was, "broadcast"), of_all=False)


# --------------------------------------------------------------------------------- the schemas


def test_the_committed_schemas_are_current_and_valid() -> None:
    committed = json.loads(EVENTS_PATH.read_text(encoding="utf-8"))
    assert committed == schemas.document(), "make openapi, and commit docs/events.json"
    Draft202012Validator.check_schema(committed)


def test_every_event_is_as_its_schema_says() -> None:
    found = [event_of(stream(change)) for change, _ in LIVES.values()]
    item = broadcast(reference="r", finished_at=NOW, reason="late", command=Command.STOP)
    found += [event_of(record("b-1", None, item | {"version": {"N": "1"}}, "broadcast"))]
    validator = Draft202012Validator(schemas.document())
    for event in filter(None, found):
        sent = {
            "id": "e",
            "source": events.SOURCE,
            "detail-type": event.kind,
            "detail": event.detail,
        }
        validator.validate(sent)
        declared = schemas.MESSAGE if event.kind == MESSAGE_ENDED else schemas.BROADCAST
        assert event.detail.keys() <= declared.keys()
        assert declared.keys() - event.detail.keys() <= schemas.OPTIONAL


def test_a_record_of_a_later_release_is_not_taken_for_an_event() -> None:
    change = stream(ended(Outcome.ACCEPTED))
    change["dynamodb"]["NewImage"]["version"] = {"S": "three"}
    with pytest.raises((KeyError, TypeError, ValueError)):
        event_of(change)


def test_the_sample_events_are_made_of_the_sample_batch() -> None:
    def sample(name: str) -> Any:
        return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))

    published = [event_of(record) for record in sample("stream")["Records"]]
    for name, event in zip(("outcome_message", "outcome_broadcast"), published, strict=True):
        Draft202012Validator(schemas.document()).validate(sample(name))
        assert event
        assert (sample(name)["detail-type"], sample(name)["detail"]) == (event.kind, event.detail)
