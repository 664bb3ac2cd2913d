"""The order of the messages to one chat: what the Ordered queue keeps, a run must not lose.

SQS hands out the messages of one line (a message group) in their order, and none while another of
them is being worked on. A receive may bring several. They are taken one after the other, and when
one stays on the queue, so does the rest of its line: "your function should stop processing messages
after the first failure and return all failed and unprocessed messages in batchItemFailures. This
helps preserve the ordering of messages in your queue" (Lambda Developer Guide, SQS error handling).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from relay.messages.results import Done, Later, Result

CHAT_SECONDS = 1.0
"""Seconds between two messages to one chat: "In a single chat, avoid sending more than one message
per second" (Telegram, Bots FAQ)."""

T = TypeVar("T")


def one_by_one(
    batch: Sequence[T],
    line_of: Callable[[T], str],
    deliver: Callable[[Sequence[T]], Sequence[Result]],
) -> list[Result]:
    """Deliver a batch, the lines beside each other and each in its order; results in order.

    `deliver` delivers messages beside each other. A line goes on in the same run only past a
    message that needed no POST; after a POST the next one has to wait for a second, and waits on
    the queue, where that costs nothing.
    """
    lines: dict[str, list[int]] = {}
    for i, message in enumerate(batch):
        lines.setdefault(line_of(message), []).append(i)
    results: dict[int, Result] = {}
    while lines:
        heads = [line.pop(0) for line in lines.values()]
        results |= zip(heads, deliver([batch[i] for i in heads]), strict=True)
        for head, (line, rest) in zip(heads, list(lines.items()), strict=True):
            match results[head]:
                case Done(verdict=None) if rest:
                    continue
                case Done():
                    results |= {i: Later(CHAT_SECONDS, "chat_pace") for i in rest}
                case Later(seconds):
                    results |= {i: Later(seconds, "behind_another") for i in rest}
            del lines[line]
    return [results[i] for i in range(len(batch))]
