"""Runs the examples of a Markdown page as they stand.

Every ```sh block is one script, run in the page's order and in one folder, with the variables the
page speaks of. An HTML comment just before a block says otherwise: `<!-- needs AWS -->`, or
`<!-- not run: … -->` with the reason. What a block sets holds for the later ones, as in one shell.
"""

import os
import re
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- (?P<comment>[^>]*) -->\n+)?^(?P<indent> *)```sh\n(?P<script>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
SKIPPED = re.compile(r"needs AWS|not run: .+")


@dataclass(frozen=True)
class Example:
    """A block of a page."""

    line: int
    script: str
    skipped: str | None


def examples(page: Path) -> list[Example]:
    """Return a page's examples, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        comment = match["comment"] or ""
        skipped = comment if SKIPPED.fullmatch(comment) else None
        line = text.count("\n", 0, match.start("script")) + 1
        found.append(Example(line, textwrap.dedent(match["script"]), skipped))
    return found


def run(page: Path, *, variables: Mapping[str, str], folder: Path) -> list[str]:
    """Run a page's examples and return what each printed; fail at the first that fails."""
    exported = folder / "exported"
    exported.write_text("", encoding="utf-8")
    printed = []
    for example in examples(page):
        if example.skipped:
            continue
        # Every variable is written down at the end for the next block to read.
        script = f"set -a\n. {exported}\n{example.script}\nexport -p > {exported}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607 - the shell at hand
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **variables},
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        where = f"{page.name}, line {example.line}"
        assert done.returncode == 0, f"{where}:\n{example.script}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return printed
