"""A chat with 200 messages beside 200 to others, each chat limited to one a second; ten kills.

It fails if the sandbox answers a single 429, if a message passes another of its chat, or if the
others take more than a tenth longer than without that chat. The account's rate is low enough to be
what limits the others: MiniStack runs one batch of a FIFO queue at a time, so it says nothing of
how fast lines go beside each other on AWS. It also looks for messages only once a second when it is
idle, so that a chat's messages can be up to two seconds apart.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from scenarios.progress import progress
from scenarios.traffic import QUICK
from tests.support import verifier
from tests.support.chats import accept, open_chats, texts
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.rest import ended
from tests.support.sabotage import sabotaged
from tests.support.sandbox import Sandbox
from tests.support.verifier import Reader, Sent

PARAMETERS = {"MessagesPerSecond": "20", **QUICK}
SLOWER = 1.1
"""How much longer the others may take beside the chat."""
LONGEST_GAP = 2.0  # seconds between two messages to a chat on average; see above
CHATS, MESSAGES, KILLS = 8, 6, 10
PORTION = 100  # messages in a request


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("--messages", type=int, default=200, help="to the chat, and to the others")


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Send, measure, kill, print the figures; return what is not as promised."""
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    reader = Reader(deployment.facts, deployment.home)
    sent = [accept(deployment, open_chats(sandbox, 1)[0], "the functions start")]
    ended(reader, sent, seconds=60.0)
    return [
        *_limited(deployment, sandbox, reader, given.messages),
        *_killed(deployment, sandbox, reader),
    ]


def _limited(deployment: Deployment, sandbox: Sandbox, reader: Reader, messages: int) -> list[str]:
    """Send to many chats, first alone and then beside one chat with as many messages."""
    sandbox.arm("chat-limit per-second=1")
    chats = open_chats(sandbox, 2 * messages + 1)
    one, alone, beside = chats[0], chats[1 : messages + 1], chats[messages + 1 :]
    _, without, problems = _timed(deployment, sandbox, reader, alone, alone)
    both = list(chain.from_iterable((one, chat) for chat in beside))
    began, taken, more = _timed(deployment, sandbox, reader, both, beside)
    print(f"{messages} to others: {without:.1f} s without the chat, {taken:.1f} s beside it")
    seen = [e for e in sandbox.ledger(fields="subscriberId,time") if e["subscriberId"] == one]
    gaps = [later["time"] - earlier["time"] for earlier, later in pairwise(seen)]
    mean = sum(gaps) / len(gaps)
    print(
        f"{len(seen)} to the chat in {seen[-1]['time'] - began:.0f} s: one every {mean:.2f} s, "
        f"never sooner than {min(gaps):.2f} s after another"
    )
    refused = sum(request["status"] == 429 for request in sandbox.requests()["requests"])
    print(f"{refused} answers of 429", flush=True)
    sandbox.clear()
    problems += more
    if refused:
        problems.append(f"the sandbox answered {refused} times with 429")
    if taken > SLOWER * without:
        problems.append(f"the others took {taken / without:.2f} times as long beside the chat")
    if mean > LONGEST_GAP:
        problems.append(f"the chat got a message every {mean:.2f} s only")
    return problems


def _timed(
    deployment: Deployment,
    sandbox: Sandbox,
    reader: Reader,
    chats: Sequence[str],
    watched: Sequence[str],
) -> tuple[float, float, list[str]]:
    """Send a message to each chat, which may be there several times, and wait for the end.

    Returns when that began, the seconds until the watched chats had theirs, and broken promises.
    """
    given, watching = set(chats), set(watched)
    began = time.time()
    planned = [(chat, f"{chat} {n}") for n, chat in enumerate(chats)]
    sent = []
    for start in range(0, len(planned), PORTION):
        portion = planned[start : start + PORTION]
        messages = [{"subscriberId": chat, "text": text} for chat, text in portion]
        answer = deployment.call("POST", "/messages/batch", {"messages": messages})
        sent += [
            Sent(result["id"], text, line=chat)
            for (chat, text), result in zip(portion, answer["results"], strict=True)
        ]
    progress(f"{len(sent)} messages to {len(given)} chats")

    def ends() -> list[float] | None:
        entries = sandbox.ledger(fields="subscriberId,time")
        theirs = [entry for entry in entries if entry["subscriberId"] in given]
        done = len(theirs) >= len(sent)
        return [e["time"] for e in theirs if e["subscriberId"] in watching] if done else None

    # Seldom and cheap: whoever looks takes time from the stack.
    came = until(ends, "all messages", seconds=60.0 + 3.0 * len(sent), every=1.0)
    seen = ended(reader, sent, seconds=60.0)
    progress()
    return began, max(came) - began, verifier.violations(seen, sent)


def _killed(deployment: Deployment, sandbox: Sandbox, reader: Reader) -> list[str]:
    """Kill the sender again and again amid the messages of a few chats."""
    chats = open_chats(sandbox, CHATS)
    began = time.monotonic()
    with TemporaryDirectory() as marks:
        with sabotaged(deployment, Path(marks), deployment.facts["orderedQueueUrl"]):
            planned = texts(chats, MESSAGES, kills=KILLS)
            sent = [accept(deployment, chat, text) for chat, text in planned]
            progress(f"{len(sent)} messages to {CHATS} chats, and {KILLS} kills")
            seen = ended(reader, sent, seconds=600.0)
        killed = len(list(Path(marks).iterdir()))
    progress()
    taken = time.monotonic() - began
    print(f"{CHATS} chats with {MESSAGES} messages each, {killed} kills: {taken:.0f} s")
    problems = verifier.violations(seen, sent)
    if killed != KILLS:
        problems.append(f"the sender was killed {killed} times, not {KILLS}")
    return problems
