"""The sandbox's faults: which one strikes, for how long, and what the client sees."""

import errno
import gzip
import random
import time
from email.utils import parsedate_to_datetime

import pytest
from urllib3.exceptions import (
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from local.sandbox.faults import SHAPES, ArmedFaults, FaultError, marked, parse
from tests.support.provider_calls import BOT, NUMBER, Caller, Json
from tests.support.sandbox import Sandbox


@pytest.fixture
def caller(sandbox: Sandbox) -> Caller:
    return Caller(sandbox)


# -- which fault strikes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        *("", "nonsense", "200", "399", "600", "50x", "503 maybe", "503 accepted=yes"),
        *("503 times=0", "503 times=x", "503 times", "429 retry-after", "says-no shape=odd"),
        *("ban", "ban chat=s-1", "ban seconds=5", "ban chat=s-1 times=2", "ban chat= seconds=5"),
        *("chat-limit per-second=0", "chat-limit per-second=0.5", "account-limit chat=s-1"),
        *("reset accepted", "drip every=soon", "latency ms=-1", "307 retry-after=5", "٥٠٣"),
    ],
)
def test_a_fault_that_does_not_exist_is_an_error(spec: str) -> None:
    with pytest.raises(FaultError, match=r"\w"):
        parse(spec)


def test_a_faults_options_are_read() -> None:
    fault = parse("  429  retry-after=5 accepted times=3 ")
    assert (fault.spec, fault.status) == ("429 retry-after=5 accepted times=3", 429)
    assert (fault.retry_after, fault.accepted, fault.times) == ("5", True, 3)
    assert (parse("latency ms=1.5 jitter=2").ms, parse("drip every=0.01").every) == (1.5, 0.01)


@pytest.mark.parametrize("raw", [b"", b"[[fault:", b"[]", b'{"text": 5, "x": "[[fault:503]]"}'])
def test_what_is_no_message_has_no_marker(raw: bytes) -> None:
    assert marked(raw) is None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_switches_end_by_count_by_time_and_by_hand() -> None:
    clock = Clock()
    armed = ArmedFaults(clock)

    def struck(operation: str = "sendMessage") -> str | None:
        fault = armed.strike(operation).fault
        return fault.spec if fault else None

    armed.arm(parse("500"), times=2)
    armed.arm(parse("503"), seconds=10)
    armed.arm(parse("404"), on="bots")
    armed.arm(parse("504"), on="all")
    assert [struck() for _ in range(4)] == ["500", "500", "503", "503"]
    assert [struck("bots"), struck("subscribers")] == ["404", "504"]
    clock.now += 10
    assert struck() == "504"
    last = armed.shown()[-1]
    assert (last["fault"], last["struck"], last["left"], last["seconds"]) == ("504", 2, None, None)
    assert [armed.clear(last["id"]), armed.clear(last["id"])] == [True, False]
    assert struck() is None
    armed.clear()
    assert struck("bots") is None


def test_a_share_of_the_requests_is_struck() -> None:
    armed = ArmedFaults(rng=random.Random(7))
    armed.arm(parse("500"), share=0.2)
    struck = sum(armed.strike("sendMessage").fault is not None for _ in range(5000))
    assert 900 < struck < 1100


def test_latency_adds_to_what_else_strikes() -> None:
    armed = ArmedFaults(rng=random.Random(7))
    armed.arm(parse("latency ms=200 jitter=100"), on="all")
    armed.arm(parse("latency ms=1000"))
    armed.arm(parse("503"))
    strike = armed.strike("sendMessage")
    assert strike.fault == parse("503")
    assert 1.2 <= strike.delay <= 1.3
    strike = armed.strike("bots")
    assert strike.fault is None
    assert 0.2 <= strike.delay <= 0.3


def test_a_marker_goes_first_and_counts_by_recipient_and_text() -> None:
    armed = ArmedFaults()
    armed.arm(parse("503"))

    def struck(subscriber: str, text: str) -> str:
        raw = f'{{"subscriberId": "{subscriber}", "text": "{text}"}}'.encode()
        fault = armed.strike("sendMessage", marked(raw)).fault
        assert fault
        return fault.name

    twice = "x [[fault:500 times=2]] y"
    assert [struck("a", twice) for _ in range(3)] == ["500", "500", "503"]
    assert struck("b", twice) == struck("a", twice + "!") == "500"
    assert [struck("a", "[[fault:reset]]") for _ in range(3)] == ["reset"] * 3
    armed.clear()
    armed.arm(parse("503"))
    assert struck("a", twice) == "500"


