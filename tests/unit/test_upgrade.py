"""What `make upgrade-check` needs before it starts a stack. The upgrade itself takes minutes."""

import subprocess
from pathlib import Path

import pytest

from local.stack import StackError
from scenarios import upgrade


def test_without_the_history_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "ROOT", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)  # noqa: S607 - the one on PATH

    with pytest.raises(StackError, match="git fetch --unshallow"):
        upgrade.source(tmp_path)
