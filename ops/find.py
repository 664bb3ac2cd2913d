"""Find messages by their reference, or by how they ended: one line each."""

from collections.abc import Callable

from ops.stack import OperatorError, Stack
from relay.messages.envelope import rfc3339
from relay.messages.lists import BAD_ENDS, that_ended, with_reference
from relay.messages.service import find
from relay.messages.states import Record, State
from relay.messages.store import StoreUnavailableError, TableStore

PAGE = 100


def show(
    stack: Stack,
    *,
    reference: str | None,
    status: str | None,
    most: int,
    say: Callable[[str], None] = print,
) -> None:
    """Say what the table has of at most so many messages, the latest first."""
    if (reference is None) == (status is None):
        raise OperatorError(
            "Say what to find: REFERENCE=…, or STATUS= and one of " + ", ".join(BAD_ENDS) + "."
        )
    by_end = that_ended(State(status)) if status else None
    listing = by_end or with_reference(str(reference))
    store = TableStore(stack.client("dynamodb"), stack.outputs["TableName"])
    after, left, found = "", most, 0
    while left:
        try:
            page = find(store, store, listing, limit=min(left, PAGE), after=after)
        except StoreUnavailableError as error:
            raise OperatorError(
                f"The table cannot be read: {error}. A stack that was deployed before its table "
                "had indexes gets them by `make deploy`."
            ) from None
        for record in page.records:
            say(line(record))
        after, left, found = page.after, left - len(page.records), found + len(page.records)
        if not after:
            break
    if not found:
        say("There are none. What version 0.1.0 finished is in no list.")
    elif after:
        say(f"… and there may be more: MAX={most * 10}")


def line(record: Record) -> str:
    """Return a message as one line: when and what it came to, its id, and whose it is."""
    tries = "1 try" if record.tries == 1 else f"{record.tries} tries"
    parts = [
        rfc3339(record.updated_at),
        f"{record.state:8}",
        record.id,
        tries,
        record.reason,
        f"reference={record.reference}" if record.reference else "",
        f"caller={record.caller}" if record.caller else "",
    ]
    return "  ".join(part for part in parts if part)
