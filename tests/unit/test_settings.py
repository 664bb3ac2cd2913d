"""The settings name what is missing."""

import pytest

from relay.message import OnUnknown
from relay.settings import SettingMissingError, Settings

ENVIRONMENT = {
    "STAGE": "local",
    "PROVIDER_BASE_URL": "http://127.0.0.1:9",
    "PROVIDER_CREDENTIALS": "arn",
    "PROVIDER_TIMEOUT": "12",
    "MESSAGES_QUEUE_URL": "messages",
    "DEAD_LETTER_QUEUE_URL": "dead",
    "RELAY_TABLE": "relay",
    "MESSAGES_PER_SECOND": "25",
    "ON_UNKNOWN": "resend",
    "RETRY_WINDOW": "3600",
    "BACKOFF_MIN": "5",
    "BACKOFF_MAX": "600",
}


def test_the_environment_becomes_settings() -> None:
    settings = Settings.read(ENVIRONMENT)

    assert settings.messages_per_second == 25.0
    assert settings.rules.on_unknown is OnUnknown.RESEND
    assert (settings.rules.retry_window, settings.rules.backoff_max) == (3600.0, 600.0)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_a_missing_setting_names_itself(name: str) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if key != name}

    with pytest.raises(SettingMissingError, match=f"^{name} is not set"):
        Settings.read(environment)
