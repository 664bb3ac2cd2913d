"""Whom a broadcast reaches and what it says to each: the dry run and the real one find the same."""

import itertools
import json
import re
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.broadcasts.audience import Audience, AudienceError, Personal, Trial
from relay.broadcasts.model import (
    Broadcast,
    Cause,
    Command,
    QueuedBroadcast,
    Status,
    queued_broadcast,
    stray_braces,
)
from relay.broadcasts.recounts import HEARTBEAT, Turn
from relay.broadcasts.table import CHUNK, Listed
from relay.messages.envelope import QueuedMessage
from relay.messages.queues import LONGEST_DELAY
from relay.messages.states import State
from relay.templates import TemplateError
from relay.validation import InvalidMessageError, parse, validate
from tests.support.fanned import RULES, Fanned, entries
from tests.support.world import START, Crash

HELLO = "Здравствуйте, {{ name || 'друг' }}!"


def broadcast(text: str = HELLO, **rest: Any) -> QueuedBroadcast:
    fields = {"botId": "b-1", "text": text, "template": True, **rest}
    return queued_broadcast(validate(Broadcast, fields), "x")


def sent(fanned: Fanned) -> dict[str, str]:
    """Return what each subscriber's message says, as it lies on the queue."""
    found = [parse(QueuedMessage, copy.body) for copy in fanned.relay.queues.messages]
    return {message.subscriber_id or message.number or "": message.text for message in found}


def tried(fanned: Fanned, **rest: Any) -> Trial:
    queued = broadcast(**rest)
    return fanned.audience.try_out(queued, samples=3, goes_on=lambda: True)


def put(fanned: Fanned, lines: list[str], name: str = "list.jsonl") -> str:
    fanned.s3.put_object(Bucket="stack", Key=f"recipients/{name}", Body="\n".join(lines).encode())
    return f"s3://stack/recipients/{name}"


# ---------------------------------------------------------------------------------- braces


def test_braces_are_never_sent_by_surprise() -> None:
    plain = validate(Broadcast, {"botId": "b", "text": "Hello {{ name }}"})
    [(where, problem)] = stray_braces(plain)
    assert where == ("text",)
    assert "set template to true" in problem
    for template in (True, False):
        chosen = plain.model_copy(update={"template": template})
        assert stray_braces(chosen) == []
    assert stray_braces(validate(Broadcast, {"botId": "b", "text": "Hello {name}!"})) == []


def test_a_plain_broadcast_is_the_same_on_the_queue_as_ever() -> None:
    plain = validate(Broadcast, {"botId": "b", "text": "Привет"})
    assert queued_broadcast(plain, "x").to_body() == (
        '{"kind":"broadcast","text":"\\u041f\\u0440\\u0438\\u0432\\u0435\\u0442","botId":"b","id":"x"}'
    )


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("text", "Hello {{ name", "unbalanced braces"),
        ("text", "Hello {{ na me }}", "is not JMESPath"),
        ("text", "Hello {{ shout(name) }}", "does not exist"),
        ("where", "city ==", "is not JMESPath"),
        ("recipients", [], "at least 1"),
        ("recipients", [{"data": {}}], "give subscriberId, or botId with number"),
        ("recipients", [{"subscriberId": "s", "botId": "b"}], "does not go with subscriberId"),
        ("recipients", [{"number": "12"}], "must be a phone number"),
        ("recipientsFrom", "s3://stack/other/x", "recipients/"),
        ("perSecond", 0, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_field(
    field: str, value: object, problem: str
) -> None:
    with pytest.raises(InvalidMessageError) as error:
        validate(Broadcast, {"botId": "b", "text": "-", "template": True, field: value})
    [(where, what)] = error.value.problems
    assert where[0] == field
    assert problem in what


@pytest.mark.parametrize(
    "url",
    [
        "https://{{ name }}@shop.example/",
        "https://shop:{{ name }}@shop.example/",
        "https://{{ name }}.shop.example/",
        "https://shop.example{{ name }}",
        "tg://{{ name }}",
    ],
)
def test_nobodys_name_chooses_where_a_button_leads(url: str) -> None:
    with pytest.raises(InvalidMessageError, match="buttons"):
        broadcast(buttons=[{"text": "Open", "url": url}])


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/{{ name }}",
        "HTTPS://me@shop.example:8443?who={{ name }}",
        "https://shop.example#{{ name }}",
        "tg://resolve?domain={{ name }}",
    ],
)
def test_what_follows_the_host_of_an_address_may_be_a_template(url: str) -> None:
    assert broadcast(buttons=[{"text": "Open", "url": url}]).buttons[0].url == url


