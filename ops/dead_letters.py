"""Show the dead letters by reason, and move them back to be sent again."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from ops.stack import OperatorError, Stack

NO_REASON = "(no reason)"
"""Stands for the reason of what SQS moved after too many receives, or somebody put there."""

HIDDEN_SECONDS = 600
"""How long received dead letters stay hidden if this program is killed."""

SHOWN = ("id", "subscriberId", "botId", "onUnknown", "expiresAt", "reference", "generation")
"""An envelope's fields without content: ids, times and settings."""


@dataclass(frozen=True)
class Route:
    """A dead-letter queue and the queue its messages go back to, by the stack's outputs."""

    dead: str
    back: str


ROUTES: Mapping[str, Route] = {
    "messages": Route("DeadLetterQueueUrl", "MessagesQueueUrl"),
    "notifier": Route("NotifierDeadLetterQueueUrl", "NotifierQueueUrl"),
}


@dataclass(frozen=True)
class ReceivedDeadLetter:
    """A dead letter as SQS hands it out."""

    body: str
    reason: str
    detail: str
    sent_at: float
    receipt: str = ""


@dataclass(frozen=True)
class Group:
    """The dead letters with one reason; `example` is one of them, its content masked."""

    reason: str
    count: int
    oldest: float
    example: str


# ------------------------------------------------------------------------------------- showing


def group(received: Iterable[ReceivedDeadLetter]) -> list[Group]:
    """Group dead letters by reason, the most frequent first."""
    by_reason: defaultdict[str, list[ReceivedDeadLetter]] = defaultdict(list)
    for dead_letter in received:
        by_reason[dead_letter.reason].append(dead_letter)
    groups = [
        Group(reason, len(found), min(x.sent_at for x in found), masked(found[0]))
        for reason, found in by_reason.items()
    ]
    return sorted(groups, key=lambda g: (-g.count, g.reason))


def masked(dead_letter: ReceivedDeadLetter) -> str:
    """Return a dead letter's ids and settings, and the size of every other field."""
    try:
        envelope = json.loads(dead_letter.body)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict):
        return f"not an envelope: {len(dead_letter.body)} characters"
    shown = {key: value if key in SHOWN else _size(value) for key, value in envelope.items()}
    return json.dumps(shown, ensure_ascii=False)


def _size(value: object) -> str:
    size = len(value) if isinstance(value, str | list | dict) else 0
    return f"({size} {'characters' if isinstance(value, str) else 'entries'})"


def report(groups: Sequence[Group], now: float) -> str:
    """Describe the groups, two lines each."""
    return "\n".join(
        f"{g.count:6}  {g.reason}, the oldest {_age(now - g.oldest)} old\n        {g.example}"
        for g in groups
    )


def _count(dead_letters: int) -> str:
    return "1 dead letter" if dead_letters == 1 else f"{dead_letters} dead letters"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


@contextmanager
def receiving(sqs: Any, url: str, most: int) -> Iterator[Iterator[ReceivedDeadLetter]]:
    """Receive up to `most` dead letters; on leaving, make those still there visible again."""
    hidden: dict[str, str] = {}

    def receive() -> Iterator[ReceivedDeadLetter]:
        seen = 0
        while seen < most:
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(10, most - seen),
                VisibilityTimeout=HIDDEN_SECONDS,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            if not (messages := answer.get("Messages", [])):
                return
            hidden.update({m["MessageId"]: m["ReceiptHandle"] for m in messages})
            for message in messages:
                seen += 1
                yield _read(message)

    try:
        yield receive()
    finally:
        receipts = list(hidden.values())
        for start in range(0, len(receipts), 10):
            # SQS ignores this for messages that have been deleted.
            sqs.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for i, receipt in enumerate(receipts[start : start + 10])
                ],
            )


