"""`jobqueue context`: remembers servers by name, so that a token need not be typed."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Final

from jobqueue.cli.actions import Action, refuse_others
from jobqueue.cli.arguments import Parser, UsageError
from jobqueue.cli.commands import Verb
from jobqueue.cli.contexts import Context, Contexts
from jobqueue.cli.output import asks, put, say


def declare(parser: Parser) -> None:
    parser.usage = "jobqueue context add NAME URL [options] | use NAME | rm NAME | ls"
    parser.add_argument(
        "what", choices=list(ACTIONS), metavar="ACTION",
        help="add: add or replace one; use: choose one; rm: forget one; ls: list all",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the server, such as prod")
    parser.add_argument("url", nargs="?", metavar="URL", help="its address")
    parser.add_argument(
        "--token", action="store_true", help="ask for the access token, or read it from input"
    )
    parser.add_argument("--ca", metavar="FILE", help="certificates of the authorities to trust")
    parser.add_argument("--cert", metavar="FILE", help="certificate of this client, with its key")


def run(given: Namespace) -> int:
    action = ACTIONS[given.what]
    refuse_others(given, f"context {given.what}", action, ("name", "url"), ("token", "ca", "cert"))
    if given.name is None and "name" in action.takes:
        raise UsageError(f"context {given.what} needs the name of a context")
    return action.run(given)


def _list(given: Namespace) -> int:
    contexts = Contexts.read(os.environ)
    for name, known in contexts.known.items():
        put(f"{'*' if name == contexts.current else ' '} {name:16} {_without_token(known.url)}\n")
    return 0


def _add(given: Namespace) -> int:
    if given.url is None:
        raise UsageError("context add needs a name and an address, such as https://queue.example.com")
    contexts = Contexts.read(os.environ)
    _without_token(given.url)
    token = _read_token() if given.token else None
    contexts.add(given.name, Context(given.url, token, _path(given.ca), _path(given.cert)))
    return _write(contexts)


def _use(given: Namespace) -> int:
    contexts = Contexts.read(os.environ)
    contexts.get(given.name)
    contexts.current = given.name
    return _write(contexts)


def _remove(given: Namespace) -> int:
    contexts = Contexts.read(os.environ)
    contexts.get(given.name)
    del contexts.known[given.name]
    contexts.current = None if contexts.current == given.name else contexts.current
    return _write(contexts)


def _write(contexts: Contexts) -> int:
    contexts.write()
    if os.environ.get("JOBQUEUE_URL"):
        say("JOBQUEUE_URL is set, and counts before the context")
    return 0


def _without_token(url: str) -> str:
    """Returns the addresses without the token that may be in them. Raises `UsageError`."""
    from jobqueue.client.address import addresses_of, shown

    try:
        return shown(addresses_of(url))
    except ValueError as bad:
        raise UsageError(str(bad)) from None


def _read_token() -> str:
    if asks():
        from getpass import getpass

        token = getpass("access token: ")
    else:
        token = sys.stdin.readline().strip()
    if not token:
        raise UsageError("there is no access token on standard input")
    return token


def _path(file: str | None) -> str | None:
    return None if file is None else os.path.abspath(file)


ACTIONS: Final[dict[str, Action]] = {
    "add": Action(_add, ("name", "url", "token", "ca", "cert")),
    "use": Action(_use, ("name",)),
    "rm": Action(_remove, ("name",)),
    "ls": Action(_list),
}
CONTEXT: Final = Verb(declare, run)
