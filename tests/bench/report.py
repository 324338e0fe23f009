"""The result of a benchmark: tables, goals, notes and plots, and their layout in a terminal and in the docs."""

from collections.abc import Callable
from statistics import median

QUICK_NOTE = "(quick: every figure comes from one tiny run and says nothing about speed)"


class Broken(Exception):
    """A check failed: the measured program did not do its work correctly."""


class Skip(Exception):
    """A requirement of the benchmark is missing. The text names it and tells how to get it."""


def check(holds: bool, said: str) -> None:
    if not holds:
        raise Broken(said)


def figure(value: float, unit: str = "") -> str:
    """Formats a number with three significant digits and separated thousands: 12,300  456  7.89  0.0123."""
    size = abs(value)
    if size >= 1000:
        step = 10 ** max(len(str(int(size))) - 3, 0)
        text = f"{round(value / step) * step:,}"
    elif size >= 100 or value == int(value):
        text = f"{value:.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def how_many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def spread(values: list[float]) -> str:
    """Formats values as `median (least–most)`."""
    if len(values) == 1:
        return figure(values[0])
    return f"{figure(median(values))} ({figure(min(values))}–{figure(max(values))})"


class Table:
    """A table. `columns` are the headings; the first column holds text, the others figures."""

    def __init__(self, caption: str, columns: list[str], rows: list[list[str]]) -> None:
        self.caption = caption
        self.columns = columns
        self.rows = rows

    def text(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.columns))]
        shown = [
            "  ".join(
                [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in lines
        ]
        shown.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.caption, *(f"  {line}".rstrip() for line in shown)])

    def markdown(self) -> str:
        marks = ["---"] + ["--:"] * (len(self.columns) - 1)
        lines = ["| " + " | ".join(line) + " |" for line in [self.columns, marks, *self.rows]]
        return "\n".join([f"**{self.caption}**", "", *lines])


class Report:
    """The result of one benchmark. `plots` maps file names in `docs/` to SVG."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.tables: list[Table] = []
        self.notes: list[str] = []
        self.skips: list[str] = []
        self.failures: list[str] = []
        self.plots: dict[str, str] = {}
        self.writes: list[Callable[[], None]] = []
        self._goals: list[list[str]] = []

    def table(self, caption: str, columns: list[str], rows: list[list[str]]) -> None:
        self.tables.append(Table(caption, columns, rows))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def skip(self, text: str) -> None:
        self.skips.append(text)

    def fail(self, text: str) -> None:
        """Fails the run, unless it writes: then what was measured is recorded."""
        self.failures.append(text)

    def on_write(self, write: Callable[[], None]) -> None:
        """Calls `write` when figures are written, beside the page."""
        self.writes.append(write)

    def at_most(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Adds a goal. It is shown beside the measured value and never enforced."""
        self._goal(what, "≤ " + figure(limit, unit), figure(value, unit), value <= limit)

    def at_least(self, what: str, value: float, limit: float, unit: str = "") -> None:
        self._goal(what, "≥ " + figure(limit, unit), figure(value, unit), value >= limit)

    def _goal(self, what: str, wanted: str, measured: str, met: bool) -> None:
        self._goals.append([what, wanted, measured, "yes" if met else "**no**"])

    def _all_tables(self, quick: bool) -> list[Table]:
        goals = (
            []
            if quick or not self._goals
            else [Table("Goals", ["goal", "wanted", "measured", "met"], self._goals)]
        )
        return self.tables + goals

    def text(self, quick: bool) -> str:
        parts = [f"== {self.title}" + (f"  {QUICK_NOTE}" if quick else "")]
        parts += [table.text() for table in self._all_tables(quick)]
        parts += [f"note: {note}" for note in self.notes]
        return "\n\n".join(parts)

    def markdown(self) -> str:
        parts = [table.markdown() for table in self._all_tables(quick=False)]
        parts += [f"![{self.title}]({name})" for name in self.plots]
        parts += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        parts += [f"Skipped: {skip}" for skip in self.skips]
        return "\n\n".join(parts)
