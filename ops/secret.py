"""Store the account's user and password in the stack's secret, without showing the password."""

import getpass
import json
from collections.abc import Callable

from ops.stack import OperatorError, Stack
from smsgold.credentials import Credentials
from smsgold.errors import CredentialsError


def put(
    stack: Stack,
    ask: Callable[[str], str] = input,
    ask_hidden: Callable[[str], str] = getpass.getpass,
    say: Callable[[str], None] = print,
) -> None:
    """Ask for the user and password, and store them as the secret's new value."""
    user = ask("SMS Gold user (XXXXX or XXXXX.X): ").strip()
    password = ask_hidden("Password (not shown): ")
    try:
        Credentials(user, password)
    except CredentialsError as error:
        raise OperatorError(f"Not stored: {error}") from None
    stack.client("secretsmanager").put_secret_value(
        SecretId=stack.outputs["ProviderCredentialsArn"],
        SecretString=json.dumps({"user": user, "pass": password}),
    )
    say("Stored. Running functions use it within five minutes, or once the old one is refused.")
