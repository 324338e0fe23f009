"""Finds the command in the arguments, runs it, and turns what it raises into an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches

from jobqueue.cli.arguments import Parser, UsageError
from jobqueue.cli.commands import COMMANDS, GROUPS, Command
from jobqueue.cli.exit_status import NOTHING, REFUSED, UNREACHABLE, USAGE
from jobqueue.cli.output import say
from jobqueue.errors import BadInput, JobForgotten, JobNotFound, JobQueueError, ScheduleNotFound
from jobqueue.standard_streams import complain
from jobqueue.version import VERSION


def main(arguments: Sequence[str]) -> int:
    """Runs the command in `arguments`. Returns its exit status."""
    try:
        status = _status(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        return status
    except BrokenPipeError:  # as `| head` does
        return _end_by(signal.SIGPIPE)
    except KeyboardInterrupt:
        return _end_by(signal.SIGINT)
    except OSError as failed:
        what = (
            "cannot read the input or write the output" if failed.filename is None else str(failed.filename)
        )
        say(f"{what}: {failed.strerror or failed}")
        _drop_output()
        return REFUSED


def _status(arguments: Sequence[str]) -> int:
    try:
        return _run(arguments)
    except SystemExit as ended:  # argparse has printed the help
        return ended.code if isinstance(ended.code, int) else 0
    except UsageError as bad:
        say(str(bad))
        return USAGE
    except JobQueueError as error:
        return _refused(error)


def _run(arguments: Sequence[str]) -> int:
    if not arguments:
        complain(help_text())
        return USAGE
    name, rest = arguments[0], arguments[1:]
    if name == "help" and rest:
        return _run([rest[0], "--help"])
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name in ("-V", "--version"):
        print(f"jobqueue {VERSION}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        near = get_close_matches(name, COMMANDS, 1)
        if name.startswith("-"):
            hint = "options come after a command, such as `jobqueue serve --port 8080`"
        else:
            hint = f"did you mean {near[0]}?" if near else "`jobqueue --help` lists them"
        raise UsageError(f"there is no command {name!r}; {hint}")
    verb = command.load()
    given, own = rest, None
    if name == "work" and "--" in rest:  # what follows belongs to the command that is run for each job
        at = list(rest).index("--")
        given, own = rest[:at], rest[at + 1 :]
    parser = parser_of(command)
    parsed, more = parser.parse_known_intermixed_args(given)
    if more:
        raise parser.unknown(more[0])
    if name == "work":
        parsed.command = own
    return verb.run(parsed)


def parser_of(command: Command) -> Parser:
    """Returns the parser of a command's arguments."""
    summary = command.summary[0].upper() + command.summary[1:] + "."
    parser = Parser(prog=f"jobqueue {command.name}", description=summary)
    command.load().declare(parser)
    return parser


def help_text() -> str:
    """Returns the list of commands."""
    lines = [
        f"jobqueue {VERSION}: a job queue with an HTTP API",
        "",
        "Usage: jobqueue COMMAND [ARGUMENTS]   `jobqueue COMMAND --help` shows more",
    ]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {command.name:11} {command.summary}" for command in commands]
    lines += [
        "",
        "JOBQUEUE_URL is the address of the server (http://localhost:8080), and",
        "JOBQUEUE_TOKEN the access token.",
        "Exit status: 0 done, 1 refused, 2 wrong arguments, 3 nothing there, 4 no answer.",
    ]
    return "\n".join(lines)


def _refused(error: JobQueueError) -> int:
    from jobqueue.client.errors import AnswerLost, Unreachable

    hint = ""
    if isinstance(error, Unreachable) and not error.facts.get("permanent"):
        hint = "; does a server run there? --url names another one"
    elif error.status == 401:
        hint = "; this command takes it from JOBQUEUE_TOKEN or a context"
    say(f"{error.detail}{hint}" + (f" ({error.code})" if error.status else ""))
    if isinstance(error, (Unreachable, AnswerLost)):
        return UNREACHABLE
    if isinstance(error, (JobNotFound, JobForgotten, ScheduleNotFound)):
        return NOTHING
    if isinstance(error, BadInput) and error.status is None:
        return USAGE  # found before anything was sent
    return REFUSED


def _end_by(number: signal.Signals) -> int:
    """Ends the process as the signal does, which is what a shell looks at."""
    _drop_output()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _drop_output() -> None:
    # What is left in the buffers cannot be written either. Python would try that at its exit, and from 3.13
    # on shows a traceback when it drops a stream that was not closed.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.close()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open until the exit)