class Limited:
    """Switches and a clock; what becomes of a message to a chat."""

    def __init__(self, *specs: str) -> None:
        self.clock = Clock()
        self.armed = ArmedFaults(self.clock)
        for spec in specs:
            self.armed.arm(parse(spec))

    def send(self, chat: str) -> str:
        assert self.armed.strike("sendMessage").fault is None, "a limit is not due yet"
        struck = self.armed.limit(chat)
        return f"{struck.name} {struck.status} {struck.retry_after}" if struck else "accepted"

    def after(self, seconds: float) -> "Limited":
        self.clock.now += seconds
        return self


def test_a_chat_gets_only_so_many_messages_in_a_second() -> None:
    limited = Limited("chat-limit per-second=2")
    assert [limited.send("a"), limited.after(0.5).send("a")] == ["accepted"] * 2
    assert [limited.send("a"), limited.send("b")] == ["chat-limit 429 1", "accepted"]
    assert limited.after(0.49).send("a") == "chat-limit 429 1"
    assert [limited.after(0.01).send(chat) for chat in "aa"] == ["accepted", "chat-limit 429 1"]
    assert limited.armed.shown()[0]["struck"] == 3


def test_an_account_gets_only_so_many_messages_in_a_second() -> None:
    limited = Limited("account-limit per-second=2")
    assert [limited.send(chat) for chat in "abc"] == ["accepted"] * 2 + ["account-limit 429 1"]
    assert limited.after(1.0).send("c") == "accepted"


def test_what_one_limit_refuses_counts_for_no_other() -> None:
    limited = Limited("account-limit per-second=2", "chat-limit per-second=1")
    assert [limited.send(chat) for chat in "aaab"] == [
        *("accepted", "chat-limit 429 1", "chat-limit 429 1", "accepted")
    ]
    assert limited.send("c") == "account-limit 429 1"


def test_a_banned_chat_is_told_the_rest_of_the_time() -> None:
    limited = Limited("ban chat=a seconds=100")
    assert [limited.send("a"), limited.send("b")] == ["ban 429 100", "accepted"]
    assert limited.after(30.5).send("a") == "ban 429 70"
    assert limited.after(69.5).send("a") == "accepted"
    assert limited.armed.shown() == []


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"fault": "nonsense"},
        {"fault": 503},
        {"fault": "503", "times": 0},
        {"fault": "503", "times": True},
        {"fault": "503", "times": 1.5},
        {"fault": "503", "share": 1.1},
        {"fault": "503", "share": 0},
        {"fault": "503", "seconds": -1},
        {"fault": "503", "on": "everything"},
        {"fault": "503", "tims": 3},
        {"fault": "outage", "times": 3},
        {"fault": "outage times=3"},
        {"fault": "closed", "on": "bots"},
        {"fault": "chat-limit", "on": "bots"},
        {"fault": "account-limit", "share": 0.5},
    ],
)
def test_a_wrong_order_is_refused(sandbox: Sandbox, order: dict[str, Json]) -> None:
    with pytest.raises(ValueError, match="POST /faults: "):
        sandbox.arm(**{"fault": "", **order})
    assert sandbox.faults() == []


@pytest.mark.parametrize(
    "marker", ["[[fault:rset]]", "[[fault:]]", "[[fault:outage]]", "[[fault:chat-limit]]"]
)
def test_a_wrong_marker_is_refused(caller: Caller, sandbox: Sandbox, marker: str) -> None:
    response = caller.send(marker)
    assert (response.status, "fault" in response.json()["error"].lower()) == (400, True)
    assert sandbox.ledger() == []


def test_a_limit_counts_what_is_accepted_by_whichever_address(
    caller: Caller, sandbox: Sandbox
) -> None:
    sandbox.arm("chat-limit per-second=1")
    assert caller.send(subscriberId="unknown").status == 404
    assert caller.send("[[fault:503]]").status == 503
    assert caller.send("first").status == 200
    second = caller.send("second", subscriberId=None, botId=BOT, number=NUMBER)
    assert (second.status, second.headers["Retry-After"]) == (429, "1")
    assert [entry["text"] for entry in sandbox.ledger()] == ["first"]
    request = sandbox.requests()["requests"][-1]
    assert [request[name] for name in ("outcome", "status", "fault")] == [
        *("fault", 429, "chat-limit per-second=1")
    ]


