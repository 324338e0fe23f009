"""Charts as SVG, drawn by the server: they need no script, and are there when the page opens."""

from collections.abc import Sequence

_WIDTH, _HEIGHT = 600, 100
_GRID = f"M0 2H{_WIDTH}M0 {_HEIGHT // 2}H{_WIDTH}M0 {_HEIGHT - 2}H{_WIDTH}"


def chart(
    title: str, lines: Sequence[tuple[str, str, Sequence[int]]], since: str, until: str, peak: str
) -> str:
    """Returns a chart of several lines of one scale.

    A line is its name, its class and its numbers. `since` and `until` say when the chart begins and ends, and
    `peak` what was highest, as HTML. The texts are no part of the drawing, so they stay legible at any width.
    """
    highest = highest_of(lines)
    drawn = "".join(
        f'<polyline class="{kind}" points="{_points(numbers, highest, _WIDTH, _HEIGHT)}"/>'
        for _, kind, numbers in lines
    )
    keys = "".join(f'<span class="key {kind}">{name}</span> ' for name, kind, _ in lines)
    said = ", ".join(f"{name}: {numbers[-1] if numbers else 0:,} {until}" for name, _, numbers in lines)
    return (
        f'<figure class="chart"><figcaption>{title} {keys}</figcaption><span class="most">{highest:,}</span>'
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'aria-label="{title}, since {since}; {said}; highest {highest:,}">'
        f'<path class="grid" d="{_GRID}"/>{drawn}</svg>'
        f'<span class="least">0</span><span class="since">{since}</span><span class="now">{until}</span>'
        f'<span class="peak">{peak}</span></figure>'
    )


def highest_of(lines: Sequence[tuple[str, str, Sequence[int]]]) -> int:
    """Returns the highest number of all lines."""
    return max((max(numbers, default=0) for _, _, numbers in lines), default=0)


def spark(title: str, lines: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Returns a small chart for a row of a table. A line is its class and its numbers."""
    highest = max((max(numbers, default=0) for _, numbers in lines), default=0)
    drawn = "".join(
        f'<polyline class="{kind}" points="{_points(numbers, highest, 100, 20)}"/>' for kind, numbers in lines
    )
    return (
        f'<svg class="spark" role="img" viewBox="0 0 100 20" preserveAspectRatio="none" aria-label="{title}">'
        f"{drawn}</svg>"
    )


def _points(numbers: Sequence[int], highest: int, width: int, height: int) -> str:
    across = width / max(len(numbers) - 1, 1)
    down = (height - 4) / (highest or 1)
    return " ".join(
        f"{at * across:.1f},{height - 2 - number * down:.1f}" for at, number in enumerate(numbers)
    )
