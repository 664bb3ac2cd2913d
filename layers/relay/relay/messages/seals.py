"""Seals: proof that an envelope on a queue was put there by the relay itself.

Whoever may send to the Messages queue may put any envelope on it. Three things in one are the
relay's own to say: that a message is sent again, that it belongs to a broadcast, and an id that the
relay made. So the relay seals what says any of them, with a key that only its functions can read.

The seal is a message attribute: a body with a field more would be refused by the release that is
being replaced. It stays with a dead letter, so that moving the letter back is still a redrive, from
the console too: "You can't filter and modify messages while reprocessing them from the DLQ"
(SQS Developer Guide, dead-letter queue redrive).
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from relay.messages.envelope import QueuedMessage

ATTRIBUTE = "seal"
"""The message attribute that holds a seal."""

OWN_IDS = "k-"
"""What ids begin with that the relay made of callers' keys, deliveries and firings: others could
foresee them."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A body as it came from a queue, with its seal, if it has one."""

    body: str
    seal: str = ""


def claim_of(message: QueuedMessage) -> str:
    """Return the field by which an envelope says what only the relay may say; "" if none does."""
    if message.generation:
        return "generation"
    if message.broadcast:
        return "broadcast"
    if (message.id or "").startswith(OWN_IDS):
        return "id"
    return ""


class Seals:
    """Makes seals and checks them."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        """`key` returns the stack's key, or raises StoreUnavailableError."""
        self._key = key

    def seal(self, body: str) -> str:
        """Return the seal of a body: HMAC-SHA256 in hex. Raises StoreUnavailableError."""
        return hmac.new(self._key(), body.encode(), hashlib.sha256).hexdigest()

    def proves(self, message: QueuedMessage, sealed: Sealed) -> bool:
        """Return whether a message is the relay's own as far as it claims to be.

        Raises StoreUnavailableError.
        """
        if not claim_of(message):
            return True
        return hmac.compare_digest(self.seal(sealed.body).encode(), sealed.seal.encode())
