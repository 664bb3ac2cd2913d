"""Take docs/inbox.png, the picture of the inbox in both READMEs: `python -m tools.picture`.

A sandbox of its own gets the messages, and the times are made up, so that the picture changes only
when the page does, or the machine's fonts.
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, expect

from tests.support.browser import CHROMIUM, chromium
from tests.support.provider_calls import Caller
from tests.support.sandbox import Sandbox

PATH = Path(__file__).resolve().parent.parent / "docs" / "inbox.png"
SIZE: ViewportSize = {"width": 920, "height": 480}

SHOP = [
    "Ваш заказ 4711 оплачен. Спасибо!",
    "Заказ собран и передан в доставку.",
    "Курьер будет сегодня с 14:00 до 15:00.",
]
BUTTONS = [
    {"text": "Открыть заказ", "url": "https://example.com/orders/4711"},
    {"text": "Перенести доставку", "url": "https://example.com/orders/4711/delivery"},
]
CLINIC = [
    "Your appointment with Dr Walker is tomorrow at 9:30.",
    "The results of your blood test have arrived.",
]
SHOWN = """([log, list]) => {
  document.querySelectorAll(".message time").forEach((e, i) => { e.textContent = log[i]; });
  [...document.querySelectorAll(".chat .when")].filter(e => e.textContent).forEach((e, i) => {
    e.textContent = list[i];
  });
}"""


def _send(sandbox: Sandbox) -> None:
    """Send the messages: the first chat's last, so that it is on top and open."""
    shop, clinic = (bot["id"] for bot in sandbox.bots())
    buyers, patients = sandbox.subscribers(shop), sandbox.subscribers(clinic)
    caller = Caller(sandbox)
    for patient, text in zip(patients, CLINIC, strict=False):
        caller.send(text, subscriberId=patient["id"])
    caller.send("Мы вернули деньги за заказ 4698.", subscriberId=buyers[1]["id"])
    for text in SHOP:
        buttons = BUTTONS if text == SHOP[-1] else []
        caller.send(text, subscriberId=buyers[0]["id"], buttons=buttons)


def take(browser: Browser, path: Path) -> None:
    """Write the picture."""
    page = browser.new_page(viewport=SIZE, color_scheme="light")
    with Sandbox() as sandbox:
        _send(sandbox)
        page.goto(sandbox.url)
        page.locator(".chat").first.click()
        expect(page.locator(".message")).to_have_count(len(SHOP))
        page.evaluate(SHOWN, [["10:02", "11:47", "13:15"], ["13:15", "12:40", "11:05", "10:31"]])
        page.screenshot(path=path, animations="disabled")
    page.close()


if __name__ == "__main__":
    if not CHROMIUM.exists():
        sys.exit(f"There is no {CHROMIUM}. On Debian: apt-get install chromium")
    with chromium() as browser:
        take(browser, PATH)
    print(f"{PATH}: {PATH.stat().st_size // 1024} KB")
