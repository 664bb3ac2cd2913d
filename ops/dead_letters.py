"""Show the dead letters by reason, and move them back to be sent again."""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Self

from ops.stack import Stack
from relay.messages.seals import ATTRIBUTE

NO_REASON = "(no reason)"
"""Stands for the reason of what SQS moved after too many receives, or somebody put there."""

HIDDEN_SECONDS = 600
"""How long received dead letters stay hidden if this program is killed."""

MOVE_SECONDS = 43_200
"""The same while they are being moved: the longest that SQS hides a message."""

MOST = 100_000
"""Dead letters that one command moves: SQS hides at most 120,000 messages of a queue at a time."""

PROGRESS = 100
"""After how many dead letters to say how far the move has come."""

REASONS = ("reason", "ERROR_CODE", "ErrorMessage")
"""The attributes with the reason: the relay's, EventBridge Scheduler's, Lambda's. The latter's
ErrorCode is only a "3-digit HTTP error code", says the Lambda Developer Guide."""

SHOWN = ("id", "subscriberId", "botId", "onUnknown", "expiresAt", "reference", "generation")
"""An envelope's fields without content: ids, times and settings."""


@dataclass(frozen=True)
class Route:
    """A dead-letter queue and where its messages go back to, by the stack's outputs.

    That is a queue, or a function that is invoked with each.
    """

    dead: str
    back: str
    to_a_function: bool = False


ROUTES: Mapping[str, Route] = {
    "messages": Route("DeadLetterQueueUrl", "MessagesQueueUrl"),
    "notifier": Route("NotifierDeadLetterQueueUrl", "NotifierQueueUrl"),
    "hooks": Route("HooksDeadLetterQueueUrl", "HooksFunctionArn", to_a_function=True),
}


@dataclass(frozen=True)
class ReceivedDeadLetter:
    """A dead letter as SQS hands it out."""

    body: str
    reason: str
    detail: str
    sent_at: float
    message_id: str = ""
    """SQS's own id of it."""
    seal: str = ""
    """What makes it a redrive once it is moved back, if the relay wrote it."""


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
    named = {key: value for key, value in envelope.items() if _NAME.fullmatch(key)}
    shown = {key: _shown(value) if key in SHOWN else _size(value) for key, value in named.items()}
    more = f" and {others} more fields" if (others := len(envelope) - len(named)) else ""
    return json.dumps(shown, ensure_ascii=False) + more


def _shown(value: object) -> object:
    """Return an id or a setting, but the size of what may be a phone number or content."""
    match value:
        case bool() | None:
            return value
        case int() if abs(value) < 10_000:  # a phone number has five digits or more
            return value
        case str() if len(value) <= _LONGEST and not _NUMBER.search(_UUID.sub("", value)):
            return value
        case _:
            return _size(value)


_LONGEST = 256
_NAME = re.compile("[A-Za-z_]{1,32}")
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"\A[ ().+\d\u00a0-]*\d[ ().+\d\u00a0-]{4,}\Z|(?<![^\W_])\d{7,}(?![^\W_])")
"""A phone number alone, or in a longer text; the digits between an id's letters are none."""


def _size(value: object) -> str:
    match value:
        case str():
            return f"({len(value)} characters)"
        case list() | dict():
            return f"({len(value)} entries)"
        case _:
            return "(a number)" if isinstance(value, int | float) else "(nothing)"


def _printable(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def report(groups: Sequence[Group], now: float) -> str:
    """Describe the groups, two lines each."""
    return "\n".join(
        f"{g.count:6}  {_printable(g.reason)}, the oldest {_age(now - g.oldest)} old\n"
        f"        {_printable(g.example)}"
        for g in groups
    )


def _count(dead_letters: int) -> str:
    return "1 dead letter" if dead_letters == 1 else f"{dead_letters} dead letters"


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


class Receiving:
    """Dead letters received from a queue; on leaving, those still there become visible again."""

    def __init__(self, sqs: Any, url: str, seconds: int = HIDDEN_SECONDS) -> None:
        self._sqs = sqs
        self._url = url
        self._seconds = seconds
        self._receipts: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.show(self.hidden)

    @property
    def hidden(self) -> frozenset[str]:
        """The SQS ids of those that are hidden now."""
        return frozenset(self._receipts)

    def receive(self, most: int) -> Iterator[ReceivedDeadLetter]:
        """Receive up to `most` dead letters, each once, and hide them."""
        seen = 0
        while seen < most:
            answer = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(10, most - seen),
                VisibilityTimeout=self._seconds,
                WaitTimeSeconds=1,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            if not (messages := answer.get("Messages", [])):
                return
            # A standard queue may hand out a hidden message a second time.
            new = [m for m in messages if m["MessageId"] not in self._receipts]
            self._receipts |= {m["MessageId"]: m["ReceiptHandle"] for m in messages}
            seen += len(new)
            yield from map(_read, new)

    def show(self, ids: Collection[str]) -> None:
        """Make dead letters visible again."""
        receipts = [self._receipts.pop(id_) for id_ in ids]
        for start in range(0, len(receipts), 10):
            self._sqs.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for i, receipt in enumerate(receipts[start : start + 10])
                ],
            )

    def delete(self, dead_letter: ReceivedDeadLetter) -> None:
        """Delete a dead letter from the queue."""
        receipt = self._receipts[dead_letter.message_id]
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=receipt)
        del self._receipts[dead_letter.message_id]