def test_a_list_and_a_file_do_not_go_together() -> None:
    with pytest.raises(InvalidMessageError, match="recipientsFrom: give either"):
        broadcast(recipients=[{"subscriberId": "s"}], recipientsFrom="s3://stack/recipients/x")


def test_braces_from_before_there_were_templates_are_sent_as_they_were(fanned: Fanned) -> None:
    """What a hook, a schedule or the queue holds was never asked about."""
    fanned.listed = [{"id": "s-0", "name": "Anna"}]
    fanned.start(text="Hello {{ name }}")
    fanned.run()
    assert sent(fanned) == {"s-0": "Hello {{ name }}"}


# ------------------------------------------------------------------------- what it says to each

NASTY = [
    "x" * 5000,
    "{{ id }}",
    "{{",
    "Anna\nsaid: free money",
    "Anna\r\n\u2028\u2029\x0b\x85Belova",
    "\u202egnol\u2066\u200f",
    "\0\ud800",
    "",
    None,
    7,
    ["a", "b"],
    {"first": "Anna"},
]


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_name_is_sent_as_it_reads_on_one_line_or_not_at_all(
    fanned: Fanned, name: object
) -> None:
    fanned.listed = [{"id": "s-0", "name": name}, {"id": "s-1", "name": "Anna"}]
    fanned.start(text="Hello {{ text(name) }}!\nYours", template=True)
    fanned.run()
    found = sent(fanned)
    assert found["s-1"] == "Hello Anna!\nYours"
    if text := found.get("s-0"):
        assert len(text) <= 4096
        assert len(text.splitlines()) == 2, "nobody's name adds a line"
        if name == "{{ id }}":
            assert text == "Hello {{ id }}!\nYours"
    assert fanned.progress().total == len(found)
    assert fanned.progress().skipped[Cause.UNRENDERABLE] == 2 - len(found)
    assert ("s-0" in found) == (name != NASTY[0])


@given(
    name=st.text(max_size=30) | st.integers() | st.none() | st.lists(st.text(max_size=5)),
    source=st.sampled_from(
        [
            "{{ name }}",
            "Hi {{ name }}!",
            "{{ urlencode(name) }}",
            "{{ lines(name) }}",
            "{{ length(name) }}",
        ]
    ),
)
def test_what_is_kept_renders_the_same_text_again(name: object, source: str) -> None:
    buttons = [{"text": "Go {{ name }}", "url": "https://shop.example/?n={{ urlencode(name) }}"}]
    personal = Personal(broadcast(text=source, buttons=buttons))
    try:
        values = personal.values({"name": name, "secret": "4711"})
    except (TemplateError, InvalidMessageError):
        return
    kept = json.loads(json.dumps(values))
    assert "4711" not in kept
    assert personal.content(kept) == personal.content(values)
    message = personal.message(broadcast(text=source, buttons=buttons), Listed(("s",), values))
    assert parse(QueuedMessage, message.to_body()) == message, "every door would take it"


