"""The scenes that set up more than servers and a database, or last long; the test suite does not run them. Each
returns what it measured, or fails."""

import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, Self

from postgres_server import ENVIRONMENT, Postgres
from running import Connection, Program, until

from tests.cluster import growth, network, patroni
from tests.cluster.crew import Crew, Load, servers
from tests.cluster.shard_scenes import SHARDS

# Seconds that a cut lasts, and in which every waiting client must have its answer after the begin of one.
_CUT = 8.0
_ANSWERED = 60.0
# Seconds at the start and at the end in which answers are timed, and the calls in a second.
_TIMED = 15.0
_RATE = 300


# -- takeover ---------------------------------------------------------------------------------------


def takeover(jobs: int) -> str:
    """The owner of many jobs is killed, and then stands still, which to the others is as if its machine had gone."""
    silent = {}
    with servers(2) as crew:
        with crew.wait_for_owner().connect() as client:
            client.socket.settimeout(60)
            for _ in range(jobs // 1000):
                made = client.call("POST", "/jobs/enqueue", [{"type": "x", "payload": "y" * 100}] * 1000)
                assert made.status == 201, made
            last = made.json["jobs"][-1]["id"]
        for how in (signal.SIGKILL, signal.SIGSTOP):
            owner, [other] = crew.wait_for_owner(), crew.others()
            began = time.monotonic()
            owner.signal(how)
            until(lambda other=other: other.call("GET", f"/jobs/{last}")[0] == 200, 30)
            silent[how] = time.monotonic() - began
            if how == signal.SIGKILL:
                crew.kill(owner)
                crew.start()
    assert max(silent.values()) <= 5, silent
    return (
        f"{jobs:,} jobs served again {silent[signal.SIGKILL]:.1f} s after kill -9 on the same machine, "
        f"{silent[signal.SIGSTOP]:.1f} s after the owner stood still"
    )


# -- an old snapshot --------------------------------------------------------------------------------


class Paced(threading.Thread):
    """Enqueues, takes and concludes jobs at a steady rate, and times each call."""

    def __init__(self, port: int, rate: float, stopping: threading.Event) -> None:
        super().__init__()
        self._port, self._rate, self._stopping = port, rate, stopping
        self.times: list[tuple[float, float]] = []  # when, and how long

    def run(self) -> None:
        with Connection(self._port) as connection:
            connection.socket.settimeout(30)
            due = time.monotonic()
            while not self._stopping.is_set():
                self._call(connection, "/jobs/enqueue", {"type": "x"})
                job = self._call(connection, "/jobs/dequeue", {})
                self._call(connection, f"/jobs/{job['id']}/conclude?lease={job['lease']}", None)
                due += 3 / self._rate
                self._stopping.wait(max(due - time.monotonic(), 0))

    def _call(self, connection: Connection, path: str, body: object) -> dict[str, object]:
        began = time.monotonic()
        answer = connection.call("POST", path, body)
        self.times.append((began, time.monotonic() - began))
        assert answer.status in (200, 201), answer
        found: dict[str, object] = answer.json
        return found


def _metric(server: Program, name: str) -> float:
    text = server.call("GET", "/metrics")[1].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def snapshot(seconds: int) -> str:
    """A transaction that somebody has left open keeps old rows from being removed."""
    stopping = threading.Event()
    with servers(1) as crew:
        server = crew.wait_for_owner()
        client = Paced(server.port, _RATE, stopping)  # one, so that each call is a commit
        began = time.monotonic()
        client.start()
        try:
            time.sleep(2 * _TIMED)
            commits = _metric(server, "jobqueue_journal_commit_seconds_count")
            with _open_transaction(crew):
                time.sleep(seconds)
                rate = (_metric(server, "jobqueue_journal_commit_seconds_count") - commits) / seconds
                dead = crew.sql(
                    "SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE schemaname = 'jobqueue'"
                )
        finally:
            stopping.set()
            client.join()
    end = client.times[-1][0]
    assert end > began + seconds, "the client has failed"
    first, last = (
        statistics.median(length for at, length in client.times if after < at < after + _TIMED)
        for after in (began + _TIMED, end - _TIMED)
    )
    assert last <= 2 * first, (first, last)
    return (
        f"{rate:.0f} commits/s; p50 of a call {first * 1000:.2f} ms before, {last * 1000:.2f} ms after {seconds} s; "
        f"{int(dead):,} dead rows"
    )


@contextmanager
def _open_transaction(crew: Crew) -> Iterator[None]:
    postgres: Postgres = crew.postgres
    session = subprocess.Popen(
        ["psql", "-X", "-q", postgres.url(crew.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT, cwd="/",
    )  # fmt: skip
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        session.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM jobqueue.record;\n")
        session.stdin.flush()
        session.stdout.readline()
        yield
    finally:
        session.kill()
        session.wait()
        session.stdin.close()
        session.stdout.close()


# -- cuts -------------------------------------------------------------------------------------------


class Waiter(threading.Thread):
    """A dequeue that waits, at one server. `seconds`: after which it was answered, or its connection ended."""

    def __init__(self, server: Program, queue: str = "nothing") -> None:
        super().__init__()
        self._connection = server.connect()
        self._connection.socket.settimeout(_ANSWERED)
        self._connection.ask("POST", f"/jobs/dequeue?queues={queue}&wait=25")
        self.seconds: float | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            self._connection.read("POST")
        except TimeoutError:
            return
        except OSError:
            pass
        self.seconds = time.monotonic() - began
        self._connection.close()


class Cuts:
    """Servers and their database on machines of their own, with clients, for the length of a `with`."""

    def __init__(self, shards: int = 1) -> None:
        self._shards = shards
        self.waited = 0.0  # seconds that a waiting dequeue took at most
        self.away: dict[str, float] = {}  # seconds until other servers had taken over, after each cut

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._net = stack.enter_context(network.Network(4))
            self.database, *machines = self._net.machines
            postgres = Postgres(inside=self.database.inside)
            stack.callback(postgres.remove)
            remote = _Remote(postgres, self.database.address)
            self.crew = Crew(remote, postgres.create_database(), self._shards)
            stack.callback(self.crew.end)
            self.where = {}
            for machine in machines:
                self.where[self.crew.start(machine.inside, machine.address).pid] = machine
                self.crew.wait_until_served()
            self.load = stack.enter_context(Load(self.crew))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failed: object) -> None:
        if failed[0] is not None:
            for server in self.crew.servers:
                print(f"{self.where.get(server.pid)}:", *server.lines, sep="\n    ", file=sys.stderr)
        self._stack.close()

    def cut(
        self,
        name: str,
        source: network.Machine,
        target: network.Machine,
        queue: str = "nothing",
        taken_over: Callable[[], bool] | None = None,
    ) -> None:
        """Loses what one machine sends to another one for a while, and waits until `taken_over` holds meanwhile."""
        print(name, end=" … ", file=sys.stderr, flush=True)
        waiters = [Waiter(server, queue) for server in self.crew.servers]
        for waiter in waiters:
            waiter.start()
        self._net.cut(source, target)
        began = time.monotonic()
        if taken_over is not None:
            until(taken_over, 20)
            self.away[name] = max(self.away.get(name, 0), time.monotonic() - began)
        time.sleep(max(began + _CUT - time.monotonic(), 0))
        if self.database in (source, target):
            self._net.heal(source, target)
        for waiter in waiters:  # those of a server that is cut off from the owner, while it is
            waiter.join(_ANSWERED + 5)
            assert waiter.seconds is not None, f"{name}: a waiting dequeue was not answered"
            self.waited = max(self.waited, waiter.seconds)
        if self.database not in (source, target):
            self._net.heal(source, target)
        self.load.wait_for_more()

    def end(self) -> str:
        """Checks what the clients have seen. Returns what was measured."""
        assert all(server.running for server in self.crew.servers)
        self.load.stop()
        self.load.check()
        taken = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.away.items())
        return f"{self.load.sum()}; taken over ({taken}); every waiting dequeue answered after {self.waited:.0f} s at most"


def cuts(rounds: int) -> str:
    """What one machine sends to another one is lost for a while, in each direction."""
    with Cuts() as net:
        crew = net.crew
        for _ in range(rounds):
            for name in ("owner > database", "database > owner", "standby > database", "database > standby",
                         "owner > standby", "standby > owner"):  # fmt: skip
                owner = crew.wait_for_owner(60)
                standby = next(server for server in crew.servers if server is not owner)
                named = {
                    "owner": net.where[owner.pid],
                    "standby": net.where[standby.pid],
                    "database": net.database,
                }
                source, target = (named[word] for word in name.split(" > "))
                moved = "database" in name and "owner" in name
                net.cut(
                    name, source, target,
                    taken_over=(lambda owner=owner: crew.owner not in (None, owner)) if moved else None,
                )  # fmt: skip
        return net.end()


def shard_cuts(rounds: int) -> str:
    """As `cuts`, with servers that all own some shards. Waiting dequeues are for jobs of the server that is cut off."""
    with Cuts(SHARDS) as net:
        crew = net.crew
        for _ in range(rounds):
            for name in ("server > database", "database > server", "server > other", "other > server"):
                crew.wait_until_spread(60)
                server, other = random.sample(crew.servers, 2)
                named = {
                    "server": net.where[server.pid],
                    "other": net.where[other.pid],
                    "database": net.database,
                }
                source, target = (named[word] for word in name.split(" > "))
                net.cut(
                    name, source, target, crew.queue_of(server), taken_over=partial(_replaced, crew, server, other) if "database" in name else None
                )  # fmt: skip
        crew.wait_until_spread(60)
        return net.end()


def _replaced(crew: Crew, server: Program, other: Program) -> bool:
    """Returns whether other servers have all shards of one, and another one reads them."""
    owners = crew.owners().values()
    return len(owners) == crew.shards and str(server.pid) not in owners and crew.is_served(other)


class _Remote:
    """A database that is reached by its address; statements of the test go by its socket."""

    def __init__(self, postgres: Postgres, address: str) -> None:
        self._postgres, self._address = postgres, address

    def url(self, database: str) -> str:
        return f"postgresql://admin@{self._address}:{self._postgres.port}/{database}"

    def sql(self, text: str, database: str) -> str:
        return self._postgres.sql(text, database)


# -- Patroni ----------------------------------------------------------------------------------------


@contextmanager
def on_patroni(shards: int) -> Iterator[tuple[patroni.Patroni, Crew]]:
    with patroni.Patroni() as database:
        crew = Crew(database, database.create_database(), shards)
        try:
            crew.start_all(3)
            yield database, crew
        finally:
            crew.end()


def switchover(rounds: int, shards: int = 1) -> str:
    """Patroni makes the standby the primary, and the other way round."""
    silent = []
    with on_patroni(shards) as (database, crew):
        with Load(crew) as load:
            for _ in range(rounds):
                load.wait_for_more()
                database.switch_over()
                began = database.wait_until_writable()
                load.wait_for_more()
                silent.append(time.monotonic() - began)
                database.wait_until_synchronous()
        assert all(server.running for server in crew.servers)
        load.check()
    return f"{load.sum()}; no server ended; served again {max(silent):.1f} s at most after the database took commits"


def node(rounds: int, shards: int = 1) -> str:
    """The whole node of the primary is killed; its standby is synchronous."""
    silent = []
    with on_patroni(shards) as (database, crew):
        with Load(crew) as load:
            for _ in range(rounds):
                load.wait_for_more()
                primary = database.primary
                assert primary is not None
                began = time.monotonic()
                primary.kill()
                until(lambda primary=primary: database.primary not in (None, primary), 60)
                load.wait_for_more(1)
                silent.append(time.monotonic() - began)
                primary.start()
                database.wait_until_synchronous()
        assert all(server.running for server in crew.servers)
        load.check()
    assert max(silent) <= 30, silent
    return (
        f"{load.sum()}; no server ended; served again {max(silent):.1f} s at most after the node was killed"
    )


class Scene(NamedTuple):
    """`run` gets `long` or `short`: rounds, or what `unit` says. `missing`: why it cannot run here, or None."""

    promise: str
    run: Callable[[int], str]
    long: int
    short: int
    unit: str = "rounds"
    missing: Callable[[], str | None] = lambda: None


LONG_SCENES = {
    "takeover": Scene("100,000 jobs of an owner that is gone are served again within 5 s", takeover, 100_000, 10_000, "jobs"),
    "snapshot": Scene(
        "a transaction that stays open for 5 minutes at 300 commits a second at most doubles the p50", snapshot, 300, 60,
        "seconds",
    ),
    "cuts": Scene(
        "what is cut off, in either direction, loses nothing and leaves no client waiting", cuts, 2, 1,
        missing=network.missing,
    ),
    "switchover": Scene("a switchover of Patroni loses nothing, and no server ends", switchover, 4, 1, missing=patroni.missing),
    "node": Scene(
        "a dead node of Patroni with a synchronous standby loses nothing; served again within 30 s", node, 2, 1,
        missing=patroni.missing,
    ),
    "shards-cuts": Scene(
        "cuts between servers that all own shards, and from their database, lose nothing and leave no client waiting",
        shard_cuts, 3, 1, missing=network.missing,
    ),
    "shards-switchover": Scene(
        "a switchover of Patroni loses nothing of any shard", partial(switchover, shards=SHARDS), 4, 1,
        missing=patroni.missing,
    ),
    "shards-node": Scene(
        "a dead node of Patroni loses nothing of any shard; served again within 30 s", partial(node, shards=SHARDS), 2, 1,
        missing=patroni.missing,
    ),
    "growth": Scene(
        "2 servers with 0.2 CPUs each do 1.7 times what one does, 4 with 0.1 each 3 times, whoever is asked", growth.growth, 10, 3, "seconds",
        growth.missing,
    ),
    "passed-on": Scene(
        "with 128 clients, a request that is passed on takes 25 µs more of CPU time", growth.passed_on, 5, 2, "seconds",
    ),
}  # fmt: skip
