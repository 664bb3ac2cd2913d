"""Dead letters: the envelope goes to the DeadLetter queue, and the record says so."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.messages.envelope import QueuedMessage
from relay.messages.queues import DeadLetterEntry, Queues, dead_letter_body
from relay.messages.results import SOON, Done, Later, Result
from relay.messages.states import Change, DeadLetter, Record, marked_dead_lettered
from relay.messages.store import Store
from smsgold.responses import Verdict


@dataclass(frozen=True, slots=True)
class Ended:
    """A message that has ended, at its place in the batch; its dead letter may be due."""

    index: int
    message: QueuedMessage
    record: Record
    verdict: Verdict | None = None


class DeadLetters:
    """Puts what could not be delivered on the DeadLetter queue."""

    def __init__(
        self, store: Store, queues: Queues, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._queues = queues
        self._clock = clock

    def write(self, ended: Sequence[Ended]) -> Mapping[int, Result]:
        """Write the dead letters that are due, then mark their records; return results by index.

        A crash between the two, or a mark that is not written, can leave two copies on the queue.
        Both carry the same generation, so moving both back sends the message once.
        """
        results: dict[int, Result] = {e.index: Done(e.record, e.verdict) for e in ended}
        due = [e for e in ended if e.record.dead_letter is DeadLetter.DUE]
        problems = self._queues.enqueue_dead_letters(
            [
                DeadLetterEntry(
                    dead_letter_body(e.message, e.record.generation),
                    e.record.reason,
                    e.record.detail,
                    e.record.tries,
                    e.record.updated_at,
                    own=True,
                )
                for e in due
            ]
        )
        marks: list[Change] = []
        for e, problem in zip(due, problems, strict=True):
            if problem is None:
                change = marked_dead_lettered(e.record)
                marks.append(change)
                results[e.index] = Done(change.after, e.verdict)
            else:
                results[e.index] = Later(SOON, "dead_letter_due", e.record, e.verdict)
        self._store.apply(marks)
        return results

    def refuse(self, body: str, reason: str, detail: str) -> Result:
        """Put a body that is no message of the relay's on the DeadLetter queue, unchanged."""
        entry = DeadLetterEntry(body, reason, detail, 0, self._clock())
        [problem] = self._queues.enqueue_dead_letters([entry])
        return Later(SOON, "dead_letter_queue_unavailable") if problem else Done(None)