def test_a_button_is_rendered_or_the_message_is_not_sent(fanned: Fanned) -> None:
    fanned.listed = [{"id": "s-0", "order": "a b"}, {"id": "s-1", "order": "\u202e"}]
    button = {"text": "Order {{ order }}", "url": "https://shop.example/{{ order }}"}
    fanned.start(text="Ready", template=True, buttons=[button])
    fanned.run()
    [copy] = fanned.relay.queues.messages
    message = parse(QueuedMessage, copy.body)
    assert (message.subscriber_id, message.buttons[0].text) == ("s-0", "Order a b")
    assert message.buttons[0].url == "https://shop.example/a b"
    assert fanned.progress().skipped[Cause.UNRENDERABLE] == 1


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_a_killed_run_repeats_the_same_texts(fanned: Fanned, step: int) -> None:
    fanned.listed = [{"id": f"s-{n}", "name": f"N {n}"} for n in range(2 * CHUNK + 10)]
    expected = {f"s-{n}": f"Здравствуйте, N {n}!" for n in range(2 * CHUNK + 10)}
    fanned.start(text=HELLO, template=True)
    fanned.faulty.dies_in = step
    try:
        fanned.run()
    except Crash:
        if fanned.progress().snapshot if fanned.table.load(["x"]) else False:
            fanned.listed = [{"id": f"s-{n}", "name": "renamed"} for n in range(2 * CHUNK + 10)]
        fanned.faulty.dies_in = None
        fanned.run()
    fanned.faulty.dies_in = None
    texts: dict[str, set[str]] = {}
    for copy in fanned.relay.queues.messages:
        message = parse(QueuedMessage, copy.body)
        texts.setdefault(str(message.subscriber_id), set()).add(message.text)
    assert texts == {id_: {text} for id_, text in expected.items()}


def test_the_bucket_keeps_what_the_template_names_and_the_table_nothing(fanned: Fanned) -> None:
    fanned.listed = [{"id": "s-0", "name": "Anna", "number": "79160001122", "city": "Москва"}]
    fanned.start(text=HELLO, template=True, where="city == 'Москва'")
    fanned.run()
    items = json.dumps(fanned.client.scan(TableName="Relay")["Items"], ensure_ascii=False)
    assert "Anna" not in items
    [kept] = fanned.s3.list_objects_v2(Bucket="stack")["Contents"]
    body = fanned.s3.get_object(Bucket="stack", Key=kept["Key"])["Body"].read()
    assert json.loads(body) == [[["s-0"], ["Anna"]]]


# ----------------------------------------------------------------------------------- who gets it


def test_each_entry_that_gets_nothing_is_counted_by_its_cause(fanned: Fanned) -> None:
    fanned.listed = [
        *({"id": f"s-{n}", "name": "N" * n, "city": "Москва"} for n in range(3)),
        {"id": "s-1", "name": "again", "city": "Москва"},
        {"name": "nobody"},
        {"id": "s-7", "city": "Тверь"},
        {"id": "s-8", "city": "Москва", "name": "x" * 5000},
        {"id": "s-9", "city": 7},
    ]
    where = "starts_with(city, 'М')"
    trial = tried(fanned, where=where)
    assert not fanned.relay.queues.messages
    assert not fanned.client.scan(TableName="Relay")["Items"]
    assert "Contents" not in fanned.s3.list_objects_v2(Bucket="stack")
    fanned.start(text=HELLO, template=True, where=where)
    fanned.run()
    assert trial.total == fanned.progress().total == 3
    expected = {
        Cause.DUPLICATES: 1,
        Cause.WITHOUT_ID: 1,
        Cause.FILTERED: 1,
        Cause.UNRENDERABLE: 2,
    }
    assert trial.skipped == expected
    assert +Counter(fanned.progress().skipped) == expected
    assert [skipped.who for skipped in trial.unrenderable] == ["s-8", "s-9"]
    assert {m.subscriber_id: m.text for m in trial.samples} == sent(fanned)


def test_recipients_are_addressed_by_id_or_number_and_the_table_has_no_number(
    fanned: Fanned,
) -> None:
    recipients = [
        {"subscriberId": "s-1", "data": {"name": "Anna"}},
        {"number": "+7 916 000-11-22", "data": {"name": "Boris"}},
        {"botId": "b-1", "number": "79160001122", "data": {"name": "the same"}},
        {"botId": "b-2", "number": "79160001122"},
    ]
    fanned.start(text=HELLO, template=True, recipients=recipients)
    fanned.run()
    found = [parse(QueuedMessage, copy.body) for copy in fanned.relay.queues.messages]
    assert [(m.subscriber_id, m.bot_id, m.number, m.text) for m in found] == [
        ("s-1", None, None, "Здравствуйте, Anna!"),
        (None, "b-1", "79160001122", "Здравствуйте, Boris!"),
        (None, "b-2", "79160001122", "Здравствуйте, друг!"),
    ]
    assert fanned.progress().skipped[Cause.DUPLICATES] == 1
    assert "79160001122" not in json.dumps(fanned.client.scan(TableName="Relay")["Items"])


