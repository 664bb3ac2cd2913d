"""The provider's client and its threads alone: `python exchange.py URL IN_FLIGHT …`.

Runs on the runtime's Python with the layer on its path. For each number in flight it prints the
seconds and CPU seconds of a batch, in rounds; for the first number also those of urllib3 and of
Python's http.client, on which the client could stand.
"""

import http.client
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import urllib3

from smsgold.client import Client, OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.responses import Outcome

MESSAGES = 100
ROUNDS = 5
ACCOUNT = Credentials("10001", "a password of the benchmark")
MESSAGE = OutgoingMessage(text="Ваш заказ 4711 оплачен.", subscriber_id="5f1c")
HEADERS = {"Content-Type": "application/json"}

Send = Callable[[], object]


def smsgold(url: str, in_flight: int) -> Send:
    """Return the sending of a message by the project's client, as the sender calls it."""
    client = Client(url, connections=in_flight)

    def withhold() -> None:
        """Let it go."""

    def send() -> None:
        verdict = client.send(ACCOUNT, MESSAGE, withhold=withhold)
        assert verdict.outcome is Outcome.ACCEPTED, verdict

    return send


def by_urllib3(url: str, in_flight: int) -> Send:
    """Return the same POST by urllib3's pool alone."""
    context = ssl.create_default_context()
    pool = urllib3.PoolManager(maxsize=in_flight, ssl_context=context, retries=False, timeout=12)
    body = MESSAGE.body(ACCOUNT)

    def send() -> None:
        response = pool.request(
            "POST", f"{url}/sendMessage/", body=body, headers=HEADERS, redirect=False
        )
        assert response.status == 200

    return send


def by_http_client(url: str, _in_flight: int) -> Send:
    """Return the same POST by Python's own http.client, with a connection for each thread."""
    parts, context, own = urlsplit(url), ssl.create_default_context(), threading.local()
    body = MESSAGE.body(ACCOUNT)

    def send() -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=12)
        own.connection.request("POST", f"{parts.path}/sendMessage/", body, HEADERS)
        response = own.connection.getresponse()
        response.read()
        assert response.status == 200

    return send


def batch(send: Send, executor: ThreadPoolExecutor, messages: int) -> tuple[float, float]:
    """Send messages; return the seconds and CPU seconds it took."""
    began, cpu = time.perf_counter(), time.process_time()
    for sent in [executor.submit(send) for _ in range(messages)]:
        sent.result()
    return time.perf_counter() - began, time.process_time() - cpu


def main(url: str, *in_flight: str) -> None:
    """Print {number or side: [[seconds, CPU seconds], …]}; the sides take turns."""
    numbers = {name: int(name) for name in in_flight}
    sides = {name: smsgold(url, number) for name, number in numbers.items()}
    for name, make in (("http.client", by_http_client), ("urllib3", by_urllib3)):
        numbers[name] = int(in_flight[0])
        sides[name] = make(url, numbers[name])
    executors = {name: ThreadPoolExecutor(number) for name, number in numbers.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, send in sides.items():
            batch(send, executors[name], numbers[name])  # opens the connections
            found[name].append(batch(send, executors[name], MESSAGES))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