def _read(message: Mapping[str, Any]) -> ReceivedDeadLetter:
    attributes = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    # EventBridge Scheduler and Lambda name their reason in attributes of their own.
    reason = next(
        (attributes[n] for n in ("reason", "ERROR_CODE", "ErrorCode") if attributes.get(n)),
        NO_REASON,
    )
    return ReceivedDeadLetter(
        message["Body"],
        reason,
        attributes.get("detail", ""),
        int(message["Attributes"]["SentTimestamp"]) / 1000,
        message["ReceiptHandle"],
    )


def show(stack: Stack, most: int, say: Callable[[str], None] = print) -> None:
    """Show what is on each dead-letter queue."""
    sqs = stack.client("sqs")
    for name, route in ROUTES.items():
        url = stack.outputs[route.dead]
        with receiving(sqs, url, most) as received:
            groups = group(received)
        total = sum(g.count for g in groups)
        if not total:
            say(f"{name}: no dead letters.")
            continue
        limit = (
            f" Only the first {most} were read; raise MAX to read more." if total >= most else ""
        )
        say(f"{name}: {_count(total)}.{limit}\n{report(groups, time.time())}")


# -------------------------------------------------------------------------------------- moving


def redrive(
    stack: Stack,
    *,
    queue: str,
    reason: str | None,
    most: int | None,
    apply: bool,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Move dead letters back to be sent again, no faster than the account's rate.

    SQS moves all of them itself; a reason or a number limits it to some, which are moved one by
    one. Without `apply`, only say what would be moved.
    """
    route = ROUTES[queue]
    dead, back = stack.outputs[route.dead], stack.outputs[route.back]
    sqs = stack.client("sqs")
    if not apply:
        with receiving(sqs, dead, 10_000) as received:
            matching = [x for x in received if reason in (None, x.reason)]
        if not matching:
            say(f"There are no dead letters{f' with the reason {reason}' if reason else ''}.")
            return
        count = min(len(matching), most or len(matching))
        say(f"{_count(count)} would be sent again.\n{report(group(matching), time.time())}")
        say("\nNothing was moved. To move them, repeat the command with APPLY=1.")
    # MiniStack has no move tasks, and a task's rate is a whole number.
    elif reason is None and most is None and not stack.is_local and not 0 < stack.rate < 1:
        task = start_move(sqs, dead, back, stack.rate)
        say(
            f"SQS is moving all dead letters. To stop it: aws sqs cancel-message-move-task "
            f"--task-handle {task}"
        )
    else:
        moved = move(sqs, dead, back, reason=reason, most=most, rate=stack.rate, sleep=sleep)
        say(f"{_count(moved)} moved back.")


def start_move(sqs: Any, dead: str, back: str, rate: float) -> str:
    """Start a task in SQS that moves all dead letters; return its handle."""
    pace = {"MaxNumberOfMessagesPerSecond": min(int(rate), 500)} if rate else {}
    try:
        # SQS knows no source queue for them: the sender puts them there itself.
        answer = sqs.start_message_move_task(
            SourceArn=_arn(sqs, dead), DestinationArn=_arn(sqs, back), **pace
        )
    except ClientError as error:
        raise OperatorError(f"SQS refused to move the dead letters: {error}") from None
    return str(answer["TaskHandle"])


def move(
    sqs: Any,
    dead: str,
    back: str,
    *,
    reason: str | None,
    most: int | None,
    rate: float,
    sleep: Callable[[float], None],
) -> int:
    """Move dead letters one by one; return how many.

    Only those there at the start are moved: one that fails again comes back at once and would be
    moved forever. Interrupted between its two calls, this leaves a dead letter on both queues.
    The copies have the same generation, so the message is still sent again only once.
    """
    with receiving(sqs, dead, 100_000) as received:  # SQS hides no more at a time
        chosen = list(islice((x for x in received if reason in (None, x.reason)), most))
        for dead_letter in chosen:
            sqs.send_message(QueueUrl=back, MessageBody=dead_letter.body)
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=dead_letter.receipt)
            if rate:
                sleep(1 / rate)
    return len(chosen)


def _arn(sqs: Any, url: str) -> str:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])
