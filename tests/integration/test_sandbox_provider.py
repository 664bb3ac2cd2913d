"""The sandbox's provider endpoints, its ledger and its account."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from tests.support.provider_calls import BOT, NUMBER, SUBSCRIBER, Caller, Json
from tests.support.sandbox import Sandbox


@pytest.fixture
def caller(sandbox: Sandbox) -> Caller:
    return Caller(sandbox)


def test_the_documented_example_arrives_as_it_was_printed(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.set_passwords(["PASSWORD"], user="XXXXX")
    sandbox.add_subscribers(BOT, [{"id": "X" * 24, "name": "Пример"}])
    example = (
        '{\n  "subscriberId": "XXXXXXXXXXXXXXXXXXXXXXXX",\n'
        '  "text": "Текст Вашего сообщения",\n  "buttons": [\n'
        '    {"text": "Текст на кнопке 1", "url": "https:// ссылка для кнопки 1"},\n'
        '    {"text": "Текст на кнопке 2", "url": "https:// ссылка для кнопки 2"}\n  ],\n'
        '  "auth": {"user": "XXXXX", "pass": "PASSWORD"}\n}'
    )
    before = time.time()
    answer = caller.post(example.encode()).json()
    (entry,) = sandbox.ledger()
    assert entry["raw"] == example
    assert entry["id"] == answer["id"]
    assert len(answer["id"]) == 24
    assert entry["subscriberId"] == "X" * 24
    assert entry["buttons"] == json.loads(example)["buttons"]
    assert before <= entry["time"] <= time.time()
    assert entry["headers"]["Content-Type"] == "application/json"
    assert entry["number"] is entry["fault"] is None


def test_a_number_reaches_the_bots_subscriber(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.send(subscriberId=None, botId=BOT, number=NUMBER).status == 200
    (entry,) = sandbox.ledger()
    assert (entry["subscriberId"], entry["number"]) == (SUBSCRIBER, NUMBER)


def test_the_subscriber_wins_where_all_three_are_given(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.send(botId="unknown", number="700").status == 200
    (entry,) = sandbox.ledger()
    assert (entry["subscriberId"], entry["number"]) == (SUBSCRIBER, None)


def test_the_longest_text_and_a_sub_user_pass(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.set_passwords(['p@ss w&rd"é+%/'], user="10001.2")
    assert caller.send("я" * 4096).status == 200
    assert caller.get("bots").status == 200


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"subscriberId": None}, 400, "subscriberId"),
        ({"botId": BOT}, 400, "either subscriberId"),
        ({"number": NUMBER}, 400, "either subscriberId"),
        ({"subscriberId": None, "number": NUMBER}, 400, "number without botId"),
        ({"subscriberId": None, "botId": BOT}, 400, "botId without number"),
        ({"subscriberId": None, "botId": BOT, "number": "+79160001001"}, 400, "digits"),
        ({"subscriberId": None, "botId": BOT, "number": "٧٩١٦"}, 400, "digits"),
        ({"subscriberId": None, "botId": BOT, "number": 79160001001}, 400, "not a string"),
        ({"subscriberId": None, "botId": BOT, "number": "79999999999"}, 404, "number"),
        ({"subscriberId": None, "botId": "unknown", "number": NUMBER}, 404, "botId"),
        ({"subscriberId": "unknown"}, 404, "subscriberId"),
        ({"subscriberId": ""}, 400, "subscriberId"),
        ({"subscriberId": ["x"]}, 400, "subscriberId"),
        ({"text": None}, 400, "text"),
        ({"text": ""}, 400, "text"),
        ({"text": " \n"}, 400, "text"),
        ({"text": "я" * 4097}, 400, "4096"),
        ({"text": 5}, 400, "text"),
        ({"text": "half \ud83d"}, 400, "surrogate"),
        ({"buttons": {"text": "t", "url": "u"}}, 400, "buttons"),
        ({"buttons": ["t"]}, 400, "buttons[0]"),
        ({"buttons": [{"text": "t", "url": "u"}, {"text": "t"}]}, 400, "buttons[1].url"),
        ({"buttons": [{"url": "u"}]}, 400, "buttons[0].text"),
        ({"buttons": [{"text": "", "url": "u"}]}, 400, "buttons[0].text"),
        ({"buttons": [{"text": "t", "url": 7}]}, 400, "buttons[0].url"),
        ({"buttons": [{"text": "t", "url": "u", "color": "red"}]}, 400, "buttons[0]"),
        ({"onUnknown": "hold"}, 400, "are allowed"),
        ({"auth": None}, 400, "auth"),
        ({"auth": "10001"}, 400, "auth"),
        ({"auth": {"user": "10001"}}, 400, "auth.pass"),
        ({"auth": {"user": 10001, "pass": "sandbox-password"}}, 400, "auth.user"),
        ({"auth": {"user": "10001", "pass": "wrong"}}, 401, "wrong"),
        ({"auth": {"user": "10002", "pass": "sandbox-password"}}, 401, "wrong"),
        ({"auth": {"user": "10001", "pass": "sandbox-password", "x": "y"}}, 400, "auth"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_refused_with_its_reason(
    caller: Caller, sandbox: Sandbox, fields: dict[str, Json], status: int, reason: str
) -> None:
    response = caller.send(**fields)
    assert (response.status, reason in response.json()["error"]) == (status, True)
    assert sandbox.ledger() == []
    (request,) = sandbox.requests()["requests"]
    assert (request["outcome"], request["status"]) == ("refused", status)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"text"', "application/json", 400),
        ('{"text": "привет"}'.encode("cp1251"), "application/json", 400),
        (b'{"text": NaN}', "application/json", 400),
        (b'{"text": "a", "text": "b"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[[fault:" + b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b" " * (2**20 + 1), "application/json", 413),
    ],
)
def test_a_wrong_body_is_refused_with_a_reason(
    caller: Caller, sandbox: Sandbox, body: bytes, content_type: str, status: int
) -> None:
    response = caller.post(body, content_type)
    assert (response.status, bool(response.json()["error"])) == (status, True)
    assert sandbox.ledger() == []


def test_the_lists_are_those_of_the_account(caller: Caller, sandbox: Sandbox) -> None:
    bots = caller.get("bots").json()
    assert [set(bot) for bot in bots[:2]] == [{"id", "name", "username"}] * 2
    subscribers = caller.get("subscribers", botId=BOT).json()
    assert subscribers[0] == {
        "id": SUBSCRIBER,
        "name": "Анна Белова",
        "number": NUMBER,
        "city": "Екатеринбург",
        "timezone": "Asia/Yekaterinburg",
        "tags": [],
    }
    assert sandbox.requests()["outcomes"] == {"listed": 2}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("bots/?user=10001", 400),
        ("bots/?pass=sandbox-password", 400),
        ("bots/?user=10001&pass=", 400),
        ("bots/?user=10001&pass=sandbox-password&pass=x", 400),
        ("bots/?user=10001&pass=sandbox-password&page=2", 400),
        ("bots/?user=10001&pass=wrong", 401),
        ("subscribers/?user=10001&pass=sandbox-password", 400),
        ("subscribers/?user=10001&pass=sandbox-password&botId=unknown", 404),
        ("bots?user=10001&pass=sandbox-password", 404),
        ("sendMessage/?user=10001&pass=sandbox-password", 405),
    ],
)
def test_a_wrong_list_request_is_refused_with_a_reason(
    caller: Caller, sandbox: Sandbox, path: str, status: int
) -> None:
    response = caller.pool.request("GET", f"{sandbox.base_url}/{path}")
    assert (response.status, bool(response.json()["error"])) == (status, True)


def test_passwords_rotate(caller: Caller, sandbox: Sandbox) -> None:
    def works(password: str) -> bool:
        return caller.send(auth={"user": "10001", "pass": password}).status == 200

    assert [works("sandbox-password"), works("new")] == [True, False]
    sandbox.set_passwords(["sandbox-password", "new"])
    assert [works("sandbox-password"), works("new")] == [True, True]
    sandbox.set_passwords(["new"])
    assert [works("sandbox-password"), works("new")] == [False, True]
    assert sandbox.password == "new"


def test_the_ledger_is_filtered_and_numbered_on(caller: Caller, sandbox: Sandbox) -> None:
    for text in ("one", "two", "twenty"):
        caller.send(text)
    entries = sandbox.ledger()
    assert [entry["text"] for entry in entries] == ["one", "two", "twenty"]
    numbers = [entry["seq"] for entry in entries]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert [entry["text"] for entry in sandbox.ledger(text="tw")] == ["two", "twenty"]
    assert [entry["text"] for entry in sandbox.ledger(since=numbers[1])] == ["twenty"]
    assert set(sandbox.ledger(fields="time,text")[0]) == {"time", "text"}
    with pytest.raises(ValueError, match="no field"):
        sandbox.ledger(fields="price")
    sandbox.forget()
    assert sandbox.ledger() == sandbox.ledger(since=0) == []
    caller.send("three")
    assert [entry["seq"] for entry in sandbox.ledger(since=numbers[0])] == [numbers[2] + 1]


def test_messages_at_once_are_all_in_the_ledger_in_order(caller: Caller, sandbox: Sandbox) -> None:
    auth = caller.auth()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: caller.send(f"m{n}", auth=auth).json(), range(200)))
    entries = sandbox.ledger(fields="id,time,text")
    assert sorted(entry["id"] for entry in entries) == sorted(answer["id"] for answer in answers)
    assert {entry["text"] for entry in entries} == {f"m{n}" for n in range(200)}
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert sandbox.requests()["operations"] == {"sendMessage": 200}


def test_ten_thousand_subscribers_come_by_one_call(caller: Caller, sandbox: Sandbox) -> None:
    bot = sandbox.add_bot("Busy")
    added = sandbox.add_subscribers(bot, 10_000)
    assert len({entry["id"] for entry in added}) == len({entry["number"] for entry in added})
    assert caller.get("subscribers", botId=bot).json() == added
    assert len(added) == 10_000
    assert caller.send(subscriberId=added[-1]["id"]).status == 200
    last = added[-1]["number"]
    assert caller.send(subscriberId=None, botId=bot, number=last).status == 200
    sandbox.remove_subscribers(bot)
    assert caller.get("subscribers", botId=bot).json() == []
    assert caller.send(subscriberId=added[-1]["id"]).status == 404


def test_odd_lists_are_shown_as_they_were_given(caller: Caller, sandbox: Sandbox) -> None:
    bot = sandbox.add_bot("Odd")
    assert caller.get("subscribers", botId=bot).json() == []
    odd: list[dict[str, Json]] = [
        {"id": "a" * 24},
        {"id": "a" * 24},
        {"name": "Без идентификатора"},
        {"id": None},
        {},
    ]
    sandbox.add_subscribers(bot, odd)
    assert caller.get("subscribers", botId=bot).json() == odd
    assert caller.send(subscriberId="a" * 24).status == 200


def test_who_has_blocked_the_bot_is_refused(caller: Caller, sandbox: Sandbox) -> None:
    (blocked,) = sandbox.add_subscribers(sandbox.add_bot(), 1, blocked=True)
    response = caller.send(subscriberId=blocked["id"])
    assert (response.status, "blocked" in response.json()["error"]) == (400, True)


def test_a_running_sandbox_is_found_by_either_port(sandbox: Sandbox) -> None:
    for url in (sandbox.url, f"{sandbox.control_url}/"):
        found = Sandbox.at(url)
        assert (found.base_url, found.url) == (sandbox.base_url, sandbox.url)
        assert (found.user, found.password) == (sandbox.user, sandbox.password)


def events(sandbox: Sandbox, word: bytes, last: str = "") -> bytes:
    """Listen as the page does until it hears the word."""
    response = urllib3.request(
        "GET",
        f"{sandbox.url}/events",
        headers={"Last-Event-ID": last} if last else {},
        preload_content=False,
        timeout=10,
    )
    heard = b""
    while word not in heard or not heard.endswith(b"\n\n"):
        heard += response.read1()
    response.close()
    return heard


def test_the_page_hears_of_messages_but_not_of_credentials(
    caller: Caller, sandbox: Sandbox
) -> None:
    caller.send("first")
    heard = events(sandbox, b"first")
    assert heard.startswith(b"event: reset\n")
    assert b"sandbox-password" not in heard


def test_a_page_that_comes_back_hears_what_it_missed(caller: Caller, sandbox: Sandbox) -> None:
    caller.send("first")
    last = re.findall(rb"^id: (.*)$", events(sandbox, b"first"), re.MULTILINE)[-1].decode()
    caller.send("second")
    heard = events(sandbox, b"second", last)
    assert b"first" not in heard
    assert b"event: reset" not in heard
    sandbox.forget()
    caller.send("third")
    heard = events(sandbox, b"third", last)  # that ledger is gone
    assert heard.startswith(b"event: reset\n")
    assert b"second" not in heard
