"""Servers on one PostgreSQL database, and clients that ask them at random."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any

from postgres_server import Postgres
from running import MODULE, Program, until

from jobqueue.shards import shard_of_queue
from tests.crash.clients import Answer, Caller, Crowd, Cut, Unsent, all_jobs
from tests.crash.ledger import Ledger, check


class Crew:
    """The servers on a database of `postgres`: a `Postgres`, or what has its `url` and `sql`. `servers`: those that
    run. With several `shards` each of them is the owner of some."""

    def __init__(self, postgres: Any, database: str, shards: int = 1) -> None:
        self.postgres, self.database, self.shards = postgres, database, shards
        self.servers: list[Program] = []
        self._names = count()

    def start(self, inside: tuple[str, ...] = (), host: str = "127.0.0.1", **settings: str) -> Program:
        """Starts a server, and waits until it serves or stands by. `inside`: a command that starts it in a network of
        its own, where its address is `host`."""
        own = {
            "JOBQUEUE_DATA": self.postgres.url(self.database), "JOBQUEUE_RETAIN": "24h",
            "JOBQUEUE_RETAIN_JOBS": "10000000", "JOBQUEUE_RETAIN_BYTES": "8GiB", "JOBQUEUE_ACCESS_LOG": "off",
            "JOBQUEUE_SHARDS": str(self.shards),
        }  # fmt: skip
        server = Program((*inside, *MODULE), True, host, **own | settings)
        server.__enter__()
        self.servers.append(server)
        return server

    def start_all(self, count: int) -> None:
        for _ in range(count):
            self.start()
            self.wait_until_served()
        if self.shards > 1:
            self.wait_until_spread()

    def sql(self, text: str) -> str:
        found: str = self.postgres.sql(text, self.database)
        return found

    def owner_pid(self) -> str:
        return self.sql("SELECT process FROM jobqueue.session WHERE alive AND owner")

    @property
    def owner(self) -> Program | None:
        """The server that is the owner and has loaded; None while there is none."""
        found = self.owner_pid()
        for server in self.servers:
            if str(server.pid) == found and server.running:
                with suppress(OSError):
                    if server.call("GET", "/readyz")[0] == 200:
                        return server
        return None

    def wait_for_owner(self, seconds: float = 20) -> Program:
        until(lambda: self.owner is not None, seconds)
        owner = self.owner
        assert owner is not None
        return owner

    def others(self) -> list[Program]:
        owner = self.owner
        return [server for server in self.servers if server is not owner and server.running]

    # -- several shards -----------------------------------------------------------------------------

    def owners(self) -> dict[int, str]:
        """Returns the process of the owner of each shard that has one, as the database says."""
        rows = self.sql("SELECT shard, process FROM jobqueue.session WHERE alive AND owner").splitlines()
        return {int(shard): process for shard, _, process in (row.partition("|") for row in rows)}

    def shards_of(self, server: Program) -> list[int]:
        return [shard for shard, process in self.owners().items() if process == str(server.pid)]

    def queue_of(self, server: Program) -> str:
        """Returns the name of a new queue whose shard this server owns."""
        shards = self.shards_of(server)
        return next(name for n in self._names if shard_of_queue(name := f"queue{n}", self.shards) in shards)

    def is_served(self, at: Program | None = None) -> bool:
        """Returns whether all jobs can be read, at one of the servers or at that one."""
        with suppress(OSError, ValueError, IndexError), (at or self.servers[0]).connect() as connection:
            connection.socket.settimeout(2)
            return connection.call("GET", "/jobs?limit=1").status == 200
        return False

    def wait_until_served(self, seconds: float = 20) -> None:
        until(self.is_served, seconds)

    def wait_until_spread(self, seconds: float = 30) -> None:
        """Waits until each server owns its part of the shards."""
        most = -(-self.shards // len(self.servers))

        def spread() -> bool:
            found = list(self.owners().values())
            return len(found) == self.shards and all(
                0 < found.count(str(server.pid)) <= most for server in self.servers
            )

        until(spread, seconds)
        self.wait_until_served(seconds)

    # -- the end of servers -------------------------------------------------------------------------

    def kill(self, server: Program) -> None:
        self.servers.remove(server)
        server.signal(signal.SIGKILL)
        server.exit_status()
        server.__exit__(None)

    def stop(self, server: Program) -> None:
        self.servers.remove(server)
        status = server.stop()
        assert status == 0, (status, server.lines)
        server.__exit__(None)

    def end(self) -> None:
        with ExitStack() as stack:  # a server that has logged an error fails the test, after all have ended
            for server in self.servers:
                with suppress(ProcessLookupError):
                    server.signal(signal.SIGCONT)
                stack.callback(server.__exit__, None)


@contextmanager
def servers(count: int, shards: int = 1) -> Iterator[Crew]:
    """Servers on a database of their own."""
    with ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.remove)
        crew = Crew(postgres, postgres.create_database(), shards)
        stack.callback(crew.end)
        crew.start_all(count)
        yield crew


class Roaming(Caller):
    """A client that goes to another server of the crew, picked at random, after each few requests. `seen` gets what
    it sees."""

    def __init__(self, crew: Crew, seen: "Seen", seed: int) -> None:
        super().__init__(0, 30)
        self._crew, self._seen = crew, seen
        self._random = random.Random(seed)
        self._left = 0

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self._connection is None or self._left == 0:
            self.close()
            server = self._random.choice(self._crew.servers)
            self._host, self._port = server.host, server.port
            self._left = self._random.randint(1, 20)
        self._left -= 1
        began = time.monotonic()
        try:
            answer = super().call(method, path, body, **headers)
        except (Unsent, Cut, ValueError):
            self._seen.lost += 1
            time.sleep(0.02)
            raise
        self._seen.times.append(time.monotonic() - began)
        if answer.status == 503:
            self._seen.refused.append((answer.json or {}).get("code", ""))
            if "retry-after" not in answer.headers:
                self._seen.wrong.append(f"503 without Retry-After: {answer}")
            time.sleep(0.1)
        return answer


class Seen:
    """What clients have seen: the seconds that each answer took, the codes of the answers 503, how often a connection
    ended, and what must not be."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.refused: list[str] = []
        self.lost = 0
        self.wrong: list[str] = []

    def p99(self) -> float:
        times = sorted(self.times)
        return times[int(len(times) * 0.99)]


