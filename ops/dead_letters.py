"""The dead letters: what lies there and why, and moving it back to be tried again."""

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
"""Put there by SQS after too many receives, or by hand: nobody wrote down why."""

LOOK_SECONDS = 600
"""Letters looked at stay hidden for so long at the most, should this program be killed."""

SHOWN = ("id", "subscriberId", "botId", "onUnknown", "expiresAt", "reference", "generation")
"""The fields of an envelope that are no content: ids, times and settings."""


@dataclass(frozen=True)
class Route:
    """A dead-letter queue, and the queue its letters go back to; by the stack's outputs."""

    dead: str
    back: str


ROUTES: Mapping[str, Route] = {
    "messages": Route("DeadLetterQueueUrl", "MessagesQueueUrl"),
    "notifier": Route("NotifierDeadLetterQueueUrl", "NotifierQueueUrl"),
}


@dataclass(frozen=True)
class Letter:
    """A dead letter as received."""

    body: str
    reason: str
    detail: str
    sent_at: float
    receipt: str = ""


@dataclass(frozen=True)
class Group:
    """The letters of one reason; `example` is an envelope with its content masked."""

    reason: str
    count: int
    oldest: float
    example: str


# ------------------------------------------------------------------------------------- looking


def group(letters: Iterable[Letter]) -> list[Group]:
    """Return the letters by reason, the most frequent first."""
    by_reason: defaultdict[str, list[Letter]] = defaultdict(list)
    for letter in letters:
        by_reason[letter.reason].append(letter)
    groups = [
        Group(reason, len(found), min(x.sent_at for x in found), masked(found[0]))
        for reason, found in by_reason.items()
    ]
    return sorted(groups, key=lambda g: (-g.count, g.reason))


def masked(letter: Letter) -> str:
    """Return a letter without texts, numbers or addresses: ids alone, and how long the rest is."""
    try:
        envelope = json.loads(letter.body)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict):
        return f"no envelope, {len(letter.body)} characters"
    shown = {key: value if key in SHOWN else _size(value) for key, value in envelope.items()}
    return json.dumps(shown, ensure_ascii=False)


def _size(value: object) -> str:
    size = len(value) if isinstance(value, str | list | dict) else 0
    return f"({size} {'characters' if isinstance(value, str) else 'entries'})"


def report(groups: Sequence[Group], now: float) -> str:
    """Say what lies there, a paragraph for each reason."""
    return "\n".join(
        f"{g.count:6}  {g.reason}, the oldest {_age(now - g.oldest)} old\n        {g.example}"
        for g in groups
    )


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


@contextmanager
def looking(sqs: Any, url: str, most: int) -> Iterator[Iterator[Letter]]:
    """Look at up to `most` letters, one at a time; those that stay can be seen again at once."""
    hidden: dict[str, str] = {}

    def letters() -> Iterator[Letter]:
        seen = 0
        while seen < most:
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(10, most - seen),
                VisibilityTimeout=LOOK_SECONDS,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            if not (messages := answer.get("Messages", [])):
                return
            hidden.update({m["MessageId"]: m["ReceiptHandle"] for m in messages})
            for message in messages:
                seen += 1
                yield _letter(message)

    try:
        yield letters()
    finally:
        receipts = list(hidden.values())
        for start in range(0, len(receipts), 10):
            # For those that were moved away meanwhile this does nothing.
            sqs.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for i, receipt in enumerate(receipts[start : start + 10])
                ],
            )


def _letter(message: Mapping[str, Any]) -> Letter:
    attributes = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    # The scheduler and Lambda say why in attributes of their own.
    reason = next(
        (attributes[n] for n in ("reason", "ERROR_CODE", "ErrorCode") if attributes.get(n)),
        NO_REASON,
    )
    return Letter(
        message["Body"],
        reason,
        attributes.get("detail", ""),
        int(message["Attributes"]["SentTimestamp"]) / 1000,
        message["ReceiptHandle"],
    )


def show(stack: Stack, most: int, say: Callable[[str], None] = print) -> None:
    """Say what lies on each dead-letter queue."""
    sqs = stack.client("sqs")
    for name, route in ROUTES.items():
        url = stack.outputs[route.dead]
        with looking(sqs, url, most) as letters:
            groups = group(letters)
        total = sum(g.count for g in groups)
        if not total:
            say(f"{name}: no dead letters.")
            continue
        limit = f" The first {most}; more with MAX=…" if total >= most else ""
        say(f"{name}: {total} dead letters.{limit}\n{report(groups, time.time())}")


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
    """Move dead letters back to be tried once more; without `apply` only say what would move.

    All of them by SQS itself, those of one reason or a number of them one by one; in both cases no
    faster than the account's rate.
    """
    route = ROUTES[queue]
    dead, back = stack.outputs[route.dead], stack.outputs[route.back]
    sqs = stack.client("sqs")
    if not apply:
        with looking(sqs, dead, 10_000) as letters:
            matching = [x for x in letters if reason in (None, x.reason)]
        if not matching:
            say(f"There are no dead letters{f' with the reason {reason}' if reason else ''}.")
            return
        count = min(len(matching), most or len(matching))
        say(f"{count} dead letters would be tried again.\n{report(group(matching), time.time())}")
        say("\nNothing was moved. To do it: the same command with APPLY=1")
    # MiniStack has no move tasks; and a task's rate is a whole number.
    elif reason is None and most is None and not stack.is_local and not 0 < stack.rate < 1:
        task = start_move(sqs, dead, back, stack.rate)
        say(
            f"SQS is moving all of them. To stop it: aws sqs cancel-message-move-task "
            f"--task-handle {task}"
        )
    else:
        moved = move(sqs, dead, back, reason=reason, most=most, rate=stack.rate, sleep=sleep)
        say(f"{moved} dead letters were moved back.")


def start_move(sqs: Any, dead: str, back: str, rate: float) -> str:
    """Let SQS move all letters; return the task's handle."""
    pace = {"MaxNumberOfMessagesPerSecond": min(int(rate), 500)} if rate else {}
    try:
        # The sender puts letters there itself: there is no source for them to go back to.
        answer = sqs.start_message_move_task(
            SourceArn=_arn(sqs, dead), DestinationArn=_arn(sqs, back), **pace
        )
    except ClientError as error:
        raise OperatorError(f"SQS does not move them: {error}") from None
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
    """Move letters one by one; return how many.

    Only those that lie there at the start: a message that fails again comes back at once, and would
    go round and round. Stopped between its two calls it leaves a letter in both queues. Both copies
    are of the same generation, so that the message is tried again once.
    """
    with looking(sqs, dead, 100_000) as letters:  # SQS hides no more at a time
        chosen = list(islice((x for x in letters if reason in (None, x.reason)), most))
        for letter in chosen:
            sqs.send_message(QueueUrl=back, MessageBody=letter.body)
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=letter.receipt)
            if rate:
                sleep(1 / rate)
    return len(chosen)


def _arn(sqs: Any, url: str) -> str:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])
