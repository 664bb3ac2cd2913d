"""The two plots of docs/performance.md, as SVG that reads on light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.faint { fill: #57606a }
.axis { stroke: #8c959f; stroke-width: 1 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke: #0969da; stroke-width: 2 }
.bound { fill: none; stroke: #8c959f; stroke-width: 2; stroke-dasharray: 5 4 }
.dot { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #9da7b3 }
  .axis { stroke: #6e7681 }
  .grid { stroke: #30363d }
  .line { stroke: #58a6ff }
  .dot { fill: #58a6ff }
}
"""

COLORS = ("#8c959f", "#0969da", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#1b7c83", "#953800")


def init_bars(bars: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Draw one stacked bar for each start, by what its milliseconds went to."""
    parts = list(next(iter(bars.values())))
    longest = max(sum(bar.values()) for bar in bars.values())
    left, width, row = 130, 560, 30
    scale = width / longest
    out = [f'<text x="10" y="22" class="title">{escape(title)}</text>']
    x = 10
    for part, color in zip(parts, COLORS, strict=False):
        out.append(f'<rect x="{x}" y="36" width="11" height="11" fill="{color}"/>')
        out.append(f'<text x="{x + 16}" y="46">{escape(part)}</text>')
        x += 32 + round(6.7 * len(part))
    y = 62
    for name, bar in bars.items():
        out.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        at = float(left)
        for part, color in zip(parts, COLORS, strict=False):
            length = bar[part] * scale
            label = f"{name}, {part}: {bar[part]:.0f} ms"
            out.append(
                f'<rect x="{at:.1f}" y="{y}" width="{length:.1f}" height="20" fill="{color}">'
                f"<title>{escape(label)}</title></rect>"
            )
            at += length
        total = sum(bar.values())
        out.append(f'<text x="{at + 6:.1f}" y="{y + 15}" class="faint">{total:.0f} ms</text>')
        y += row
    return _svg(left + width + 80, y + 6, out)


def throughput(
    measured: Sequence[tuple[int, float]], bounds: Sequence[tuple[int, float]], title: str
) -> str:
    """Draw messages a second against messages in flight, beside the physical bound."""
    left, top, width, height = 60, 40, 560, 300
    x_max = max(x for x, _ in measured)
    y_max = _round_up(max(y for _, y in [*measured, *bounds]))

    def point(x: float, y: float) -> str:
        return f"{left + x / x_max * width:.1f},{top + height - y / y_max * height:.1f}"

    out = [f'<text x="10" y="22" class="title">{escape(title)}</text>']
    for i in range(6):
        value = y_max * i / 5
        y = top + height - height * i / 5
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" class="grid"/>')
        out.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" class="faint">{value:.0f}</text>'
        )
    for x, _ in measured:
        at = left + x / x_max * width
        place = f'x="{at:.1f}" y="{top + height + 18}"'
        out.append(f'<text {place} text-anchor="middle" class="faint">{x}</text>')
    middle = left + width / 2
    out.append(
        f'<text x="{middle}" y="{top + height + 38}" text-anchor="middle">messages in flight</text>'
    )
    for name, points in (("bound", bounds), ("line", measured)):
        path = " ".join(point(x, y) for x, y in points)
        out.append(f'<polyline points="{path}" class="{name}"/>')
    for x, y in measured:
        cx, cy = point(x, y).split(",")
        label = f"{x} in flight: {y:.0f} a second"
        out.append(
            f'<circle cx="{cx}" cy="{cy}" r="3.5" class="dot"><title>{label}</title></circle>'
        )
    out.append(f'<line x1="{left + 14}" x2="{left + 44}" y1="58" y2="58" class="line"/>')
    out.append(f'<text x="{left + 52}" y="62">measured, messages a second</text>')
    out.append(f'<line x1="{left + 14}" x2="{left + 44}" y1="78" y2="78" class="bound"/>')
    out.append(
        f'<text x="{left + 52}" y="82">bound: all of them wait for the provider alone</text>'
    )
    return _svg(left + width + 30, top + height + 52, out)


def _round_up(value: float) -> float:
    step = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / step) * step


def _svg(width: int, height: int, content: Sequence[str]) -> str:
    body = "\n".join(content)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )
