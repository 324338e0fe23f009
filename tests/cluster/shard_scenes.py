"""The scenes of a database with several shards, whose servers all serve at once. Each returns what it measured, or
fails. The test suite runs `SHARD_SCENES` in their short form, one after the other on the same servers."""

import glob
import random
import signal
import time
from collections.abc import Callable

from running import Connection, until

from tests.cluster import scenes
from tests.cluster.crew import Crew, Load

SHARDS = 16
FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
# Seconds from the death of a server until all shards are served again, and those that a server stands still.
_AGAIN = 5.0
_STILL = 10.0
# Seconds in which 99 of 100 requests are answered when servers come and go as they should.
_P99 = 1.0


def kill(crew: Crew, rounds: int) -> str:
    """kill -9 of one of the servers, each owner of some shards, and another one is started."""
    silent = []
    chance = random.Random(7)
    with Load(crew) as load:
        for _ in range(rounds):
            time.sleep(0.5)
            victim = chance.choice(crew.servers)
            began = time.monotonic()
            crew.kill(victim)
            crew.wait_until_served()
            silent.append(time.monotonic() - began)
            load.wait_for_more()
            crew.start()
            crew.wait_until_spread()
    load.check()
    assert max(silent) <= _AGAIN, silent
    return f"{load.sum()}; all shards served again after {max(silent):.1f} s at most"


def roll(crew: Crew, rounds: int) -> str:
    """SIGTERM of one server after the other, each replaced by a new one."""
    with Load(crew) as load:
        for _ in range(rounds):
            time.sleep(0.3)
            crew.stop(crew.servers[0])
            load.wait_for_more()
            crew.start()
            crew.wait_until_spread()
    load.check()
    assert load.seen.p99() <= _P99, load.seen.p99()
    return load.sum()


def moves(crew: Crew, seconds: int) -> str:
    """A server joins and leaves all the time, so shards move to it and back."""
    joined = 0
    end = time.monotonic() + seconds
    with Load(crew) as load:
        while joined < 2 or time.monotonic() < end:
            server = crew.start()
            until(lambda server=server: crew.shards_of(server), 20)
            joined += 1
            time.sleep(0.5)
            crew.stop(server)
            time.sleep(0.5)
        load.wait_for_more()
    load.check()
    assert load.seen.p99() <= _P99, load.seen.p99()
    return f"{load.sum()}; joined and left {joined} times"


def frozen(crew: Crew, rounds: int) -> str:
    """SIGSTOP of a server with requests in its sockets, until the others have its shards, and for 10 s if there are
    several rounds."""
    replaced = []
    shown = []
    for _ in range(rounds):
        crew.wait_until_spread()
        owner, other = random.sample(crew.servers, 2)
        queue = crew.queue_of(owner)
        _, made = other.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})
        _, job = other.call("POST", "/jobs/dequeue", {"queue": queue, "lease_for": "10m"})
        assert job["id"] == made["id"]
        lease = f"lease={job['lease']}"
        calls = [
            ("GET", f"/jobs/{job['id']}"),
            ("POST", f"/jobs/dequeue?queue={queue}"),
            ("POST", f"/jobs/{job['id']}/conclude?{lease}"),
        ]
        # Of its own clients, and of a server that passes them on to it.
        asked = [Connection(server.port) for server in (owner, other) for _ in calls]
        for client in asked:
            client.socket.settimeout(40)
            assert client.call("GET", "/readyz").status == 200
        owner.signal(signal.SIGSTOP)
        began = time.monotonic()
        for client, call in zip(asked[:3], calls, strict=True):
            client.ask(*call)
        for client, call in zip(asked[3:5], calls[:2], strict=True):
            client.ask(*call)
        until(lambda owner=owner: str(owner.pid) not in crew.owners().values(), 20)
        until(lambda other=other: crew.is_served(other), 20)
        replaced.append(time.monotonic() - began)
        passed_on = [client.read() for client in asked[3:5]]
        _expect_of_next_owner(passed_on, job["id"])
        if passed_on[1].status == 200:
            released = other.call(
                "POST", f"/jobs/{passed_on[1].json['id']}/release?lease={passed_on[1].json['lease']}"
            )
            assert released[0] == 200, released
        status, answer = other.call("POST", f"/jobs/{job['id']}/release?{lease}")
        assert status == 200, answer
        time.sleep(max(began + _STILL * (rounds > 1) - time.monotonic(), 0))
        owner.signal(signal.SIGCONT)
        answers = [client.read() for client in asked[:3]]
        for client in asked:
            client.close()
        read, taken, concluded = answers
        assert read.status == 503 or (read.status, read.json["status"]) in (
            (200, "queued"),
            (200, "in_progress"),
        ), read
        if taken.status == 200:
            assert (taken.json["id"], taken.json["leases"]) == (job["id"], 2), taken
        else:
            assert taken.status in (204, 503), taken
        assert concluded.status in (409, 503), concluded
        if read.status == 200 and read.json["status"] == "in_progress":
            assert read.json["leases"] == 2, read
        shown += [answer.status for answer in answers]
        assert owner.running
        crew.wait_until_spread()
        if taken.status != 200:
            _, taken_now = owner.call("POST", "/jobs/dequeue", {"queue": queue})
        else:
            taken_now = taken.json
        assert taken_now["id"] == job["id"]
        status, answer = owner.call("POST", f"/jobs/{job['id']}/conclude?lease={taken_now['lease']}")
        assert status == 200, answer
    assert max(replaced) <= _AGAIN + 1, replaced
    return f"answers {sorted(set(shown))}; its shards served again after {max(replaced):.1f} s at most"


