"""Seals: what only the relay may say is believed only from the relay."""

import pytest

from relay.messages.envelope import QueuedMessage
from relay.messages.intake import fresh_id, scoped_id
from relay.messages.seals import Sealed, Seals, claim_of
from relay.messages.store import StoreUnavailableError
from tests.support.world import SEALS

REDRIVE = QueuedMessage(id="m-1", subscriberId="s-1", text="hello", generation=1)


def message(**fields: object) -> QueuedMessage:
    return QueuedMessage.model_validate({"id": "m-1", "subscriberId": "s-1", "text": "a", **fields})


@pytest.mark.parametrize(
    ("fields", "claim"),
    [
        ({}, ""),
        ({"id": fresh_id()}, ""),
        ({"id": scoped_id("http", "a key")}, "id"),
        ({"generation": 1}, "generation"),
        ({"broadcast": "b-1"}, "broadcast"),
    ],
)
def test_what_only_the_relay_may_say(fields: dict[str, object], claim: str) -> None:
    assert claim_of(message(**fields)) == claim


def test_a_sealed_body_proves_what_it_says() -> None:
    body = REDRIVE.to_body()

    assert SEALS.proves(REDRIVE, Sealed(body, SEALS.seal(body)))


@pytest.mark.parametrize(
    "seal",
    ["", "ü", SEALS.seal(REDRIVE.to_body() + " "), Seals(lambda: b"other").seal(REDRIVE.to_body())],
    ids=["none", "no hex", "of another body", "by another key"],
)
def test_any_other_seal_proves_nothing(seal: str) -> None:
    assert not SEALS.proves(REDRIVE, Sealed(REDRIVE.to_body(), seal))


def test_a_message_that_claims_nothing_needs_no_key() -> None:
    def key() -> bytes:
        raise StoreUnavailableError("down")

    assert Seals(key).proves(message(), Sealed("{}"))
    with pytest.raises(StoreUnavailableError):
        Seals(key).proves(REDRIVE, Sealed("{}"))