def test_whoever_got_the_excluded_broadcast_or_may_yet_is_left_out(fanned: Fanned) -> None:
    fanned.listed = entries(5)
    first = broadcast(text="First", template=None)
    fanned.broadcasts.start(first.model_copy(update={"id": "first"}))
    fanned.run()
    fanned.relay.queues.messages.clear()
    ends = [State.SENT, State.REJECTED, State.UNKNOWN, State.CANCELED]
    for n, state in enumerate(ends):
        fanned.settle([f"s-{n}"], state, at=fanned.relay.world.now, broadcast="first")
    fanned.start(text="Second", exclude="first")
    fanned.run(order=1)
    assert set(sent(fanned)) == {"s-1", "s-3"}
    assert fanned.progress().skipped[Cause.EXCLUDED] == 3


def test_a_broadcast_waits_for_the_excluded_one_to_list_its_recipients(fanned: Fanned) -> None:
    """Started one after the other, both go to the notifier at once."""
    fanned.listed = entries(3)
    first = broadcast(text="First", template=None)
    fanned.broadcasts.start(first.model_copy(update={"id": "first"}))
    fanned.start(text="Second", exclude="first")
    assert fanned.run(order=1), "it is not known yet who gets the first"
    assert fanned.progress().status is Status.PREPARING
    with pytest.raises(AudienceError, match="has not listed its recipients yet"):
        tried(fanned, exclude="first")
    fanned.run(order=0)
    fanned.relay.queues.messages.clear()
    fanned.run(order=1)
    assert sent(fanned) == {}
    assert fanned.progress().skipped[Cause.EXCLUDED] == 3


def test_an_excluded_broadcast_that_never_lists_anybody_is_not_awaited_for_ever(
    fanned: Fanned,
) -> None:
    first = broadcast(text="First", template=None)
    fanned.broadcasts.start(first.model_copy(update={"id": "first"}))
    fanned.start(text="Second", exclude="first")
    fanned.relay.world.now += RULES.retry_window + 1
    assert fanned.run(order=1) is None
    assert (fanned.progress().status, fanned.progress().reason) == (
        Status.FAILED,
        "retry_window_ended",
    )


def test_one_that_was_stopped_before_it_listed_anybody_excludes_nobody(fanned: Fanned) -> None:
    fanned.listed = entries(3)
    first = broadcast(text="First", template=None)
    fanned.broadcasts.start(first.model_copy(update={"id": "first"}))
    fanned.broadcasts.command("first", Command.STOP)
    fanned.start(text="Second", exclude="first")
    fanned.run(order=1)
    assert len(sent(fanned)) == 3


def test_an_unknown_broadcast_cannot_be_excluded(fanned: Fanned) -> None:
    with pytest.raises(AudienceError, match="no broadcast has this id"):
        fanned.broadcasts.check(broadcast(exclude="nowhere"))
    fanned.start(exclude="nowhere")
    fanned.run()
    assert (fanned.progress().command, fanned.progress().reason) == (
        Command.FAIL,
        "exclude_unknown",
    )


# --------------------------------------------------------------------------------- files


def lines(count: int) -> list[str]:
    return [
        json.dumps({"subscriberId": f"s-{n}", "data": {"name": f"N {n}"}}) for n in range(count)
    ]


def test_a_file_is_read_line_by_line_and_a_repeat_is_sent_once(fanned: Fanned) -> None:
    address = put(fanned, ["\ufeff" + lines(1)[0], "", *lines(3), "  "])
    fanned.start(text=HELLO, template=True, recipientsFrom=address)
    fanned.run()
    assert sent(fanned) == {f"s-{n}": f"Здравствуйте, N {n}!" for n in range(3)}
    assert fanned.progress().skipped[Cause.DUPLICATES] == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 1301: the body must be valid JSON"),
        ('{"number": "12"}', "line 1301: number: must be a phone number"),
        ('{"subscriberId": "s", "dta": {}}', "line 1301: dta: is not a known field"),
        ('["s"]', "line 1301: the body must be a JSON object"),
        (" " * 70_000 + "x", "line 1301: is too long"),
    ],
)
def test_a_broken_line_is_named_before_anything_is_sent(
    fanned: Fanned, line: str, problem: str
) -> None:
    address = put(fanned, [*lines(1300), line, *lines(10)])
    fanned.start(text=HELLO, template=True, recipientsFrom=address)
    assert fanned.run() is None
    progress = fanned.progress()
    assert (progress.command, progress.reason) == (Command.FAIL, "recipients_invalid")
    assert problem in progress.detail
    assert sent(fanned) == {}
    with pytest.raises(AudienceError, match=problem):
        tried(fanned, recipientsFrom=address)


