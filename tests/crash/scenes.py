"""The scenes, a function each: what is done to the server. Each returns its outcome, or raises `Broken`."""

import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jobqueue.core.schedules import LATE
from tests.bench.report import Skip
from tests.crash.clients import Caller, Crowd, all_jobs, drain
from tests.crash.ledger import Ledger, check, check_order
from tests.crash.server import Broken, Victim, need_strace


class Outcome(NamedTuple):
    """Figures of a scene: rounds, acknowledged enqueues, acknowledged conclusions."""

    rounds: int
    made: int
    concluded: int
    note: str = ""


def verify(victim: Victim, ledger: Ledger) -> None:
    """Checks the ledger against the server, which must be up, and then the order of the remaining jobs."""
    jobs, counts = all_jobs(victim.port)
    wrong = check(ledger, jobs, counts)
    for drained in drain(victim.port).values():
        wrong += check_order(drained)
    if wrong:
        raise Broken("\n".join([f"{len(wrong)} things are wrong:", *wrong[:20], victim.output()[-500:]]))


def _outcome(rounds: int, ledger: Ledger, note: str = "") -> Outcome:
    made, concluded = ledger.made(), ledger.concluded()
    if not made or not concluded:
        raise Broken("the clients got nothing done, so nothing is proved")
    return Outcome(rounds, made, concluded, note)


def _proved(rounds: int, crowd: Crowd, victim: Victim, ledger: Ledger, note: str = "") -> Outcome:
    """Ends a scene. The server must be up."""
    time.sleep(0.2)
    crowd.stop()
    verify(victim, ledger)
    return _outcome(rounds, ledger, note)


def kill_9(folder: Path, rounds: int, seed: int, **settings: object) -> Outcome:
    """kill -9 at random moments under load; the clients go on."""
    chance = random.Random(seed)
    ledger = Ledger()
    with Victim(folder, **settings) as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        for _ in range(rounds):
            time.sleep(chance.choice((0.0, 0.02, 0.1, 0.3)) * chance.random())
            victim.kill()
            victim.start()
            if chance.random() < 0.9:  # otherwise it is killed while it reads the journal
                victim.wait_ready()
        victim.wait_ready()
        return _proved(rounds, crowd, victim, ledger)


def schedules(folder: Path, rounds: int, seed: int) -> Outcome:
    """kill -9 at random moments while schedules of each second make jobs. From the first second after a schedule
    was made to the last one before the end, each instant has exactly one job. Only those of `once` and `skip`
    that were over 5 seconds old when the server came back have none. A history names the job of its instant."""
    chance = random.Random(seed)
    made: dict[str, float] = {}
    outages: list[tuple[float, float]] = []  # from when to when no server was there
    with Victim(folder) as victim:
        victim.come_up()
        caller = Caller(victim.port)
        for misfire in ("once", "skip", "all"):
            plan = {"every": 1, "misfire": misfire, "overlap": "allow", "job": {"type": misfire}}
            answer = caller.call("PUT", f"/schedules/{misfire}", plan)
            if answer.status != 201:
                raise Broken("a schedule was not accepted")
            made[misfire] = _unix(answer.json["created_at"])
        caller.close()
        down: float | None = None
        for _ in range(rounds):
            # Jobs are made at the begin of each second, so that is where it hurts.
            time.sleep((1 - time.time() % 1 + chance.uniform(-0.05, 0.15)) % 1 + chance.choice((0, 0, 1)))
            victim.kill()
            down = time.time() if down is None else down
            victim.start()
            if chance.random() < 0.8:  # otherwise it is killed while it reads the journal
                victim.wait_ready()
                outages.append((down, time.time()))
                down = None
        victim.wait_ready()
        if down is not None:
            outages.append((down, time.time()))
        time.sleep(1.5)
        end = time.time()
        # Before the jobs, which go on to be made.
        caller = Caller(victim.port)
        histories = {name: caller.call("GET", f"/schedules/{name}/history").json["history"] for name in made}
        caller.close()
        jobs, _ = all_jobs(victim.port)
    instant_of = {job["id"]: _unix(job["headers"]["due-at"]) for job in jobs}
    late = 0
    for misfire, created in made.items():
        found = [round(instant_of[job["id"]]) for job in jobs if job["type"] == misfire]
        if found != sorted(set(found)):
            raise Broken(f"{misfire}: an instant has two jobs, or one came after a later one: {found}")
        missing = set(range(int(created) + 1, int(end))).difference(found)
        old = {at for at in missing if any(down - 1 <= at and up - at > LATE / 1000 for down, up in outages)}
        if misfire == "all" and missing:
            raise Broken(f"all: instants without a job: {sorted(missing)}")
        if missing != old:
            raise Broken(f"{misfire}: instants without a job that were not missed: {sorted(missing - old)}")
        late += len(missing)
        for entry in histories[misfire]:
            if entry["outcome"] == "enqueued" and instant_of.get(entry["job"]) != _unix(entry["due_at"]):
                raise Broken(f"{misfire}: the history has a job that there is not: {entry}")
    seconds = round(end - min(made.values()))
    return Outcome(rounds, len(jobs), 0, f"{seconds} seconds, one job for each, {late} over 5 s late")


