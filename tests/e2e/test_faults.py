"""Whatever breaks: no message is lost, none is sent twice unasked, each ends in one state.

The sender runs as it is deployed, with shorter time-outs. `tests/support/saboteur` breaks it from
within, the sandbox plays the failing provider, and every test ends with the verifier.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import boto3
import pytest

from relay.messages.states import Record, State
from tests.support import verifier
from tests.support.chats import open_chats
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.rest import at_rest
from tests.support.sabotage import sabotaged
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader, Sent

CHATS = 200
"""Chats that the messages are spread over: so many that none of them is at its pace."""


class Lab:
    """The deployed stack, and what breaks it."""

    def __init__(self, deployment: Deployment, marks: Path) -> None:
        facts = deployment.facts
        session = boto3.Session(facts["accessKeyId"], facts["secretAccessKey"])
        client = partial(
            session.client, endpoint_url=facts["awsEndpoint"], region_name=facts["region"]
        )
        self.functions: Any = client("lambda")
        self.sqs: Any = client("sqs")
        self.secrets: Any = client("secretsmanager")
        self.iam: Any = client("iam")
        self.facts = facts
        self.sandbox = Sandbox.at(facts["sandboxUrl"])
        self.chats = open_chats(self.sandbox, CHATS)
        self.reader = Reader(facts, deployment.home)
        self.marks = marks
        self.queue = facts["messagesQueueUrl"]

    # -- sending --------------------------------------------------------------------------------

    def put(self, *sent: Sent, **fields: Any) -> None:
        """Put messages on the queue, ten to a call, so that they are received together."""
        bodies = [self.body(s, **fields) for s in sent]
        self.put_bodies(bodies)

    def body(self, sent: Sent, **fields: Any) -> str:
        chat = self.chats[crc32(sent.id.encode()) % CHATS]
        envelope = {"id": sent.id, "subscriberId": chat, "text": sent.text, **fields}
        return json.dumps(envelope | ({"onUnknown": "resend"} if sent.resend else {}))

    def put_bodies(self, bodies: list[str]) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(i), "MessageBody": body}
                for i, body in enumerate(bodies[start : start + 10])
            ]
            answer = self.sqs.send_message_batch(QueueUrl=self.queue, Entries=entries)
            assert not answer.get("Failed"), answer

    def put_and_see_it_break(self, *sent: Sent) -> None:
        """Put messages on the queue and wait until an order of sabotage has been carried out."""
        before = len(list(self.marks.iterdir()))
        self.put(*sent)
        until(lambda: len(list(self.marks.iterdir())) > before, "sabotage", seconds=30)

    # -- looking --------------------------------------------------------------------------------

    def record(self, id_: str) -> Record | None:
        return self.reader.read().records.get(id_)

    def at_rest(self, *sent: Sent, seconds: float = 60.0) -> Mapping[str, Record]:
        """Wait until the messages have ended, see that no promise was broken, and return them."""
        secrets = [self.sandbox.password, self.facts["secretAccessKey"]]
        return at_rest(self.reader, sent, secrets, seconds=seconds)

    def letters(self, reason: str) -> list[verifier.OnQueue]:
        return [d for d in self.reader.read().dead if d.attributes.get("reason") == reason]

    def in_ledger(self, sent: Sent) -> int:
        return len([e for e in self.sandbox.ledger(text=sent.text) if e["text"] == sent.text])

    # -- breaking -------------------------------------------------------------------------------

    def configure(self, variables: Mapping[str, str], timeout: int) -> None:
        """Give the sender another environment; its processes start afresh."""
        name = self.facts["senderFunction"]
        self.functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": dict(variables)}, Timeout=timeout
        )

    @contextmanager
    def sender_at_rest(self) -> Iterator[None]:
        """Keep the sender from receiving anything."""
        [source] = [
            m
            for m in self.functions.list_event_source_mappings(
                FunctionName=self.facts["senderFunction"]
            )["EventSourceMappings"]
            if m["EventSourceArn"].rpartition(":")[2] == self.queue.rpartition("/")[2]
        ]
        self.functions.update_event_source_mapping(UUID=source["UUID"], Enabled=False)
        try:
            yield
        finally:
            self.functions.update_event_source_mapping(UUID=source["UUID"], Enabled=True)

    @contextmanager
    def secret_denied(self) -> Iterator[None]:
        """Take the right to read the secret away from the sender."""
        function = self.functions.get_function_configuration(
            FunctionName=self.facts["senderFunction"]
        )
        role = function["Role"].rpartition("/")[2]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Deny", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
            ],
        }
        self.iam.put_role_policy(
            RoleName=role, PolicyName="denied", PolicyDocument=json.dumps(policy)
        )
        try:
            yield
        finally:
            self.iam.delete_role_policy(RoleName=role, PolicyName="denied")

    def write_secret(self, password: str) -> None:
        self.secrets.put_secret_value(
            SecretId=self.facts["credentialsSecret"],
            SecretString=json.dumps({"user": self.sandbox.user, "pass": password}),
        )


@pytest.fixture(scope="module")
def lab(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    marks = tmp_path_factory.mktemp("sabotage")
    with sabotaged(deployment, marks, deployment.facts["messagesQueueUrl"]):
        yield Lab(deployment, marks)


def sent(id_: str, order: str = "", *, resend: bool = False) -> Sent:
    return Sent(id_, f"text of {id_} {order}".rstrip(), resend)


def good(name: str, count: int) -> list[Sent]:
    return [sent(f"{name}-{i}") for i in range(count)]


def test_a_run_that_ends_early_and_a_table_that_refuses(lab: Lab) -> None:
    before = sent("crash-before-post", "[[sabotage:crash-before-post]]")
    after = sent("crash-after-post", "[[sabotage:crash-after-post]]")
    again = sent("crash-and-resend", "[[sabotage:crash-after-post]]", resend=True)
    recorded = sent("crash-after-record")
    stalled = sent("stalled", "[[sabotage:stall]]")
    beside = good("beside-the-stalled", 5)
    lab.put_and_see_it_break(stalled, *beside)
    for crashing in (before, after, again, recorded):
        lab.put_and_see_it_break(crashing)
    no_claim, no_record, slow_record = sent("no-claim"), sent("no-record"), sent("slow-record")
    lab.put(no_claim, no_record, slow_record)

    records = lab.at_rest(
        *(before, after, again, recorded, stalled, *beside),
        *(no_claim, no_record, slow_record),
    )

    states = {id_: record.state for id_, record in records.items()}
    assert states["crash-before-post"] is states["crash-after-post"] is State.UNKNOWN
    assert records["crash-after-post"].reason == "abandoned"
    assert (lab.in_ledger(before), lab.in_ledger(after)) == (0, 1)
    assert (states["crash-and-resend"], records["crash-and-resend"].ambiguous) == (State.SENT, 1)
    assert lab.in_ledger(again) == 2
    assert states["crash-after-record"] is State.SENT
    assert (states["stalled"], lab.in_ledger(stalled)) == (State.UNKNOWN, 0)
    assert {states[s.id] for s in beside} == {State.SENT}, "a stalled message costs no other"
    assert (states["no-claim"], records["no-claim"].tries) == (State.SENT, 1)
    assert (states["no-record"], lab.in_ledger(no_record)) == (State.UNKNOWN, 1)
    assert (states["slow-record"], records["slow-record"].tries) == (State.SENT, 1)


JUNK = {
    "not JSON": "JSON",
    '{"subscriberId": "s", "text": 5}': "text",
    '{"subscriberId": "s", "text": "t", "txet": 1}': "txet",
    '{"subscriberId": "s", "text": "t", "text": "u"}': "text",
    '{"subscriberId": "s", "text": NaN}': "NaN",
    r'{"subscriberId": "s", "text": "\ud800"}': "text",
    "[" * 100_000: "JSON",
}


def test_what_is_no_message_disturbs_nobody_and_what_is_repeated_is_sent_once(lab: Lab) -> None:
    neighbours = good("beside-junk", 3)
    poison = sent("poison", "[[sabotage:poison]]")
    twice = sent("twice-at-once")
    lab.put_bodies([*JUNK, *(lab.body(s) for s in neighbours)])
    lab.sqs.send_message(QueueUrl=lab.queue, MessageBody="x" * 1_048_576)
    lab.put(poison, *good("beside-poison", 4))
    lab.put_bodies([lab.body(twice)] * 10)
    failing = [sent(f"failing-{i}", "[[fault:400]]") for i in range(10)]
    lab.put(*failing)

    records = lab.at_rest(*neighbours, poison, twice, *good("beside-poison", 4), *failing)

    assert {records[s.id].state for s in (*neighbours, twice)} == {State.SENT}
    assert {records[s.id].state for s in good("beside-poison", 4)} == {State.SENT}
    assert {records[s.id].state for s in failing} == {State.REJECTED}
    assert (records["poison"].state, records["poison"].reason) == (
        State.UNKNOWN,
        "unexpected_error",
    )
    assert lab.in_ledger(twice) == 1
    until(lambda: len(lab.letters("invalid")) > len(JUNK), "dead letters")
    letters = lab.letters("invalid")
    for body, says in JUNK.items():
        [letter] = [found for found in letters if found.body == body]
        assert says in letter.attributes["detail"]
    assert any(found.body.startswith("x" * 1_000_000) for found in letters)

    other = replace(twice, text="another text")
    lab.put(other)
    until(lambda: lab.letters("id_reused"), "dead letter of the reused id")
    assert lab.in_ledger(other) == 0


def test_a_redrive_sends_once_more(lab: Lab) -> None:
    once = sent("redriven", "[[fault:400 times=1]]")
    lab.put(once)
    assert lab.at_rest(once)["redriven"].state is State.REJECTED
    [letter] = [d for d in lab.letters("http_400") if d.message and d.message.id == once.id]
    earlier = lab.reader.read()

    forged = json.loads(letter.body) | {"generation": 9}
    lab.put_bodies([json.dumps(forged)])
    until(lambda: lab.letters("not_sealed"), "dead letter of the forged redrive")
    assert lab.in_ledger(once) == 0

    receipt = move_back(lab, letter.body, letter.attributes["seal"])
    put_back(lab, letter.body, letter.attributes["seal"])  # and once more: it was started twice

    sent_now = until(
        lambda: r if (r := lab.record(once.id)) and r.state is State.SENT else None,
        "redriven message",
    )
    assert [event.what for event in sent_now.history] == ["redriven"]
    assert receipt
    lab.at_rest(once)
    assert lab.in_ledger(once) == 1
    assert verifier.changed(earlier, lab.reader.read()) == []


def move_back(lab: Lab, body: str, seal: str) -> str:
    """Move one dead letter back, as `make redrive` does with all of them."""

    def receive() -> str | None:
        received = lab.sqs.receive_message(
            QueueUrl=lab.facts["deadLetterQueueUrl"], MaxNumberOfMessages=10, VisibilityTimeout=1
        )
        for found in received.get("Messages", []):
            if found["Body"] == body:
                return str(found["ReceiptHandle"])
        return None

    receipt = until(receive, "dead letter")
    put_back(lab, body, seal)
    lab.sqs.delete_message(QueueUrl=lab.facts["deadLetterQueueUrl"], ReceiptHandle=receipt)
    return receipt


def put_back(lab: Lab, body: str, seal: str) -> None:
    sealed = {"seal": {"DataType": "String", "StringValue": seal}} if seal else {}
    lab.sqs.send_message(QueueUrl=lab.queue, MessageBody=body, MessageAttributes=sealed)


def test_receives_used_up_without_a_run_lose_nothing(lab: Lab) -> None:
    unlucky = sent("unlucky")
    policy = json.loads(
        lab.sqs.get_queue_attributes(QueueUrl=lab.queue, AttributeNames=["RedrivePolicy"])[
            "Attributes"
        ]["RedrivePolicy"]
    )
    fewer = policy | {"maxReceiveCount": 3}
    with lab.sender_at_rest():
        lab.sqs.set_queue_attributes(
            QueueUrl=lab.queue, Attributes={"RedrivePolicy": json.dumps(fewer)}
        )
        lab.put(unlucky)

        def taken_by_the_net() -> bool:
            lab.sqs.receive_message(QueueUrl=lab.queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return any(d.message and d.message.id == "unlucky" for d in lab.reader.read().dead)

        until(taken_by_the_net, "dead letter", every=0)
        lab.sqs.set_queue_attributes(
            QueueUrl=lab.queue, Attributes={"RedrivePolicy": json.dumps(policy)}
        )
    found = verifier.violations(lab.reader.told(lab.reader.read().of({"unlucky"})), [unlucky])
    assert any("has no reason" in violation for violation in found), found

    move_back(lab, lab.body(unlucky), "")

    assert lab.at_rest(unlucky)["unlucky"].state is State.SENT


def test_an_outage_blames_no_message(lab: Lab) -> None:
    # What is on its way as the port closes is lost in doubt: so they may be sent again.
    waiting = [sent(f"in-the-outage-{i}", resend=True) for i in range(12)]
    lab.sandbox.arm("closed", on="all", seconds=6)
    lab.put(*waiting)
    soon = datetime.now(UTC) + timedelta(seconds=2)
    late = sent("too-late")
    lab.put(late, expiresAt=soon.isoformat())

    records = lab.at_rest(*waiting, late)

    assert {records[s.id].state for s in waiting} == {State.SENT}
    outcomes = {a.outcome for s in waiting for a in records[s.id].attempts}
    assert {"accepted", "not_sent"} <= outcomes <= {"accepted", "not_sent", "unknown"}
    assert records["too-late"].state in (State.EXPIRED, State.FAILED)
    assert lab.in_ledger(late) == 0


def test_credentials_that_change_are_wrong_or_out_of_reach_blame_no_message(lab: Lab) -> None:
    password = lab.sandbox.password
    try:
        # Changed under load: what is on its way meets the old password, and goes out with the new.
        under_load = good("under-load", 60)
        lab.put(*under_load[:30])
        lab.write_secret("the second password")
        lab.sandbox.set_passwords(["the second password"])
        lab.put(*under_load[30:])
        lab.at_rest(*under_load)

        # Wrong for a while, and warm out of reach: the refused ones wait.
        wrong = good("wrong-credentials", 5)
        lab.sandbox.set_passwords(["the third password"])
        with lab.secret_denied():
            lab.put(*wrong)
            until(lambda: any((r := lab.record(s.id)) and r.attempts for s in wrong), "an attempt")
        lab.write_secret("the third password")

        # Cold out of reach: nothing is known of any password, nothing is tried.
        with lab.secret_denied():
            name = lab.facts["senderFunction"]
            now = lab.functions.get_function_configuration(FunctionName=name)
            variables = now["Environment"]["Variables"]
            lab.configure({**variables, "COLD": str(time.time())}, now["Timeout"])
            cold = good("cold", 3)
            lab.put(*cold)
            until(lambda: "no credentials" in lab.reader.read().written["functions.log"], "log")
        records = lab.at_rest(*wrong, *cold)
    finally:
        lab.write_secret(password)
        lab.sandbox.set_passwords([password])

    assert {r.state for r in records.values()} == {State.SENT}
    outcomes = {a.outcome for s in wrong for a in records[s.id].attempts}
    assert outcomes == {"credentials", "accepted"}
    assert {records[s.id].tries for s in cold} == {1}
