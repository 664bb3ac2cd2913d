"""The hooks' secrets, by hook name."""

import json
from collections.abc import Mapping

from smsgold.credentials import SecretSource
from smsgold.errors import CredentialsError

MIN_SECRET = 8
"""Characters; a shorter secret keeps nobody out."""

Secrets = Mapping[str, tuple[str, ...]]


class HookSecrets(SecretSource[Secrets]):
    """The source of the hooks' secrets."""

    @staticmethod
    def parse(secret: str) -> Secrets:
        """Read `{"hook": "secret", "other": ["new", "old"]}`; raise CredentialsError."""
        try:
            found = json.loads(secret)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CredentialsError('HookSecrets must be a JSON object: {"hook name": "secret"}')
        return {name: _secrets(name, value) for name, value in found.items()}


def _secrets(name: str, value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not (
        isinstance(values, list)
        and values
        and all(isinstance(v, str) and len(v) >= MIN_SECRET for v in values)
    ):
        raise CredentialsError(
            f"HookSecrets: {name!r} must be a string of at least {MIN_SECRET} characters, "
            "or a list of such strings"
        )
    return tuple(values)
