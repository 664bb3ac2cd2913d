"""Examine a deployed stack; every finding says what to do about it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops import indexes
from ops.stack import OperatorError, Stack
from relay.messages.dispatch import SETTLE_SECONDS
from relay.messages.lists import INDEXES
from relay.messages.pacing import KEY, MOST_HOLDS, line_of
from smsgold.client import Client
from smsgold.credentials import Credentials
from smsgold.errors import BaseUrlError, CredentialsError, ProviderError

TELEGRAM_RATE = 30.0
"""Roughly how many messages a second Telegram takes from one bot."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "RelayTable": ("dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:BatchGetItem"),
    "MessagesQueue": (
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:SendMessage",
    ),
    "OrderedQueue": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
    "DeadLetterQueue": ("sqs:SendMessage",),
    "ProviderCredentials": ("secretsmanager:GetSecretValue",),
}
"""What the sender must be allowed to do, by the resource's logical id."""

GRACE = 3600.0
"""Seconds after its deadline at which a message has ended, if a queue still has it; after that the
intake puts a repeat of it on the queue again: relay.messages.intake has the same."""

LONGEST_PAUSE = 3 * 86400.0
"""How long a broadcast may be paused; its messages' deadlines say so only when they go on."""

UNFINISHED = ("queued", "sending")
"""The states of a message that has not ended."""

SHOWN = 5
"""Ids named in a finding."""

BACKLOG = 60_000
"""Messages on the Ordered queue at half of what SQS looks through: OrderedBacklogAlarm's."""

LONG = 900.0
"""Seconds that a message may wait in its line: OldestOrderedAlarm's."""

RUNNING = ("Enabled", "Enabling", "Creating", "Updating")
"""The states of an event source mapping that is on."""


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "ok"
    WARN = "warn"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """One thing found, and what to do about it unless it is good."""

    level: Level
    what: str
    todo: str = ""


@dataclass(frozen=True)
class Queue:
    """A queue's settings in seconds, and how many messages wait on it."""

    visibility: int
    retention: int
    has_dead_letter_queue: bool
    waiting: int
    hidden: int = 0
    """Being sent, or waiting for another try."""


STREAM = "RelayTable"
"""What an event source is named by that reads the table's stream, and no queue."""


@dataclass(frozen=True)
class Source:
    """An event source mapping: it hands a queue's messages, or the stream, to a function."""

    queue: str
    enabled: bool
    partial_failures: bool
    timeout: int


@dataclass(frozen=True)
class Lines:
    """The chats' lines on the Ordered queue, as far as it can be told; times are of the epoch.

    Whose they are is neither read nor told.
    """

    held: tuple[float, ...] = ()
    """Until when the provider holds each chat that it holds."""
    account_held_until: float | None = None
    oldest: float | None = None
    """Seconds that the oldest message has waited; None if CloudWatch has no figure."""
    busy: int | None = None
    """Chats of which a message is being sent or waits for another try; None likewise."""


@dataclass(frozen=True)
class Overdue:
    """Messages past their deadline that have not ended; `read` is how many there are in all."""

    read: int
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What was read from a stack; queues by logical id."""

    status: str
    parameters: Mapping[str, str]
    missing: tuple[str, ...] = ()
    """What the sender needs and the stack does not have, by logical id."""
    queues: Mapping[str, Queue] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    denied: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    """The table's indexes that are missing or still being filled."""
    in_alarm: tuple[str, ...] = ()
    confirmed_mails: int = 0
    lines: Lines | None = None
    overdue: "Overdue | None" = None
    """What the table says of messages past their deadline; None if it was not asked."""
    bots: int | None = None
    provider_problem: str = ""
    unread: tuple[str, ...] = ()
    """What could not be read, and why: mostly the operator's own permissions."""


# ------------------------------------------------------------------------------------ deciding


def findings(facts: Facts) -> list[Finding]:
    """Judge what was read from a stack."""
    return [
        *_deployment(facts),
        *_provider(facts),
        *_queues(facts),
        *_events(facts),
        *_lines(facts),
        *_parameters(facts),
        *_alarms(facts),
        *_overdue(facts.overdue),
        *(
            Finding(
                Level.WARN, f"not examined: {what}", "Repeat it with a role that may read this."
            )
            for what in facts.unread
        ),
    ]


