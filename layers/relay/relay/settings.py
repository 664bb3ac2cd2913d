"""The stack's settings, read once from the environment variables that template.yaml sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from relay.messages.envelope import OnUnknown
from relay.messages.states import Rules


class SettingMissingError(Exception):
    """A function lacks a setting that it needs."""


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """What only the API function gets, to create schedules: a name, and ARNs."""

    group: str
    function: str
    role: str
    dead_letter_queue: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "ScheduleSettings":
        """Read the settings; raise SettingMissingError naming a missing one."""
        return cls(
            group=_get(environment, "SCHEDULE_GROUP"),
            function=_get(environment, "SCHEDULE_TARGET"),
            role=_get(environment, "SCHEDULE_ROLE"),
            dead_letter_queue=_get(environment, "SCHEDULE_DEAD_LETTER_QUEUE"),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What template.yaml decides; durations in seconds."""

    stage: str
    provider_base_url: str
    provider_credentials: str
    provider_timeout: float
    hook_secrets: str
    messages_queue_url: str
    ordered_queue_url: str
    broadcast_queue_url: str
    notifier_queue_url: str
    dead_letter_queue_url: str
    table: str
    bucket: str
    messages_per_second: float
    broadcast_refusals_percent: float
    sender_timeout: float
    rules: Rules

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings; raise SettingMissingError naming a missing one."""

        def get(name: str) -> str:
            return _get(environment, name)

        return cls(
            stage=get("STAGE"),
            provider_base_url=get("PROVIDER_BASE_URL"),
            provider_credentials=get("PROVIDER_CREDENTIALS"),
            provider_timeout=float(get("PROVIDER_TIMEOUT")),
            hook_secrets=get("HOOK_SECRETS"),
            messages_queue_url=get("MESSAGES_QUEUE_URL"),
            ordered_queue_url=get("ORDERED_QUEUE_URL"),
            broadcast_queue_url=get("BROADCAST_QUEUE_URL"),
            notifier_queue_url=get("NOTIFIER_QUEUE_URL"),
            dead_letter_queue_url=get("DEAD_LETTER_QUEUE_URL"),
            table=get("RELAY_TABLE"),
            bucket=get("RELAY_BUCKET"),
            messages_per_second=float(get("MESSAGES_PER_SECOND")),
            broadcast_refusals_percent=float(get("BROADCAST_REFUSALS_PERCENT")),
            sender_timeout=float(get("SENDER_TIMEOUT")),
            rules=Rules(
                on_unknown=OnUnknown(get("ON_UNKNOWN")),
                retry_window=float(get("RETRY_WINDOW")),
                backoff_min=float(get("BACKOFF_MIN")),
                backoff_max=float(get("BACKOFF_MAX")),
            ),
        )


def _get(environment: Mapping[str, str], name: str) -> str:
    try:
        return environment[name]
    except KeyError:
        raise SettingMissingError(
            f"{name} is not set; template.yaml must set it for this function"
        ) from None


settings = Settings.read(os.environ)