# -- what the client sees -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 422, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("accepted", [False, True])
def test_a_status_accepts_only_if_told_to(
    caller: Caller, sandbox: Sandbox, status: int, accepted: bool
) -> None:
    spec = f"{status} accepted" if accepted else str(status)
    response = caller.send(f"[[fault:{spec}]]")
    assert (response.status, bool(response.json()["error"])) == (status, True)
    assert "Retry-After" not in response.headers
    assert [entry["fault"] for entry in sandbox.ledger()] == [spec] * accepted
    (request,) = sandbox.requests()["requests"]
    assert (request["outcome"], request["status"], request["fault"]) == ("fault", status, spec)


@pytest.mark.parametrize(
    ("given", "sent"),
    [("5", "5"), ("0.5", "0.5"), ("-3", "-3"), ("day", "86400"), ("garbage", "as soon as we can")],
)
def test_retry_after(caller: Caller, given: str, sent: str) -> None:
    assert caller.send(f"[[fault:429 retry-after={given}]]").headers["Retry-After"] == sent


@pytest.mark.parametrize(("given", "ahead"), [("date", 5), ("date+3600", 3600)])
def test_retry_after_as_a_date(caller: Caller, given: str, ahead: int) -> None:
    before = int(time.time())
    header = caller.send(f"[[fault:503 retry-after={given}]]").headers["Retry-After"]
    assert before <= parsedate_to_datetime(header).timestamp() - ahead <= time.time()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_200_says_no(caller: Caller, sandbox: Sandbox, shape: str) -> None:
    response = caller.send(f"[[fault:says-no shape={shape}]]")
    assert (response.status, response.json()) == (200, SHAPES[shape])
    assert sandbox.ledger() == []


@pytest.mark.parametrize(
    ("spec", "error", "accepted"),
    [
        ("hang", ReadTimeoutError, 0),
        ("hang-after", ReadTimeoutError, 1),
        ("reset", ProtocolError, 0),
        ("reset-after", ProtocolError, 1),
        ("cut-body", ProtocolError, 1),
        ("drip", ReadTimeoutError, 1),
    ],
)
def test_an_answer_that_does_not_come(
    caller: Caller, sandbox: Sandbox, spec: str, error: type[Exception], accepted: int
) -> None:
    with pytest.raises(error) as raised:
        caller.send(f"[[fault:{spec}]]", how={"timeout": 0.4 if error is ReadTimeoutError else 10})
    if spec.startswith("reset"):
        assert raised.value.args[1].errno == errno.ECONNRESET  # and no orderly end
    if spec == "cut-body":
        assert "IncompleteRead" in str(raised.value)
    assert len(sandbox.ledger()) == accepted
    assert sandbox.requests()["outcomes"] == {"fault": 1}


def test_an_answer_cut_amid_its_headers(caller: Caller, sandbox: Sandbox) -> None:
    response = caller.send("[[fault:cut-headers]]")
    # http.client does not tell it from the headers' end.
    assert (dict(response.headers), response.data) == ({"Content-Type": "applica"}, b"")
    assert len(sandbox.ledger()) == 1


def test_a_dripping_answer_comes_whole_in_the_end(caller: Caller, sandbox: Sandbox) -> None:
    (response, (entry,)) = (caller.send("[[fault:drip every=0.001]]"), sandbox.ledger())
    assert response.json()["id"] == entry["id"]


def test_an_endless_answer(caller: Caller, sandbox: Sandbox) -> None:
    response = caller.send("[[fault:endless]]", how={"preload_content": False})
    read = sum(len(response.read(65536)) for _ in range(100))
    response.close()
    assert read > 5_000_000
    assert len(sandbox.ledger()) == 1