def _deployment(facts: Facts) -> Iterator[Finding]:
    if facts.status.endswith("_COMPLETE") and "ROLLBACK" not in facts.status:
        yield Finding(Level.GOOD, f"the stack is {facts.status}")
    else:
        yield Finding(
            Level.BAD,
            f"the stack is {facts.status}",
            "Find the reason in its CloudFormation events, then deploy again.",
        )
    for name in facts.missing:
        yield Finding(
            Level.BAD,
            f"the stack has no {name}: it is of another version than this doctor",
            "Deploy it again, or ask the doctor of its own version.",
        )
    for denied in facts.denied:
        yield Finding(
            Level.BAD,
            f"the sender may not {denied}",
            "Its role was changed, or a permissions boundary or organization policy forbids it: "
            "deploy again; if that does not help, ask whoever manages the account's policies.",
        )
    for index in facts.unlisted:
        yield Finding(
            Level.WARN,
            f"the table's index {index} is missing or not filled yet: lists are not complete",
            "`make deploy` adds what is missing; filling it takes minutes to hours.",
        )
    if not facts.denied:
        yield Finding(Level.GOOD, "the sender has the permissions it needs")


def _provider(facts: Facts) -> Iterator[Finding]:
    if facts.provider_problem:
        yield Finding(
            Level.BAD,
            f"SMS Gold: {facts.provider_problem}",
            "Set the user and password with `make secret`; check ProviderBaseUrl and the network.",
        )
    elif facts.bots == 0:
        yield Finding(
            Level.BAD, "the account has no bot", "Connect one in your account on SMS Gold's site."
        )
    elif facts.bots:
        yield Finding(
            Level.GOOD,
            f"SMS Gold accepts the credentials; the account has {_counted(facts.bots, 'bot')}",
        )


def _queues(facts: Facts) -> Iterator[Finding]:
    for source in facts.sources:
        name = source.queue
        if name == STREAM:
            continue
        if not source.enabled:
            yield Finding(
                Level.BAD,
                f"{name}: no function receives its messages",
                "Enable the function's event source mapping (docs/operations.md, Pause).",
            )
        if not source.partial_failures:
            yield Finding(
                Level.BAD,
                f"{name}: one failed message returns the whole batch to the queue",
                "Deploy again: the event source mapping has lost ReportBatchItemFailures.",
            )
        if queue := facts.queues.get(name):  # or `unread` has a finding of its own
            yield from _received(source, queue)
    for name, queue in facts.queues.items():
        if queue.retention < 14 * 86400:
            yield Finding(
                Level.BAD,
                f"{name}: deletes messages after {queue.retention} s",
                "Deploy again: messages' deadlines rely on the 14 days of the template.",
            )
        if "DeadLetter" in name and queue.waiting:
            yield Finding(
                Level.WARN,
                f"{name}: {_counted(queue.waiting, 'dead letter')}",
                "`make dead-letters` shows them.",
            )
    if facts.queues:
        yield Finding(Level.GOOD, f"{len(facts.queues)} queues examined")


def _events(facts: Facts) -> Iterator[Finding]:
    told = facts.parameters["Events"]
    failures = facts.queues.get("EventsFailureQueue")
    if failures and failures.waiting:
        yield Finding(
            Level.BAD,
            "EventsFailureQueue: events were given up",
            "See EventsFailureAlarm in docs/operations.md.",
        )
    if not facts.sources:  # not read, which is a finding of its own
        return
    source = next((source for source in facts.sources if source.queue == STREAM), None)
    if told == "none":
        yield Finding(Level.GOOD, "Events is none: nobody is told what became of messages")
    elif not (source and source.enabled):
        yield Finding(
            Level.BAD,
            f"Events is {told}, and no function reads the table's stream",
            "Deploy again, or enable the publisher's event source mapping, within 24 hours.",
        )
    elif not source.partial_failures:
        yield Finding(
            Level.BAD,
            "the publisher's event source mapping has lost ReportBatchItemFailures",
            "Deploy again: what EventBridge does not take is lost.",
        )
    else:
        yield Finding(Level.GOOD, f"events are published: {told}")


