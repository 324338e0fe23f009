"""Plots as SVG, written by hand: lines over a logarithmic axis, and bars."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from statistics import median

_COLOURS = ["#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0e7490", "#4b5563", "#111111"]
_FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="#222"'

# A panel: its title, what the x axis is, and each line's points.
Lines = Mapping[str, Sequence[tuple[float, float]]]


def panels(title: str, unit: str, shown: Mapping[str, Lines], columns: int = 2) -> str:
    """One panel for each of `shown`, x logarithmic, y linear from 0 in `unit`; one legend for all."""
    width, height = 420, 260
    rows = ceil(len(shown) / columns)
    names = list(dict.fromkeys(name for lines in shown.values() for name in lines))
    colour = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
    legend, top = _legend(colour, columns * width)
    parts = [_text(20, 24, title, bold=True), *legend]
    for at, (x_name, lines) in enumerate(shown.items()):
        left, upper = (at % columns) * width, top + (at // columns) * height
        parts += _panel(left + 56, upper + 12, width - 86, height - 62, x_name, unit, lines, colour)
    return _svg(columns * width, top + rows * height, parts)


def _legend(colour: Mapping[str, str], width: float) -> tuple[list[str], float]:
    """Breaks the legend into lines of at most `width`; returns them and where they end."""
    parts, x, y = [], 20, 42
    for name, stroke in colour.items():
        room = 44 + 7 * len(name)
        if x + room > width:
            x, y = 20, y + 18
        parts.append(f'<path d="M{x} {y}h18" stroke="{stroke}" stroke-width="3"/>')
        parts.append(_text(x + 23, y + 4, name))
        x += room
    return parts, y + 22


def _panel(
    left: float, top: float, width: float, height: float, x_name: str, unit: str, lines: Lines,
    colour: Mapping[str, str],
) -> list[str]:  # fmt: skip
    xs = [log10(x) for points in lines.values() for x, _ in points]
    low, high = floor(min(xs)), max(ceil(max(xs)), floor(min(xs)) + 1)
    most = _round_up(max(y for points in lines.values() for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (log10(x) - low) / (high - low) * width, top + height - y / most * height

    parts = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>']
    for power in range(low, high + 1):
        x, _ = at(10**power, 0)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#eee"/>')
        parts.append(_text(x, top + height + 16, f"{10**power:,}", "middle"))
    for step in range(5):
        _, y = at(10**low, most * step / 4)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(_text(left - 6, y + 4, f"{most * step / 4:g}", "end"))
    for name, points in lines.items():
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour[name]}"/>' for x, y in places]
    parts.append(_text(left + width / 2, top + height + 34, x_name, "middle"))
    parts.append(_text(left - 40, top - 2, unit))
    return parts


def bars(title: str, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """A group of bars for each of `groups`: the median of each one's values, a line from least to most."""
    left, width, line = 190, 560, 24
    most = _round_up(max(max(values) for bars in groups.values() for values in bars.values()))
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    parts, y = [_text(20, 24, title, bold=True)], 40
    for group, rows in groups.items():
        y += line
        parts.append(_text(20, y - 6, group, bold=True))
        for name, values in rows.items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            long, least, longest = (
                value / most * width for value in (median(values), min(values), max(values))
            )
            parts.append(_text(left - 8, y + 15, name, "end"))
            parts.append(
                f'<rect x="{left}" y="{y + 4}" width="{long:.1f}" height="{line - 8}" fill="{colour}"/>'
            )
            parts.append(f'<path d="M{left + least:.1f} {y + line / 2}H{left + longest:.1f}" stroke="#222"/>')
            parts.append(_text(left + longest + 8, y + 15, f"{median(values):,.0f}"))
            y += line
    return _svg(left + width + 90, y + 20, parts)


def _round_up(value: float) -> float:
    """Returns the smallest of 1, 2, 4, 5 or 10 times a power of ten that is not below `value`."""
    power = 10 ** floor(log10(value)) if value > 0 else 1
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * 0.999)


def _text(x: float, y: float, text: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {_FONT}{weight}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])
