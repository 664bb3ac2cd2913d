"""What a run found: printed as soon as it is known, written into the pages at the end."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "README.md")


@dataclass(frozen=True)
class Spread:
    """The median of several runs and their median absolute deviation."""

    median: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize runs."""
        median = statistics.median(values)
        return cls(median, statistics.median(abs(value - median) for value in values))

    def shown(self, unit: str) -> str:
        """Return it as the pages have it."""
        return f"{self.median:.2f}{unit} ± {self.deviation:.2f}"


def ratio(these: Sequence[float], those: Sequence[float]) -> Spread:
    """Compare two sides that took turns, round by round."""
    return Spread.of([this / that for this, that in zip(these, those, strict=True)])


def say(what: str) -> None:
    """Print what is done now."""
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first holds numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass
class Report:
    """The figures by the blocks of the pages in which they stand, and the goals that are missed."""

    blocks: dict[str, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def show(self, block: str, content: str) -> None:
        """Print the content of a block and keep it for the pages."""
        self.blocks[block] = content
        print(f"\n{content}\n", flush=True)

    def at_most(
        self,
        block: str,
        what: str,
        found: Spread | float,
        goal: float,
        *,
        unit: str = "×",
        note: str = "",
    ) -> None:
        """Judge a figure that must not be larger than its goal."""
        if isinstance(found, Spread):
            shown, met = found.shown(unit), found.median <= goal
        else:
            shown, met = f"{found:.2f}{unit}", found <= goal
        self._judge(block, [what, f"{shown}{note}", f"≤ {goal:g}{unit}"], met)

    def at_least(self, block: str, what: str, found: Spread, goal: float) -> None:
        """Judge a ratio that must not be smaller than its goal."""
        self._judge(block, [what, found.shown("×"), f"≥ {goal:g}×"], found.median >= goal)

    def _judge(self, block: str, row: list[str], met: bool) -> None:
        what, found, goal = row
        print(f"  {what}: {found} (goal {goal})", flush=True)
        before = self.blocks.get(block) or table(["", "found", "goal", "met"], [])
        self.blocks[block] = f"{before}\n| {' | '.join([*row, 'yes' if met else '**no**'])} |"
        if not met:
            self.missed.append(f"{what}: {found} (goal {goal})")

    def write(self) -> None:
        """Put each block between its two markers in one of the pages; there is none without."""
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for block in [block for block in self.blocks if f"<!-- {block} -->" in text]:
                before, begin, rest = text.partition(f"<!-- {block} -->\n")
                _, end, after = rest.partition(f"<!-- /{block} -->")
                text = f"{before}{begin}{self.blocks.pop(block)}\n{end}{after}"
            page.write_text(text, encoding="utf-8")
        assert not self.blocks, f"no page has a place for {', '.join(self.blocks)}"