def _received(source: Source, queue: Queue) -> Iterator[Finding]:
    name = source.queue
    if queue.visibility < source.timeout:
        yield Finding(
            Level.BAD,
            f"{name}: messages are hidden for {queue.visibility} s, "
            f"but a run may take {source.timeout} s",
            "Raise VisibilityTimeout; AWS recommends six times SenderTimeout.",
        )
    elif name in ("MessagesQueue", "OrderedQueue") and queue.visibility < 6 * source.timeout:
        yield Finding(
            Level.WARN,
            f"{name}: messages are hidden for {queue.visibility} s, "
            f"less than six runs of {source.timeout} s",
            "Raise VisibilityTimeout or lower SenderTimeout.",
        )
    if name == "OrderedQueue" and queue.has_dead_letter_queue:
        yield Finding(
            Level.BAD,
            f"{name}: has a dead-letter queue, which takes messages that only wait for others",
            "Remove its redrive policy: the sender itself ends what cannot be sent.",
        )
    elif name != "OrderedQueue" and not queue.has_dead_letter_queue:
        yield Finding(Level.BAD, f"{name}: has no dead-letter queue", "Deploy again.")


def _lines(facts: Facts) -> Iterator[Finding]:
    queue = facts.queues.get("OrderedQueue")
    if queue and queue.waiting + queue.hidden > BACKLOG:
        yield Finding(
            Level.BAD,
            f"OrderedQueue: {queue.waiting + queue.hidden} messages; "
            "SQS looks for free chats among the first 120000",
            "See OrderedBacklogAlarm in docs/operations.md.",
        )
    if not (lines := facts.lines):
        return
    if lines.account_held_until:
        yield Finding(
            Level.WARN,
            f"the provider holds the whole account until {_utc(lines.account_held_until)}",
            "Wait. If it happens often, lower MessagesPerSecond.",
        )
    if lines.held:
        at_least = "at least " if len(lines.held) >= MOST_HOLDS else ""
        yield Finding(
            Level.WARN,
            f"the provider holds {at_least}{_counted(len(lines.held), 'chat')}, "
            f"the longest until {_utc(max(lines.held))}",
            "Wait: their messages go then. If it happens often, send these chats fewer.",
        )
    else:
        yield Finding(Level.GOOD, "the provider holds no chat")
    if lines.oldest is not None and lines.oldest > LONG:
        busy = "" if lines.busy is None else f"; {_counted(lines.busy, 'chat')} at work or waiting"
        yield Finding(
            Level.WARN,
            f"a chat's line waits: its first message for {lines.oldest / 60:.0f} minutes{busy}",
            "See OldestOrderedAlarm in docs/operations.md.",
        )
    elif lines.oldest is not None:
        yield Finding(Level.GOOD, f"no chat's line waits longer than {LONG / 60:g} minutes")


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _parameters(facts: Facts) -> Iterator[Finding]:
    number = {name: float(value) for name, value in facts.parameters.items() if _is_number(value)}
    rate = number["MessagesPerSecond"]
    if rate == 0 or rate > TELEGRAM_RATE:
        yield Finding(
            Level.WARN,
            f"MessagesPerSecond is {rate:g}",
            f"Telegram takes about {TELEGRAM_RATE:g} a second from a bot; 0 means no limit at all.",
        )
    if number["ProviderTimeout"] + SETTLE_SECONDS >= number["SenderTimeout"]:
        yield Finding(
            Level.BAD,
            "SenderTimeout is too short for one request to SMS Gold",
            f"Make SenderTimeout more than {SETTLE_SECONDS:g} s longer than ProviderTimeout.",
        )
    if number["BackoffMin"] > number["BackoffMax"]:
        yield Finding(Level.BAD, "BackoffMin is above BackoffMax", "Swap them.")
    if facts.parameters.get("OnUnknown") == "resend":
        yield Finding(
            Level.WARN,
            "OnUnknown is resend",
            "Messages with an unknown outcome may arrive twice; set it to `hold` to avoid that.",
        )


