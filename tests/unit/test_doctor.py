"""What the doctor says about a stack."""

from dataclasses import replace
from typing import Any

import pytest

from ops import doctor
from ops.doctor import Facts, Finding, Level, Lines, Overdue, Queue, Source, findings
from relay.broadcasts.model import LONGEST_PAUSE
from relay.messages.intake import OVERDUE
from tools.translated import template

FORTNIGHT = 1209600
STREAM = Source("RelayTable", True, True, 29)
HEALTHY = Facts(
    status="UPDATE_COMPLETE",
    parameters={n: str(p["Default"]) for n, p in template()["Parameters"].items()},
    queues={
        "MessagesQueue": Queue(360, FORTNIGHT, True, 5),
        "OrderedQueue": Queue(360, FORTNIGHT, False, 5, 7),
        "DeadLetterQueue": Queue(30, FORTNIGHT, False, 0),
    },
    sources=(
        Source("MessagesQueue", True, True, 60),
        Source("OrderedQueue", True, True, 60),
        STREAM,
    ),
    lines=Lines(oldest=12.0, busy=3),
    confirmed_mails=1,
    bots=2,
)


def troubles(facts: Facts) -> list[Finding]:
    return [finding for finding in findings(facts) if finding.level is not Level.GOOD]


def parameter(**changed: str) -> Facts:
    return replace(HEALTHY, parameters={**HEALTHY.parameters, **changed})


def queue(name: str, found: Queue) -> Facts:
    return replace(HEALTHY, queues={**HEALTHY.queues, name: found})


def source(found: Source) -> Facts:
    return replace(HEALTHY, sources=(found, STREAM))


def lines(**found: Any) -> Facts:
    return replace(HEALTHY, lines=Lines(**found))


def test_the_templates_defaults_are_healthy() -> None:
    assert troubles(HEALTHY) == []


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (replace(HEALTHY, status="UPDATE_ROLLBACK_COMPLETE"), "UPDATE_ROLLBACK_COMPLETE"),
        (replace(HEALTHY, status="UPDATE_IN_PROGRESS"), "UPDATE_IN_PROGRESS"),
        (replace(HEALTHY, missing=("OrderedQueue",)), "the stack has no OrderedQueue: it is of an"),
        (replace(HEALTHY, denied=("sqs:SendMessage on DeadLetterQueue",)), "sqs:SendMessage"),
        (replace(HEALTHY, bots=None, provider_problem="http_401"), "http_401"),
        (replace(HEALTHY, bots=0), "no bot"),
        (replace(HEALTHY, unlisted=("byListed",)), "index byListed is missing or not filled yet"),
        (source(Source("MessagesQueue", False, True, 60)), "no function receives"),
        (source(Source("MessagesQueue", True, False, 60)), "returns the whole batch"),
        (source(Source("MessagesQueue", True, True, 400)), "a run may take 400"),
        (source(Source("MessagesQueue", True, True, 61)), "less than six runs"),
        (queue("MessagesQueue", Queue(360, FORTNIGHT, False, 0)), "has no dead-letter queue"),
        (source(Source("OrderedQueue", False, True, 60)), "no function receives"),
        (source(Source("OrderedQueue", True, True, 61)), "less than six runs"),
        (queue("OrderedQueue", Queue(360, FORTNIGHT, True, 0)), "has a dead-letter queue, which"),
        (queue("OrderedQueue", Queue(360, FORTNIGHT, False, 30_001, 30_000)), "60001 messages"),
        (lines(held=(1.8e9,)), "holds 1 chat, the longest until 2027-01-15 08:00 UTC"),
        (lines(held=(1.8e9, 1.8e9 + 60, 1.0)), "3 chats, the longest until 2027-01-15 08:01 UTC"),
        (lines(held=(1.8e9,) * 100), "holds at least 100 chats"),
        (lines(account_held_until=1.8e9), "the whole account until 2027-01-15 08:00 UTC"),
        (lines(oldest=901.0, busy=2), "for 15 minutes; 2 chats at work or waiting"),
        (lines(oldest=9000.0), "for 150 minutes"),
        (queue("MessagesQueue", Queue(360, 345600, True, 0)), "deletes messages"),
        (queue("DeadLetterQueue", Queue(30, FORTNIGHT, False, 3)), "3 dead letters"),
        (queue("EventsFailureQueue", Queue(30, FORTNIGHT, False, 1)), "events were given up"),
        (replace(HEALTHY, sources=HEALTHY.sources[:2]), "Events is problems, and no function"),
        (replace(HEALTHY, sources=(replace(STREAM, enabled=False),)), "reads the table's stream"),
        (replace(HEALTHY, sources=(replace(STREAM, partial_failures=False),)), "has lost Report"),
        (parameter(MessagesPerSecond="0"), "MessagesPerSecond is 0"),
        (parameter(MessagesPerSecond="100"), "MessagesPerSecond is 100"),
        (parameter(ProviderTimeout="20", SenderTimeout="20"), "too short"),
        (parameter(BackoffMin="700"), "BackoffMin"),
        (parameter(OnUnknown="resend"), "resend"),
        (replace(HEALTHY, overdue=Overdue(9, ("m-1", "m-2"))), "2 of 9 messages wait past"),
        (replace(HEALTHY, in_alarm=("RedirectsAlarm",)), "RedirectsAlarm is on"),
        (replace(parameter(Stage="prod"), confirmed_mails=0), "nobody is notified"),
        (replace(HEALTHY, queues={}, unread=("the queues (AccessDenied)",)), "not examined: the q"),
        (replace(HEALTHY, unread=("the alarms (AccessDenied)",)), "not examined: the alarms"),
    ],
)
def test_each_trouble_is_named_with_what_to_do(facts: Facts, says: str) -> None:
    [found] = troubles(facts)

    assert says in found.what
    assert found.todo


def test_what_is_not_known_of_the_lines_is_not_called_good() -> None:
    told = [finding.what for finding in findings(lines())]
    assert "the provider holds no chat" in told
    assert not [what for what in told if "no chat's line" in what]


def test_a_thorough_examination_that_finds_nothing_says_how_much_it_read() -> None:
    told = findings(replace(HEALTHY, overdue=Overdue(9)))
    assert "no message of 9 waits past its deadline" in [finding.what for finding in told]


def test_many_messages_are_not_all_named() -> None:
    ids = tuple(f"m-{i}" for i in range(9))
    [found] = troubles(replace(HEALTHY, overdue=Overdue(99, ids)))
    assert found.what.endswith(
        "9 of 99 messages wait past their deadline: m-0, m-1, m-2, m-3, m-4, …"
    )


def test_the_doctor_counts_as_the_relay_does() -> None:
    assert doctor.GRACE == OVERDUE
    assert doctor.LONGEST_PAUSE == LONGEST_PAUSE


def test_the_doctor_s_limits_are_the_alarms() -> None:
    alarms = template()["Resources"]
    assert alarms["OldestOrderedAlarm"]["Properties"]["Threshold"] == doctor.LONG
    assert alarms["OrderedBacklogAlarm"]["Properties"]["Threshold"] == doctor.BACKLOG


def test_a_stack_without_events_needs_no_one_who_reads_the_stream() -> None:
    silent = replace(parameter(Events="none"), sources=HEALTHY.sources[:2])
    assert troubles(silent) == []