def test_what_is_wrong_with_a_line_tells_the_table_no_number_and_no_name(fanned: Fanned) -> None:
    wrong = [
        '{"subscriberId": "s", "+7 (916) 000-11-22": "x"}',
        '{"79160001122": "x"}',
        '{"data": {"7916-000-11-22": 1, "7916-000-11-22": 2}}',
        '{"subscriberId": "s", "Анна Белова": 1}',
    ]
    fanned.start(recipientsFrom=put(fanned, wrong))
    fanned.run()
    detail = fanned.progress().detail
    assert detail.count("line ") == len(wrong)
    assert "…: is not a known field; check its spelling" in detail
    digits = re.sub(r"\D", "", re.sub(r"line \d+", "", detail))
    assert len(digits) < 5, detail
    assert "Анна" not in detail


def test_a_file_that_is_not_there_or_not_the_stacks_is_refused(fanned: Fanned) -> None:
    with pytest.raises(AudienceError, match="there is no such file"):
        tried(fanned, recipientsFrom="s3://stack/recipients/nothing")
    with pytest.raises(AudienceError, match="s3://stack/recipients/"):
        fanned.broadcasts.check(broadcast(recipientsFrom="s3://another/recipients/list"))


class LongFile:
    """A bucket with one long list, made as it is read."""

    name = "stack"

    def __init__(self, count: int, broken: int = 0) -> None:
        self._count = count
        self._broken = broken

    def lines(self, _: str) -> Any:
        for n in range(1, self._count + 1):
            good = b'{"subscriberId": "s-%d", "data": {"name": "N %d"}}' % (n, n)
            yield b"{" if n == self._broken else good


def over(count: int, broken: int = 0) -> Audience:
    anything: Any = LongFile(count, broken)
    return Audience(subscribers=lambda _: [], table=anything, store=anything, bucket=anything)


def test_a_long_list_takes_as_much_memory_as_a_short_one() -> None:
    """How long it takes, and 100,000 lines, are the matter of benchmarks/personal.py."""
    queued = broadcast(recipientsFrom="s3://stack/recipients/long")
    peaks = {}
    for count in (1_000, 20_000):
        tracemalloc.start()
        assert sum(isinstance(each, Listed) for each in over(count).select(queued)) == count
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # To hold 19,000 addresses more would take 2 MB; what waits for the garbage collector takes 0.2.
    assert peaks[20_000] < peaks[1_000] + 1_000_000, "bytes"


def test_broken_line_57331_is_named() -> None:
    queued = broadcast(recipientsFrom="s3://stack/recipients/long")
    with pytest.raises(AudienceError, match="line 57331: the body must be valid JSON"):
        for _ in over(60_000, broken=57_331).select(queued):
            pass


def slow(fanned: Fanned, call: Any, seconds: float) -> Any:
    """Return a call that takes so long."""

    def made(*arguments: Any, **named: Any) -> Any:
        fanned.relay.world.now += seconds
        return call(*arguments, **named)

    return made


def too_long(fanned: Fanned, ends_in: float = 10.0) -> bool:
    """Return whether a run gave its list up, in time."""
    ends_at = fanned.relay.world.now + ends_in
    assert fanned.run(ends_in) is None
    assert fanned.relay.world.now < ends_at, "it would have been killed, and repeated for ever"
    return (fanned.progress().status, fanned.progress().reason) == (Status.FAILED, "list_too_long")


@pytest.mark.parametrize("first", [[], [{"name": "without an id"}]], ids=["", "after one skipped"])
def test_a_list_too_long_for_a_run_fails_and_is_not_repeated_for_ever(
    fanned: Fanned, monkeypatch: pytest.MonkeyPatch, first: list[Any]
) -> None:
    fanned.listed = [*first, *entries(10 * CHUNK)]
    monkeypatch.setattr(fanned.table, "put_chunk", slow(fanned, fanned.table.put_chunk, 1.5))
    fanned.start()
    assert too_long(fanned)


