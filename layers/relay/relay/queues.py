"""The Messages and DeadLetter queues."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from relay.message import QueuedMessage, rfc3339

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

ENTRIES_PER_CALL = 10
LONGEST_VISIBILITY = 43200.0
"""Seconds; SQS counts it from the receive, so a little less is asked for."""

LONGEST_BODY = 1_048_576 - 4096
"""Bytes of a dead letter's body: what SQS takes, less room for the attributes."""

CALL_BYTES = 1_048_576
"""Bytes SQS takes in one batch call."""


class QueueUnavailableError(Exception):
    """A queue does not take messages now."""


@dataclass(frozen=True, slots=True)
class DeadLetterNote:
    """Why an envelope goes to the DeadLetter queue; travels as message attributes."""

    reason: str
    detail: str
    attempts: int
    failed_at: float


class Queues(Protocol):
    """What the relay needs of its queues."""

    def send(self, messages: Sequence[QueuedMessage], delay: int = 0) -> list[str | None]:
        """Put messages on the Messages queue; return None or what went wrong for each."""
        ...

    def bury(self, body: str, note: DeadLetterNote) -> None:
        """Put an envelope on the DeadLetter queue with its reason."""
        ...

    def hide(self, receipts: Mapping[str, float]) -> None:
        """Make received messages visible again after so many seconds, by receipt handle."""
        ...


class SqsQueues:
    """The queues on SQS."""

    def __init__(self, client: "SQSClient", *, messages_url: str, dead_letter_url: str) -> None:
        self._client = client
        self._messages_url = messages_url
        self._dead_letter_url = dead_letter_url

    def send(self, messages: Sequence[QueuedMessage], delay: int = 0) -> list[str | None]:
        """Put messages on the Messages queue; return None or what went wrong for each."""
        answers: list[str | None] = ["not asked"] * len(messages)
        bodies = [message.to_body() for message in messages]
        for group in _groups(bodies):
            try:
                answer = self._client.send_message_batch(
                    QueueUrl=self._messages_url,
                    Entries=[
                        {"Id": str(i), "MessageBody": bodies[i], "DelaySeconds": delay}
                        for i in group
                    ],
                )
            except (ClientError, BotoCoreError) as error:
                for i in group:
                    answers[i] = type(error).__name__
                continue
            for sent in answer.get("Successful", []):
                answers[int(sent["Id"])] = None
            for failed in answer.get("Failed", []):
                answers[int(failed["Id"])] = failed["Code"]
        return answers

    def bury(self, body: str, note: DeadLetterNote) -> None:
        """Put an envelope on the DeadLetter queue with its reason."""
        attributes: dict[str, Any] = {
            "reason": {"DataType": "String", "StringValue": note.reason},
            "attempts": {"DataType": "Number", "StringValue": str(note.attempts)},
            "failedAt": {"DataType": "String", "StringValue": rfc3339(note.failed_at)},
        }
        if detail := _sqs_text(note.detail)[:512]:
            attributes["detail"] = {"DataType": "String", "StringValue": detail}
        kept = body.encode()[:LONGEST_BODY].decode(errors="ignore")
        try:
            self._client.send_message(
                QueueUrl=self._dead_letter_url, MessageBody=kept, MessageAttributes=attributes
            )
        except (ClientError, BotoCoreError) as error:
            raise QueueUnavailableError(type(error).__name__) from None

    def hide(self, receipts: Mapping[str, float]) -> None:
        """Make received messages visible again after so many seconds, by receipt handle.

        Best effort: a message whose visibility cannot be changed comes back when the queue's own
        visibility timeout ends.
        """
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
                    QueueUrl=self._messages_url, Entries=entries[start : start + ENTRIES_PER_CALL]
                )
            except (ClientError, BotoCoreError):
                continue


def dead_letter_body(message: QueuedMessage, generation: int) -> str:
    """Return the envelope as a dead letter of a record's generation.

    It carries the next one, so that moving it back is an order to try again. The record decides:
    the copy that was received may be an older one.
    """
    return message.model_copy(update={"generation": generation + 1}).to_body()


def _groups(bodies: Sequence[str]) -> Iterable[list[int]]:
    """Return the bodies' indices in groups that one batch call takes."""
    group: list[int] = []
    size = 0
    for i, body in enumerate(bodies):
        length = len(body.encode())
        if group and (len(group) == ENTRIES_PER_CALL or size + length > CALL_BYTES):
            yield group
            group, size = [], 0
        group.append(i)
        size += length
    if group:
        yield group


def _sqs_text(text: str) -> str:
    return "".join(c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
