"""The scenes, a function each: what is done to servers on one database. Each returns what it measured, or fails."""

import random
import signal
import time
from collections.abc import Callable

from running import Connection, Program, until

from tests.cluster.crew import Crew, Load


def kill(crew: Crew, rounds: int) -> str:
    """kill -9 of one of three servers, the owner more often than not, and another one is started."""
    silent = []
    owners = 0
    chance = random.Random(7)
    with Load(crew) as load:
        for _ in range(rounds):
            time.sleep(0.5)
            owner = crew.owner
            victim = owner if owner is not None and chance.random() < 0.7 else chance.choice(crew.servers)
            began = time.monotonic()
            crew.kill(victim)
            load.wait_for_more()
            if victim is owner:
                owners += 1
                silent.append(time.monotonic() - began)
            crew.start()
    load.check()
    assert max(silent) < 8, silent
    return f"{load.sum()}; {owners} owners killed, served again after {max(silent):.1f} s at most"


def roll(crew: Crew, rounds: int) -> str:
    """SIGTERM of one server after the other, each replaced by a new one."""
    with Load(crew) as load:
        for _ in range(rounds):
            time.sleep(0.3)
            victim = crew.servers[0]
            crew.stop(victim)
            load.wait_for_more()
            crew.start()
    load.check()
    assert load.seen.p99() < 1, load.seen.p99()
    return load.sum()


def frozen(crew: Crew, rounds: int) -> str:
    """SIGSTOP of the owner until another one is there; it wakes with requests in its sockets."""
    replaced = []
    for _ in range(rounds):
        owner = crew.wait_for_owner()
        other = crew.others()[0]
        other.call("POST", "/jobs/enqueue", {"type": "x"})
        _, job = other.call("POST", "/jobs/dequeue")
        asked = [Connection(owner.port) for _ in range(3)]
        for client in asked:
            assert client.call("GET", "/readyz").status == 200
        owner.signal(signal.SIGSTOP)
        lease = f"lease={job['lease']}"
        calls = [
            ("GET", f"/jobs/{job['id']}"),
            ("POST", "/jobs/dequeue"),
            ("POST", f"/jobs/{job['id']}/conclude?{lease}"),
        ]
        for client, call in zip(asked, calls, strict=True):
            client.ask(*call)
        began = time.monotonic()
        until(lambda owner=owner: crew.owner_pid() not in ("", str(owner.pid)), 20)
        crew.wait_for_owner()
        replaced.append(time.monotonic() - began)
        assert other.call("POST", f"/jobs/{job['id']}/release?{lease}")[0] == 200
        owner.signal(signal.SIGCONT)
        answers = [client.read().status for client in asked]
        assert answers == [503, 503, 503], answers
        for client in asked:
            client.close()
        until(lambda job=job, owner=owner: status_of(owner, job["id"]) == "queued", 20)
        assert owner.running
        _, again = owner.call("POST", "/jobs/dequeue")
        assert owner.call("POST", f"/jobs/{again['id']}/conclude?lease={again['lease']}")[0] == 200
    assert max(replaced) < 6, replaced
    return f"only 503; replaced after {max(replaced):.1f} s at most"


def status_of(server: Program, id: int) -> str | None:
    status, answer = server.call("GET", f"/jobs/{id}")
    return answer.get("status") if status == 200 else None


def hang(crew: Crew, rounds: int) -> str:
    """The database stands still for 5 s: everything is 503, and nobody takes over."""
    for _ in range(rounds):
        owner = crew.wait_for_owner()
        crew.postgres.freeze()
        try:
            time.sleep(2.5)
            for server in crew.servers:
                status, answer = server.call("GET", "/jobs")
                assert (status, answer["code"]) == (503, "not_ready")
            time.sleep(2.5)
        finally:
            crew.postgres.thaw()
        assert crew.wait_for_owner() is owner
        assert owner.call("POST", "/jobs/enqueue", {"type": "x"})[0] == 201
    return "the owner stays the owner"


def restart(crew: Crew, rounds: int, settle: Callable[[], object] = lambda: None) -> str:
    """The database is stopped, or killed, and started again. `settle` is called between two rounds."""
    silent = []
    with Load(crew) as load:
        for number in range(rounds):
            time.sleep(0.5)
            crew.postgres.stop("immediate" if number % 2 else "fast")
            time.sleep(0.1)
            crew.postgres.start()
            began = time.monotonic()
            load.wait_for_more()
            silent.append(time.monotonic() - began)
            settle()
    assert all(server.running for server in crew.servers)
    load.check()
    return f"{load.sum()}; {len(crew.servers)} servers ran on; back {max(silent):.1f} s at most after the database"


# Name: promise, scene, rounds of the long and of the short run.
SCENES: dict[str, tuple[str, Callable[[Crew, int], str], int, int]] = {
    "kill": (
        "kill -9 of servers loses nothing, brings nothing back, gives no id and no lease twice",
        kill,
        200,
        3,
    ),
    "roll": ("a rolling restart refuses nothing but with 503 and Retry-After, p99 below 1 s", roll, 30, 3),
    "frozen": ("an owner that stood still answers nothing from its memory", frozen, 10, 1),
    "hang": ("a database that hangs replaces nobody", hang, 5, 1),
    "restart": ("a database that restarts loses nothing, and no server ends", restart, 20, 2),
}
