"""Examine a deployed stack: each finding with what to do about it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.stack import Stack
from smsgold.client import Client
from smsgold.credentials import Credentials
from smsgold.errors import BaseUrlError, CredentialsError, ProviderError

PROVIDER_TIMEOUT_SPARE = 3.0
"""Seconds a run keeps for recording an answer; relay.messages.sender has the same."""

FASTEST = 30.0
"""Messages a second that Telegram takes from a bot, about."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "RelayTable": ("dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:BatchGetItem"),
    "MessagesQueue": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
    "DeadLetterQueue": ("sqs:SendMessage",),
    "ProviderCredentials": ("secretsmanager:GetSecretValue",),
}
"""What the sender cannot do without, by the resource's logical id."""

RUNNING = ("Enabled", "Enabling", "Creating", "Updating")
"""The states of an event source that is on."""


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "ok"
    WARN = "look"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """One thing found, and what to do if it is not good."""

    level: Level
    what: str
    todo: str = ""


@dataclass(frozen=True)
class Queue:
    """A queue's settings in seconds, and how many messages wait on it."""

    visibility: int
    retention: int
    has_net: bool
    waiting: int


@dataclass(frozen=True)
class Source:
    """What brings a queue's messages to a function."""

    queue: str
    enabled: bool
    partial_failures: bool
    timeout: int


@dataclass(frozen=True)
class Facts:
    """What was read of a stack; queues by logical id."""

    status: str
    parameters: Mapping[str, str]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    denied: tuple[str, ...] = ()
    in_alarm: tuple[str, ...] = ()
    confirmed_mails: int = 0
    bots: int | None = None
    provider_problem: str = ""
    unread: tuple[str, ...] = ()
    """What could not be read, and why: the operator's own permissions, mostly."""


# ------------------------------------------------------------------------------------ deciding


