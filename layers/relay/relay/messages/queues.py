"""The stack's queues."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.envelope import QueuedMessage, rfc3339
from relay.messages.seals import ATTRIBUTE, Seals, claim_of
from relay.messages.store import StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

log = logging.getLogger(__name__)

ENTRIES_PER_CALL = 10
LONGEST_VISIBILITY = 43200.0
"""Seconds. SQS counts from the receive, so we ask for a little less."""

LONGEST_DELAY = 900
"""Seconds that SQS holds a message back at most: "The maximum is 15 minutes" (standard queue
quotas)."""

ROOM_TO_WAIT = 100_000
"""Messages that may wait for their time on the Messages queue.

Those that have waited longer than its delay are in flight, and "there can be a maximum of
approximately 120,000 in flight messages (received from a queue by a consumer, but not yet deleted
from the queue) … If you use long polling, Amazon SQS returns no error messages" (standard queue
quotas). The queue would hand out nothing until some came back. What is left is for those that are
retried, and for what this number does not see.
"""

COUNTED_SECONDS = 10.0
"""How old the number of waiting messages may be; SQS itself gives it about a minute late."""

CALL_BYTES = 1_048_576
"""Bytes that SQS accepts in one call, whatever the number of messages."""

ATTRIBUTE_BYTES = 4096
"""Room for a dead letter's attributes; SQS counts them as part of the message."""

SEAL_BYTES = 128
"""Room for a seal."""


class QueueUnavailableError(Exception):
    """A queue does not accept messages now."""


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """An envelope for the DeadLetter queue; the reason travels as message attributes."""

    body: str
    reason: str
    detail: str
    attempts: int
    failed_at: float
    own: bool = False
    """The relay wrote the body, and seals it: moved back, it is a redrive."""