def _unix(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def stop_and_go(folder: Path, rounds: int, seed: int) -> Outcome:
    """SIGTERM under load, as a process runner does: the workers finish what they have."""
    ledger = Ledger()
    with Victim(folder, drain="2s") as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        for _ in range(rounds):
            time.sleep(0.2)
            victim.stop()
            victim.come_up()
        return _proved(rounds, crowd, victim, ledger)


def frozen(folder: Path, rounds: int, seed: int) -> Outcome:
    """SIGSTOP for a while, then SIGCONT."""
    ledger = Ledger()
    with Victim(folder) as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        for _ in range(rounds):
            time.sleep(0.2)
            victim.signal(signal.SIGSTOP)
            time.sleep(0.5)
            victim.signal(signal.SIGCONT)
        return _proved(rounds, crowd, victim, ledger)


def damage(folder: Path, rounds: int, seed: int) -> Outcome:
    """After a stop the file is truncated, or bits are flipped. The server names the damage and does not
    start, or the damage is in unused space and nothing is lost."""
    chance = random.Random(seed)
    ledger = Ledger()
    original = folder.with_name(folder.name + ".original")
    with Victim(folder) as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        time.sleep(1)
        crowd.stop()
        victim.stop()
        shutil.copytree(folder, original)
        refused = 0
        for number in range(rounds):
            shutil.rmtree(folder)
            shutil.copytree(original, folder)
            _harm(folder / "journal.sqlite", chance, cut=number % 4 == 0)
            lines_before = len(victim.output())
            victim.start()
            try:
                victim.wait_ready()
            except Broken:
                line = victim.output()[lines_before:].strip().splitlines()[-1]
                if victim.status() != 1 or str(folder / "journal.sqlite") not in line:
                    raise Broken(f"damage is not named: {line}") from None
                refused += 1
                continue
            wrong = check(ledger, *all_jobs(victim.port))
            if wrong:
                raise Broken(f"undetected damage: {wrong[:5]}")
            victim.kill()
        return _outcome(rounds, ledger, f"{refused} refused by name, {rounds - refused} harmless")


def _harm(path: Path, chance: random.Random, cut: bool) -> None:
    content = bytearray(path.read_bytes())
    if cut:
        path.write_bytes(content[: chance.randrange(len(content))])
        return
    for _ in range(chance.choice((1, 1, 4))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def full_disk(folder: Path, rounds: int, seed: int) -> Outcome:
    """Another program fills a small file system: enqueues are refused, conclusions are accepted. When there
    is space again the server recovers without a restart."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        raise Skip("only root can mount a small file system")
    try:
        return _full_disk(folder, rounds, seed)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _full_disk(folder: Path, rounds: int, seed: int) -> Outcome:
    ledger = Ledger()
    with Victim(folder / "data") as victim:
        victim.come_up()
        caller = Caller(victim.port)
        for _ in range(rounds):
            crowd = Crowd(ledger, victim.port, seed=seed).start()
            time.sleep(0.5)
            crowd.stop()
            ready = [caller.call("POST", "/jobs/enqueue", {"type": "x", "queue": "kept"}) for _ in range(20)]
            held = caller.call("POST", "/jobs/dequeue", {"queue": "kept", "count": 20}).json["jobs"]
            assert len(ready) == len(held)
            with (folder / "other file").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(65536))
            statuses = {caller.call("POST", "/jobs/enqueue", {"type": "x", "queue": "full"}).status}
            until = time.monotonic() + 5
            while 507 not in statuses and time.monotonic() < until:
                statuses.add(caller.call("POST", "/jobs/enqueue", {"type": "x", "queue": "full"}).status)
            if not statuses <= {201, 507} or 507 not in statuses:
                raise Broken(f"a full disk: enqueue answers {statuses}")
            for job in held:
                answer = caller.call("POST", f"/jobs/{job['id']}/conclude", {"lease": job["lease"]})
                if answer.status != 200:
                    raise Broken(f"a full disk: conclude answers {answer}")
            (folder / "other file").unlink()
            until = time.monotonic() + 5
            while (
                status := caller.call("POST", "/jobs/enqueue", {"type": "x", "queue": "full"}).status
            ) == 507:
                if time.monotonic() > until:
                    raise Broken("there is space again, but enqueue is still refused")
                time.sleep(0.01)
            if status != 201:
                raise Broken(f"there is space again, but enqueue answers {status}")
            victim.kill()
            victim.come_up()
            caller.close()
        for queue in ("kept", "full"):
            caller.call("POST", f"/queues/{queue}/purge", {"status": [
                "scheduled", "queued", "in_progress", "concluded", "dead", "cancelled"]})  # fmt: skip
        verify(victim, ledger)
        caller.close()
        return _outcome(rounds, ledger)


def _inject(victim: Victim, call: str, what: str) -> "subprocess.Popen[bytes]":
    """Makes a system call of the server fail, or take long, from now on."""
    return subprocess.Popen(
        ["strace", "-f", "-q", "-p", str(victim.pid), "-e", f"trace={call}", "-e", f"inject={call}:{what}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def failing_sync(folder: Path, rounds: int, seed: int) -> Outcome:
    """A write or sync fails with EIO: nothing of that group is acknowledged, the server exits with status 74
    and one clear line, and the next start is clean."""
    need_strace()
    chance = random.Random(seed)
    ledger = Ledger()
    with Victim(folder) as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        for number in range(rounds):
            call = "fdatasync" if number % 2 == 0 else "pwrite64"
            time.sleep(0.1)
            tracer = _inject(victim, call, f"error=EIO:when={chance.randint(1, 60)}")
            lines_before = len(victim.output())
            try:
                status = victim.status()
            finally:
                tracer.terminate()
                tracer.wait()
            line = victim.output()[lines_before:]
            if status != 74 or "disk I/O error" not in line or "Traceback" in line:
                raise Broken(f"{call} failed: status {status}, {line[-400:]}")
            victim.come_up()
        return _proved(rounds, crowd, victim, ledger)


def slow_sync(folder: Path, rounds: int, seed: int) -> Outcome:
    """Every sync takes 300 ms, and the server is killed meanwhile. Requests that change nothing stay fast."""
    need_strace()
    ledger = Ledger()
    with Victim(folder) as victim:
        victim.come_up()
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        slowest = 0.0
        for _ in range(rounds):
            tracer = _inject(victim, "fdatasync", "delay_enter=300000")
            caller = Caller(victim.port)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                asked = time.monotonic()
                if caller.call("GET", "/healthz").status != 200:
                    raise Broken("/healthz fails with a slow disk")
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(0.02)
            caller.close()
            victim.kill()
            tracer.wait()
            victim.come_up()
        if slowest > 0.25:
            raise Broken(f"/healthz took {slowest * 1000:.0f} ms with a slow disk: the event loop is blocked")
        return _proved(rounds, crowd, victim, ledger, f"/healthz at most {slowest * 1000:.0f} ms")
