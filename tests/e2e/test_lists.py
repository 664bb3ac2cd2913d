"""Messages and broadcasts are found on the deployed stack, by the API and by `make find`."""

from typing import Any
from uuid import uuid4

import requests

from ops.find import show
from ops.stack import find
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox


def asked(deployment: Deployment, path: str, **parameters: str) -> Any:
    answer = requests.get(
        deployment.facts["apiUrl"] + path,
        params=parameters,
        headers={"x-api-key": deployment.facts["apiKey"]},
        timeout=60,
    )
    assert answer.ok, answer.text
    return answer.json()


def pages(deployment: Deployment, path: str, what: str, **parameters: str) -> list[list[str]]:
    found: list[list[str]] = []
    while True:
        page = asked(deployment, path, **parameters)
        found.append([entry["id"] for entry in page[what]])
        if "cursor" not in page:
            return found
        parameters["cursor"] = page["cursor"]


def test_messages_are_found_by_reference_and_by_how_they_ended(deployment: Deployment) -> None:
    reference = f"заказ № {uuid4()} + %"
    sent = [
        deployment.call(
            "POST",
            "/messages",
            # Nobody has such an id: the provider refuses it.
            {"subscriberId": f"nobody-{n}-{uuid4().hex}", "text": "Hi", "reference": reference},
        )["id"]
        for n in range(3)
    ]

    def found(**parameters: str) -> list[str] | None:
        ids = [
            id_ for page in pages(deployment, "/messages", "messages", **parameters) for id_ in page
        ]
        return ids if set(sent) <= set(ids) else None

    by_reference = until(lambda: found(reference=reference, limit="2"), "by reference")
    assert by_reference == sent[::-1]
    rejected = until(lambda: found(status="rejected", limit="100"), "by bad end", seconds=60)
    assert len(rejected) == len(set(rejected))
    [first, *_] = asked(deployment, "/messages", reference=reference)["messages"]
    assert first["status"] == "rejected"
    # The local gateway does not tell whose key it was, and the sender may have been quicker.
    assert first["caller"] in ("http", "sqs")

    said: list[str] = []
    stack = find(None, local=deployment.home / "stack.json")
    show(stack, reference=reference, status=None, most=100, say=said.append)
    assert [line.split()[2] for line in said] == sent[::-1]


def test_broadcasts_and_their_messages_are_found(deployment: Deployment) -> None:
    sandbox = Sandbox.at(deployment.facts["sandboxUrl"])
    bot = sandbox.add_bot("Found")
    sandbox.add_subscribers(bot, 5)
    id_ = deployment.call("POST", "/broadcasts", {"botId": bot, "text": "To be found"})["id"]

    def ended() -> bool:
        return bool(asked(deployment, f"/broadcasts/{id_}")["status"] == "completed")

    until(ended, "end of the broadcast", seconds=120, every=0.5)
    listed = [
        each for page in pages(deployment, "/broadcasts", "broadcasts", limit="1") for each in page
    ]
    assert listed[0] == id_
    assert len(listed) == len(set(listed))
    messages = f"/broadcasts/{id_}/messages"
    sent = pages(deployment, messages, "messages", status="sent", limit="2")
    assert [len(page) for page in sent] == [2, 2, 1]
    assert pages(deployment, messages, "messages", status="failed") == [[]]
    [first, *_] = asked(deployment, messages)["messages"]
    assert first["caller"] == f"broadcast:{id_}"