def _alarms(facts: Facts) -> Iterator[Finding]:
    for name in facts.in_alarm:
        yield Finding(Level.BAD, f"{name} is on", "Do what its section in docs/operations.md says.")
    if not facts.in_alarm:
        yield Finding(Level.GOOD, "no alarm is on")
    if facts.parameters.get("Stage") == "prod" and not facts.confirmed_mails:
        yield Finding(
            Level.WARN,
            "nobody is notified of alarms",
            "Set AlarmEmail and confirm AWS's mail, or subscribe to AlarmTopic.",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _overdue(found: Overdue | None) -> Iterator[Finding]:
    if found is None:
        return
    if not found.ids:
        yield Finding(Level.GOOD, f"no message of {found.read} waits past its deadline")
        return
    more = ", …" if len(found.ids) > SHOWN else ""
    yield Finding(
        Level.BAD,
        f"{len(found.ids)} of {_counted(found.read, 'message')} wait past their deadline: "
        f"{', '.join(found.ids[:SHOWN])}{more}",
        'See "Messages that never end" in docs/operations.md.',
    )


def _is_number(value: str) -> bool:
    return value.replace(".", "", 1).isdigit()


# ------------------------------------------------------------------------------------- reading


def examine(
    stack: Stack, *, thorough: bool = False, clock: Callable[[], float] = time.time
) -> Facts:
    """Read what `findings` judges; a `thorough` examination reads the whole table."""
    unread: list[str] = []

    def read(what: str, look: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return look()
        except (ClientError, BotoCoreError, OperatorError) as error:
            unread.append(f"{what} ({error})")
            return otherwise

    now = clock()
    bots, problem = read("the secret", lambda: _ask_provider(stack), (None, ""))
    return Facts(
        status=stack.status,
        parameters=stack.parameters,
        missing=tuple(name for name in NEEDED if name not in stack.resources),
        queues=read("the queues", lambda: _read_queues(stack), {}),
        sources=read("the event sources", lambda: _read_sources(stack), ()),
        denied=read("the sender's permissions", lambda: _denied(stack), ()),
        unlisted=read("the table's indexes", lambda: _unlisted(stack), ()),
        in_alarm=read("the alarms", lambda: _in_alarm(stack), ()),
        confirmed_mails=read("the alarms' topic", lambda: _confirmed(stack), 0),
        lines=Lines(
            *read("the holds", lambda: _read_holds(stack, now), ((), None)),
            *read("the lines' metrics", lambda: _read_line_metrics(stack, now), (None, None)),
        ),
        overdue=read("the table", lambda: _read_overdue(stack, now), None) if thorough else None,
        bots=bots,
        provider_problem=problem,
        unread=tuple(unread),
    )


def _ask_provider(stack: Stack) -> tuple[int | None, str]:
    try:
        secret = stack.client("secretsmanager").get_secret_value(
            SecretId=stack.outputs["ProviderCredentialsArn"]
        )
    except ClientError as error:
        # The template creates the secret without a value, and "Secrets Manager can't find" none.
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None, "the secret has no value yet"
        raise
    try:
        client = Client(
            stack.parameters["ProviderBaseUrl"],
            deadline=float(stack.parameters["ProviderTimeout"]),
            connections=1,
        )
        return len(client.bots(Credentials.parse(secret["SecretString"]))), ""
    except (CredentialsError, ProviderError, BaseUrlError) as error:
        return None, str(error)


def _read_queues(stack: Stack) -> dict[str, Queue]:
    sqs = stack.client("sqs")
    found = {}
    for name, url in stack.resources.items():
        if name.endswith("Queue"):
            got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            found[name] = Queue(
                visibility=int(got["VisibilityTimeout"]),
                retention=int(got["MessageRetentionPeriod"]),
                has_dead_letter_queue="RedrivePolicy" in got,
                waiting=int(got["ApproximateNumberOfMessages"]),
                hidden=int(got["ApproximateNumberOfMessagesNotVisible"]),
            )
    return found


def _read_sources(stack: Stack) -> tuple[Source, ...]:
    functions = stack.client("lambda")
    by_name = {url.rsplit("/", 1)[-1]: name for name, url in stack.resources.items()}
    found: list[Source] = []
    for logical, function in stack.resources.items():
        if logical not in ("SenderFunction", "NotifierFunction", "PublisherFunction"):
            continue
        timeout = functions.get_function_configuration(FunctionName=function)["Timeout"]
        answer = functions.list_event_source_mappings(FunctionName=function)
        found += [
            Source(
                queue=STREAM
                if "/stream/" in mapping["EventSourceArn"]
                else by_name[mapping["EventSourceArn"].rsplit(":", 1)[-1]],
                enabled=mapping["State"] in RUNNING,
                partial_failures="ReportBatchItemFailures"
                in mapping.get("FunctionResponseTypes", []),
                timeout=timeout,
            )
            for mapping in answer["EventSourceMappings"]
        ]
    return tuple(found)


def _denied(stack: Stack) -> tuple[str, ...]:
    iam, sqs = stack.client("iam"), stack.client("sqs")
    role = iam.get_role(RoleName=stack.resources["SenderFunctionRole"])["Role"]["Arn"]
    table = stack.client("dynamodb").describe_table(TableName=stack.outputs["TableName"])["Table"]
    secret = stack.client("secretsmanager").describe_secret(
        SecretId=stack.outputs["ProviderCredentialsArn"]
    )
    arns = {"RelayTable": table["TableArn"], "ProviderCredentials": secret["ARN"]}
    for name in {"MessagesQueue", "OrderedQueue", "DeadLetterQueue"} & stack.resources.keys():
        arns[name] = sqs.get_queue_attributes(
            QueueUrl=stack.resources[name], AttributeNames=["QueueArn"]
        )["Attributes"]["QueueArn"]
    denied = []
    for name, arn in arns.items():
        answer = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=list(NEEDED[name]), ResourceArns=[arn]
        )
        denied += [
            f"{result['EvalActionName']} on {name}"
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    return tuple(denied)


def _unlisted(stack: Stack) -> tuple[str, ...]:
    status = indexes.statuses(stack, stack.outputs["TableName"])
    return tuple(index.name for index in INDEXES if status.get(index.name) != "ACTIVE")


def _in_alarm(stack: Stack) -> tuple[str, ...]:
    pages = stack.client("cloudwatch").get_paginator("describe_alarms")
    ours = {physical: name for name, physical in stack.resources.items()}
    return tuple(
        ours[alarm["AlarmName"]]
        for page in pages.paginate(AlarmNamePrefix=stack.name, StateValue="ALARM")
        for alarm in page["MetricAlarms"]
        if alarm["AlarmName"] in ours
    )


def _read_holds(stack: Stack, now: float) -> tuple[tuple[float, ...], float | None]:
    """Read until when chats are held, and the account, from the item in which runs share it."""
    answer = stack.client("dynamodb").get_item(TableName=stack.outputs["TableName"], Key=KEY)
    line = line_of(answer.get("Item"))
    account = line.held_until if line.held_until > now else None
    return tuple(line.lasting(now).values()), account


def _read_line_metrics(stack: Stack, now: float) -> tuple[float | None, int | None]:
    """Read how old the oldest message in a line is, and how many lines have one in flight."""
    if "OrderedQueue" not in stack.resources:
        return None, None
    queue = stack.resources["OrderedQueue"].rsplit("/", 1)[-1]
    names = ("ApproximateAgeOfOldestMessage", "ApproximateNumberOfGroupsWithInflightMessages")
    answer = stack.client("cloudwatch").get_metric_data(
        StartTime=now - 900,
        EndTime=now,
        ScanBy="TimestampDescending",
        MetricDataQueries=[
            {
                "Id": f"m{i}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SQS",
                        "MetricName": name,
                        "Dimensions": [{"Name": "QueueName", "Value": queue}],
                    },
                    "Period": 60,
                    "Stat": "Maximum",
                },
            }
            for i, name in enumerate(names)
        ],
    )
    latest = {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}
    oldest, busy = (next(iter(latest.get(f"m{i}", [])), None) for i in range(len(names)))
    return oldest, None if busy is None else int(busy)


