"""A journal in PostgreSQL beside one in a file, on the same disk in the same run: to the owner of the jobs directly, and
through a server on standby that passes the connections on."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from postgres_server import Postgres, installed

from tests.bench import processes
from tests.bench.journal import Durable
from tests.bench.lifecycles import Rounds, Subject, beside
from tests.bench.processes import Server
from tests.bench.report import Report, Skip, figure, how_many, spread

FILE, DATABASE, PASSED_ON = "file, sync always", "PostgreSQL", "PostgreSQL, through a standby"


class Member(Server):
    """A server on a database. The first one counts as up when it has loaded."""

    def __init__(self, url: str, first: bool) -> None:
        super().__init__("fast", data=url)
        self._said = "loaded" if first else "is on standby"

    def is_up(self) -> bool:
        found = re.search(r" on http://\S+:(\d+) ", self.output())
        self.port = int(found[1]) if found else 0
        return found is not None and self._said in self.output()


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("postgres: a journal in PostgreSQL")
    with (
        tempfile.TemporaryDirectory(prefix="jobqueue-bench-", dir="/var/tmp") as scratch,
        _database() as url,
        Durable(Path(scratch), "always") as file,
        Member(url, True) as owner,
        Member(url, False) as standby,
    ):
        subjects: dict[str, Subject] = {
            FILE: ("http", file), DATABASE: ("http", owner), PASSED_ON: ("http", standby),
        }  # fmt: skip
        rounds = beside(subjects, quick, 3)
    for count in rounds.connections:
        _table(report, count, rounds)
    return report


@contextlib.contextmanager
def _database() -> Iterator[str]:
    """The URL of a database whose commits are on the disk."""
    if not installed:
        raise Skip("postgresql is not installed; on Debian and Ubuntu: apt install postgresql")
    cluster = Postgres(sync=True, parent="/var/tmp")
    try:
        yield cluster.url(cluster.create_database())
    finally:
        cluster.remove()


def _table(report: Report, count: int, rounds: Rounds) -> None:
    found = rounds.of(count)
    against = rounds.against(count)
    rows = [
        [
            name,
            spread([load.rate for load in loads]),
            figure(median(load.p50 for load in loads) / 1000),
            spread([load.p99 / 1000 for load in loads]),
            spread(against(name, FILE)),
            figure(median(load.cost for load in loads)),
        ]
        for name, loads in found.items()
    ]
    head = ["", "lifecycles/s", "p50, ms", "p99, ms", "rate : the file's", "server's CPU, µs each"]
    report.table(rounds.caption(count), head, rows)
    if count > 1:
        over = how_many(count, "connection")
        report.at_least(f"{DATABASE} against {FILE}, {over}", median(against(DATABASE, FILE)), 0.5, "times")
