"""The table of commands. What a command needs is imported when it is used, so that `--help` is fast."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from jobqueue.cli.arguments import Parser


class Verb(NamedTuple):
    """`declare` adds the arguments to a parser. `run` returns the exit status."""

    declare: Callable[[Parser], None]
    run: Callable[[Namespace], int]


class Command(NamedTuple):
    """One row: the name, a line about it, and where its `Verb` is: a module of this package and a name."""

    name: str
    summary: str
    module: str
    verb: str

    def load(self) -> Verb:
        found = getattr(import_module(f"jobqueue.cli.{self.module}"), self.verb)
        assert isinstance(found, Verb)
        return found


GROUPS: Final[dict[str, tuple[Command, ...]]] = {
    "The server": (
        Command("serve", "start the server", "serve", "SERVE"),
        Command("token", "make an access token", "maintain", "TOKEN"),
        Command("journal", "verify, repair, dump or back up the journal", "maintain", "JOURNAL"),
        Command("migrate", "copy the journal from a folder to PostgreSQL, or back", "maintain", "MIGRATE"),
    ),
    "Jobs": (
        Command("enqueue", "enqueue a job, or a file of them", "enqueue", "ENQUEUE"),
        Command("work", "run jobs: Python functions, or a command for each job", "work", "WORK"),
        Command("dequeue", "take one job under a lease", "consume", "DEQUEUE"),
        Command("conclude", "finish a job that was taken", "consume", "CONCLUDE"),
        Command("fail", "report that a job that was taken has failed", "consume", "FAIL"),
        Command("release", "give back a job that was taken", "consume", "RELEASE"),
        Command("job", "show or change one job, or say why it waits", "job", "JOB"),
        Command("jobs", "list or count jobs", "show", "JOBS"),
        Command("cancel", "cancel jobs", "jobs", "CANCEL"),
        Command("retry", "put dead jobs back to work", "jobs", "RETRY"),
        Command("run-now", "make scheduled jobs ready", "jobs", "RUN_NOW"),
        Command("move", "put jobs into another queue", "jobs", "MOVE"),
        Command("purge", "remove jobs of a queue", "jobs", "PURGE"),
    ),
    "Queues": (
        Command("queues", "show all queues, or one", "show", "QUEUES"),
        Command("pause", "stop deliveries from a queue", "queues", "PAUSE"),
        Command("resume", "end a pause", "queues", "RESUME"),
        Command("set", "change the settings of a queue", "queues", "SET"),
        Command("export", "write the jobs of a queue, one a line", "transfer", "EXPORT"),
        Command("import", "read exported jobs", "transfer", "IMPORT"),
    ),
    "Schedules": (
        Command("schedules", "list, put, preview, run and pause schedules", "schedules", "SCHEDULES"),
    ),
    "Watching": (
        Command("top", "a live screen", "watch", "TOP"),
        Command("tail", "what happens to jobs, as it happens", "watch", "TAIL"),
        Command("ping", "whether the server takes requests", "watch", "PING"),
        Command("bench", "put a small load on the server, and measure", "bench", "BENCH"),
        Command("openapi", "print the OpenAPI document of the API", "show", "OPENAPI"),
    ),
    "This command line": (
        Command("context", "remember addresses and tokens of servers", "context", "CONTEXT"),
        Command("completion", "complete commands in bash, zsh or fish", "completion", "COMPLETION"),
    ),
}
COMMANDS: Final = {command.name: command for group in GROUPS.values() for command in group}
