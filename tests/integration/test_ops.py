"""The operator's commands, against SQS and Secrets Manager in memory."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from ops import dead_letters, doctor, find, hook_secret, secret
from ops.__main__ import main
from ops.dead_letters import NO_REASON, PROGRESS, ReceivedDeadLetter
from ops.remove import remove
from ops.stack import OperatorError, Stack
from relay.messages.pacing import TablePacer
from relay.messages.states import Record, State
from relay.messages.store import to_item
from tests.support import table
from tests.support.webhooks import SHIPPED
from tools.translated import template

REGION = "us-east-1"
DEFAULTS = {name: str(p["Default"]) for name, p in template()["Parameters"].items()}
TEXT, NUMBER = "Your code is 4711", "79001234567"


def put(sqs: Any, url: str, id_: str, reason: str | None) -> None:
    attributes = {"reason": {"DataType": "String", "StringValue": reason}} if reason else {}
    body = {"botId": "b-1", "number": NUMBER, "text": TEXT, "id": id_, "generation": 1}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body), MessageAttributes=attributes)


def bodies(sqs: Any, url: str) -> list[str]:
    found = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(m["Body"])["id"] for m in messages]
    return sorted(found)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        session = boto3.Session(region_name=REGION)
        sqs, secrets = session.client("sqs"), session.client("secretsmanager")
        urls = {
            output: sqs.create_queue(QueueName=output)["QueueUrl"]
            for route in dead_letters.ROUTES.values()
            for output in (route.dead, route.back)
            if output.endswith("QueueUrl")
        }
        arn = secrets.create_secret(Name="credentials")["ARN"]
        yield Stack(
            "a-stack",
            session,
            None,
            {**urls, "ProviderCredentialsArn": arn},
            {"MessagesPerSecond": "4"},
            {},
        )


@pytest.fixture
def sqs(stack: Stack) -> Any:
    client = stack.client("sqs")
    dead = stack.outputs["DeadLetterQueueUrl"]
    for i in range(12):
        put(client, dead, f"m{i:02}", "http_404" if i % 3 else "read_timeout")
    put(client, dead, "m99", None)
    return client


def redrive(stack: Stack, **options: Any) -> tuple[str, list[float]]:
    said: list[str] = []
    slept: list[float] = []
    defaults: dict[str, Any] = {"queue": "messages", "reason": None, "most": None, "apply": True}
    dead_letters.redrive(stack, **{**defaults, **options}, say=said.append, sleep=slept.append)
    return "\n".join(said), slept


def to_messages(stack: Stack) -> Callable[[ReceivedDeadLetter], object]:
    return dead_letters.hand_back(stack, dead_letters.ROUTES["messages"])


def quiet(_said: str) -> None:
    pass


def test_dead_letters_are_grouped_and_masked(stack: Stack, sqs: Any) -> None:
    said: list[str] = []

    dead_letters.show(stack, 1000, said.append)

    report = "\n".join(said)
    assert "13 dead letters" in report
    assert [line.split(",")[0].split()[:2] for line in report.splitlines() if "oldest" in line] == [
        ["8", "http_404"],
        ["4", "read_timeout"],
        ["1", NO_REASON.split()[0]],
    ]
    assert TEXT not in report
    assert NUMBER not in report
    assert '"id": "m' in report
    assert len(bodies(sqs, stack.outputs["DeadLetterQueueUrl"])) == 13, "showing them removes none"


def masked(**fields: object) -> str:
    return dead_letters.masked(ReceivedDeadLetter(json.dumps(fields), "http_404", "", 0.0))


@pytest.mark.parametrize("name", dead_letters.SHOWN)
@pytest.mark.parametrize(
    "value",
    [
        "79001234567",
        "+7 (900) 123-45-67",
        "7\u00a0900\u00a0123 45 67",
        "order for 79001234567",
        "order_79001234567_paid",
        "Тел.79001234567",
        79001234567,
        79001234567.0,
        {"text": TEXT, "number": 79001234567},
        [TEXT, "79001234567"],
        "x" * 300,
    ],
)
def test_a_field_that_should_hold_an_id_shows_nothing_else(name: str, value: object) -> None:
    shown = masked(**{name: value})
    for content in ("9001234567", "900", TEXT, "xxx"):
        assert content not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "k-268054724daad66b7e8c2d87216df6133a7fb687"),
        ("id", "9fa78b68-0624-49e6-8005-d7306f05f7a9"),
        ("id", "12345678-0624-49e6-8005-123456789012"),
        ("id", "delivery-4711-on-its-way"),
        ("subscriberId", "65f1c0a2b3d4e5f6a7b8d101"),
        ("expiresAt", "2026-12-01T10:00:00.000Z"),
        ("generation", 3),
        ("reference", "заказ 4711"),
    ],
)
def test_ids_and_settings_are_shown(name: str, value: object) -> None:
    assert json.loads(masked(**{name: value})) == {name: value}


def test_a_fields_name_is_no_place_for_content() -> None:
    shown = masked(id="m1", **{"79001234567": 1, TEXT: 2, "number": 5})
    assert shown == '{"id": "m1", "number": "(a number)"} and 2 more fields'


def test_a_dead_letter_cannot_steer_the_terminal(stack: Stack) -> None:
    client, url = stack.client("sqs"), stack.outputs["DeadLetterQueueUrl"]
    body = json.dumps({"id": "\x9b2J\u202eid", "reference": "\x1b[2Jgone\r\n"})
    reason = {"DataType": "String", "StringValue": "a\u009b2J\u202ereason\n   99  forged"}
    client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes={"reason": reason})
    said: list[str] = []
    dead_letters.show(stack, 10, said.append)
    dead_letters.redrive(
        stack, queue="messages", reason=None, most=None, apply=False, say=said.append
    )
    lines = "\n".join(said).splitlines()
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if line.startswith("   99")]


@pytest.mark.parametrize("body", ["no JSON", "[]", "[" * 100_000], ids=["text", "list", "deep"])
def test_a_dead_letter_of_any_form_is_shown(stack: Stack, sqs: Any, body: str) -> None:
    sqs.send_message(
        QueueUrl=stack.outputs["DeadLetterQueueUrl"],
        MessageBody=body,
        MessageAttributes={"reason": {"DataType": "String", "StringValue": "invalid"}},
    )
    said: list[str] = []
    dead_letters.show(stack, 100, said.append)
    assert f"not an envelope: {len(body)} characters" in "\n".join(said)


def test_a_redrive_is_a_dry_run_first(stack: Stack, sqs: Any) -> None:
    said, _ = redrive(stack, apply=False, reason="http_404")

    assert "8 dead letters would be sent again" in said
    assert "APPLY=1" in said
    assert len(bodies(sqs, stack.outputs["DeadLetterQueueUrl"])) == 13


def test_a_chosen_reason_moves_one_by_one_at_the_accounts_rate(stack: Stack, sqs: Any) -> None:
    said, slept = redrive(stack, reason="read_timeout")

    assert "4 dead letters moved" in said
    assert bodies(sqs, stack.outputs["MessagesQueueUrl"]) == ["m00", "m03", "m06", "m09"]
    assert len(bodies(sqs, stack.outputs["DeadLetterQueueUrl"])) == 9
    assert slept == [0.25] * 4


def test_a_dead_letter_keeps_its_seal_and_no_other_gets_one(stack: Stack, sqs: Any) -> None:
    sqs.send_message(
        QueueUrl=stack.outputs["DeadLetterQueueUrl"],
        MessageBody="{}",
        MessageAttributes={
            "reason": {"DataType": "String", "StringValue": "http_400"},
            "seal": {"DataType": "String", "StringValue": "0a1b"},
        },
    )
    redrive(stack)

    seals: Counter[str] = Counter()
    url = stack.outputs["MessagesQueueUrl"]
    while moved := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages"):
        seals.update(
            m.get("MessageAttributes", {}).get("seal", {}).get("StringValue", "") for m in moved
        )
    assert seals == {"": 13, "0a1b": 1}


def test_what_fails_again_meanwhile_is_not_moved_again(stack: Stack, sqs: Any) -> None:
    dead = stack.outputs["DeadLetterQueueUrl"]
    slept = 0

    def fails_again(_seconds: float) -> None:
        nonlocal slept
        slept += 1
        assert slept < 50, "it moves them forever"
        put(sqs, dead, f"again-{slept}", "read_timeout")

    moved = dead_letters.move(
        sqs,
        dead,
        to_messages(stack),
        reason="read_timeout",
        most=None,
        rate=1.0,
        say=quiet,
        sleep=fails_again,
    )

    assert moved == 4
    assert len(bodies(sqs, dead)) == 13


def test_a_redrive_of_nothing_says_so(stack: Stack) -> None:
    said: list[str] = []
    dead_letters.redrive(
        stack, queue="notifier", reason=None, most=None, apply=False, say=said.append
    )
    assert said == ["There are no dead letters."]


def test_a_limited_redrive_moves_no_more(stack: Stack, sqs: Any) -> None:
    redrive(stack, most=5)

    assert len(bodies(sqs, stack.outputs["MessagesQueueUrl"])) == 5
    assert len(bodies(sqs, stack.outputs["DeadLetterQueueUrl"])) == 8


def test_the_notifiers_dead_letters_go_back_to_the_notifier(stack: Stack, sqs: Any) -> None:
    put(sqs, stack.outputs["NotifierDeadLetterQueueUrl"], "n1", None)

    redrive(stack, queue="notifier", most=10)

    assert bodies(sqs, stack.outputs["NotifierQueueUrl"]) == ["n1"]


@dataclass
class Functions:
    """Lambda, which takes events for later."""

    invoked: list[dict[str, Any]] = field(default_factory=list)

    def invoke(self, **arguments: Any) -> None:
        if b"refuse" in arguments["Payload"]:
            raise RuntimeError("Lambda does not take it")
        self.invoked.append(arguments)


@pytest.mark.parametrize("body", ['{"id": "h1", "source": "shop"}', '{"id": "h1", "refuse": 1}'])
def test_the_hooks_dead_letters_are_handed_to_the_function_before_they_are_deleted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    functions, client = Functions(), Stack.client
    monkeypatch.setattr(
        Stack, "client", lambda self, name: functions if name == "lambda" else client(self, name)
    )
    stack = replace(stack, outputs={**stack.outputs, "HooksFunctionArn": "arn:hooks"})
    dead = stack.outputs["HooksDeadLetterQueueUrl"]
    stack.client("sqs").send_message(QueueUrl=dead, MessageBody=body)

    if refused := "refuse" in body:
        with pytest.raises(RuntimeError):
            redrive(stack, queue="hooks")
    else:
        redrive(stack, queue="hooks")

    assert bodies(stack.client("sqs"), dead) == ["h1"] * refused
    event = {"FunctionName": "arn:hooks", "InvocationType": "Event", "Payload": body.encode()}
    assert functions.invoked == [event] * (not refused)


def test_whoever_wrote_a_dead_letter_its_reason_says_what_went_wrong(stack: Stack) -> None:
    sqs = stack.client("sqs")
    for attributes in (
        {"ERROR_CODE": "AWS.Lambda.TooManyRequestsException", "ERROR_MESSAGE": "Rate exceeded"},
        {"ErrorCode": "200", "ErrorMessage": "message.text: missing\n(2 problems)"},
    ):
        sqs.send_message(
            QueueUrl=stack.outputs["NotifierDeadLetterQueueUrl"],
            MessageBody="{}",
            MessageAttributes={
                name: {"DataType": "Number" if value.isdigit() else "String", "StringValue": value}
                for name, value in attributes.items()
            },
        )
    said: list[str] = []

    dead_letters.show(stack, 100, said.append)

    assert "     1  AWS.Lambda.TooManyRequestsException, the oldest" in said[-2]
    assert "     1  message.text: missing (2 problems), the oldest" in said[-2]
    assert said[-1] == "hooks: no dead letters."
    reason = "message.text: missing (2 problems)"
    assert "1 dead letter moved" in redrive(stack, queue="notifier", reason=reason)[0]


def test_all_dead_letters_are_moved_one_by_one_at_the_accounts_rate(stack: Stack, sqs: Any) -> None:
    dead, back = stack.outputs["DeadLetterQueueUrl"], stack.outputs["MessagesQueueUrl"]
    for i in range(PROGRESS):
        put(sqs, dead, f"n{i:03}", "http_404")

    said, slept = redrive(stack)

    assert said.splitlines() == [
        f"{PROGRESS} of {PROGRESS + 13} moved back …",
        f"{PROGRESS + 13} dead letters moved back.",
    ]
    assert slept == [0.25] * (PROGRESS + 13)
    assert len(bodies(sqs, back)) == PROGRESS + 13
    assert bodies(sqs, dead) == []


def test_what_fails_again_while_all_are_moved_is_not_moved_again(stack: Stack, sqs: Any) -> None:
    """The provider refuses everything, and the sender is quick."""
    dead, back = stack.outputs["DeadLetterQueueUrl"], stack.outputs["MessagesQueueUrl"]
    slept = 0

    def fails_again(_seconds: float) -> None:
        nonlocal slept
        slept += 1
        assert slept < 50, "it moves them forever"
        for id_ in bodies(sqs, back):
            put(sqs, dead, id_, "http_404")

    moved = dead_letters.move(
        sqs,
        dead,
        to_messages(stack),
        reason=None,
        most=None,
        rate=1.0,
        say=quiet,
        sleep=fails_again,
    )

    assert moved == 13
    assert len(bodies(sqs, dead)) == 13


@pytest.mark.parametrize("reason", [None, "http_404"])
def test_an_interrupted_redrive_loses_nothing(stack: Stack, sqs: Any, reason: str | None) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    dead, back = stack.outputs["DeadLetterQueueUrl"], stack.outputs["MessagesQueueUrl"]
    with pytest.raises(KeyboardInterrupt):
        dead_letters.move(
            sqs,
            dead,
            to_messages(stack),
            reason=reason,
            most=None,
            rate=1.0,
            say=said.append,
            sleep=stop,
        )

    assert said == [f"Interrupted: 1 of {8 if reason else 13} moved back, the others stay."]
    there, moved = bodies(sqs, dead), bodies(sqs, back)
    assert (len(there), len(moved)) == (12, 1)


def test_a_dead_letter_is_put_back_before_it_is_deleted(stack: Stack, sqs: Any) -> None:
    dead, back = stack.outputs["DeadLetterQueueUrl"], stack.outputs["MessagesQueueUrl"]

    class Deaf:
        """SQS, of which no deletion is heard."""

        def __getattr__(self, name: str) -> Any:
            if name == "delete_message":
                raise ClientError({"Error": {"Code": "RequestTimeout"}}, name)
            return getattr(sqs, name)

    with pytest.raises(ClientError):
        dead_letters.move(
            Deaf(), dead, to_messages(stack), reason=None, most=1, rate=0.0, say=quiet
        )

    assert len(bodies(sqs, dead)) == 13
    assert len(bodies(sqs, back)) == 1


def test_the_last_dead_letter_is_moved_while_it_is_still_hidden(stack: Stack, sqs: Any) -> None:
    """One a day: the second would be seen again before it is its turn."""
    dead = stack.outputs["DeadLetterQueueUrl"]
    moved = dead_letters.move(
        sqs,
        dead,
        to_messages(stack),
        reason=None,
        most=None,
        rate=1 / 86400,
        say=quiet,
        sleep=lambda _: None,
    )
    assert moved == 1
    assert len(bodies(sqs, dead)) == 12


def test_a_message_without_an_id_keeps_the_one_it_had(stack: Stack) -> None:
    """SQS gave it up after too many receives: it is not to be sent again as another message."""
    sqs = stack.client("sqs")
    dead, back = stack.outputs["DeadLetterQueueUrl"], stack.outputs["MessagesQueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = {"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 1}
    sqs.set_queue_attributes(
        QueueUrl=back, Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
    )
    envelope = {"subscriberId": "s-1", "text": "Привет \ufffe"}
    known = sqs.send_message(QueueUrl=back, MessageBody=json.dumps(envelope))["MessageId"]
    for _ in range(2):
        sqs.receive_message(QueueUrl=back)

    redrive(stack)

    [moved] = sqs.receive_message(QueueUrl=back)["Messages"]
    assert json.loads(moved["Body"]) == {**envelope, "id": known}
    assert moved["MessageId"] != known


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"subscriberId": "s-1", "text": "t", "id": "mine"}', NO_REASON),
        ('{"subscriberId": "s-1", "txet": "t"}', "invalid"),
        ("[1]", NO_REASON),
        ("no JSON", NO_REASON),
    ],
)
def test_any_other_body_is_moved_as_it_is(body: str, reason: str) -> None:
    assert dead_letters.named(ReceivedDeadLetter(body, reason, "", 0.0, "sqs-1")) == body


def create_table(stack: Stack) -> Any:
    table = stack.client("dynamodb")
    table.create_table(
        TableName="relay",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    return table


def test_the_doctor_counts_the_chats_that_the_senders_hold(stack: Stack) -> None:
    table = create_table(stack)
    examined = replace(stack, outputs={**stack.outputs, "TableName": "relay"})
    now = 1_800_000_000.0
    assert doctor._read_holds(examined, now) == ((), None)

    pacer = TablePacer(table, "relay", 25.0, clock=lambda: now)
    pacer.hold("chat-a", now + 10_072)
    pacer.hold("chat-b", now + 60)
    held, account = doctor._read_holds(examined, now)
    assert (sorted(held), account) == ([now + 60, now + 10_072], None)
    assert doctor._read_holds(examined, now + 61) == ((now + 10_072,), None)

    pacer.hold("chat-c", now + 30)  # the third within ten seconds
    assert doctor._read_holds(examined, now)[1] == now + 30
    assert doctor._read_holds(examined, now + 31)[1] is None


def test_the_doctor_asks_how_long_lines_wait_and_names_none(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = boto3.client("cloudwatch", region_name=REGION)
    monkeypatch.setattr(Stack, "client", lambda _self, _service: watch)
    url = "https://sqs.us-east-1.amazonaws.com/1/a-stack-OrderedQueue-1.fifo"
    examined = replace(stack, resources={"OrderedQueue": url})
    results = [{"Id": "m1", "Values": [4.0, 9.0]}, {"Id": "m0", "Values": [9600.0, 1.0]}]
    with Stubber(watch) as stub:
        asked: list[Any] = []
        watch.meta.events.register(
            "provide-client-params.cloudwatch.GetMetricData",
            lambda params, **_: asked.append(params),
        )
        stub.add_response("get_metric_data", {"MetricDataResults": results})
        assert doctor._read_line_metrics(examined, 1.8e9) == (9600.0, 4)
        stub.add_response("get_metric_data", {"MetricDataResults": [{"Id": "m0", "Values": []}]})
        assert doctor._read_line_metrics(examined, 1.8e9) == (None, None)
    for query in asked[0]["MetricDataQueries"]:
        [dimension] = query["MetricStat"]["Metric"]["Dimensions"]
        assert dimension == {"Name": "QueueName", "Value": "a-stack-OrderedQueue-1.fifo"}


def test_the_doctor_finds_the_messages_that_never_ended(stack: Stack) -> None:
    table = create_table(stack)
    now = 1_800_000_000.0
    for id_, state, deadline, broadcast in [
        ("waits", State.QUEUED, now + 60, ""),
        ("may-end-now", State.QUEUED, now - 60, ""),
        ("paused", State.QUEUED, now - 86400, "b-1"),
        ("ended", State.SENT, now - 86400, ""),
        ("never-queued", State.QUEUED, now - 86400, ""),
        ("abandoned", State.SENDING, now - 86400, ""),
        ("of-a-broadcast", State.QUEUED, now - 5 * 86400, "b-1"),
    ]:
        record = Record(id_, state, "f", "http", now, now, deadline, broadcast=broadcast)
        table.put_item(TableName="relay", Item=to_item(record))
    table.put_item(TableName="relay", Item={"pk": {"S": "pace"}, "next": {"N": "1"}})
    examined = replace(stack, outputs={**stack.outputs, "TableName": "relay"})

    found = doctor._read_overdue(examined, now)

    assert found.read == 7
    assert sorted(found.ids) == ["abandoned", "never-queued", "of-a-broadcast"]


def test_a_stack_is_removed_only_after_its_name_was_typed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    formation = boto3.client("cloudformation", region_name=REGION)
    monkeypatch.setattr(Stack, "client", lambda _self, _service: formation)
    described = {
        "StackName": "a-stack",
        "CreationTime": 0,
        "StackStatus": "CREATE_COMPLETE",
    }
    with Stubber(formation) as stub:
        stub.add_response("describe_stacks", {"Stacks": [described]})
        with pytest.raises(OperatorError, match="Nothing was deleted"):
            remove(stack, lambda _: "another", lambda _: None)

        protected = {**described, "EnableTerminationProtection": True}
        stub.add_response("describe_stacks", {"Stacks": [protected]})
        with pytest.raises(OperatorError, match="is protected"):
            remove(stack, lambda _: "a-stack", lambda _: None)
        stub.assert_no_pending_responses()


def test_the_secret_is_stored_and_not_shown(stack: Stack) -> None:
    said: list[str] = []
    password = 'p@ss w&rd"é'

    secret.put(stack, lambda _: " 12345.6 ", lambda _: password, said.append)

    stored = stack.client("secretsmanager").get_secret_value(
        SecretId=stack.outputs["ProviderCredentialsArn"]
    )
    assert json.loads(stored["SecretString"]) == {"user": "12345.6", "pass": password}
    assert password not in "".join(said)


def test_the_doctor_finds_a_secret_that_has_no_value_and_fails(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examined = replace(stack, parameters=DEFAULTS, resources=dict.fromkeys(doctor.NEEDED, "there"))
    monkeypatch.setattr("sys.argv", ["ops", "doctor"])
    monkeypatch.setattr("ops.__main__.find", lambda _: examined)
    monkeypatch.setattr(doctor, "_read_queues", lambda _: {})
    monkeypatch.setattr(doctor, "_read_sources", lambda _: ())
    monkeypatch.setattr(doctor, "_read_holds", lambda *_: ((), None))
    monkeypatch.setattr(doctor, "_read_line_metrics", lambda *_: (None, None))
    monkeypatch.setattr(doctor, "_denied", lambda _: ())
    monkeypatch.setattr(doctor, "_unlisted", lambda _: ())
    monkeypatch.setattr(doctor, "_in_alarm", lambda _: ())
    monkeypatch.setattr(doctor, "_confirmed", lambda _: 1)

    assert main() == 1

    printed = capsys.readouterr().out
    assert " BAD  SMS Gold: the secret has no value yet" in printed
    assert "make secret" in printed
    assert "1 problem to fix" in printed


def test_without_a_terminal_nothing_changes(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ops", "secret"])
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("ops.__main__.find", lambda _: stack)
    assert main() == 1
    assert "Nothing was done" in capsys.readouterr().err
    with pytest.raises(ClientError):
        stack.client("secretsmanager").get_secret_value(
            SecretId=stack.outputs["ProviderCredentialsArn"]
        )


def test_a_user_that_cannot_be_one_is_not_stored(stack: Stack) -> None:
    with pytest.raises(OperatorError, match="XXXXX") as caught:
        secret.put(stack, lambda _: "me@example.com", lambda _: "a-password", lambda _: None)

    assert "a-password" not in str(caught.value)


# --------------------------------------------------------------------------- the hooks' secrets


@pytest.fixture
def hooks_stack(stack: Stack) -> Stack:
    arn = stack.client("secretsmanager").create_secret(
        Name="hooks", SecretString='{"news": "another hook\'s secret", "a-misplaced-secret": 1}'
    )["ARN"]
    return replace(stack, outputs={**stack.outputs, "HookSecretsArn": arn})


def set_hook(stack: Stack, name: str, answer: str = "", *, drop_old: bool = False) -> str:
    said: list[str] = []
    hook_secret.put(stack, name, drop_old=drop_old, ask_hidden=lambda _: answer, say=said.append)
    return "\n".join(said)


def hook_entries(stack: Stack) -> dict[str, Any]:
    text = stack.client("secretsmanager").get_secret_value(
        SecretId=stack.outputs["HookSecretsArn"]
    )["SecretString"]
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_hooks_secret_is_set_and_rotated(hooks_stack: Stack) -> None:
    others = hook_entries(hooks_stack)
    said = set_hook(hooks_stack, "github", "the first one")
    assert hook_entries(hooks_stack) == {**others, "github": "the first one"}
    said += set_hook(hooks_stack, "github", "the second one")
    assert hook_entries(hooks_stack)["github"] == ["the second one", "the first one"]
    said += set_hook(hooks_stack, "github", "the third one")
    assert hook_entries(hooks_stack)["github"] == ["the third one", "the second one"]
    said += set_hook(hooks_stack, "github", drop_old=True)
    assert hook_entries(hooks_stack) == {**others, "github": "the third one"}
    for hidden in ("the first", "the second", "the third", "another hook", "misplaced"):
        assert hidden not in said


def test_a_hooks_secret_is_made_on_demand(hooks_stack: Stack) -> None:
    for name in ("github", "standard"):
        said = set_hook(hooks_stack, name)
        made = hook_entries(hooks_stack)[name]
        assert len(SHIPPED[name].verify.key(made)) >= 32
        assert made not in said
    assert hook_entries(hooks_stack)["standard"].startswith("whsec_")
    with pytest.raises(OperatorError, match="Stripe makes"):
        set_hook(hooks_stack, "stripe")


def test_an_unusable_secret_is_not_kept(hooks_stack: Stack) -> None:
    set_hook(hooks_stack, "github", "the first one")
    for name, answer in (("github", "short"), ("standard", "whsec_AAAA")):
        with pytest.raises(OperatorError, match="at least 8 bytes") as caught:
            set_hook(hooks_stack, name, answer)
        assert answer not in str(caught.value)
    assert hook_entries(hooks_stack)["github"] == "the first one"
    bad = json.dumps({"github": ["short", "the first one"]})
    client = hooks_stack.client("secretsmanager")
    arn = hooks_stack.outputs["HookSecretsArn"]
    client.put_secret_value(SecretId=arn, SecretString=bad)
    set_hook(hooks_stack, "github", "the second one")
    assert hook_entries(hooks_stack)["github"] == ["the second one", "the first one"]

    client.put_secret_value(SecretId=arn, SecretString="a secret, not JSON")
    with pytest.raises(OperatorError, match="must be a JSON object") as caught:
        set_hook(hooks_stack, "github", "the third one")
    assert "a secret, not" not in str(caught.value)


def test_a_hook_that_rules_invoke_gets_no_secret(hooks_stack: Stack) -> None:
    before = hook_entries(hooks_stack)
    with pytest.raises(OperatorError, match="alarms has no secret"):
        set_hook(hooks_stack, "alarms", "a long enough secret")
    assert hook_entries(hooks_stack) == before


def test_a_name_that_is_no_hooks_gets_no_secret(hooks_stack: Stack) -> None:
    before = hook_entries(hooks_stack)
    with pytest.raises(OperatorError, match="NAME="):
        set_hook(hooks_stack, "githib", "the first one")
    with pytest.raises(OperatorError, match="no usable secret"):
        set_hook(hooks_stack, "github", drop_old=True)
    assert hook_entries(hooks_stack) == before


@pytest.mark.parametrize("line", ["from a pipe\n", "\n", ""])
def test_a_hooks_secret_is_a_line_of_the_input(
    hooks_stack: Stack, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """An empty line asks for a new one; no line, such as of a command that failed, does not."""
    monkeypatch.setattr("sys.argv", ["ops", "hook-secret", "--name", "github"])
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    monkeypatch.setattr("ops.__main__.find", lambda _: hooks_stack)
    assert main() == (0 if line else 1)
    made = hook_entries(hooks_stack).get("github")
    if line:
        assert made == (line.strip() or made)
        assert made
    else:
        assert made is None


# ----------------------------------------------------------------------------------------- find


def test_messages_are_found_one_line_each(stack: Stack) -> None:
    client = stack.client("dynamodb")
    table.create_table(client)
    found = replace(stack, outputs={"TableName": "Relay"})
    for n in range(3):
        record = Record(
            f"m-{n}", State.FAILED, "f", "http", 100.0 + n, 200.0 - n, 300.0, tries=n + 1
        )
        told = replace(record, reason="http_503", reference="order 1", caller="key:a1")
        client.put_item(TableName="Relay", Item=to_item(told))

    def show(**what: Any) -> list[str]:
        said: list[str] = []
        given: dict[str, Any] = {"reference": None, "status": None, "most": 100, **what}
        find.show(found, **given, say=said.append)
        return said

    assert show(reference="order 1") == [
        f"1970-01-01T00:03:{seconds}.000Z  failed    m-{n}  {tries}  http_503"
        "  reference=order 1  caller=key:a1"
        for seconds, n, tries in (("18", 2, "3 tries"), ("19", 1, "2 tries"), ("20", 0, "1 try"))
    ]
    assert [line.split()[2] for line in show(status="failed", most=2)] == [
        *("m-0", "m-1"),
        "there",  # … and there may be more: MAX=20
    ]
    assert show(status="expired") == ["There are none. What version 0.1.0 finished is in no list."]
    for wrong in ({}, {"reference": "order 1", "status": "failed"}):
        with pytest.raises(OperatorError, match="REFERENCE=…, or STATUS="):
            show(**wrong)


def test_without_indexes_nothing_is_found_and_it_says_why(stack: Stack) -> None:
    nowhere = replace(stack, outputs={"TableName": "Relay"})
    with pytest.raises(OperatorError, match="make deploy"):
        find.show(nowhere, reference="order 1", status=None, most=100)


def test_the_doctor_misses_an_index(stack: Stack) -> None:
    examined = replace(stack, outputs={**stack.outputs, "TableName": "relay"})
    create_table(examined)
    assert doctor._unlisted(examined) == ("byReference", "byListed")
    table.create_table(stack.client("dynamodb"))
    whole = replace(stack, outputs={**stack.outputs, "TableName": "Relay"})
    assert doctor._unlisted(whole) == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["find", "--status", "sent"], "STATUS: invalid choice: 'sent' (choose from 'rejected'"),
        (["redrive", "--queue", "x"], "QUEUE: invalid choice: 'x' (choose from 'messages'"),
        (["find", "--max", "few"], "MAX: invalid int value: 'few'"),
    ],
)
def test_a_wrong_variable_is_named_as_make_knows_it(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["ops", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith(says)


def test_a_shell_that_has_the_local_stack_is_told_that_this_is_not_aws(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ops", "remove", "--stack", "relay"])
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("ops.__main__.find", lambda _: stack)
    monkeypatch.setattr("ops.remove.remove", lambda _: None)
    assert main() == 0
    assert capsys.readouterr().err == ""

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert main() == 0
    assert "not on AWS. For AWS, use a new shell." in capsys.readouterr().err
