"""The sandbox's pages in a real browser: the inbox, and the relay's contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.support.provider_calls import BOT, NUMBER, SUBSCRIBER, Caller
from tests.support.sandbox import Sandbox
from tools.picture import PATH, take


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def page(browser: Browser, sandbox: Sandbox) -> Iterator[Page]:
    """The inbox on a service; at the end nothing may have gone wrong in it."""
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)

    def dismiss(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.goto(sandbox.url)
    yield page
    page.close()
    assert wrong == []


def test_a_message_arrives_without_a_reload(page: Page, sandbox: Sandbox) -> None:
    expect(page.get_by_role("heading", name="No messages yet")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    buttons = [
        {"text": "Открыть заказ", "url": "https://example.com/orders/4711"},
        {"text": "Написать нам", "url": "tg://resolve?domain=romashka"},
    ]
    caller = Caller(sandbox)
    caller.send("Ваш заказ № 4711 готов.\nЖдём вас!", buttons=buttons)
    bubble = page.locator(".message")
    expect(bubble.locator(".text")).to_contain_text("Ваш заказ № 4711 готов.\nЖдём вас!")
    expect(page.get_by_role("main")).to_contain_text("Анна Белова")
    for button in buttons:
        link = bubble.get_by_role("link", name=button["text"])
        assert link.get_attribute("href") == button["url"]
        assert "noopener" in (link.get_attribute("rel") or "").split()
    caller.send("Второе сообщение")
    expect(page.locator(".message")).to_have_count(2)
    expect(page.locator(".message").last).to_be_in_viewport()
    assert page.evaluate("window.sameDocument")


def test_chats_are_per_bot_and_subscriber_newest_first(page: Page, sandbox: Sandbox) -> None:
    caller = Caller(sandbox)
    clinic = sandbox.bots()[1]["id"]
    james = sandbox.subscribers(clinic)[0]["id"]
    caller.send("first")
    expect(page.locator(".message")).to_contain_text("first")  # the first chat opens by itself
    caller.send("second", subscriberId=james)
    names = page.locator(".chat:has(.when:not(:empty)) .name")
    expect(names).to_have_text(["James Taylor", "Анна Белова"])
    unread = page.locator(".chat", has_text="James Taylor").locator(".unread")
    expect(unread).to_have_text("1")
    caller.send("third", subscriberId=None, botId=BOT, number=NUMBER)  # the same chat as the first
    expect(names).to_have_text(["Анна Белова", "James Taylor"])
    expect(page.locator(".message .text")).to_contain_text(["first", "third"])
    page.locator(".chat", has_text="James Taylor").click()
    expect(page.locator(".message .text")).to_contain_text(["second"])
    expect(unread).to_have_count(0)
    page.get_by_role("button", name="Northside Clinic", exact=True).click()
    expect(names).to_have_text(["James Taylor"])
    page.get_by_role("button", name="All").click()
    page.get_by_role("searchbox").fill("БЕЛОВ")
    expect(names).to_have_text(["Анна Белова"])


def test_nothing_in_a_message_is_run_or_followed_by_itself(page: Page, sandbox: Sandbox) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> javascript:alert(3)"
    buttons = [
        {"text": "<b>run</b>", "url": "javascript:alert(4)"},
        {"text": "data", "url": "data:text/html,<script>alert(5)</script>"},
        {"text": "spelt", "url": " JaVaScRiPt:alert(6)"},
        {"text": "good", "url": 'HTTPS://example.com/?a="><script>alert(7)</script>'},
    ]
    bot = sandbox.add_bot("<i>Bot</i>")
    sandbox.add_subscribers(bot, [{"id": "evil'\"><u>", "name": "<s>Mallory</s>"}])
    Caller(sandbox).send(evil, buttons=buttons, subscriberId="evil'\"><u>")
    message = page.locator(".message")
    expect(message.locator(".text")).to_contain_text(evil)
    expect(message.locator("a")).to_have_text(["good"])
    expect(message.locator(".key")).to_have_text([button["text"] for button in buttons])
    for button in message.locator("span.key").all():
        button.click()
    assert page.locator(":is(img, u, s, i):visible, .message script").count() == 0


def test_a_link_in_the_text_ends_before_its_full_stop(page: Page, sandbox: Sandbox) -> None:
    Caller(sandbox).send("См. https://example.com/a?b=1&c=(d), или http://пример.рф/путь.")
    links = page.locator(".text a")
    expect(links).to_have_text(["https://example.com/a?b=1&c=(d", "http://пример.рф/путь"])


def test_a_burst_keeps_the_page_small(page: Page, sandbox: Sandbox) -> None:
    caller = Caller(sandbox)
    auth = caller.auth()
    many = sandbox.add_subscribers(BOT, 200)
    for n in range(250):
        caller.send(f"message {n}", auth=auth)
    for entry in many:
        caller.send("to many", subscriberId=entry["id"], auth=auth)
    page.reload()
    expect(page.locator("#chats")).to_contain_text("and 51 more")
    page.get_by_role("searchbox").fill("Анна Белова")
    page.locator(".chat", has_text="message 249").click()
    expect(page.locator(".message")).to_have_count(200)
    caller.send("the last", auth=auth)
    expect(page.locator(".message").last).to_contain_text("the last")
    expect(page.locator(".message")).to_have_count(200)


def test_a_page_follows_when_the_ledger_is_emptied(page: Page, sandbox: Sandbox) -> None:
    caller = Caller(sandbox)
    auth = caller.auth()
    caller.send("before", auth=auth)
    expect(page.locator(".message")).to_have_count(1)
    sandbox.forget()
    expect(page.locator(".message")).to_have_count(0)
    caller.send("after", auth=auth)
    expect(page.locator(".message .text")).to_contain_text(["after"])


def test_an_answer_that_was_spoilt_is_marked(page: Page, sandbox: Sandbox) -> None:
    Caller(sandbox).send("[[fault:500 accepted]] списано")
    expect(page.locator(".message .fault")).to_have_text("500 accepted")


def test_the_empty_inbox_tells_a_command_that_works(page: Page, sandbox: Sandbox) -> None:
    page.locator(".chat", has_text="Olivia Smith").click()
    expect(page.get_by_role("heading", name="No messages to Olivia Smith yet")).to_be_visible()
    command = page.locator("#curl").inner_text()
    assert command.startswith(f"curl {sandbox.base_url}/sendMessage/ ")
    body = command.split("-d '", 1)[1].removesuffix("'").encode()
    assert Caller(sandbox).post(body).status == 200
    expect(page.locator(".message")).to_have_count(1)
    expect(page.locator("#who")).to_have_text("Olivia Smith")


def test_on_a_phone_a_chat_opens_and_closes(browser: Browser, sandbox: Sandbox) -> None:
    Caller(sandbox).send("Привет", buttons=[{"text": "Кнопка", "url": "https://example.com"}])
    page = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True)
    page.goto(sandbox.url)
    chat = page.locator(f'.chat[data-key$="{SUBSCRIBER}"]')
    expect(page.locator(".message")).to_be_hidden()
    chat.click()
    expect(page.get_by_role("link", name="Кнопка")).to_be_visible()
    expect(chat).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Back to chats").click()
    expect(chat).to_be_visible()
    page.close()


def test_the_contract_can_be_read(page: Page, sandbox: Sandbox) -> None:
    page.goto(f"{sandbox.url}/docs")
    route = page.locator(".opblock", has=page.locator('[data-path="/bots"]'))
    route.locator(".opblock-summary-control").click()
    expect(route.get_by_text("The bots.")).to_be_visible()
    expect(page.get_by_role("button", name="Try it out")).to_have_count(0)


def test_the_readmes_picture_can_be_taken_and_is_small(browser: Browser, tmp_path: Path) -> None:
    take(browser, tmp_path / "inbox.png")

    for picture in (PATH, tmp_path / "inbox.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200_000
