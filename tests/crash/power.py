"""Power cuts. All writes and syncs of a server are recorded with `strace`. Then the disk is rebuilt as a
power cut at some instant would have left it: everything synced by then, and any part of the rest. A server
that starts on that disk must know everything that was acknowledged by that instant.
"""

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.crash.clients import Caller, Crowd, all_jobs
from tests.crash.ledger import MADE, REFUSED, UNKNOWN, Ledger, check
from tests.crash.scenes import Outcome
from tests.crash.server import Broken, Victim, need_strace

_SECTOR = 512
_CUTS = 15  # for each recording
_LINE = re.compile(
    r"\d+ +(?P<at>[\d.]+) (?P<call>\w+)\(\d+<(?P<path>[^>]*)>(?:, (?P<rest>.*))?\) += +\d+ <(?P<took>[\d.]+)>$"
)


class Event(NamedTuple):
    """A write (with `data`), a truncation (without) or a sync (`at` is -1) of one file. Times are wall-clock
    seconds."""

    start: float
    end: float
    name: str
    at: int
    data: bytes | None


def cut(folder: Path, rounds: int, seed: int, **settings: object) -> Outcome:
    need_strace()
    chance = random.Random(seed)
    made = concluded = unsynced = 0
    for first in range(0, rounds, _CUTS):
        scratch = folder.with_name(f"{folder.name}.{first}")
        scratch.mkdir()
        ledger, events = _record(scratch / "data", seed + first, settings)
        for number in range(min(_CUTS, rounds - first)):
            when = _instant(events, chance)
            disk = scratch / f"cut-{number}"
            shutil.copytree(scratch / "base", disk)
            unsynced += _leave(disk, events, when, chance)
            known = _known_by(ledger, when - _OFFSET)
            made, concluded = made + known.made(), concluded + known.concluded()
            with Victim(disk) as victim:
                victim.start()
                victim.wait_ready()
                wrong = check(known, *all_jobs(victim.port), settings.get("sync_leases") != "false")
                if wrong:
                    raise Broken("\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]]))
        shutil.rmtree(scratch)
    if not made or not concluded or not unsynced:
        raise Broken("nothing was lost in the cuts, so nothing is proved")
    return Outcome(rounds, made, concluded, f"{unsynced:,} writes were not synced")


_OFFSET = time.time() - time.monotonic()


def _record(folder: Path, seed: int, settings: dict[str, object]) -> tuple[Ledger, list[Event]]:
    """Runs clients for a while. Leaves the disk as it was before in the directory `base` beside `folder`."""
    ledger = Ledger()
    trace = folder.with_name("trace")
    with Victim(folder, **settings) as victim:
        victim.start()
        victim.wait_ready()
        tracer = subprocess.Popen(
            ["strace", "-f", "-ttt", "-T", "-y", "-xx", "-s", "200000", "-o", str(trace), "-p", str(victim.pid),
             "-e", "trace=pwrite64,ftruncate,fdatasync,fsync"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _wait_until(lambda: _is_traced(victim.pid), "strace does not attach")
        caller = Caller(victim.port)
        _wait_until(lambda: _is_written(caller), "a new journal should write its counters, and did not")
        caller.close()
        since = time.time()
        shutil.copytree(folder, folder.with_name("base"))
        crowd = Crowd(ledger, victim.port, seed=seed).start()
        time.sleep(1.5)
        crowd.stop()
        victim.kill()
        tracer.wait(20)
    events = [event for event in _events(trace) if event.start >= since]
    if not any(event.at == -1 for event in events):
        raise Broken("the recording has no sync")
    return ledger, events


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    until = time.monotonic() + 20
    while not condition():
        if time.monotonic() > until:
            raise Broken(complaint)
        time.sleep(0.01)


def _is_traced(pid: int) -> bool:
    """True if every thread of the process is traced."""
    states = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return not any("\nTracerPid:\t0\n" in state for state in states)


def _is_written(caller: Caller) -> bool:
    journal = caller.call("GET", "/stats").json["journal"]
    return journal["commits"] > 0 and journal["pending"] == 0


def _events(trace: Path) -> list[Event]:
    """Returns all operations on the files of the journal, in order. The calls of two threads may be
    interleaved in the trace."""
    begun: dict[str, str] = {}
    events = []
    with trace.open(encoding="latin-1") as lines:
        for line in lines:
            line = line.rstrip("\n")
            thread = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                begun[thread] = line.removesuffix("<unfinished ...>").rstrip()
                continue
            if " resumed>" in line:
                line = begun.pop(thread) + line.partition(" resumed>")[2]
            if (found := _LINE.match(line)) is None:
                continue
            name = _decoded(found["path"]).decode().rpartition("/")[2]
            if not name.startswith("journal.sqlite"):
                continue
            start, end = float(found["at"]), float(found["at"]) + float(found["took"])
            if found["call"] == "pwrite64":
                data, _, at = found["rest"].rpartition(", ")
                events.append(Event(start, end, name, int(at), _decoded(data.rpartition(", ")[0].strip('"'))))
            elif found["call"] == "ftruncate":
                events.append(Event(start, end, name, int(found["rest"]), None))
            else:
                events.append(Event(start, end, name, -1, None))
    return events


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if "\\x" in text else text.encode("latin-1")


def _leave(disk: Path, events: list[Event], when: float, chance: random.Random) -> int:
    """Rebuilds the files as a power cut at `when` leaves them. Returns the number of writes that were not
    synced."""
    synced: dict[str, float] = {}  # by file: writes that ended before this instant are on disk
    for event in events:
        if event.at == -1 and event.end <= when:
            synced[event.name] = event.start
    unsynced = 0
    share = chance.choice((0.0, 0.5, 0.9, 1.0))
    for event in events:
        if event.at == -1 or event.start > when:
            continue
        is_synced = event.end <= synced.get(event.name, 0.0)
        unsynced += not is_synced
        with (disk / event.name).open("r+b") as file:
            if event.data is None:
                if is_synced or chance.random() < share:
                    file.truncate(event.at)
                continue
            for start in range(0, len(event.data), _SECTOR):
                if is_synced or chance.random() < share:
                    file.seek(event.at + start)
                    file.write(event.data[start : start + _SECTOR])
    return unsynced


def _instant(events: list[Event], chance: random.Random) -> float:
    """Returns a random instant. Most are between a write, or a sync, and the end of its sync: these are rare
    and reveal most."""
    if chance.random() < 0.25:
        return chance.uniform(events[0].start, events[-1].end)
    number = chance.randrange(len(events))
    begun = events[number]
    synced = (event.end for event in events[number:] if event.at == -1 and event.name == begun.name)
    return chance.uniform(begun.start, next(synced, begun.end))


def _known_by(ledger: Ledger, when: float) -> Ledger:
    """Returns the ledger as it was at `when`, in monotonic seconds."""
    known = Ledger()
    for order in ledger.orders.values():
        state = order.state if order.state == REFUSED or order.answered <= when else UNKNOWN
        known.orders[order.number] = replace(order, state=state, id=order.id if state == MADE else None)
    for delivery in ledger.deliveries:
        if delivery.got <= when:
            done = delivery.concluded if delivery.concluded_at <= when else None
            known.deliveries.append(replace(delivery, concluded=done, returned=True))
    return known
