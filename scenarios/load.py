"""A thousand messages through all doors at once, a fifth of them faulty.

It fails if the verifier finds a broken promise, or if a message ends in another state than its
fault leads to.
"""

import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor

from scenarios.traffic import QUICK, Doors, chats, judge, plan
from tests.support.deployment import Deployment

PARAMETERS = {"MessagesPerSecond": "50", **QUICK}


def add_options(parser: ArgumentParser) -> None:
    """Declare the scenario's options."""
    parser.add_argument("--messages", type=int, default=1000)


def run(deployment: Deployment, given: Namespace) -> list[str]:
    """Send everything, wait for its end, print the figures; return the broken promises."""
    planned = plan("load", range(given.messages), chats(deployment), faulty_every=5)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        ids = Doors(deployment).send(planned, pool)
    print(f"{len(ids)} messages, accepted in {time.monotonic() - began:.1f} s", flush=True)
    problems = judge(deployment, ids)
    print(f"all ended after {time.monotonic() - began:.1f} s")
    return problems
