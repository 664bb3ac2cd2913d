"""Set or rotate one hook's secret in the stack's secret, without showing any."""

import base64
import getpass
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops.stack import OperatorError, Stack
from relay.webhooks.hooks import Hook, HooksFileError, load
from relay.webhooks.secrets import HookSecrets
from relay.webhooks.signatures import MIN_KEY, EventBridge, Scheme, StandardWebhooks, Stripe, usable
from smsgold.errors import CredentialsError

HOOKS_FILE = Path(__file__).resolve().parent.parent / "functions" / "hooks" / "hooks.toml"


def put(
    stack: Stack,
    name: str,
    *,
    drop_old: bool = False,
    file: Path = HOOKS_FILE,
    ask_hidden: Callable[[str], str] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Ask for a hook's new secret and store it beside the one in use; with `drop_old`, drop that.

    Raise OperatorError if the hook, the new secret or the stack's secret is not as it must be, and
    EOFError if there is no answer. No text shows a secret.
    """
    scheme = _hook(name, file).verify
    client = stack.client("secretsmanager")
    where = stack.outputs["HookSecretsArn"]
    text = client.get_secret_value(SecretId=where)["SecretString"]
    try:
        held = HookSecrets.parse(text).get(name, ())
    except CredentialsError as error:
        raise OperatorError(f"Not stored: {error}. Mend the secret {where} first.") from None
    in_use = [secret for secret in held if usable(scheme, [secret])][:1]
    if drop_old:
        if not in_use:
            raise OperatorError(f"{name} has no usable secret. Set one, without DROP_OLD.")
        new = in_use
    else:
        given = (ask_hidden or _ask_hidden)(f"New secret of {name} (not shown; empty: make one): ")
        new = rotated(scheme, given or generated(scheme), in_use)
    entries = {**json.loads(text), name: new[0] if len(new) == 1 else new}
    client.put_secret_value(SecretId=where, SecretString=json.dumps(entries))
    if drop_old:
        say("Stored: only the newest is valid, within five minutes.")
        return
    say("Stored. It is valid within half a minute" + (", beside the old one." if new[1:] else "."))
    if not given:
        say(f"Its sender needs it too: read it from the secret {where}.")
    if new[1:]:
        say("Once the sender signs with it, repeat the command with DROP_OLD=1.")


def rotated(scheme: Scheme, new: str, in_use: Sequence[str]) -> list[str]:
    """Return a hook's secrets, the new one first; raise OperatorError if it is too short."""
    if not usable(scheme, [new]):
        raise OperatorError(f"Not stored: its key must have at least {MIN_KEY} bytes.")
    return [new, *(old for old in in_use if old != new)]


def generated(scheme: Scheme) -> str:
    """Return a new secret of 32 random bytes; raise OperatorError if the sender must make it."""
    match scheme:
        case Stripe():
            raise OperatorError("Not stored: Stripe makes the signing secret. Copy it from there.")
        case StandardWebhooks():
            return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        case _:
            return secrets.token_urlsafe(32)


def _hook(name: str, file: Path) -> Hook:
    try:
        hooks: Mapping[str, Hook] = load(file.read_text("utf-8"))
    except HooksFileError as error:
        raise OperatorError(f"{file.name}: {error}") from None
    if name not in hooks:
        raise OperatorError(f"Say which hook: NAME=… The hooks of {file.name}: {', '.join(hooks)}.")
    if isinstance(hooks[name].verify, EventBridge):
        raise OperatorError(f"{name} has no secret: rules of EventBridge invoke it.")
    return hooks[name]


def _ask_hidden(prompt: str) -> str:
    """Read a line: from the terminal without echo, or from a pipe, where nobody is asked."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt).strip()
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.strip()