def test_answers_of_another_kind(caller: Caller, sandbox: Sandbox) -> None:
    assert caller.send("[[fault:empty]]").data == b""
    html = caller.send("[[fault:html]]")
    assert html.headers["Content-Type"].startswith("text/html")
    assert html.data.startswith(b"<!DOCTYPE html>")
    large = caller.send("[[fault:large]]")
    assert len(large.data) > 5_000_000
    assert large.json()["result"]["id"] == sandbox.ledger()[-1]["id"]
    bomb = caller.send("[[fault:gzip-bomb]]")
    assert bomb.headers["Content-Encoding"] == "gzip"
    assert len(bomb.data) < 200_000
    assert len(gzip.decompress(bomb.data)) > 64_000_000
    assert {response.status for response in (html, large, bomb)} == {200}
    assert len(sandbox.ledger()) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_to_the_other_port(caller: Caller, sandbox: Sandbox, status: int) -> None:
    response = caller.send(f"[[fault:{status}]]")
    assert response.status == status
    target = response.headers["Location"]
    assert target == f"{sandbox.control_url}/v1/telegram/bot/sendMessage/"
    assert sandbox.elsewhere() == sandbox.ledger() == []
    caller.pool.request("POST", target, body=b"secret")
    (seen,) = sandbox.elsewhere()
    assert (seen["method"], seen["path"], seen["body"]) == (
        "POST", "/v1/telegram/bot/sendMessage/", "secret",
    )  # fmt: skip


def test_a_redirected_list_keeps_its_query(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.arm("302", on="bots")
    target = caller.pool.request(
        "GET", f"{sandbox.base_url}/bots/", fields={"user": "1", "pass": "a b"}, redirect=False
    ).headers["Location"]
    assert target == f"{sandbox.control_url}/v1/telegram/bot/bots/?user=1&pass=a+b"


def test_latency_delays_the_answer_not_the_message(caller: Caller, sandbox: Sandbox) -> None:
    before = time.time()
    assert caller.send("[[fault:latency ms=300]]").status == 200
    assert time.time() - before >= 0.3  # a lower bound: holds on the slowest machine
    (entry,) = sandbox.ledger()
    assert entry["fault"] is None
    with pytest.raises(ReadTimeoutError):
        caller.send("[[fault:latency ms=60000]]", how={"timeout": 0.3})
    assert len(sandbox.ledger(text="60000")) == 1


def test_faults_on_the_lists(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.arm("503", on="bots", times=1)
    assert [caller.get("bots").status for _ in range(2)] == [503, 200]
    sandbox.arm("cut-body", on="subscribers")
    with pytest.raises(ProtocolError):
        caller.get("subscribers", botId=BOT)
    assert caller.send().status == 200


def test_a_fault_that_accepts_lets_wrong_messages_be_refused(
    caller: Caller, sandbox: Sandbox
) -> None:
    sandbox.arm("500 accepted")
    assert caller.send(auth={"user": "10001", "pass": "wrong"}).status == 401
    assert caller.send(subscriberId="unknown").status == 404
    assert caller.send().status == 500
    assert [entry["fault"] for entry in sandbox.ledger()] == ["500 accepted"]


def test_an_outage_resets_new_and_old_connections(caller: Caller, sandbox: Sandbox) -> None:
    auth = caller.auth()
    assert caller.send(auth=auth).status == 200  # leaves a connection open
    sandbox.arm("outage")
    for _ in range(3):
        with pytest.raises(ProtocolError):
            caller.send(auth=auth)
    requests = sandbox.requests()
    assert requests["outcomes"] == {"accepted": 1, "fault": 3}
    assert requests["operations"] == {"sendMessage": 2, "connection": 2}
    sandbox.clear()
    assert caller.send(auth=auth).status == 200
    assert len(sandbox.ledger()) == 2


def test_a_closed_port_refuses_until_it_is_opened(caller: Caller, sandbox: Sandbox) -> None:
    auth = caller.auth()
    assert caller.send(auth=auth).status == 200  # leaves a connection open
    sandbox.arm("closed")
    with pytest.raises(ProtocolError):
        caller.send(auth=auth)
    for _ in range(2):
        with pytest.raises(NewConnectionError):
            caller.send(auth=auth)
    sandbox.clear()
    assert caller.send(auth=auth).status == 200


def test_a_port_closed_for_a_time_opens_by_itself(caller: Caller, sandbox: Sandbox) -> None:
    auth = caller.auth()
    sandbox.arm("closed", seconds=0.5)
    with pytest.raises(NewConnectionError):
        caller.send(auth=auth)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert caller.send(auth=auth).status == 200
        except NewConnectionError:
            time.sleep(0.05)
        else:
            break
    assert len(sandbox.ledger()) == 1
    assert sandbox.faults() == []


def test_a_connection_survives_a_fault_that_spares_it(caller: Caller, sandbox: Sandbox) -> None:
    for text in ("[[fault:503]]", "fine", "[[fault:large]]", "[[fault:307]]", "fine"):
        caller.send(text)
    assert caller.pool.connection_from_url(sandbox.base_url).num_connections == 1