class Load:
    """Clients at work for the length of a `with`, which ask servers of a crew at random. They use queues of their own,
    of 24 families, so that there are some in most shards."""

    _numbers = count()

    def __init__(self, crew: Crew, clients: int = 6) -> None:
        self._crew = crew
        self.ledger = Ledger()
        self.seen = Seen()
        seeds = count()
        own = f"load{next(self._numbers)}"
        self.queues = [f"{own}-{n}{more}" for n in range(24) for more in ("", ":high")]
        self._crowd = Crowd(
            self.ledger,
            producers=clients // 2,
            workers=clients - clients // 2,
            connect=lambda: Roaming(crew, self.seen, next(seeds)),
            queues=self.queues,
            taken=3,
            keys=f"{own}-",
        )

    def __enter__(self) -> "Load":
        self._crowd.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the clients. Some server must be up."""
        self._crowd.stop()

    def made(self) -> int:
        return self.ledger.made()

    def wait_for_more(self, count: int = 20) -> None:
        """Waits until so many further jobs were acknowledged."""
        wanted = self.made() + count
        until(lambda: self.made() >= wanted, 40)

    def check(self) -> None:
        """Compares what was acknowledged with what is there. To be called after the `with`."""
        self._crew.wait_until_served()
        server = self._crew.servers[-1]
        jobs, counts = all_jobs(server.port, server.host)
        own = [job for job in jobs if job["queue"] in self.queues]
        for job in jobs:
            counts[job["status"]] -= job["queue"] not in self.queues
        found = self.seen.wrong + check(self.ledger, own, counts)
        assert self.ledger.concluded() > 0, "the clients got nothing done, so nothing is shown"
        assert not found, "\n".join([f"{len(found)} things are wrong:", *found[:20]])

    def sum(self) -> str:
        seen, ledger = self.seen, self.ledger
        return (
            f"{ledger.made():,} enqueues and {ledger.concluded():,} conclusions acknowledged; p99 "
            f"{seen.p99() * 1000:.0f} ms, at most {max(seen.times):.1f} s; {len(seen.refused)} answers 503, {seen.lost} "
            "connections ended"
        )
