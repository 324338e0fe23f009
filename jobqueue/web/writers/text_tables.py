"""Answers as text for a terminal: tables, or one fact a line. Made from the JSON answers."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

Document = dict[str, Raw]

_decode = msgspec.json.Decoder(Document).decode
_list_of = msgspec.json.Decoder(list[Document]).decode
# Characters of a long text that are shown.
_LONG = 2000


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Formats rows as columns. Columns in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def plain(value: Raw | bytes) -> str:
    """Returns a JSON value as text: strings without quotes, no control characters."""
    raw = bytes(value)
    text = msgspec.json.decode(raw) if raw[:1] == b'"' else raw.decode("utf-8")
    if len(text) > _LONG:
        text = f"{text[:_LONG]}… ({len(text):,} characters)"
    return visible(text)


def visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


# -- queues -----------------------------------------------------------------------------------------

HEADS = ("QUEUE", "QUEUED", "RUNNING", "LATER", "DEAD", "DONE", "OLDEST", "IN/S", "OUT/S", "WAITING", "")
NUMBERS = frozenset(range(1, len(HEADS) - 1))


def queue_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each queue of the answer to `/queues`."""
    return [_queue_row(queue) for queue in _list_of(_decode(body)["queues"])]


def _queue_row(queue: Document) -> list[str]:
    jobs, rates = _decode(queue["jobs"]), _decode(queue["rates"])
    oldest = f"{round(float(queue['oldest_age']))} s" if "oldest_age" in queue else ""
    counts = [plain(jobs[name]) for name in ("queued", "in_progress", "scheduled", "dead", "concluded")]
    paused = "paused" if bytes(queue["paused"]) == b"true" else ""
    return [
        plain(queue["name"]), *counts, oldest, plain(rates["in"]), plain(rates["out"]),
        plain(queue["consumers_waiting"]), paused,
    ]  # fmt: skip


def more(body: bytes) -> str | None:
    """Returns the cursor of the next page, or None."""
    cursor = _decode(body).get("next")
    return None if cursor is None else plain(cursor)


def queues(body: bytes) -> str:
    return _with_more(table([HEADS, *queue_rows(body)], NUMBERS), body)


def _with_more(text: str, body: bytes) -> str:
    cursor = more(body)
    return text if cursor is None else f"{text}more: cursor={cursor}\n"


# -- jobs -------------------------------------------------------------------------------------------

JOB_HEADS = ("ID", "STATUS", "QUEUE", "TYPE", "PRIORITY", "ATTEMPTS", "CREATED")
JOB_NUMBERS = frozenset({0, 4, 5})


def job_rows(body: bytes) -> list[list[str]]:
    """Returns a row for each job of the answer to `/jobs`."""
    return [
        [plain(job[name]) for name in ("id", "status", "queue", "type", "priority", "attempts", "created_at")]
        for job in _list_of(_decode(body)["jobs"])
    ]


def jobs(body: bytes) -> str:
    return _with_more(table([JOB_HEADS, *job_rows(body)], JOB_NUMBERS), body)


def facts(body: bytes) -> list[tuple[str, str]]:
    """Returns the members of an object and of the objects in it, by name. Empty ones are left out."""
    return list(_facts(_decode(body), ""))


def _facts(document: Document, before: str) -> Iterable[tuple[str, str]]:
    for name, value in document.items():
        raw = bytes(value)
        if raw[:1] == b"{" and name not in ("payload", "result", "error", "headers"):
            yield from _facts(_decode(raw), f"{before}{name}.")
        elif name == "history":
            for attempt in _list_of(raw):
                line = "  ".join(plain(part) for key, part in attempt.items() if key != "attempt")
                yield f"attempt {plain(attempt['attempt'])}", line
        else:
            yield before + name, plain(value)


def one(body: bytes) -> str:
    """Formats a queue or a job."""
    return table(facts(body))
