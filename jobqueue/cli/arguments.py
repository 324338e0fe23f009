"""The parser, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import msgspec


class UsageError(Exception):
    """The arguments are wrong: exit status 2."""


class Parser(argparse.ArgumentParser):
    """A parser that answers wrong arguments with one line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def print_help(self, file: Any = None) -> None:
        """Prints the help. Unlike the method that it replaces, it raises `OSError` if that fails."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL)
        hint = "" if choice is None else meant(choice[1], re.findall(r"'([^']*)'", choice[2]))
        raise UsageError(f"{message}{hint or ';'} `{self.prog} --help` shows what it takes")

    def unknown(self, argument: str) -> UsageError:
        """Returns the error for an argument that the command does not take. It names the nearest option."""
        hint = meant(argument.partition("=")[0], self._option_string_actions)
        return UsageError(
            f"unknown argument {argument}{hint or ';'} `{self.prog} --help` shows what it takes"
        )


def meant(given: str, known: Iterable[str]) -> str:
    """Returns a hint at the nearest of the known names, or nothing."""
    near = get_close_matches(given, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def whole_number(text: str) -> int:
    """Reads an argument. Raises `ArgumentTypeError`."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def add_connection(parser: argparse.ArgumentParser, retries: bool = True) -> None:
    """Adds how the server is reached. `retries`: whether a call may be repeated for a time."""
    add = parser.add_argument_group("the server").add_argument
    add("--url", metavar="URL", help="its address (JOBQUEUE_URL, else the context, else localhost:8080)")
    add("--token", metavar="TOKEN", help="access token; others may see it here, so prefer JOBQUEUE_TOKEN")
    add("--context", metavar="NAME", help="a server that `jobqueue context add` has remembered")
    add("--ca", metavar="FILE", help="certificates of the authorities to trust")
    add("--cert", metavar="FILE", help="certificate of this client, with its key")
    if retries:
        add("--retry-for", metavar="TIME", default="0s", help="how long to try again where that is safe (0s)")


def add_output(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds how the answer is shown. Returns the ways, of which one may be given."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--json", action="store_true", help="JSON, one item a line (in a pipe: the default)")
    either.add_argument("--text", action="store_true", help="a table (on a terminal: the default)")
    return either


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the filters of jobs. Each takes several values, separated by commas."""
    add = parser.add_argument_group(
        "filters", "A job matches if each given filter has one of its values; separate several by commas."
    ).add_argument
    add("--status", metavar="STATUS", help="scheduled, queued, in_progress, concluded, dead or cancelled")
    add("--type", metavar="TYPE", help="type of the job")
    add("--tag", metavar="TAG", help="a tag of the job")
    add("--key", metavar="KEY", help="key of the job")
    add("--older-than", metavar="TIME", help="enqueued longer ago than this, such as 1h or 7d")
    add("--retrying", action="store_true", help="waits for a retry after a failure")
    add("--contains", metavar="TEXT", help="the payload contains this text")


# The filters that `add_filters` adds, and what the client calls them.
FILTERS: Final = {
    "status": "status",
    "type": "type",
    "tag": "tag",
    "key": "key",
    "older_than": "older_than",
    "retrying": "retrying",
    "contains": "text",
}


def filters(given: argparse.Namespace) -> dict[str, Any]:
    """Returns the filters that were given, as the client takes them."""
    return {name: getattr(given, option) for option, name in FILTERS.items() if is_given(given, option)}


def is_given(given: argparse.Namespace, name: str) -> bool:
    """Tells whether an argument or an option that has no default was given."""
    value = getattr(given, name)
    return value is not None and value is not False and value != []


def assignment(text: str) -> tuple[str, Any]:
    """Splits `KEY=VALUE`, where the value is text, or `KEY:=JSON`. Raises `UsageError`."""
    key, equals, value = text.partition("=")
    if not equals or key in ("", ":"):
        hint = "; a whole payload comes from standard input, with - here" if text[:1] in ("{", "[") else ""
        raise UsageError(f"{text!r} is neither KEY=VALUE nor KEY:=JSON{hint}")
    if key.endswith(":"):
        try:
            return key[:-1], json_of(value)
        except UsageError as bad:
            raise UsageError(f"{bad}; text is {key[:-1]}={value}") from None
    return key, value


def json_of(text: str | bytes) -> msgspec.Raw:
    """Returns JSON as it was written. Raises `UsageError`."""
    import msgspec  # it takes 20 ms, which `--help` need not spend

    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if not data.strip():
        raise UsageError("there is no JSON: the input or the value is empty")
    try:
        msgspec.json.decode(data)
    except msgspec.MsgspecError as bad:
        shown = data[:60].decode("utf-8", "replace")
        raise UsageError(f"{shown!r} is not JSON: {bad}") from None
    return msgspec.Raw(data)
