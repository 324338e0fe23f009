"""What several servers of one database do together, against one of them: rates with little CPU time for each server,
and the CPU time of a request that is passed on."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Self

from postgres_server import Postgres
from running import Program

from jobqueue.shards import shard_of_queue
from tests.bench.processes import cpu_seconds, generator
from tests.cluster.crew import Crew, servers
from tests.cluster.shard_scenes import SHARDS

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/cpu")
# Microseconds. In shorter ones a server gets more than its part.
_PERIOD = 100_000
# Clients in all, and processes that make their requests for each server.
_CLIENTS = 384
_GENERATORS = 4
# Requests in the life of a job: enqueue, dequeue, conclude.
_CALLS = 3
_QUEUES = 8


class Quota:
    """A part of one CPU for one process, for the length of a `with`. Needs root."""

    def __init__(self, part: float, name: str) -> None:
        v2 = (_V2 / "cgroup.controllers").exists()
        self._folder = (_V2 if v2 else _V1) / f"jobqueue-{os.getpid()}-{name}"
        self._limits = (
            {"cpu.max": f"{int(part * _PERIOD)} {_PERIOD}"}
            if v2
            else {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(int(part * _PERIOD))}
        )

    def __enter__(self) -> Self:
        self._folder.mkdir()
        try:
            for name, value in self._limits.items():
                (self._folder / name).write_text(value)
        except BaseException:
            self._folder.rmdir()
            raise
        return self

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def __exit__(self, *_: object) -> None:
        for pid in (self._folder / "cgroup.procs").read_text().split():
            (self._folder.parent / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


def missing() -> str | None:
    """Returns why CPU time cannot be limited here; None if it can."""
    try:
        with Quota(0.5, "probe"):
            return None
    except OSError as bad:
        return f"control groups cannot be made here: {bad}"


class Measured(NamedTuple):
    """`jobs`: lives of jobs a second. `request`: microseconds of CPU time of all servers for a request. `used`: the
    part of a CPU that each server used. `p50`: of a request, in milliseconds."""

    jobs: float
    request: float
    used: list[float]
    p50: float


def _script(queues: Sequence[str]) -> str:
    steps: list[str] = []
    for queue in queues:
        enqueue = json.dumps({"type": "x", "queue": queue, "payload": "y" * 100})
        steps += [
            f"POST /jobs/enqueue\n{enqueue}",
            f"POST /jobs/dequeue\n{json.dumps({'queue': queue})}",
            'POST /jobs/{id}/conclude\n{"lease":"{lease}"}',
        ]
    return "\n%%\n".join(steps)


def _load(
    servers: Sequence[Program],
    asked: Sequence[tuple[Program, Sequence[str]]],
    clients: int,
    seconds: float,
) -> Measured:
    """Measures `servers` while clients ask those in `asked` for jobs of queues, each client for all of them in turn."""
    before = [cpu_seconds(server.pid) for server in servers]
    running = []
    for server, queues in asked:
        for number in range(generators := min(_GENERATORS, clients // len(asked))):
            first = number * len(queues) // generators
            script = _script([*queues[first:], *queues[:first]])
            share = clients // len(asked) // generators
            command = [generator(), "http", str(server.port), str(share), str(seconds), "-"]
            running.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stdin = running[-1].stdin
            assert stdin is not None
            stdin.write(script)
            stdin.close()
            running[-1].stdin = None
    found: list[dict[str, Any]] = [json.loads(each.communicate(timeout=seconds + 60)[0]) for each in running]
    used = [cpu_seconds(server.pid) - at for server, at in zip(servers, before, strict=True)]
    errors = [each["first_error"] for each in found if each["errors"]]
    assert not errors, errors
    requests = sum(each["requests"] for each in found)
    return Measured(
        requests / _CALLS / seconds,
        sum(used) / requests * 1e6,
        [each / seconds for each in used],
        statistics.median(each["p50"] for each in found) / 1000,
    )


def _queues(crew: Crew, servers: Sequence[Program], each: int) -> list[str]:
    """Returns names of queues, so many of each server, of a family each. Those of the servers alternate."""
    owners = crew.owners()
    parts = []
    for server in servers:
        own = (f"queue{n}" for n in count())
        wanted = (name for name in own if owners[shard_of_queue(name, crew.shards)] == str(server.pid))
        parts.append([next(wanted) for _ in range(each)])
    return [name for names in zip(*parts, strict=True) for name in names]


def _rate(
    postgres: Postgres, number: int, part: float, seconds: float, shards: int = SHARDS, direct: bool = False
) -> Measured:
    """Measures so many servers, each with that part of a CPU, on a new database. `direct`: each is asked for its own
    jobs only, as by clients that follow `Job-Server`."""
    with ExitStack() as stack:
        crew = Crew(postgres, postgres.create_database(), shards)
        stack.callback(crew.end)
        crew.start_all(number)
        if shards > 1:
            queues = _queues(crew, crew.servers, _QUEUES // number)
        else:
            queues = [f"queue{n}" for n in range(_QUEUES)]
        asked = [
            (server, queues[index::number] if direct else queues) for index, server in enumerate(crew.servers)
        ]
        for index, server in enumerate(crew.servers):
            stack.enter_context(Quota(part, str(index))).add(server.pid)
        _load(crew.servers, asked, _CLIENTS, 2)  # until all is warm
        measured = _load(crew.servers, asked, _CLIENTS, seconds)
    whom = ", owners asked" if direct else ""
    used = ", ".join(f"{each:.2f}" for each in measured.used)
    print(
        f"\n  {number} servers, {shards} shards, {part} CPU each{whom}: {measured.jobs:.0f} jobs/s, {measured.request:.0f} µs of "
        f"CPU a request, p50 {measured.p50:.0f} ms, used {used}", end="", file=sys.stderr, flush=True,
    )  # fmt: skip
    return measured


def growth(seconds: int) -> str:
    """1 and 2 servers with 0.2 CPUs each, 1 and 4 with 0.1 each. PostgreSQL and the clients are not limited. Families
    are spread evenly over the servers. Clients ask any server, or those who own the jobs."""
    said, factors = [], []
    postgres = Postgres()
    try:
        for number, part in ((2, 0.2), (4, 0.1)):
            one, many, owners = [], [], []
            for _ in range(3):
                one.append(_rate(postgres, 1, part, seconds))
                many.append(_rate(postgres, number, part, seconds))
                owners.append(_rate(postgres, number, part, seconds, direct=True))
            before, after, directly = (
                sum(each.jobs for each in found) / len(found) for found in (one, many, owners)
            )
            costs = [statistics.mean(each.request for each in found) for found in (one, many)]
            factors.append((after / before, directly / before))
            single = _rate(postgres, 1, part, seconds, shards=1).jobs
            said.append(
                f"1 → {number} servers of {part} CPUs: {before:.0f} → {after:.0f} jobs/s, {after / before:.2f} ×; by the CPU "
                f"time of a request, {costs[0]:.0f} → {costs[1]:.0f} µs, {number * costs[0] / costs[1]:.2f} ×; if the owners are "
                f"asked {directly:.0f}, {directly / before:.2f} ×; one server of a database with one shard: {single:.0f}"
            )
    finally:
        postgres.remove()
    assert min(factors[0]) >= 1.7, said
    assert min(factors[1]) >= 3, said
    return "; ".join(said)


def passed_on(seconds: int) -> str:
    """The CPU time of two servers for a request that one of them passes on, less that of one that it answers itself.
    What they use without any clients is left out."""
    said, more = [], {}
    with servers(2, SHARDS) as crew:
        asked, other = crew.servers
        before = [cpu_seconds(server.pid) for server in crew.servers]
        time.sleep(seconds)
        idle = sum(cpu_seconds(server.pid) for server in crew.servers) - sum(before)
        said.append(f"idle: {idle / seconds * 100:.1f} % of a CPU")
        own, others = _queues(crew, [asked], _QUEUES), _queues(crew, [other], _QUEUES)
        for clients in (1, 32, 128):
            found: dict[str, list[float]] = {"own": [], "others": []}
            for _ in range(3):
                for name, queues in (("own", own), ("others", others)):
                    load = _load(crew.servers, [(asked, queues)], clients, seconds)
                    requests = load.jobs * _CALLS * seconds
                    found[name].append((sum(load.used) * seconds - idle) / requests * 1e6)
            here, there = statistics.median(found["own"]), statistics.median(found["others"])
            more[clients] = there - here
            said.append(
                f"{clients} clients: {here:.0f} µs a request, passed on {there:.0f}, {there - here:.0f} more"
            )
    assert more[128] <= 25, said
    return "; ".join(said)
