"""`make broadcast`: a CSV file as recipients, and a dry run that is asked about."""

import json
from typing import Any

import pytest

from local import broadcast
from local.broadcast import RefusedError, preview, recipients, run, told

TRIED = {
    "dryRun": True,
    "complete": True,
    "total": 2,
    "skipped": {"duplicates": 1, "unreachable": 0},
    "eta": "2026-12-01T10:00:05.000Z",
    "samples": [{"subscriberId": "s-1", "text": "Привет,\nАнна", "buttons": []}],
    "unrenderable": [{"who": "s-9", "problem": "text: must not be blank"}],
}
DONE = {
    **dict.fromkeys(broadcast.NUMBERS, 0),
    "total": 2,
    "queued": 0,
    "sent": 2,
    "status": "completed",
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_row_is_a_recipient_and_its_other_columns_are_data(delimiter: str) -> None:
    rows = ["number,subscriberId,name,city\n", "+7 916 000-11-22,,Анна,\n", ",s-2,Борис,Тверь\n"]
    found, lines = recipients(row.replace(",", delimiter) for row in rows)
    assert found == [
        {"number": "+7 916 000-11-22", "data": {"name": "Анна"}},
        {"subscriberId": "s-2", "data": {"name": "Борис", "city": "Тверь"}},
    ]
    assert lines == [2, 3]


def test_every_bad_row_is_named_by_its_line() -> None:
    rows = [
        "number,name\n",
        '79160001122,"two\n',
        'lines"\n',
        "12,Анна\n",
        ",Борис\n",
        "\n",
        "79160001122,a,b\n",
    ]
    with pytest.raises(RefusedError) as error:
        recipients(rows)
    assert str(error.value).splitlines() == [
        "line 4: number must be a phone number of 5 to 15 digits",
        "line 5: has neither subscriberId nor number",
        "line 7: has 3 cells, and there are 2 columns",
    ]


@pytest.mark.parametrize("rows", [[], ["name\n", "Анна\n"], ["number,number\n"], ["number,\n"]])
def test_a_file_without_columns_for_an_address_is_refused(rows: list[str]) -> None:
    with pytest.raises(RefusedError, match="line 1"):
        recipients(rows)


def test_what_the_api_refuses_is_named_by_the_files_line() -> None:
    error = {"pointer": "#/recipients/1/subscriberId", "detail": "is too long"}
    assert told(error, [2, 4]) == "line 4: subscriberId: is too long"
    assert told({"pointer": "#/text", "detail": "holds {{"}, []) == "text: holds {{"


def test_the_dry_run_is_shown() -> None:
    shown = preview(TRIED)
    assert "Messages to send: 2, the last at 10:00:05 UTC. Left out: 1 duplicates." in shown
    assert "  to s-1:\n  | Привет,\n  | Анна" in shown
    assert "  s-9: text: must not be blank" in shown


class Stack:
    """The API and the sandbox, as far as a broadcast calls them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.posted: list[dict[str, Any]] = []
        monkeypatch.setattr(broadcast, "_call", self._call)
        monkeypatch.setattr("requests.get", lambda *_, **__: self)

    def json(self) -> Any:
        return [{"id": "b-1"}]

    def _call(self, _: object, method: str, __: str, body: Any = None, ___: Any = None) -> Any:
        if method == "GET":
            return DONE
        self.posted.append(body)
        return json.loads(json.dumps(TRIED)) if body.get("dryRun") else {"id": "x"}


def nobody(_: str) -> str:
    raise EOFError


@pytest.mark.parametrize(
    ("answer", "sends"), [("y", True), ("да", True), ("", False), ("n", False), (None, False)]
)
def test_it_is_sent_only_if_the_answer_is_yes(
    monkeypatch: pytest.MonkeyPatch, answer: str | None, sends: bool
) -> None:
    stack = Stack(monkeypatch)
    ask = nobody if answer is None else lambda _: answer
    code = run({"sandboxUrl": "-"}, {"text": "Hi"}, ask=ask)
    assert [body.get("dryRun", False) for body in stack.posted] == [True, *([False] * sends)]
    assert code == (0 if sends else 1)


def test_yes_sends_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch)
    assert run({"sandboxUrl": "-"}, {"text": "Hi"}, yes=True, ask=nobody) == 0
    assert stack.posted[1] == {"botId": "b-1", "text": "Hi"}
