"""Remembered servers: a file `contexts.toml` in `$XDG_CONFIG_HOME/jobqueue`, readable by its owner only.

current = "prod"

[prod]
url = "https://queue.example.com"
token = "jq_…"
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jobqueue.cli.arguments import UsageError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Context(NamedTuple):
    """A server. `ca` and `cert` are files for TLS."""

    url: str
    token: str | None = None
    ca: str | None = None
    cert: str | None = None


class Contexts:
    """The remembered servers by name, and the name of the one that is used; None: none is."""

    def __init__(self, file: Path, current: str | None, known: dict[str, Context]) -> None:
        self._file = file
        self.current = current
        self.known = known

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Contexts:
        """Reads the file; there is nothing in one that does not exist. Raises `UsageError`."""
        folder = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "~", ".config")
        file = Path(folder).expanduser() / "jobqueue" / "contexts.toml"
        try:
            found = tomllib.loads(file.read_text("utf-8"))
            current = found.pop("current", None)
            return cls(file, current, {name: _context(name, table) for name, table in found.items()})
        except FileNotFoundError:
            return cls(file, None, {})
        except (OSError, ValueError) as bad:
            raise UsageError(f"cannot read {file}: {bad}") from None

    def get(self, name: str) -> Context:
        """Returns a context. Raises `UsageError`."""
        if name not in self.known:
            hint = f"there are: {', '.join(self.known)}" if self.known else "`jobqueue context add` adds one"
            raise UsageError(f"there is no context {name!r}; {hint}")
        return self.known[name]

    def add(self, name: str, context: Context) -> None:
        """Adds or replaces a context. Raises `UsageError`."""
        if not _NAME.fullmatch(name) or name == "current":
            raise UsageError(f"{name!r} is not a name: use letters, digits, - and _")
        self.known[name] = context
        self.current = self.current or name

    def write(self) -> None:
        """Writes the file, in one step, so that a reader never sees a part of it."""
        lines = [] if self.current is None else [f"current = {_quoted(self.current)}"]
        for name, context in self.known.items():
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_quoted(value)}" for key, value in context._asdict().items() if value]
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self._file.with_name(f"contexts.{os.getpid()}")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as out:
                out.write("\n".join(lines) + "\n")
            new.replace(self._file)
        finally:
            new.unlink(missing_ok=True)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _context(name: str, table: Any) -> Context:
    if not isinstance(table, dict) or not isinstance(table.get("url"), str):
        raise ValueError(f"[{name}] has no url")
    for key, value in table.items():
        if key not in Context._fields or not isinstance(value, str):
            raise ValueError(f"[{name}] has a {key}; it takes {', '.join(Context._fields)} as text")
    return Context(**table)