def _read(message: Mapping[str, Any]) -> ReceivedDeadLetter:
    attributes = {
        name: value.get("StringValue", "")
        for name, value in message.get("MessageAttributes", {}).items()
    }
    reason = next((attributes[name] for name in REASONS if attributes.get(name)), NO_REASON)
    return ReceivedDeadLetter(
        message["Body"],
        " ".join(reason.split()),
        attributes.get("detail", ""),
        int(message["Attributes"]["SentTimestamp"]) / 1000,
        message["MessageId"],
        attributes.get(ATTRIBUTE, ""),
    )


def show(stack: Stack, most: int, say: Callable[[str], None] = print) -> None:
    """Show what is on each dead-letter queue."""
    sqs = stack.client("sqs")
    for name, route in ROUTES.items():
        if (url := stack.outputs.get(route.dead)) is None:
            continue  # a stack of an earlier version, before its upgrade
        with Receiving(sqs, url) as receiving:
            groups = group(receiving.receive(most))
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

    Without `apply`, only say what would be moved.
    """
    route = ROUTES[queue]
    dead = stack.outputs[route.dead]
    sqs = stack.client("sqs")
    if apply:
        back = hand_back(stack, route)
        moved = move(
            sqs, dead, back, reason=reason, most=most, rate=stack.rate, say=say, sleep=sleep
        )
        say(f"{_count(moved)} moved back.")
        return
    with Receiving(sqs, dead) as receiving:
        matching = [x for x in receiving.receive(10_000) if reason in (None, x.reason)]
    if not matching:
        say(f"There are no dead letters{f' with the reason {reason}' if reason else ''}.")
        return
    count = min(len(matching), most or len(matching))
    say(f"{_count(count)} would be sent again.\n{report(group(matching), time.time())}")
    say("\nNothing was moved. To move them, repeat the command with APPLY=1.")


def hand_back(stack: Stack, route: Route) -> Callable[[ReceivedDeadLetter], object]:
    """Return what hands a dead letter back; once it returns, the letter may be deleted."""
    back = stack.outputs[route.back]
    if route.to_a_function:
        # As a rule of EventBridge does: Lambda keeps the event, and what fails comes back.
        invoke = partial(stack.client("lambda").invoke, FunctionName=back, InvocationType="Event")
        return lambda dead_letter: invoke(Payload=dead_letter.body.encode())
    send = partial(stack.client("sqs").send_message, QueueUrl=back)
    return lambda dead_letter: send(**put_back(dead_letter))


def move(
    sqs: Any,
    dead: str,
    back: Callable[[ReceivedDeadLetter], object],
    *,
    reason: str | None,
    most: int | None,
    rate: float,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Move dead letters one by one; return how many.

    Only those there at the start are moved: all are received before the first is put back, and one
    that fails again comes back as another dead letter. (AWS does not say whether SQS's own
    StartMessageMoveTask moves what arrives while it runs.)

    An interruption loses nothing, because each is put back before it is deleted. Between the two
    calls it leaves a dead letter on both queues. The copies have the same generation, so the
    message is still sent again only once, even if the command is repeated.
    """
    # The last one must be moved while it is still hidden.
    in_time = max(1, int(rate * MOVE_SECONDS * 0.9)) if rate else MOST
    with Receiving(sqs, dead, MOVE_SECONDS) as receiving:
        matching = (x for x in receiving.receive(MOST) if reason in (None, x.reason))
        chosen = list(islice(matching, min(most or MOST, in_time)))
        receiving.show(receiving.hidden - {dead_letter.message_id for dead_letter in chosen})
        moved = 0
        try:
            for dead_letter in chosen:
                back(dead_letter)
                receiving.delete(dead_letter)
                moved += 1
                if moved % PROGRESS == 0:
                    say(f"{moved} of {len(chosen)} moved back …")
                if rate:
                    sleep(1 / rate)
        except BaseException:
            say(f"Interrupted: {moved} of {len(chosen)} moved back, the others stay.")
            raise
    return moved


def put_back(dead_letter: ReceivedDeadLetter) -> Mapping[str, Any]:
    """Return what to send for a dead letter: its seal makes it a redrive."""
    seal = {"DataType": "String", "StringValue": dead_letter.seal}
    attributes = {ATTRIBUTE: seal} if dead_letter.seal else {}
    return {"MessageBody": named(dead_letter), "MessageAttributes": attributes}


def named(dead_letter: ReceivedDeadLetter) -> str:
    """Return the body, with the id that the relay knows the message by.

    A message without an id is known by its SQS id. SQS keeps that when it moves a message after too
    many receives: it "moves the message to the associated DLQ (with its original message ID)". But
    a message that is put back gets a new one, and would be sent again under it. (Both are in the
    SQS Developer Guide, about dead-letter queues.)
    """
    if dead_letter.reason != NO_REASON:
        return dead_letter.body  # the sender writes the id into what it puts there
    try:
        envelope = json.loads(dead_letter.body)
    except (ValueError, RecursionError):
        return dead_letter.body
    if not isinstance(envelope, dict) or envelope.get("id") is not None:
        return dead_letter.body
    return json.dumps({**envelope, "id": dead_letter.message_id})
