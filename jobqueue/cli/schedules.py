"""`jobqueue schedules`: recurring jobs."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any, Final

import msgspec

from jobqueue.cli.actions import Action, refuse_others
from jobqueue.cli.arguments import Parser, UsageError, add_connection, add_output, assignment, whole_number
from jobqueue.cli.commands import Verb
from jobqueue.cli.output import put, put_lines, say
from jobqueue.cli.session import Session
from jobqueue.client import NewJob
from jobqueue.client.models import ScheduleChanges

_PLAN: Final = (
    ("cron", "CRON", "when it is due, such as '30 2 * * *'"),
    ("every", "TIME", "in place of --cron: an interval, such as 15m"),
    ("timezone", "ZONE", "for --cron, such as Europe/Berlin (UTC)"),
    ("misfire", "WAY", "which missed instants run: once, skip or all"),
    ("grace", "TIME", "how old a missed instant may be that is run (1h)"),
    ("overlap", "WAY", "while an earlier job is unfinished: skip, allow or queue"),
    ("jitter", "TIME", "delay each job by a random time up to this"),
    ("starts-at", "INSTANT", "no instant is before this"),
    ("ends-at", "INSTANT", "no instant is after this"),
)
# Arguments and options that not every action takes.
_PLANNED: Final = tuple(name.replace("-", "_") for name, *_ in _PLAN)
_PREVIEWED: Final = ("cron", "every", "timezone", "starts_at", "ends_at")
_ARGUMENTS: Final = ("name", "type", "payload")
_OPTIONS: Final = (*_PLANNED, "queue", "priority", "group", "reason", "dry_run")


def declare(parser: Parser) -> None:
    parser.usage = (
        "jobqueue schedules [list|export]\n"
        "       jobqueue schedules put NAME TYPE [KEY=VALUE …] --cron CRON|--every TIME …\n"
        "       jobqueue schedules preview CRON [--timezone ZONE]|--every TIME [options]\n"
        "       jobqueue schedules show|history|explain|run|pause|resume|delete NAME\n"
        "       jobqueue schedules import [FILE]\n"
        "       jobqueue schedules sync MODULE:NAME --group GROUP [--dry-run]"
    )
    add = parser.add_argument
    add("what", nargs="?", default="list", choices=list(ACTIONS), metavar="ACTION", help=", ".join(ACTIONS))
    add("name", nargs="?", metavar="NAME", help="name of the schedule; or what the action says above")
    add("type", nargs="?", metavar="TYPE", help="type of its jobs")
    add("payload", nargs="*", metavar="KEY=VALUE", help="a member of their payload, as text; KEY:=JSON")
    for name, metavar, text in _PLAN:
        add(f"--{name}", metavar=metavar, help=text)
    add("--tz", dest="timezone", metavar="ZONE", help="the same as --timezone")
    add("-q", "--queue", metavar="QUEUE", help="queue of its jobs (default); of a list: only these")
    add("--priority", type=whole_number, metavar="N", help="priority of its jobs (0)")
    add("-g", "--group", metavar="GROUP", help="group of the schedule; of a list: only this one")
    add("--reason", metavar="TEXT", help="why it is paused")
    add("--dry-run", action="store_true", help="only show what sync would change")
    add_output(parser)
    add_connection(parser)


def run(given: Namespace) -> int:
    action = ACTIONS[given.what]
    refuse_others(given, f"schedules {given.what}", action, _ARGUMENTS, _OPTIONS)
    if given.name is None and given.what not in _NAMELESS:
        raise UsageError(f"schedules {given.what} needs an argument; `jobqueue schedules --help` shows it")
    return action.run(given)


def _list(given: Namespace) -> int:
    """Prints all schedules; in a pipe what `import` takes."""
    if given.what == "export":
        if given.text:
            raise UsageError(
                "schedules export takes no --text: it writes what `import` takes; list shows a table"
            )
        given.json, given.text = True, False
    with Session(given) as session:
        schedules = session.client.schedules
        session.put_pages(
            "schedules", lambda at: schedules.list(group=given.group, queue=given.queue, cursor=at).next
        )
    return 0


def _put(given: Namespace) -> int:
    if given.type is None:
        raise UsageError("give the NAME of the schedule and the TYPE of its jobs")
    plan = {name: value for name in (*_PLANNED, "group") if (value := getattr(given, name)) is not None}
    options: dict[str, Any] = {
        name: value for name in ("queue", "priority") if (value := getattr(given, name)) is not None
    }
    try:
        payload = dict(map(assignment, given.payload)) if given.payload else None
    except UsageError:
        if given.cron is not None and " " not in given.cron:
            raise UsageError("put the cron expression in quotes, such as --cron '30 2 * * *'") from None
        raise
    with Session(given) as session:
        # The names are those of the options; the server checks the values.
        job = NewJob(given.type, payload, options)  # type: ignore[arg-type]
        session.client.schedules.put(given.name, job, **plan)
        session.show()
    return 0


def _preview(given: Namespace) -> int:
    if [given.name, given.cron, given.every].count(None) != 2:
        raise UsageError("schedules preview needs an argument: CRON or --every TIME")
    plan = {name: getattr(given, name) for name in _PREVIEWED}
    plan["cron"] = given.cron or given.name
    with Session(given) as session:
        shown = session.client.schedules.preview(**plan)
        if session.table:
            lines = [due.strftime("%Y-%m-%dT%H:%M:%SZ") for due in shown.next]
            put("".join(f"{line}\n" for line in [shown.means, *lines]))
        else:
            session.show()
    return 0


def _one(verb: str) -> Callable[[Namespace], int]:
    """Returns the action that calls this verb with the name, and prints the answer."""

    def act(given: Namespace) -> int:
        with Session(given) as session:
            options = {"reason": given.reason} if verb == "pause" else {}
            getattr(session.client.schedules, verb)(given.name, **options)
            session.show()
        return 0

    return act


def _history(given: Namespace) -> int:
    with Session(given) as session:
        entries = session.client.schedules.history(given.name)
        if session.table:
            from jobqueue.web.writers.text_tables import table

            rows = [
                [
                    f"{entry.due_at:%Y-%m-%dT%H:%M:%SZ}",
                    entry.outcome,
                    str(entry.job or ""),
                    entry.reason or "",
                ]
                for entry in entries
            ]
            put(table([["DUE", "OUTCOME", "JOB", "REASON"], *rows]))
        else:
            put_lines(session.items("history"))
    return 0


def _explain(given: Namespace) -> int:
    with Session(given) as session:
        found = session.client.schedules.explain(given.name)
        if session.table:
            lines = [reason.detail for reason in found.reasons]
            if found.next_at is not None:
                lines.append(f"its next instant is {found.next_at:%Y-%m-%dT%H:%M:%SZ}")
            put("".join(f"{line}\n" for line in [given.name, *lines]))
        else:
            session.show()
    return 0


def _import(given: Namespace) -> int:
    if given.name in (None, "-"):
        lines = sys.stdin.buffer.readlines()
    else:
        with open(given.name, "rb") as file:
            lines = file.readlines()
    schedules = [_schedule(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    with Session(given) as session:
        _show_changes(session, session.client.schedules.import_many(schedules))
    return 0


def _schedule(number: int, line: bytes) -> dict[str, Any]:
    """Returns what the schedule in a line was made from, of what the server shows of it. Raises
    `UsageError`."""
    try:
        schedule = msgspec.json.decode(line, type=dict[str, Any])
    except ValueError as bad:  # also of bytes that are no UTF-8
        raise UsageError(f"line {number} is not a schedule: {bad}") from None
    shown = ("means", "next_at", "next", "last", "blocked", "pause", "created_at", "etag")
    return {name: value for name, value in schedule.items() if name not in shown}


def _sync(given: Namespace) -> int:
    if given.group is None:
        raise UsageError("schedules sync needs a --group: what is missing in the program is deleted from it")
    from jobqueue.worker.cli import load

    try:
        jobs = load(given.name)
    except (ImportError, ValueError) as bad:
        raise UsageError(f"cannot load {given.name}: {bad}") from None
    with Session(given) as session:
        new = [schedule.new() for schedule in jobs.schedules.values()]
        changes = session.client.schedules.put_group(given.group, new, dry_run=given.dry_run)
        _show_changes(session, changes)
        if given.dry_run:
            say("nothing was changed")
    return 0


def _show_changes(session: Session, changes: ScheduleChanges) -> None:
    if not session.table:
        put(msgspec.json.encode(changes) + b"\n")
        return
    for what in ("created", "changed", "unchanged", "deleted"):
        put("".join(f"{what} {name}\n" for name in getattr(changes, what)))


ACTIONS: Final[dict[str, Action]] = {
    "list": Action(_list, ("queue", "group")),
    "show": Action(_one("get"), ("name",)),
    "put": Action(_put, (*_ARGUMENTS, *_PLANNED, "queue", "priority", "group")),
    "preview": Action(_preview, ("name", *_PREVIEWED)),
    "run": Action(_one("run"), ("name",)),
    "pause": Action(_one("pause"), ("name", "reason")),
    "resume": Action(_one("resume"), ("name",)),
    "delete": Action(_one("delete"), ("name",)),
    "history": Action(_history, ("name",)),
    "explain": Action(_explain, ("name",)),
    "export": Action(_list, ("queue", "group")),
    "import": Action(_import, ("name",)),
    "sync": Action(_sync, ("name", "group", "dry_run")),
}
# Actions that need no first argument.
_NAMELESS: Final = ("list", "preview", "export", "import")
SCHEDULES: Final = Verb(declare, run)
