"""The provider's client and its threads alone: `python -m benchmarks.exchange URL IN_FLIGHT …`.

Runs on the runtime's Python with the layer on its path. It prints the seconds that a batch of
messages took and the CPU seconds of it, in rounds: of the client for each number in flight, and
for the first number also of what the client stands on.
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

Side = Callable[[], object]


def ours(url: str, number: int) -> Side:
    """Return the sending of one message."""
    client = Client(url, connections=number)

    def send() -> None:
        verdict = client.send(ACCOUNT, MESSAGE)
        assert verdict.outcome is Outcome.ACCEPTED, verdict

    return send


def with_urllib3(url: str, number: int) -> Side:
    """Return the same POST by urllib3 as it comes."""
    pool = urllib3.PoolManager(maxsize=number, ssl_context=ssl.create_default_context())
    body = MESSAGE.body(ACCOUNT)

    def send() -> None:
        response = pool.request(
            "POST",
            f"{url}/sendMessage/",
            body=body,
            headers=HEADERS,
            timeout=12,
            redirect=False,
            retries=False,
        )
        assert response.status == 200

    return send


def with_http_client(url: str, _number: int) -> Side:
    """Return the same POST by Python's own http.client, a connection for each thread."""
    parts, context, own = urlsplit(url), ssl.create_default_context(), threading.local()
    body = MESSAGE.body(ACCOUNT)

    def send() -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPSConnection(
                str(parts.hostname), parts.port, context=context, timeout=12
            )
        own.connection.request("POST", f"{parts.path}/sendMessage/", body, HEADERS)
        response = own.connection.getresponse()
        response.read()
        assert response.status == 200

    return send


BENEATH: dict[str, Callable[[str, int], Side]] = {
    "http.client": with_http_client,
    "urllib3": with_urllib3,
}
"""What the client stands on, lowest first."""


def batch(send: Side, executor: ThreadPoolExecutor, messages: int) -> tuple[float, float]:
    """Send messages; return the seconds and CPU seconds it took."""
    began, cpu = time.perf_counter(), time.process_time()
    for sent in [executor.submit(send) for _ in range(messages)]:
        sent.result()
    return time.perf_counter() - began, time.process_time() - cpu


def main(url: str, *in_flight: str) -> None:
    """Print {in flight or side: [[seconds, CPU seconds], …]}, all taking turns."""
    chosen = int(in_flight[0])
    sides = {number: (ours(url, int(number)), int(number)) for number in in_flight}
    sides |= {name: (make(url, chosen), chosen) for name, make in BENEATH.items()}
    executors = {name: ThreadPoolExecutor(number) for name, (_, number) in sides.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (send, number) in sides.items():
            # Opens the connections: idle ones are not used for long, and warm ones are measured.
            batch(send, executors[name], number)
            found[name].append(batch(send, executors[name], MESSAGES))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
