"""One chat's messages arrive in the order of their acceptance, and its trouble is its own.

MiniStack runs one batch of a FIFO queue at a time, AWS as many as there are lines. So these tests
show order and holds, and nothing of how fast lines go beside each other.
"""

import json
from pathlib import Path

from relay.messages.states import Record, State
from tests.support.chats import accept, arrived, open_chats, texts
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.rest import at_rest
from tests.support.sabotage import sabotaged
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader, Sent

CHATS = 8
MESSAGES = 6


def in_order(sandbox: Sandbox, sent: list[Sent]) -> int:
    """Return in how many chats the messages came in the order of their acceptance."""
    chats = {s.line: [t.text for t in sent if t.line == s.line] for s in sent}
    return sum(arrived(sandbox, chat) == wanted for chat, wanted in chats.items())


def test_messages_arrive_in_order_from_http_and_from_batches(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    chats = open_chats(sandbox, 2 * CHATS)
    sent = [accept(deployment, *planned) for planned in texts(chats[:CHATS], MESSAGES)]
    planned = texts(chats[CHATS:], MESSAGES)
    messages = [{"subscriberId": chat, "text": text} for chat, text in planned]
    answer = deployment.call("POST", "/messages/batch", {"messages": messages})
    sent += [
        Sent(result["id"], text, line=chat)
        for (chat, text), result in zip(planned, answer["results"], strict=True)
    ]

    records = at_rest(reader, sent)

    assert {record.state for record in records.values()} == {State.SENT}
    assert in_order(sandbox, sent) == 2 * CHATS


def test_messages_arrive_in_order_past_faults(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    chats = open_chats(sandbox, CHATS)
    sent = [accept(deployment, *planned) for planned in texts(chats, MESSAGES, faulty=True)]

    records = at_rest(reader, sent)

    assert {record.state for record in records.values()} == {State.SENT}
    assert in_order(sandbox, sent) == CHATS
    outcomes = [a.reason for record in records.values() for a in record.attempts]
    assert {"http_503", "http_429"} <= set(outcomes)
    assert any(record.ambiguous for record in records.values())


def test_messages_arrive_in_order_when_the_sender_is_killed(
    deployment: Deployment, sandbox: Sandbox, reader: Reader, tmp_path: Path
) -> None:
    chats = open_chats(sandbox, CHATS)
    with sabotaged(deployment, tmp_path, deployment.facts["orderedQueueUrl"]):
        sent = [accept(deployment, *planned) for planned in texts(chats, MESSAGES, kills=3)]
        records = at_rest(reader, sent, seconds=90.0)

    assert len(list(tmp_path.iterdir())) == 3, "each kill was carried out"
    assert {record.state for record in records.values()} == {State.SENT}
    assert in_order(sandbox, sent) == CHATS


def test_what_needs_no_order_overtakes(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    [chat] = open_chats(sandbox, 1)
    first = accept(deployment, chat, f"{chat} first [[fault:503 times=3]]")
    second = accept(deployment, chat, f"{chat} second")
    overtaking = accept(deployment, chat, f"{chat} overtaking", inOrder=False)

    at_rest(reader, [first, second])

    assert arrived(sandbox, chat) == [overtaking.text, first.text, second.text]


def test_a_banned_chat_is_left_alone_and_no_other(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    banned, other = open_chats(sandbox, 2)
    ban = f"ban chat={banned} seconds=8"
    sandbox.arm(ban)
    sent = [accept(deployment, banned, f"{banned} {n}") for n in range(3)]

    def refused() -> list[Record]:
        return [r for r in reader.read().of({sent[0].id}).records.values() if r.attempts]

    [record] = until(refused, "attempt")
    lifted = record.attempts[0].at + 8.0
    beside = [accept(deployment, other, f"{other} {n}") for n in range(3)]
    at_rest(reader, [*sent, *beside])

    refusals = [r for r in sandbox.requests()["requests"] if r["fault"] == ban]
    assert len(refusals) == 1, "nothing else was POSTed to the chat before its time"
    assert in_order(sandbox, [*sent, *beside]) == 2
    entries = sandbox.ledger(fields="subscriberId,time")
    assert all(e["time"] >= lifted - 0.1 for e in entries if e["subscriberId"] == banned)
    assert max(e["time"] for e in entries if e["subscriberId"] == other) < lifted


def test_a_producer_has_lines_of_its_own_and_junk_holds_up_none(
    deployment: Deployment, sandbox: Sandbox, reader: Reader
) -> None:
    chats = open_chats(sandbox, 3)
    sqs, url = deployment.client("sqs"), deployment.facts["orderedQueueUrl"]
    sent = [
        Sent(f"{chat}-{n}", f"{chat} {n} in a line", line="theirs")
        for n in (1, 2)
        for chat in chats
    ]
    bodies = [
        json.dumps({"id": s.id, "subscriberId": s.id.partition("-")[0], "text": s.text})
        for s in sent
    ]
    junk = f"no message of {chats[0]}"
    for i, body in enumerate([*bodies[:3], junk, *bodies[3:]]):
        sqs.send_message(
            QueueUrl=url,
            MessageBody=body,
            MessageGroupId=f"line-{chats[0]}",
            MessageDeduplicationId=f"{chats[0]}-{i}",
        )

    records = at_rest(reader, sent)

    assert {record.state for record in records.values()} == {State.SENT}
    came = [e["text"] for e in sandbox.ledger(text="in a line", fields="text")]
    assert came == [s.text for s in sent]
    [letter] = [d for d in reader.read().dead if d.body == junk]
    assert letter.attributes["reason"] == "invalid"
