"""Servers on one PostgreSQL database, and clients that ask them at random."""

import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from running import MODULE, Answer, Connection, Program, until


class Crew:
    """The servers on a database of `postgres`: a `Postgres`, or what has its `url` and `sql`. `servers`: those that
    run."""

    def __init__(self, postgres: Any, database: str) -> None:
        self.postgres, self.database = postgres, database
        self.servers: list[Program] = []

    def start(self, inside: tuple[str, ...] = (), host: str = "127.0.0.1", **settings: str) -> Program:
        """Starts a server, and waits until it serves or stands by. `inside`: a command that starts it in a network of
        its own, where its address is `host`."""
        own = {
            "JOBQUEUE_DATA": self.postgres.url(self.database), "JOBQUEUE_RETAIN": "24h",
            "JOBQUEUE_RETAIN_JOBS": "10000000", "JOBQUEUE_RETAIN_BYTES": "8GiB", "JOBQUEUE_ACCESS_LOG": "off",
        }  # fmt: skip
        server = Program((*inside, *MODULE), True, host, **own | settings)
        server.__enter__()
        self.servers.append(server)
        return server

    def start_all(self, count: int) -> None:
        for _ in range(count):
            self.start()
            self.wait_for_owner()

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

    def kill(self, server: Program) -> None:
        self.servers.remove(server)
        server.signal(signal.SIGKILL)
        server.exit_status()
        server.__exit__(None)

    def stop(self, server: Program) -> None:
        self.servers.remove(server)
        assert server.stop() == 0
        server.__exit__(None)

    def end(self) -> None:
        for server in self.servers:
            with suppress(ProcessLookupError):
                server.signal(signal.SIGCONT)
            server.__exit__(None)


class Client(threading.Thread):
    """Enqueues, takes and concludes jobs at a server that it picks anew each time, until it is told to stop. `made`
    and `concluded` are what was acknowledged; `taken` the leases that it got; `errors` answers other than
    success and 503; `times` the seconds that each answer took; `lost` counts the requests without an answer."""

    def __init__(self, crew: Crew, number: int, stopping: threading.Event) -> None:
        super().__init__()
        self._crew, self._number, self._stopping = crew, number, stopping
        self._random = random.Random(number)
        self.made: list[int] = []
        self.concluded: list[int] = []
        self.taken: list[tuple[int, int]] = []
        self.errors: list[Answer] = []
        self.times: list[float] = []
        self.refused = self.lost = 0

    def run(self) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            server = self._random.choice(self._crew.servers)
            try:
                with server.connect() as connection:
                    connection.socket.settimeout(30)
                    for _ in range(self._random.randint(1, 20)):
                        self._work(connection, f"{self._number}-{count}")
            except (OSError, ValueError, IndexError):  # that server has gone, or the owner has
                self.lost += 1
                time.sleep(0.02)

    def _work(self, connection: Connection, type_: str) -> None:
        answer = self._called(connection, "/jobs/enqueue", {"type": type_})
        if answer.status == 201:
            self.made.append(answer.json["id"])
        answer = self._called(connection, "/jobs/dequeue", {"lease_for": "10m"})
        if answer.status == 200:
            job = answer.json
            self.taken.append((job["id"], job["leases"]))
            answer = self._called(connection, f"/jobs/{job['id']}/conclude?lease={job['lease']}")
            if answer.status == 200:
                self.concluded.append(job["id"])

    def _called(self, connection: Connection, path: str, body: Any = None) -> Answer:
        began = time.monotonic()
        answer = connection.call("POST", path, body)
        self.times.append(time.monotonic() - began)
        if answer.status == 503:
            assert "retry-after" in answer.headers
            self.refused += 1
            time.sleep(0.1)
        elif answer.status not in (200, 201, 204):
            self.errors.append(answer)
        return answer


class Load:
    """Clients at work for the length of a `with`."""

    def __init__(self, crew: Crew, clients: int = 6) -> None:
        self._stopping = threading.Event()
        self.clients = [Client(crew, number, self._stopping) for number in range(clients)]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for client in self.clients:
            client.join()

    def made(self) -> int:
        return sum(len(client.made) for client in self.clients)

    def wait_for_more(self, count: int = 20) -> None:
        """Waits until so many further jobs were acknowledged."""
        wanted = self.made() + count
        until(lambda: self.made() >= wanted, 40)

    def times(self) -> list[float]:
        return sorted(each for client in self.clients for each in client.times)


def wrong(load: Load, at: Connection) -> list[str]:
    """Compares what was acknowledged with what is there. Returns what is wrong."""
    clients = load.clients
    found = [f"{answer.status} {answer.body!r}" for client in clients for answer in client.errors]
    made = [id for client in clients for id in client.made]
    concluded = [id for client in clients for id in client.concluded]
    found += [f"id {id} was given {count} times" for id, count in Counter(made).items() if count > 1]
    found += [f"{id} was concluded {count} times" for id, count in Counter(concluded).items() if count > 1]
    leases = Counter(lease for client in clients for lease in client.taken)
    found += [f"lease {lease} was given {count} times" for lease, count in leases.items() if count > 1]
    done = set(concluded)
    statuses: dict[int, str] = {}
    cursor = ""
    while True:
        page = at.call("GET", f"/jobs?limit=1000{cursor}").json
        statuses |= {job["id"]: job["status"] for job in page["jobs"]}
        if "next" not in page:
            break
        cursor = f"&cursor={page['next']}"
    found += [f"{id} is lost" for id in made if id not in statuses]
    found += [f"{id} is back, {statuses.get(id)}" for id in done if statuses.get(id) != "concluded"]
    return found
