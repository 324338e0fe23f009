"""`jobqueue job`: one job. It is shown, or the action is done."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from jobqueue.cli.actions import Action, refuse_others
from jobqueue.cli.arguments import Parser, UsageError, add_connection, add_output, whole_number
from jobqueue.cli.changes import JOB_NAMES, changes_of_job
from jobqueue.cli.commands import Verb
from jobqueue.cli.exit_status import NOTHING
from jobqueue.cli.jobs import cancel, retry, run_now
from jobqueue.cli.output import put, say
from jobqueue.cli.session import Session

_ARGUMENTS: Final = ("changes",)
_OPTIONS: Final = ("wait", "force", "lease", "name", "lease_for", "progress", "message")


def declare(parser: Parser) -> None:
    parser.usage = (
        "jobqueue job ID [--wait TIME]\n"
        "       jobqueue job ID explain|retry|run-now\n"
        "       jobqueue job ID cancel [--force]\n"
        "       jobqueue job ID edit NAME=VALUE|NAME:=JSON …\n"
        "       jobqueue job ID lease [--lease-for TIME] [--name NAME]\n"
        "       jobqueue job ID heartbeat --lease LEASE|--name NAME [options]"
    )
    parser.epilog = f"Names for edit: {', '.join(JOB_NAMES)}. The value `default` is the default again."
    add = parser.add_argument
    add("id", type=whole_number, metavar="ID", help="id of the job")
    add(
        "action", nargs="?", default="show", choices=list(ACTIONS), metavar="ACTION",
        help="show (default); explain: why it waits; cancel; retry: if it is dead; run-now: if it is "
        "scheduled; edit: while it waits; lease: take it before its turn; heartbeat: extend its lease",
    )  # fmt: skip
    add("changes", nargs="*", default=[], metavar="NAME=VALUE", help="of edit, such as priority=5 queue=mail")
    add("-w", "--wait", metavar="TIME", help="wait for its end, up to 60s")
    add("--force", action="store_true", help="of cancel: also take it away from its consumer")
    add("--lease", metavar="LEASE", help="of heartbeat: the lease that came with the job")
    add("-n", "--name", metavar="NAME", help="name of the consumer; of heartbeat if there is no lease")
    add("-l", "--lease-for", metavar="TIME", help="how long it is leased from now on")
    add("--progress", type=whole_number, metavar="N", help="of heartbeat: progress, 0 to 100")
    add("--message", metavar="TEXT", help="of heartbeat: what it is doing")
    add_output(parser)
    add_connection(parser)


def run(given: Namespace) -> int:
    action = ACTIONS[given.action]
    refuse_others(given, f"job {given.action}", action, _ARGUMENTS, _OPTIONS)
    return action.run(given)


def _show(given: Namespace) -> int:
    with Session(given) as session:
        job = session.client.jobs.get(given.id, wait=given.wait)
        session.show()
    if given.wait and not job.finished:
        say(f"job {job.id} is {job.status} after {given.wait}")
        return NOTHING
    return 0


def _explain(given: Namespace) -> int:
    with Session(given) as session:
        explained = session.client.jobs.explain(given.id)
        if session.table:
            lines = [reason.detail for reason in explained.reasons] or ["the next dequeue gets it"]
            put(f"{given.id} {explained.status}\n" + "".join(f"{line}\n" for line in lines))
        else:
            session.show()
    return 0


def _cancel(given: Namespace) -> int:
    with Session(given) as session:
        cancel(session, given.id, given.force)
    return 0


def _retry(given: Namespace) -> int:
    with Session(given) as session:
        retry(session, given.id)
    return 0


def _run_now(given: Namespace) -> int:
    with Session(given) as session:
        run_now(session, given.id)
    return 0


def _edit(given: Namespace) -> int:
    if not given.changes:
        raise UsageError("job edit needs a change, such as priority=5")
    changes = changes_of_job(given.changes)
    with Session(given) as session:
        session.client.jobs.change(given.id, **changes)
        session.show()
    return 0


def _lease(given: Namespace) -> int:
    with Session(given) as session:
        job = session.client.jobs.dequeue_job(given.id, lease_for=given.lease_for, consumer=given.name)
        if job is None:
            say(f"job {given.id} was not taken: its queue is {session.last.header('queue-state')}")
            return NOTHING
        session.show()
    return 0


def _heartbeat(given: Namespace) -> int:
    with Session(given) as session:
        job = session.client.jobs.heartbeat(
            given.id, lease=given.lease, consumer=given.name, lease_for=given.lease_for,
            progress=given.progress, message=given.message,
        )  # fmt: skip
        session.show()
    if job.cancel_requested:
        say(f"job {job.id} is to be stopped: somebody has cancelled it")
    return 0


ACTIONS: Final[dict[str, Action]] = {
    "show": Action(_show, ("wait",)),
    "explain": Action(_explain),
    "cancel": Action(_cancel, ("force",)),
    "retry": Action(_retry),
    "run-now": Action(_run_now),
    "edit": Action(_edit, ("changes",)),
    "lease": Action(_lease, ("name", "lease_for")),
    "heartbeat": Action(_heartbeat, ("lease", "name", "lease_for", "progress", "message")),
}
JOB: Final = Verb(declare, run)
