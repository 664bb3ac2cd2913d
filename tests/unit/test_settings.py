"""The settings name what is missing."""

import pytest

from relay.messages.envelope import OnUnknown
from relay.settings import SettingMissingError, Settings
from tests.support.function_variables import ENVIRONMENT


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
