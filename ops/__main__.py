"""The operator's commands; the Makefile has a target for each."""

import argparse
import os
import re
import sys
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ops import dead_letters, deploy, doctor, hook_secret, remove, secret, shell_variables
from ops import find as finding
from ops.stack import OperatorError, find
from relay.messages.lists import BAD_ENDS


class Parser(argparse.ArgumentParser):
    """A parser whose errors speak of make's variables: STATUS, not --status."""

    def error(self, message: str) -> NoReturn:
        """End with one line that says what to change."""
        text = re.sub("--([a-z-]+)", lambda m: m[1].upper().replace("-", "_"), message)
        self.exit(2, f"{text.removeprefix('argument ')}\n")


def parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    every = Parser(add_help=False)
    every.add_argument(
        "--stack", help="a stack on AWS; without it, the one that `make up` started here"
    )
    top = Parser(prog="python -m ops", description="Look after a deployed stack.")
    commands = top.add_subparsers(dest="command", required=True)
    deployment = commands.add_parser("deploy", help="deploy what was built, and protect it")
    deployment.add_argument("stage", help="the environment of samconfig.toml")
    examine = commands.add_parser("doctor", parents=[every], help="examine it and say what to do")
    examine.add_argument("--thorough", action="store_true", help="read the whole table as well")
    commands.add_parser("env", parents=[every], help="print its addresses and keys for a shell")
    commands.add_parser("secret", parents=[every], help="store SMS Gold's user and password")
    hook = commands.add_parser(
        "hook-secret", parents=[every], help="set or rotate one hook's secret, without showing it"
    )
    hook.add_argument("--name", required=True, help="the hook's name in hooks.toml")
    hook.add_argument("--drop-old", action="store_true", help="end a rotation: keep the newest")
    look = commands.add_parser("find", parents=[every], help="find messages, one line each")
    look.add_argument("--reference", help="those with this reference")
    look.add_argument(
        "--status", choices=[end.value for end in BAD_ENDS], help="those that ended so"
    )
    look.add_argument("--max", type=int, default=100, help="at most this many (default: 100)")
    commands.add_parser("remove", parents=[every], help="delete it, but not its table and queues")
    show = commands.add_parser(
        "dead-letters", parents=[every], help="show what could not be delivered, by reason"
    )
    show.add_argument(
        "--max", type=int, default=1000, help="read at most this many (default: 1000)"
    )
    move = commands.add_parser("redrive", parents=[every], help="send dead letters again")
    move.add_argument("--queue", choices=dead_letters.ROUTES, default="messages")
    move.add_argument("--reason", help="only those with this reason, as `dead-letters` shows it")
    move.add_argument("--max", type=int, help="at most this many")
    move.add_argument(
        "--apply", action="store_true", help="do it; without it, only say what would be done"
    )
    return top


def perform(options: argparse.Namespace) -> int:
    """Do what a command says; return 1 if it finds something wrong."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and (options.command == "deploy" or options.stack):
        print(
            f"AWS_ENDPOINT_URL is set in this shell, so this is about the stack at {endpoint}, not "
            "on AWS. For AWS, use a new shell.",
            file=sys.stderr,
        )
    if options.command == "deploy":
        deploy.deploy(options.stage)
        return 0
    stack = find(options.stack)
    match options.command:
        case "doctor":
            return 0 if doctor.run(stack, thorough=options.thorough) else 1
        case "env":
            print(shell_variables.script(stack))
        case "secret":
            secret.put(stack)
        case "hook-secret":
            hook_secret.put(stack, options.name, drop_old=options.drop_old)
        case "find":
            finding.show(
                stack, reference=options.reference, status=options.status, most=options.max
            )
        case "remove":
            remove.remove(stack)
        case "dead-letters":
            dead_letters.show(stack, options.max)
        case "redrive":
            dead_letters.redrive(
                stack,
                queue=options.queue,
                reason=options.reason,
                most=options.max,
                apply=options.apply,
            )
    return 0


def main() -> int:
    """Run the command; return 1 if it fails or finds something wrong."""
    options = parser().parse_args()
    try:
        return perform(options)
    except (OperatorError, ClientError, BotoCoreError, ResponseParserError) as error:
        print(error, file=sys.stderr)
        return 1
    except EOFError:
        print(
            "\nNothing was done: the command asks a question and needs a terminal.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
