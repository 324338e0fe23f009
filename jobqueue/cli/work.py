"""`jobqueue work`: runs the jobs that a Python module declares, or a command for each job."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Final

from jobqueue.cli.arguments import Parser, UsageError, add_connection
from jobqueue.cli.commands import Verb
from jobqueue.cli.session import Server, server_of
from jobqueue.errors import InvalidField
from jobqueue.units import duration_ms

# The worker that the server hands out; it runs a command for each job.
WORKER: Final = Path(__file__).parents[1] / "web" / "static" / "worker.py"


def declare(parser: Parser) -> None:
    parser.usage = (
        "jobqueue work MODULE:NAME [options]\n       jobqueue work -q QUEUES [options] -- COMMAND [ARGUMENT…]"
    )
    add = parser.add_argument
    add("jobs", nargs="?", metavar="MODULE:NAME", help="a Jobs object, such as shop.jobs:jobs")
    add("-q", "--queues", metavar="A,B", help="queues, in this order (the queue `default`)")
    add("-c", "--concurrency", metavar="N", help="jobs at a time: 16 functions in a process, or 1 command")
    add("-l", "--lease-for", metavar="TIME", help="lease of a job; it is renewed")
    add("-g", "--grace", metavar="TIME", help="how long jobs may run on after a signal (8s)")
    add("-n", "--name", metavar="NAME", help="name of the consumer (host and process)")
    add("-v", "--verbose", action="store_true", help="log more")
    functions = parser.add_argument_group("functions only").add_argument
    functions("-p", "--processes", metavar="N", help="number of processes (1)")
    functions(
        "--reload", action="store_true", help="start again when a Python file below this folder changes"
    )
    commands = parser.add_argument_group("commands only").add_argument
    commands("-o", "--once", action="store_true", help="exit when there is no job")
    commands("-t", "--type", metavar="TYPE", help="media type of the command's output (text/plain)")
    commands("-d", "--delay", metavar="TIME", help="delay of a job whose command exits with 75 (10s)")
    add_connection(parser, retries=False)


def run(given: Namespace) -> int:
    server = server_of(given)
    if server.cert is not None:
        raise UsageError("work takes no --cert; in a module, give it to Jobs(Client(cert=…))")
    os.environ["JOBQUEUE_URL"] = server.url
    if server.token is not None:
        os.environ["JOBQUEUE_TOKEN"] = server.token
    if given.command is None:
        return _functions(given, server)
    return _command(given, server)


def _functions(given: Namespace, server: Server) -> int:
    if given.jobs is None:
        raise UsageError("give MODULE:NAME, or `--` and a command; `jobqueue work --help` shows more")
    if given.once or given.type or given.delay:
        raise UsageError("--once, --type and --delay are for commands, which come after `--`")
    if server.ca is not None:
        raise UsageError("a module takes no --ca: give it to Jobs(ca=…)")
    from jobqueue.worker.cli import main

    named = ("queues", "concurrency", "lease_for", "grace", "name", "processes")
    options = [(name, getattr(given, name)) for name in named]
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options if value is not None]
    flags = [f"--{name}" for name in ("reload", "verbose") if getattr(given, name)]
    return main([given.jobs, *arguments, *flags])


def _command(given: Namespace, server: Server) -> int:
    """Becomes the worker: the process keeps its id, and signals reach the worker itself."""
    if given.jobs is not None or given.processes is not None or given.reload:
        raise UsageError(
            "MODULE:NAME, --processes and --reload are for functions; what follows `--` is a command"
        )
    if not given.command:
        raise UsageError("give the command after `--`")
    if any(address.socket is not None for address in server.addresses):
        raise UsageError(
            "a worker for a command needs an address such as http://localhost:8080, no Unix socket"
        )
    arguments = [
        *_option("-j", given.concurrency),
        *_option("-l", _seconds(given, "lease_for")),
        *_option("-g", _seconds(given, "grace")),
        *_option("-d", _seconds(given, "delay")),
        *_option("-n", given.name),
        *_option("-t", given.type),
        *_option("--ca", server.ca),
        *(["-o"] if given.once else []),
        *(["-v"] if given.verbose else []),
    ]
    sys.stdout.flush()
    os.execv(
        sys.executable,
        [sys.executable, "-I", str(WORKER), *arguments, given.queues or "default", "--", *given.command],
    )


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _seconds(given: Namespace, name: str) -> str | None:
    """Returns a duration as whole seconds, which is what the worker takes."""
    value = getattr(given, name)
    if value is None:
        return None
    try:
        return str(-(-duration_ms(value) // 1000))
    except InvalidField as bad:
        raise UsageError(f"--{name.replace('_', '-')} {value}: {bad.detail}") from None


WORK: Final = Verb(declare, run)
