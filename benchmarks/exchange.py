"""The provider's client and its threads alone: `python -m benchmarks.exchange URL IN_FLIGHT …`.

Runs on the runtime's Python with the layer on its path. For each number in flight it prints, in
rounds, the seconds that a batch of messages took and the CPU seconds of it.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from smsgold.client import Client, OutgoingMessage
from smsgold.credentials import Credentials
from smsgold.responses import Outcome

MESSAGES = 100
ROUNDS = 5
ACCOUNT = Credentials("10001", "a password of the benchmark")


def batch(client: Client, executor: ThreadPoolExecutor, messages: int) -> tuple[float, float]:
    """Send messages; return the seconds and CPU seconds it took."""
    message = OutgoingMessage(text="Ваш заказ 4711 оплачен.", subscriber_id="5f1c")
    began, cpu = time.perf_counter(), time.process_time()
    verdicts = list(executor.map(lambda _: client.send(ACCOUNT, message), range(messages)))
    took = time.perf_counter() - began, time.process_time() - cpu
    assert all(verdict.outcome is Outcome.ACCEPTED for verdict in verdicts), verdicts
    return took


def main(url: str, *in_flight: str) -> None:
    """Print {in flight: [[seconds, CPU seconds], …]}, the numbers taking turns."""
    sides = {}
    for number in map(int, in_flight):
        client = Client(url, connections=number)
        executor = ThreadPoolExecutor(number)
        sides[number] = (client, executor)
    found: dict[int, list[tuple[float, float]]] = {number: [] for number in sides}
    for _ in range(ROUNDS):
        for number, (client, executor) in sides.items():
            # Opens the connections: idle ones are not used for long, and warm ones are measured.
            batch(client, executor, number)
            found[number].append(batch(client, executor, MESSAGES))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