def findings(facts: Facts) -> list[Finding]:
    """Judge what was read of a stack."""
    return [
        *_deployment(facts),
        *_provider(facts),
        *_queues(facts),
        *_parameters(facts),
        *_alarms(facts),
        *(
            Finding(Level.WARN, f"not examined: {what}", "Run it with a role that may read this.")
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
            "Look at its events in CloudFormation; deploy again.",
        )
    for denied in facts.denied:
        yield Finding(
            Level.BAD,
            f"the sender may not {denied}",
            "Somebody changed its role, or a boundary or organisation policy forbids it: deploy "
            "again, then ask whoever looks after the account's policies.",
        )
    if not facts.denied:
        yield Finding(Level.GOOD, "the sender has the permissions it needs")


def _provider(facts: Facts) -> Iterator[Finding]:
    if facts.provider_problem:
        yield Finding(
            Level.BAD,
            f"SMS Gold: {facts.provider_problem}",
            "Set user and password with `make secret`; check ProviderBaseUrl and the network.",
        )
    elif facts.bots == 0:
        yield Finding(Level.BAD, "the account has no bot", "Connect one in SMS Gold's cabinet.")
    elif facts.bots:
        yield Finding(Level.GOOD, f"SMS Gold answers: credentials valid, {facts.bots} bots")


def _queues(facts: Facts) -> Iterator[Finding]:
    for source in facts.sources:
        name = source.queue
        if not source.enabled:
            yield Finding(
                Level.BAD,
                f"{name}: nothing is taken from it",
                "Enable the function's event source mapping (docs/operations.md, Pause).",
            )
        if not source.partial_failures:
            yield Finding(
                Level.BAD,
                f"{name}: one failure brings back the whole batch",
                "Deploy again: the event source has lost ReportBatchItemFailures.",
            )
        if not (queue := facts.queues.get(name)):
            continue  # not readable, which is told once for all of them
        if queue.visibility < source.timeout:
            yield Finding(
                Level.BAD,
                f"{name}: hidden for {queue.visibility} s, but a run may take {source.timeout} s",
                "Raise VisibilityTimeout; six times SenderTimeout is what AWS recommends.",
            )
        elif name == "MessagesQueue" and queue.visibility < 6 * source.timeout:
            yield Finding(
                Level.WARN,
                f"{name}: hidden for {queue.visibility} s, less than 6 runs of {source.timeout} s",
                "Raise VisibilityTimeout, or lower SenderTimeout.",
            )
        if not queue.has_net:
            yield Finding(Level.BAD, f"{name}: no dead-letter queue under it", "Deploy again.")
    for name, queue in facts.queues.items():
        if queue.retention < 14 * 86400:
            yield Finding(
                Level.BAD,
                f"{name}: forgets messages after {queue.retention} s",
                "Deploy again: deadlines rely on 14 days.",
            )
        if "DeadLetter" in name and queue.waiting:
            yield Finding(
                Level.WARN, f"{name}: {queue.waiting} dead letters", "See `make dead-letters`."
            )
    if facts.queues:
        yield Finding(Level.GOOD, f"{len(facts.queues)} queues examined")


def _parameters(facts: Facts) -> Iterator[Finding]:
    number = {name: float(value) for name, value in facts.parameters.items() if _is_number(value)}
    rate = number["MessagesPerSecond"]
    if rate == 0 or rate > FASTEST:
        yield Finding(
            Level.WARN,
            f"MessagesPerSecond is {rate:g}",
            f"Telegram takes about {FASTEST:g} a second from a bot; 0 means no pace at all.",
        )
    if number["ProviderTimeout"] + PROVIDER_TIMEOUT_SPARE >= number["SenderTimeout"]:
        yield Finding(
            Level.BAD,
            "a run of the sender is too short for one exchange",
            "Make SenderTimeout well larger than ProviderTimeout.",
        )
    if number["BackoffMin"] > number["BackoffMax"]:
        yield Finding(Level.BAD, "BackoffMin is above BackoffMax", "Exchange them.")
    if facts.parameters.get("OnUnknown") == "resend":
        yield Finding(
            Level.WARN,
            "OnUnknown is resend",
            "Messages of unknown outcome are sent again: recipients may get them twice.",
        )


def _alarms(facts: Facts) -> Iterator[Finding]:
    for name in facts.in_alarm:
        yield Finding(Level.BAD, f"{name} is on", "Its section in docs/operations.md.")
    if not facts.in_alarm:
        yield Finding(Level.GOOD, "no alarm is on")
    if facts.parameters.get("Stage") == "prod" and not facts.confirmed_mails:
        yield Finding(
            Level.WARN,
            "nobody is told of alarms",
            "Set AlarmEmail and confirm the mail that AWS sends, or subscribe to the AlarmTopic.",
        )


def _is_number(value: str) -> bool:
    return value.replace(".", "", 1).isdigit()


# ------------------------------------------------------------------------------------- reading


def examine(stack: Stack) -> Facts:
    """Read what `findings` judges."""
    unread: list[str] = []

    def read(what: str, look: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return look()
        except (ClientError, BotoCoreError) as error:
            unread.append(f"{what} ({error})")
            return otherwise

    bots, problem = read("the secret", lambda: _ask_provider(stack), (None, ""))
    return Facts(
        status=stack.status,
        parameters=stack.parameters,
        queues=read("the queues", lambda: _read_queues(stack), {}),
        sources=read("the event sources", lambda: _read_sources(stack), ()),
        denied=read("the sender's permissions", lambda: _denied(stack), ()),
        in_alarm=read("the alarms", lambda: _in_alarm(stack), ()),
        confirmed_mails=read("the alarms' topic", lambda: _confirmed(stack), 0),
        bots=bots,
        provider_problem=problem,
        unread=tuple(unread),
    )


def _ask_provider(stack: Stack) -> tuple[int | None, str]:
    secret = stack.client("secretsmanager").get_secret_value(
        SecretId=stack.outputs["ProviderCredentialsArn"]
    )
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
                has_net="RedrivePolicy" in got,
                waiting=int(got["ApproximateNumberOfMessages"]),
            )
    return found


def _read_sources(stack: Stack) -> tuple[Source, ...]:
    functions = stack.client("lambda")
    by_name = {url.rsplit("/", 1)[-1]: name for name, url in stack.resources.items()}
    found: list[Source] = []
    for logical, function in stack.resources.items():
        if logical not in ("SenderFunction", "NotifierFunction"):
            continue
        timeout = functions.get_function_configuration(FunctionName=function)["Timeout"]
        answer = functions.list_event_source_mappings(FunctionName=function)
        found += [
            Source(
                queue=by_name[mapping["EventSourceArn"].rsplit(":", 1)[-1]],
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
    for name in ("MessagesQueue", "DeadLetterQueue"):
        arns[name] = sqs.get_queue_attributes(
            QueueUrl=stack.resources[name], AttributeNames=["QueueArn"]
        )["Attributes"]["QueueArn"]
    denied = []
    for name, actions in NEEDED.items():
        answer = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=list(actions), ResourceArns=[arns[name]]
        )
        denied += [
            f"{result['EvalActionName']} on {name}"
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    return tuple(denied)


def _in_alarm(stack: Stack) -> tuple[str, ...]:
    pages = stack.client("cloudwatch").get_paginator("describe_alarms")
    ours = {physical: name for name, physical in stack.resources.items()}
    return tuple(
        ours[alarm["AlarmName"]]
        for page in pages.paginate(AlarmNamePrefix=stack.name, StateValue="ALARM")
        for alarm in page["MetricAlarms"]
        if alarm["AlarmName"] in ours
    )


def _confirmed(stack: Stack) -> int:
    answer = stack.client("sns").get_topic_attributes(TopicArn=stack.resources["AlarmTopic"])
    return int(answer["Attributes"].get("SubscriptionsConfirmed", 0))


def run(stack: Stack, say: Callable[[str], None] = print) -> bool:
    """Say what was found; tell whether nothing is bad."""
    found = findings(examine(stack))
    for finding in found:
        say(f"{finding.level:>4}  {finding.what}")
        if finding.todo:
            say(f"        → {finding.todo}")
    bad = sum(finding.level is Level.BAD for finding in found)
    say(f"\n{stack.name}: {bad or 'nothing'} to put right.")
    return not bad