class Queues(Protocol):
    """What the relay needs of its queues."""

    def enqueue(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        """Put messages on the Ordered queue, in this order; return None or the error for each.

        `delays` are the seconds, up to LONGEST_DELAY, for which the queue holds each back; by
        default none. Those that need no order go on the Messages queue, and so do those with a
        delay: it is of no use to a message that has others before it.
        """
        ...

    def has_room_to_wait(self) -> bool:
        """Return whether another message may wait for its time on the Messages queue."""
        ...

    def enqueue_broadcast(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        """Put a broadcast's messages on the Broadcast queue; return None or the error for each.

        `delays` says for how many seconds the queue holds each back, 900 at the most.
        """
        ...

    def enqueue_notifier(self, body: str) -> None:
        """Put a body on the notifier's queue; raise QueueUnavailableError if that fails."""
        ...

    def enqueue_dead_letters(self, entries: Sequence[DeadLetterEntry]) -> list[str | None]:
        """Put dead letters on their queue; return None or the error for each."""
        ...

    def change_visibility(self, source: str, receipts: Mapping[str, float]) -> None:
        """Make messages received from a queue visible again after so many seconds.

        `source` is the queue's ARN; `receipts` has the seconds by receipt handle.
        """
        ...


class SqsQueues:
    """The queues on SQS."""

    def __init__(
        self,
        client: "SQSClient",
        *,
        messages_url: str,
        ordered_url: str,
        broadcast_url: str,
        notifier_url: str,
        dead_letter_url: str,
        seals: Seals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._messages_url = messages_url
        self._ordered_url = ordered_url
        self._broadcast_url = broadcast_url
        self._notifier_url = notifier_url
        self._dead_letter_url = dead_letter_url
        self._seals = seals
        self._clock = clock
        self._waiting = 0
        self._counted_at = -math.inf

    def enqueue(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        """Put messages on the Ordered or the Messages queue; return None or the error for each."""
        problems: dict[int, str | None] = {}
        delayed = _delayed(messages, delays)
        for in_line in (True, False):
            indices = [i for i, (m, d) in enumerate(delayed) if (m.in_order and not d) is in_line]
            url = self._ordered_url if in_line else self._messages_url
            own = [delayed[i] for i in indices]
            problems |= zip(indices, self._send(url, own), strict=True)
        return [problems[i] for i in range(len(messages))]

    def has_room_to_wait(self) -> bool:
        """Return whether another message may wait; True if SQS does not say how many do."""
        now = self._clock()
        if now - self._counted_at > COUNTED_SECONDS:
            self._counted_at = now
            try:
                answer = self._client.get_queue_attributes(
                    QueueUrl=self._messages_url,
                    AttributeNames=[
                        "ApproximateNumberOfMessagesNotVisible",
                        "ApproximateNumberOfMessagesDelayed",
                    ],
                )
            except (ClientError, BotoCoreError) as error:
                log.warning("waiting messages not counted", extra={"error": type(error).__name__})
                self._waiting = 0
            else:
                self._waiting = sum(map(int, answer["Attributes"].values()))
        return self._waiting < ROOM_TO_WAIT

    def enqueue_broadcast(
        self, messages: Sequence[QueuedMessage], delays: Sequence[int] = ()
    ) -> list[str | None]:
        """Put a broadcast's messages on the Broadcast queue; return None or the error for each."""
        return self._send(self._broadcast_url, _delayed(messages, delays))

    def enqueue_notifier(self, body: str) -> None:
        """Put a body on the notifier's queue; raise QueueUnavailableError if that fails."""
        [problem] = self._put(self._notifier_url, [{"MessageBody": body}], [len(body.encode())])
        if problem:
            raise QueueUnavailableError(problem)

    def is_broadcast(self, source: str) -> bool:
        """Return whether an ARN is the Broadcast queue's."""
        return _is(self._broadcast_url, source)

    def is_ordered(self, source: str) -> bool:
        """Return whether an ARN is the Ordered queue's."""
        return _is(self._ordered_url, source)

    def _send(self, url: str, delayed: Sequence[tuple[QueuedMessage, int]]) -> list[str | None]:
        try:
            entries = [
                self._entry(message, delay, in_line=url == self._ordered_url)
                for message, delay in delayed
            ]
        except StoreUnavailableError:
            return ["no key for the seal"] * len(delayed)
        sizes = [len(entry["MessageBody"].encode()) + SEAL_BYTES for entry in entries]
        return self._put(url, entries, sizes)

    def _entry(self, message: QueuedMessage, delay: int, *, in_line: bool) -> dict[str, Any]:
        body = message.to_body()
        # A FIFO queue takes no delay for a single message.
        placed = place_in_line(message.chat, body) if in_line else {"DelaySeconds": delay}
        sealed = {"MessageAttributes": self._seal(body)} if claim_of(message) else {}
        return {"MessageBody": body, **placed, **sealed}

    def _seal(self, body: str) -> dict[str, Any]:
        return {ATTRIBUTE: {"DataType": "String", "StringValue": self._seals.seal(body)}}

    def enqueue_dead_letters(self, entries: Sequence[DeadLetterEntry]) -> list[str | None]:
        """Put dead letters on their queue; return None or the error for each."""
        messages = [_dead_letter(entry) for entry in entries]
        try:
            for entry, message in zip(entries, messages, strict=True):
                if entry.own:
                    message["MessageAttributes"] |= self._seal(entry.body)
        except StoreUnavailableError:
            return ["no key for the seal"] * len(entries)
        sizes = [len(m["MessageBody"].encode()) + ATTRIBUTE_BYTES for m in messages]
        return self._put(self._dead_letter_url, messages, sizes)

    def _put(
        self, url: str, entries: Sequence[dict[str, Any]], sizes: Sequence[int]
    ) -> list[str | None]:
        answers: list[str | None] = ["not asked"] * len(entries)
        for group in _groups(sizes):
            batch: Any = [{"Id": str(i), **entries[i]} for i in group]
            try:
                answer = self._client.send_message_batch(QueueUrl=url, Entries=batch)
            except (ClientError, BotoCoreError) as error:
                for i in group:
                    answers[i] = type(error).__name__
                continue
            for sent in answer.get("Successful", []):
                answers[int(sent["Id"])] = None
            for failed in answer.get("Failed", []):
                answers[int(failed["Id"])] = failed["Code"]
        return answers

    def change_visibility(self, source: str, receipts: Mapping[str, float]) -> None:
        """Make messages received from a queue visible again after so many seconds.

        Best effort: a message whose visibility cannot be changed comes back when the queue's own
        visibility timeout ends.
        """
        urls = (self._messages_url, self._ordered_url, self._broadcast_url, self._notifier_url)
        url = next((url for url in urls if _is(url, source)), urls[0])
        entries: list[Any] = [
            {
                "Id": str(i),
                "ReceiptHandle": receipt,
                "VisibilityTimeout": round(min(max(seconds, 0.0), LONGEST_VISIBILITY - 120)),
            }
            for i, (receipt, seconds) in enumerate(receipts.items())
        ]
        for start in range(0, len(entries), ENTRIES_PER_CALL):
            try:
                self._client.change_message_visibility_batch(
                    QueueUrl=url, Entries=entries[start : start + ENTRIES_PER_CALL]
                )
            except (ClientError, BotoCoreError):
                continue


def _delayed(
    messages: Sequence[QueuedMessage], delays: Sequence[int]
) -> list[tuple[QueuedMessage, int]]:
    """Return each message with its delay, by default none."""
    return list(zip(messages, delays or [0] * len(messages), strict=True))


def delay_for(seconds: float) -> int:
    """Return for how long a queue holds back a message that may go in so many seconds."""
    return min(max(0, math.ceil(seconds)), LONGEST_DELAY)


def place_in_line(chat: str, body: str) -> dict[str, str]:
    """Return what makes a message of the Ordered queue wait for those to the same chat before it.

    SQS drops what has the same deduplication id as a message of the last five minutes. So it is
    made of all that the body says: two messages under one id may be told apart by their text alone.
    """
    return {
        "MessageGroupId": chat,
        "MessageDeduplicationId": hashlib.sha256(body.encode()).hexdigest(),
    }


def dead_letter_body(message: QueuedMessage, generation: int) -> str:
    """Return the envelope as a dead letter of a record's generation.

    It carries the next generation, so moving it back is a redrive. The record's generation counts,
    since the copy that was received may be older.
    """
    return message.model_copy(update={"generation": generation + 1}).to_body()


def _dead_letter(entry: DeadLetterEntry) -> dict[str, Any]:
    # No envelope is that long, but a foreign body may be.
    body = entry.body.encode()[: CALL_BYTES - ATTRIBUTE_BYTES].decode(errors="ignore")
    attributes = {
        "reason": {"DataType": "String", "StringValue": entry.reason},
        "attempts": {"DataType": "Number", "StringValue": str(entry.attempts)},
        "failedAt": {"DataType": "String", "StringValue": rfc3339(entry.failed_at)},
    }
    if detail := _sqs_text(entry.detail)[:512]:
        attributes["detail"] = {"DataType": "String", "StringValue": detail}
    return {"MessageBody": body, "MessageAttributes": attributes}


def _is(url: str, arn: str) -> bool:
    """Return whether a URL and an ARN are one queue's: its name is the last part of both."""
    return url.rpartition("/")[2] == arn.rpartition(":")[2]


def _groups(sizes: Sequence[int]) -> Iterable[list[int]]:
    """Yield the indices of messages of these sizes, in groups that fit into one batch call."""
    group: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if group and (len(group) == ENTRIES_PER_CALL or total + size > CALL_BYTES):
            yield group
            group, total = [], 0
        group.append(i)
        total += size
    if group:
        yield group


def _sqs_text(text: str) -> str:
    """Drop the characters that SQS refuses: all that XML 1.0 does not allow."""
    return "".join(
        c
        for c in text
        if c in "\t\n\r" or " " <= c < "\ud800" or "\udfff" < c not in "\ufffe\uffff"
    )