def _read_overdue(stack: Stack, now: float) -> Overdue:
    """Read all messages: for a million of them 0.5 GB and, in units of 8 KB, about one cent."""
    pages = stack.client("dynamodb").get_paginator("scan")
    read, ids = 0, []
    for page in pages.paginate(
        TableName=stack.outputs["TableName"],
        ProjectionExpression="pk, #state, deadline, broadcast",
        ExpressionAttributeNames={"#state": "state"},
    ):
        for item in page["Items"]:
            kind, _, id_ = item["pk"]["S"].partition("#")
            if kind != "message":
                continue
            read += 1
            grace = GRACE + (LONGEST_PAUSE if "broadcast" in item else 0.0)
            if item["state"]["S"] in UNFINISHED and now > float(item["deadline"]["N"]) + grace:
                ids.append(id_)
    return Overdue(read, tuple(ids))


def _confirmed(stack: Stack) -> int:
    answer = stack.client("sns").get_topic_attributes(TopicArn=stack.resources["AlarmTopic"])
    return int(answer["Attributes"].get("SubscriptionsConfirmed", 0))


def run(stack: Stack, *, thorough: bool = False, say: Callable[[str], None] = print) -> bool:
    """Print the findings; return whether none of them is bad."""
    found = findings(examine(stack, thorough=thorough))
    for finding in found:
        say(f"{finding.level:>4}  {finding.what}")
        if finding.todo:
            say(f"        → {finding.todo}")
    bad = sum(finding.level is Level.BAD for finding in found)
    say(f"\n{stack.name}: {_counted(bad, 'problem') if bad else 'no problems'} to fix.")
    return not bad
