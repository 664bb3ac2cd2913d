"""The hooks' secrets, by hook name."""

import json
from collections.abc import Mapping

from smsgold.credentials import SecretSource
from smsgold.errors import CredentialsError

Secrets = Mapping[str, tuple[str, ...]]
"""By name; an entry that is neither a string nor a list of strings holds none."""


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
        return {name: _secrets(value) for name, value in found.items()}


def _secrets(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    strings = tuple(v for v in values if isinstance(v, str))
    return strings if len(strings) == len(values) else ()
