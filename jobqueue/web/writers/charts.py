"""Charts as SVG, drawn by the server: they need no script, and are there when the page opens."""

from collections.abc import Sequence

_WIDTH, _HEIGHT = 600, 120
# Room for the numbers at the left side of a chart.
_LEFT = 40


def chart(title: str, lines: Sequence[tuple[str, str, Sequence[int]]], length: str) -> str:
    """Returns a chart of several lines of one scale. A line is its name, its class and its numbers; `length`
    says how long it goes back."""
    highest = max((max(numbers, default=0) for _, _, numbers in lines), default=0)
    drawn = "".join(
        f'<polyline class="{kind}" points="{_points(numbers, highest, _LEFT, _WIDTH, _HEIGHT - 20)}"/>'
        for _, kind, numbers in lines
    )
    low = _HEIGHT - 6
    legend = "".join(
        f'<line class="{kind}" x1="{at}" x2="{at + 18}" y1="{low}" y2="{low}" stroke-width="2"/>'
        f'<text x="{at + 23}" y="{_HEIGHT - 2}">{name}</text>'
        for at, (name, kind, _) in zip(range(_LEFT, _WIDTH, 110), lines, strict=False)
    )
    said = ", ".join(f"{name}: {numbers[-1] if numbers else 0:,} now" for name, _, numbers in lines)
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'aria-label="{title}, {length}; {said}; highest {highest:,}">'
        f'<text x="2" y="12">{highest:,}</text><text x="2" y="{_HEIGHT - 22}">0</text>'
        f'<text x="{_WIDTH - 4}" y="12" text-anchor="end">{title}, {length}</text>{drawn}{legend}</svg>'
    )


def spark(title: str, lines: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Returns a small chart for a row of a table. A line is its class and its numbers."""
    highest = max((max(numbers, default=0) for _, numbers in lines), default=0)
    drawn = "".join(
        f'<polyline class="{kind}" points="{_points(numbers, highest, 0, 100, 20)}"/>'
        for kind, numbers in lines
    )
    return (
        f'<svg class="spark" role="img" viewBox="0 0 100 20" preserveAspectRatio="none" aria-label="{title}">'
        f"{drawn}</svg>"
    )


def _points(numbers: Sequence[int], highest: int, left: int, width: int, height: int) -> str:
    across = (width - left) / max(len(numbers) - 1, 1)
    down = (height - 4) / (highest or 1)
    return " ".join(
        f"{left + at * across:.1f},{height - 2 - number * down:.1f}" for at, number in enumerate(numbers)
    )
