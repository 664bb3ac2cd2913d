"""The hooks' handler: what was counted is logged, whatever the answer is."""

from dataclasses import dataclass
from typing import Any

import pytest

from functions.hooks import app
from relay import metrics
from relay.problems import UNAVAILABLE, ProblemError


@dataclass
class Context:
    aws_request_id: str = "r-1"


class Halfway:
    """Accepts a message to one recipient, and not to the other."""

    def receive(self, name: str, event: dict[str, Any]) -> None:  # noqa: ARG002
        metrics.accepted(1)
        raise ProblemError(UNAVAILABLE, "Send it again.")


def test_what_a_refused_webhook_has_handed_in_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "receiver", Halfway())
    event = {"requestContext": {"requestId": "r-1"}, "pathParameters": {"name": "news"}}
    assert app.handler(event, Context())["statusCode"] == 503  # type: ignore[arg-type]
    [line] = map(vars, caplog.records)
    assert (line["hook"], line["problem"], line["Accepted"]) == ("news", "unavailable", 1)
    assert not metrics.fields()
