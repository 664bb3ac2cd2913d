"""Chats of a test's own, and messages for them that meet trouble on their way."""

from collections.abc import Sequence
from itertools import cycle

from tests.support.deployment import Deployment
from tests.support.sandbox import Sandbox
from tests.support.verifier import Sent

FAULTS = ("503 times=1", "429 retry-after=1 times=1", "reset times=1")
"""What a message can meet once; after the last nobody knows whether it was sent."""

KILLS = ("crash-before-post", "crash-after-post")


def open_chats(sandbox: Sandbox, count: int) -> list[str]:
    """Add a bot with so many subscribers; return their ids."""
    bot = sandbox.add_bot("In order")
    return [entry["id"] for entry in sandbox.add_subscribers(bot, count)]


def texts(
    chats: Sequence[str], count: int, *, faulty: bool = False, kills: int = 0
) -> list[tuple[str, str]]:
    """Return so many messages to each chat, as chat and text, chat after chat.

    Each third one is `faulty`. Each kill takes another chat, as long as there are any, and another
    message of it.
    """
    faults = cycle(FAULTS)
    step = max(1, len(chats) // kills) if kills else 1
    killing = {
        (kill * step % len(chats), kill * step // len(chats)): KILLS[kill % 2]
        for kill in range(kills)
    }
    planned = []
    for i, chat in enumerate(chats):
        for n in range(count):
            fault = f" [[fault:{next(faults)}]]" if faulty and n % 3 == 2 else ""
            kill = f" [[sabotage:{killing[i, n]}]]" if (i, n) in killing else ""
            planned.append((chat, f"{chat} {n}{fault}{kill}"))
    return planned


def accept(deployment: Deployment, chat: str, text: str, **fields: object) -> Sent:
    """Hand a message in by HTTP, to be sent again in doubt; return it with its chat as its line."""
    envelope = {"subscriberId": chat, "text": text, "onUnknown": "resend", **fields}
    id_ = deployment.call("POST", "/messages", envelope)["id"]
    return Sent(id_, text, resend=True, line=chat)


def arrived(sandbox: Sandbox, chat: str) -> list[str]:
    """Return the texts that have reached a chat, in the order in which each came first."""
    entries = sandbox.ledger(text=chat, fields="subscriberId,text")
    return list(dict.fromkeys(e["text"] for e in entries if e["subscriberId"] == chat))
