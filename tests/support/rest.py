"""Waiting until messages have ended, and what a stack looks like then."""

from collections.abc import Collection, Mapping

from relay.messages.states import TERMINAL, Record
from tests.support import verifier
from tests.support.poll import until
from tests.support.verifier import Evidence, Reader, Sent


def ended(reader: Reader, sent: Collection[Sent], *, seconds: float) -> Evidence:
    """Wait until messages have ended and are on no queue; return what concerns them."""
    ids = {s.id for s in sent}

    def look() -> Evidence | None:
        seen = reader.read().of(ids)
        states = [record.state in TERMINAL for record in seen.records.values()]
        return seen if len(states) == len(ids) and all(states) and not seen.waiting else None

    return reader.told(until(look, "rest", seconds=seconds, every=0.3))


def at_rest(
    reader: Reader, sent: Collection[Sent], secrets: Collection[str] = (), *, seconds: float = 60.0
) -> Mapping[str, Record]:
    """Wait until messages have ended, see that no promise was broken, and return their records."""
    seen = ended(reader, sent, seconds=seconds)
    broken = verifier.violations(seen, sent, secrets=secrets)
    assert not broken, broken
    return seen.records
