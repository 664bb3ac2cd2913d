"""Run a scenario on a stack of its own; exit with 1 if the relay breaks a promise.

The stack's logs stay in .local/scenarios. Ctrl-C stops everything that was started.
"""

import argparse
import signal
import sys
from types import FrameType

from local import ROOT
from local.stack import StackError, forget_accounts
from scenarios import broadcast, events, load, order, pacing, soak, upgrade
from scenarios.progress import progress
from tests.support.deployment import deployed

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # nothing interrupts the clean-up
    raise KeyboardInterrupt


def main() -> int:
    """Run the scenario and print the broken promises; 130 if it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    names = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    scenarios = {
        "load": load,
        "soak": soak,
        "pacing": pacing,
        "order": order,
        "broadcast": broadcast,
        "events": events,
        "upgrade": upgrade,
    }
    for name, scenario in scenarios.items():
        text = str(scenario.__doc__)
        options = names.add_parser(name, help=text.splitlines()[0], description=text)
        scenario.add_options(options)
        rate = int(scenario.PARAMETERS["MessagesPerSecond"])
        options.add_argument(
            "--rate", type=int, default=rate, help="the account's, in messages a second"
        )
    given = parser.parse_args()
    scenario = scenarios[given.name]
    parameters = {**scenario.PARAMETERS, "MessagesPerSecond": str(given.rate)}
    for number in STOPPING:
        signal.signal(number, _interrupt)
    forget_accounts()
    try:
        home = ROOT / ".local" / "scenarios" / given.name
        source = scenario.source(home) if hasattr(scenario, "source") else ROOT
        with deployed(home, parameters, source=source) as deployment:
            problems: list[str] = scenario.run(deployment, given)
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        progress()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
