"""`jobqueue enqueue`: one job from arguments, or many from a file."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Final

import msgspec

from jobqueue.cli.arguments import (
    Parser,
    UsageError,
    add_connection,
    add_output,
    assignment,
    json_of,
    whole_number,
)
from jobqueue.cli.commands import Verb
from jobqueue.cli.exit_status import NOTHING, REFUSED
from jobqueue.cli.output import put, say
from jobqueue.cli.session import Session
from jobqueue.errors import JobQueueError

# Lines that are read at a time; `enqueue_many` makes one request of them, or several if they are long.
_PART: Final = 1000
_TEXTS: Final = (
    ("delay", "TIME", "run it after this, such as 10m"),
    ("run-at", "INSTANT", "run it then, such as 2026-12-24T18:00:00Z"),
    ("expires-in", "TIME", "dead if it has not started by then"),
    ("lease-for", "TIME", "how long a consumer has it"),
    ("max-run-for", "TIME", "the longest an attempt may take"),
    ("retain-for", "TIME", "how long it is kept when it is finished"),
    ("key", "KEY", "for the limits of each key"),
    ("unique-key", "KEY", "there is no second job with this one"),
    ("unique-while", "STATE", "queued, active or exists"),
    ("on-conflict", "WAY", "ignore, reject or replace"),
    ("content-type", "TYPE", "type of a payload from standard input that is not JSON"),
)


def declare(parser: Parser) -> None:
    parser.usage = (
        "jobqueue enqueue TYPE [KEY=VALUE|KEY:=JSON …] [options]\n"
        "       jobqueue enqueue TYPE - [options] < payload\n"
        "       jobqueue enqueue -f jobs.ndjson [options]"
    )
    add = parser.add_argument
    add("type", nargs="?", metavar="TYPE", help="type of the job")
    add(
        "payload", nargs="*", metavar="KEY=VALUE",
        help="a member of the payload, as text; KEY:=JSON for other values; -: the payload is standard input",
    )  # fmt: skip
    add(
        "-f",
        "--file",
        metavar="FILE",
        help="many jobs: one JSON object a line, as the API takes them; -: input",
    )
    add("-q", "--queue", metavar="QUEUE", help="queue (default)")
    add("-w", "--wait", metavar="TIME", help="wait for the end of the job, and show its result")
    add("--priority", type=whole_number, metavar="N", help="higher ones first (0)")
    add("--max-attempts", metavar="N", help="attempts before it is dead; none: no limit")
    add("--backoff", metavar="TIME,TIME", help="delays between attempts, such as 10s,5m")
    add("--tag", action="append", metavar="TAG", help="may be given several times")
    add("--header", action="append", metavar="KEY=VALUE", help="may be given several times")
    add("--idempotency-key", metavar="KEY", help="the same again changes nothing")
    for name, metavar, text in _TEXTS:
        add(f"--{name}", metavar=metavar, help=text)
    add_output(parser).add_argument("--id", action="store_true", help="the id only")
    add_connection(parser)


def run(given: Namespace) -> int:
    if given.file is not None:
        return _many(given)
    if given.type is None:
        raise UsageError("give the TYPE of the job, or -f FILE; `jobqueue enqueue --help` shows more")
    options = _options(given)
    payload = _payload(given)
    with Session(given) as session:
        job = session.client.jobs.enqueue(
            given.type, payload, idempotency_key=given.idempotency_key, wait=given.wait, **options
        )  # fmt: skip
        if given.id:
            put(f"{job.id}\n")
        else:
            session.show()
    if given.wait is None or job.status == "concluded":
        return 0
    if not job.finished:
        say(f"job {job.id} is {job.status} after {given.wait}")
        return NOTHING
    say(f"job {job.id} is {job.status}" + (f": {job.reason}" if job.reason else ""))
    return REFUSED


def _options(given: Namespace) -> Any:
    names = [name.replace("-", "_") for name, *_ in _TEXTS]
    found = {name: getattr(given, name) for name in ("queue", "priority", *names)}
    options = {name: value for name, value in found.items() if value is not None}
    if given.max_attempts is not None:
        options["max_attempts"] = _attempts(given.max_attempts)
    if given.backoff is not None:
        options["backoff"] = given.backoff.split(",")
    if given.tag is not None:
        options["tags"] = given.tag
    if given.header is not None:
        options["headers"] = dict(map(assignment, given.header))
    return options


def _attempts(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise UsageError(f"--max-attempts {text}: must be a whole number, or none")
    return int(text)


def _payload(given: Namespace) -> Any:
    if given.payload == ["-"]:
        data = sys.stdin.buffer.read()
        return data if given.content_type is not None else json_of(data)
    if given.content_type is not None:
        raise UsageError("--content-type is for a payload from standard input: give - as the payload")
    if not given.payload:
        return None
    return dict(map(assignment, given.payload))


def _many(given: Namespace) -> int:
    if given.type is not None or given.wait is not None:
        raise UsageError("-f has the types in the file, and does not wait")
    options = _options(given)
    with Session(given) as session:
        if given.file == "-":
            made = _enqueue_lines(session, given, sys.stdin.buffer, options)
        else:
            with open(given.file, "rb") as file:
                made = _enqueue_lines(session, given, file, options)
        if session.table and not given.id:
            put(f"enqueued {made:,}\n")
    return 0


def _enqueue_lines(session: Session, given: Namespace, lines: BinaryIO, options: dict[str, Any]) -> int:
    """Enqueues the jobs of all lines, a part of them at a time, so that a file may have any size.

    Returns their number. Says how many were enqueued before an error.
    """
    made = 0
    part: list[tuple[int, dict[str, Any]]] = []
    jobs = _jobs(lines, options)
    try:
        while part := list(islice(jobs, _PART)):
            key = None if given.idempotency_key is None else f"{given.idempotency_key}-{made}"
            done = session.client.jobs.enqueue_many((job for _, job in part), idempotency_key=key)
            made += len(done)
            if given.id:
                put("".join(f"{job.id}\n" for job in done))
            elif not session.table:
                put("".join(f'{{"id":{job.id},"status":"{job.status}"}}\n' for job in done))
    except UsageError:
        if made:
            say(f"{made:,} jobs of the lines before were enqueued")
        raise
    except JobQueueError as error:
        index, before = error.facts.get("index"), error.facts.get("enqueued")
        if isinstance(index, int):
            say(f"line {part[index][0]} was refused")
        say(f"{made + (before if isinstance(before, int) else 0):,} jobs of the lines before were enqueued")
        raise
    return made


def _jobs(lines: BinaryIO, options: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the job of each line with the line's number; `options` hold where a line says nothing else."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            kind = msgspec.json.decode(job["type"], type=str)
        except (msgspec.MsgspecError, KeyError) as bad:
            why = "it has no type" if isinstance(bad, KeyError) else str(bad)
            raise UsageError(f"line {number} is not a job: {why}") from None
        yield number, {**options, **job, "type": kind}


ENQUEUE: Final = Verb(declare, run)
