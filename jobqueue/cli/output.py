"""What commands print: data on standard output, words on standard error."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jobqueue.standard_streams import complain

if TYPE_CHECKING:
    import msgspec


def put(data: str | bytes) -> None:
    """Writes to standard output, at once."""
    out = sys.stdout.buffer
    out.write(data.encode("utf-8", "replace") if isinstance(data, str) else data)
    out.flush()


def put_lines(items: Iterable[msgspec.Raw]) -> None:
    """Writes JSON to standard output, an item a line."""
    put(b"".join(bytes(item) + b"\n" for item in items))


def say(text: str) -> None:
    """Writes a line to standard error."""
    complain(f"jobqueue: {text}")


def as_table(given: Namespace) -> bool:
    """Tells whether the reader is a person, who gets a table, or a program, which gets JSON."""
    return bool(given.text or (not given.json and sys.stdout.isatty()))


def asks() -> bool:
    """Tells whether there is a person to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