def test_whom_to_exclude_may_take_too_long_as_well(
    fanned: Fanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanned.listed = entries(10 * CHUNK)
    first = broadcast(text="First", template=None)
    fanned.broadcasts.start(first.model_copy(update={"id": "first"}))
    fanned.run()
    monkeypatch.setattr(fanned.relay.store, "load", slow(fanned, fanned.relay.store.load, 1.5))
    second = broadcast(exclude="first")
    ends_at = fanned.relay.world.now + 5.0
    trial = fanned.audience.try_out(
        second, samples=3, goes_on=lambda: fanned.relay.world.now < ends_at
    )
    assert (trial.complete, trial.total) == (False, 0)
    assert fanned.relay.world.now < ends_at + 2
    fanned.queued.clear()
    fanned.start(exclude="first")
    assert too_long(fanned)


def test_a_file_that_is_read_on_to_name_its_broken_lines_may_take_too_long_as_well(
    fanned: Fanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(key: str) -> Any:
        for line in LongFile(10 * CHUNK, broken=1).lines(key):
            fanned.relay.world.now += 0.003
            yield line

    monkeypatch.setattr(fanned.bucket, "lines", read)
    fanned.start(recipientsFrom="s3://stack/recipients/long")
    assert too_long(fanned)


def test_a_run_that_lists_says_that_it_is_at_work(
    fanned: Fanned, monkeypatch: pytest.MonkeyPatch
) -> None:
    fanned.listed = entries(10 * CHUNK)
    monkeypatch.setattr(fanned.table, "put_chunk", slow(fanned, fanned.table.put_chunk, 4.0))
    fanned.start()
    said: list[float] = []
    turn = Turn(fanned.relay.world.now + 300.0, hide=lambda _: said.append(fanned.relay.world.now))
    fanned.fan_out.run(parse(QueuedBroadcast, fanned.queued[0]), turn)
    gaps = [later - earlier for earlier, later in itertools.pairwise(said)]
    assert max(gaps) < HEARTBEAT / 2


# ---------------------------------------------------------------------------------- per second


def test_at_most_so_many_a_second_go_also_if_runs_come_late(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start(perSecond=10)
    wait = fanned.run()
    assert wait == pytest.approx(CHUNK / 10 - 5)
    assert Counter(fanned.relay.queues.delays) == dict.fromkeys(range(CHUNK // 10), 10)
    fanned.relay.world.now += 400
    fanned.relay.queues.delays.clear()
    fanned.run()
    assert Counter(fanned.relay.queues.delays) == dict.fromkeys(range(CHUNK // 10), 10)
    assert fanned.progress().enqueued == 2 * CHUNK


def test_the_next_chunk_goes_on_the_queue_just_ahead_of_its_time(fanned: Fanned) -> None:
    fanned.listed = entries(2 * CHUNK)
    fanned.start(perSecond=10)
    fanned.run()
    fanned.relay.world.now += 47.5
    fanned.relay.queues.delays.clear()
    fanned.run()
    assert min(fanned.relay.queues.delays) == 3
    assert max(fanned.relay.queues.delays) == 52


def test_a_slow_broadcast_that_is_stopped_asks_for_no_delay_that_sqs_refuses(
    fanned: Fanned,
) -> None:
    fanned.listed = entries(3 * CHUNK)
    fanned.start(perSecond=1)
    fanned.run()
    fanned.broadcasts.command("x", Command.STOP)
    fanned.run()
    assert (fanned.progress().halted, fanned.progress().enqueued) == (True, 2 * CHUNK)
    assert max(fanned.relay.queues.delays) <= LONGEST_DELAY


def test_ten_thousand_get_their_own_text_though_the_notifier_is_killed_twice(
    fanned: Fanned,
) -> None:
    """Each text is what a renderer makes of the entry, whichever run put it on the queue."""
    fanned.listed = [{"id": f"s-{n}", "name": f"Имя {n}\n", "n": n} for n in range(10_000)]
    text = "{{ name || 'друг' }}, номер {{ n }}"
    fanned.start(text=text, template=True)
    for dies_in in (110, 40):
        fanned.faulty.dies_in = dies_in
        with pytest.raises(Crash):
            fanned.run()
    fanned.faulty.dies_in = None
    fanned.run()
    personal, queued = Personal(broadcast(text=text)), broadcast(text=text)
    bodies = {
        personal.message(queued, Listed((str(e["id"]),), personal.values(e))).to_body()
        for e in fanned.listed
    }
    assert {copy.body for copy in fanned.relay.queues.messages} == bodies
    progress = fanned.progress()
    assert progress.total == progress.enqueued == 10_000
    samples = fanned.audience.try_out(queued, samples=3, goes_on=lambda: True).samples
    assert {message.to_body() for message in samples} < bodies


# ------------------------------------------------------------------ hours by each one's own clocks

OWN_HOURS = {"from": "09:00", "to": "21:00", "timezone": "{{ timezone || 'Europe/Moscow' }}"}


def zones(fanned: Fanned) -> dict[str, str]:
    """Return by whose clocks each subscriber's message keeps its hours."""
    found = [parse(QueuedMessage, copy.body) for copy in fanned.relay.queues.messages]
    return {str(m.subscriber_id): m.between.timezone for m in found if m.between}


def test_each_gets_it_in_his_own_daytime(fanned: Fanned) -> None:
    fanned.listed = [
        {"id": "s-1", "timezone": "Asia/Vladivostok"},  # 18:00 at the start
        {"id": "s-2", "timezone": "America/New_York"},  # 03:00
        {"id": "s-3"},
        {"id": "s-4", "timezone": "Europe/Moskva"},
    ]
    trial = tried(fanned, text="Hello", between=OWN_HOURS)
    fanned.start("Hello", template=True, between=OWN_HOURS)
    fanned.run()

    assert zones(fanned) == {
        "s-1": "Asia/Vladivostok",
        "s-2": "America/New_York",
        "s-3": "Europe/Moscow",
    }
    assert trial.skipped == {Cause.UNRENDERABLE: 1}
    assert fanned.progress().skipped[Cause.UNRENDERABLE] == 1
    [left_out] = trial.unrenderable
    assert left_out.who == "s-4"
    assert left_out.problem == (
        "between.timezone: must be an IANA time zone, such as Europe/Moscow or UTC"
    )
    ids = {m.id: m for m in (parse(QueuedMessage, c.body) for c in fanned.relay.queues.messages)}
    fanned.relay.broadcasts.items["x"] = fanned.progress()
    fanned.relay.run()
    states = {str(ids[i].subscriber_id): r for i, r in fanned.relay.store.records.items()}
    assert {id_: r.state for id_, r in states.items()} == {
        "s-1": State.SENT,
        "s-2": State.QUEUED,
        "s-3": State.SENT,
    }
    assert states["s-2"].lease == START + 6 * 3600, "nine in New York"


def test_hours_of_one_zone_are_the_broadcast_s_own(fanned: Fanned) -> None:
    hours = {**OWN_HOURS, "timezone": "America/New_York"}
    fanned.listed = entries(2)
    fanned.start("Hello {{ id }}", template=True, between=hours)
    assert fanned.run() == 6 * 3600, "it waits as one"
    fanned.relay.world.now += 6 * 3600
    fanned.run()
    assert set(zones(fanned).values()) == {"America/New_York"}


@pytest.mark.parametrize(
    ("fields", "where", "problem"),
    [
        ({"template": False}, "template", "must be true for an expression in between.timezone"),
        ({"template": None}, "template", "must be true for an expression in between.timezone"),
        ({"between": {**OWN_HOURS, "timezone": "{{ na me }}"}}, "between.timezone", "JMESPath"),
        ({"between": {**OWN_HOURS, "timezone": "Mars"}}, "between.timezone", "IANA time zone"),
        ({"between": {**OWN_HOURS, "to": "09:00"}}, "between.to", "must differ"),
    ],
)
def test_wrong_hours_are_named_with_their_field(
    fields: dict[str, Any], where: str, problem: str
) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        broadcast("Hello", **{"between": OWN_HOURS, **fields})
    [(found, said)] = caught.value.problems
    assert ".".join(map(str, found)) == where
    assert problem in said
