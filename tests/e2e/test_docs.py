"""The documentation's examples, run as they stand against the deployed stack, page by page."""

import os
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ops.shell_variables import script
from ops.stack import find
from tests.support import docs
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "README.ru.md": "tests/unit/test_docs.py: its examples are README.md's, to the letter",
    "docs/api.md": "tests/e2e/test_api.py, which looks at the answers as well",
    "docs/sandbox.md": "tests/integration/test_sandbox_docs.py: it needs no stack",
}
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if str(page.relative_to(ROOT)) not in ELSEWHERE
    and any(not example.skipped for example in docs.examples(page))
)


@pytest.fixture(scope="module")
def shell(deployment: Deployment) -> dict[str, str]:
    """Return what `eval "$(make -s env)"` puts into a shell, for this deployment.

    Saying it once more changes nothing there; any other `make` is run in the project's folder.
    """
    lines = script(find(None, deployment.home / "stack.json"))
    elsewhere = f'command make -C {shlex.quote(str(ROOT))} "$@"'
    lines += f'\nmake() {{ [ "$*" = "-s env" ] || {elsewhere}; }}'
    done = subprocess.run(
        ["bash", "-euc", f"{lines}\nexport -f aws make\nenv -0"],  # noqa: S607 - the shell at hand
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(item.split("=", 1) for item in done.stdout.split("\0") if item)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_work_as_they_stand(page: Path, shell: dict[str, str], tmp_path: Path) -> None:
    printed = docs.run(page, variables=shell, folder=tmp_path)

    # The sandbox is quick: a broadcast may be over before its page pauses or stops it.
    problems = [answer for answer in printed if "urn:smsgold-relay:problem" in answer]
    assert [problem for problem in problems if "is completed" not in problem] == []


def test_what_the_readme_sends_arrives_once(
    sandbox: Sandbox, shell: dict[str, str], tmp_path: Path
) -> None:
    for time in ("first", "second"):
        folder = tmp_path / time
        folder.mkdir()
        printed = docs.run(ROOT / "README.md", variables=shell, folder=folder)
        assert any("monday-digest" in answer for answer in printed)

    for text in ("Ваш заказ 4711 оплачен", "Курьер будет через час"):
        [entry] = until(partial(sandbox.ledger, text=text), "the README's message")
        assert entry["subscriberId"] == "65f1c0a2b3d4e5f6a7b8d101"
