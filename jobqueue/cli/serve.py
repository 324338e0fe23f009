"""`jobqueue serve`: starts the server. Each setting has a flag, which counts before its variable."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Final

from jobqueue.cli.arguments import Parser, UsageError
from jobqueue.cli.commands import Verb
from jobqueue.cli.exit_status import REFUSED
from jobqueue.cli.output import say
from jobqueue.errors import InvalidField
from jobqueue.settings import PREFIX, Settings


def flag(name: str) -> str:
    """Returns the flag of a setting."""
    return "--" + name.replace("_", "-")


def declare(parser: Parser) -> None:
    parser.usage = "jobqueue serve [--FLAG VALUE …]"
    parser.epilog = "Each flag is a setting, and JOBQUEUE_ before its name in capitals is its variable. "
    for name, setting in Settings.declared.items():
        default = "" if setting.default is None else f" [{setting.default}]".replace("False", "false")
        text = f"{setting.meaning}{default} {PREFIX}{name.upper()}".replace("%", "%%")
        if setting.default is False:
            parser.add_argument(flag(name), nargs="?", const="true", metavar="true", help=text)
        else:
            parser.add_argument(flag(name), metavar="VALUE", help=text)


def run(given: Namespace) -> int:
    environ = dict(os.environ)
    for name, setting in Settings.declared.items():
        value = getattr(given, name)
        if value is None:
            continue
        try:
            setting.cast(value)
        except InvalidField as bad:
            shown = "…" if setting.secret else value[:40]
            raise UsageError(f"{flag(name)} {shown}: {bad.detail}") from None
        environ[PREFIX + name.upper()] = value
    try:
        from jobqueue.server.main import main
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("jobqueue"):
            raise
        say(
            f"the server needs {missing.name}, which is not installed for {sys.executable}: "
            "pip install 'jobqueue-http[server]', or in a checkout ./scripts/run.sh"
        )
        return REFUSED
    return main(environ)


SERVE: Final = Verb(declare, run)