def _expect_of_next_owner(answers: list[object], id: int) -> None:
    """Of a GET and a dequeue that were passed on to the server that stands still, while the job is leased."""
    read, taken = answers
    assert read.status == 503 or (read.status, read.json["status"]) == (200, "in_progress"), read  # type: ignore[attr-defined]
    assert taken.status in (204, 503), taken  # type: ignore[attr-defined]


def restart(crew: Crew, rounds: int) -> str:
    before = {server.pid: len(server.lines) for server in crew.servers}
    said = scenes.restart(crew, rounds, crew.wait_until_spread)
    lines = [line for server in crew.servers for line in server.lines[before[server.pid] :]]
    return f"{said}; {sum('has taken over' in line for line in lines)} shards were taken over"


def hang(crew: Crew, rounds: int) -> str:
    """The database stands still for 5 s: everything is 503, and no shard has another owner afterwards."""
    for _ in range(rounds):
        crew.wait_until_spread()
        before = crew.owners()
        crew.postgres.freeze()
        try:
            time.sleep(2.5)
            for server in crew.servers:
                status, answer = server.call("GET", "/jobs")
                assert (status, answer["code"]) == (503, "not_ready"), answer
            time.sleep(2.5)
        finally:
            crew.postgres.thaw()
        crew.wait_until_served()
        assert crew.owners() == before
        for server in crew.servers:
            status, answer = server.call(
                "POST", "/jobs/enqueue", {"type": "x", "queue": crew.queue_of(server)}
            )
            assert status == 201, answer
    return "every owner stays the owner"


def clock(crew: Crew, rounds: int) -> str:
    """A server whose wall clock is an hour off joins, has shards, and leaves."""
    for number in range(rounds):
        off = "-1h" if number % 2 else "+1h"
        wrong = crew.start(LD_PRELOAD=FAKETIME[0], FAKETIME=off, FAKETIME_DONT_FAKE_MONOTONIC="1")
        crew.wait_until_spread()
        right = crew.servers[0]
        # On the shards of the server that is off, asked at another one; and the other way round.
        for queue, at in ((crew.queue_of(wrong), right), (crew.queue_of(right), wrong)):
            made = [
                at.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})[1]["id"] for _ in range(2)
            ]
            later = at.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue, "delay": "3s"})[1]["id"]
            _, kept = at.call("POST", "/jobs/dequeue", {"queue": queue, "lease_for": "10m"})
            _, short = at.call("POST", "/jobs/dequeue", {"queue": queue, "lease_for": "3s"})
            assert [kept["id"], short["id"]] == made
            began = time.monotonic()
            assert scenes.status_of(at, later) == "scheduled"
            until(lambda at=at, id=short["id"]: scenes.status_of(at, id) == "queued", 10)
            until(lambda at=at, id=later: scenes.status_of(at, id) == "queued", 10)
            assert 2 < time.monotonic() - began < 8
            assert scenes.status_of(at, kept["id"]) == "in_progress"
            assert at.call("POST", f"/jobs/{kept['id']}/conclude?lease={kept['lease']}")[0] == 200
        queue = crew.queue_of(wrong)
        right.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})
        _, kept = right.call("POST", "/jobs/dequeue", {"queue": queue, "lease_for": "10m"})
        with Load(crew) as load:
            load.wait_for_more()
            crew.stop(wrong)
            load.wait_for_more()
        load.check()
        assert scenes.status_of(right, kept["id"]) == "in_progress"
        assert right.call("POST", f"/jobs/{kept['id']}/conclude?lease={kept['lease']}")[0] == 200
    return "no lease ended early or late"


# Name: promise, scene, rounds (or seconds) of the long and of the short run.
SHARD_SCENES: dict[str, tuple[str, Callable[[Crew, int], str], int, int]] = {
    "shards-kill": (
        "kill -9 of servers loses nothing and brings nothing back; all shards are served within 5 s", kill, 60, 1,
    ),
    "shards-frozen": ("a server that stood still answers nothing from its memory", frozen, 10, 1),
    "shards-moves": ("shards that move all the time: nothing but 503 is refused, p99 below 1 s", moves, 60, 1),
    "shards-restart": ("a database that restarts loses nothing, and no server ends", restart, 20, 1),
}  # fmt: skip
# Those that the test suite leaves out.
MORE_SHARD_SCENES: dict[str, tuple[str, Callable[[Crew, int], str], int, int]] = {
    "shards-roll": (
        "a rolling restart refuses nothing but with 503 and Retry-After, p99 below 1 s",
        roll,
        20,
        3,
    ),
    "shards-hang": ("a database that hangs replaces no owner", hang, 5, 1),
    "shards-clock": ("a clock that is an hour off ends no lease and keeps none", clock, 4, 2),
}
