"""Compaction keeps the order, shrinks the slots, bounds the memory and never stops the loop.

In a fresh process, on the core, with ticks and the garbage collector as in the program:

1. enqueue all jobs, one by one (growth);
2. cancel 60 % of them, spread over the whole lane, with a tick and a slice of compaction after every 200;
3. rounds of enqueue, cancel 60 % of what is new, dequeue and conclude as many as are left of it, over the
   standing rest: slots and RSS are noted after each round;
4. dequeue and conclude everything; the ids must come in order, and all of them.

Every single call is timed; the longest of each kind is the longest delay for a client.
"""

from tests.bench import processes, subject
from tests.bench.report import Report, Skip, check, figure

CANCELLED = 0.6
ROUNDS = 20
# Calls between two ticks: at 20,000 requests a second and a slice each loop pass, far fewer than in service.
CALLS_BETWEEN_TICKS = 200
_KINDS = ["enqueue", "cancel", "dequeue", "conclude", "tick", "compact", "collect"]


def run(quick: bool) -> Report:
    report = Report("compaction: order, slots, memory and pauses")
    sizes = [5000] if quick else [10_000, 1_000_000, 5_000_000]
    shape, memory, pauses, counts = [], [], [], []
    for jobs in sizes:
        try:
            processes.need_memory(jobs * 600 / 1e9)
        except Skip as missing:
            report.skip(f"{jobs:,} jobs: {missing}")
            continue
        found = processes.fresh("compaction:measure", limit=1200, jobs=jobs)
        slots, rss = found["slots"], found["rss"]
        shape.append([
            f"{jobs:,}", f"{found['slots_full']:,}", f"{found['live']:,}", f"{found['slots_compacted']:,}",
            f"{max(slots[:5]):,}", f"{max(slots[-5:]):,}", f"{found['compactions']:,}", "yes",
        ])  # fmt: skip
        memory.append([
            f"{jobs:,}", *(figure(found[key] / 1e6) for key in ("rss_empty", "rss_full", "rss_compacted")),
            *(figure(size / 1e6) for size in (rss[4], rss[9], rss[-1], found["rss_drained"])),
        ])  # fmt: skip
        cpu, wall = found["cpu"], found["wall"]
        pauses.append([
            f"{jobs:,}", *(f"{cpu.get(kind, 0):.1f} / {wall.get(kind, 0):.1f}" for kind in _KINDS)
        ])  # fmt: skip
        calls, long = found["calls"], found["pauses"]
        counts.append([f"{jobs:,}", *(f"{long.get(kind, 0)} of {calls[kind]:,}" for kind in _KINDS)])
        longest = max(cpu, key=lambda kind: cpu[kind])
        report.at_most(
            f"longest call at {jobs:,} jobs ({longest}), CPU time", cpu[longest], subject.PAUSE_MS, "ms"
        )
    report.table(
        "Slots, 60 % of the jobs cancelled; rounds over the rest",
        [
            "jobs",
            "slots, full",
            "left",
            "slots, compacted",
            "rounds 1–5, most",
            "16–20, most",
            "compactions",
            "in order",
        ],
        shape,
    )
    report.table(
        "RSS, MB",
        ["jobs", "empty", "full", "compacted", "after round 5", "10", "20", "drained"],
        memory,
    )
    report.table("Longest single call, ms: CPU time / by the clock", ["jobs", *_KINDS], pauses)
    report.table(f"Calls of more than {subject.PAUSE_MS} ms of CPU time", ["jobs", *_KINDS], counts)
    report.note(
        "By the clock a call also takes what other processes took meanwhile; its CPU time may still hold "
        "what the machine's host and interrupts took. A few long ones among millions are of that kind."
    )
    return report


# -- in a process of its own ------------------------------------------------------------------------


def measure(jobs: int) -> dict[str, object]:
    work = _Work(jobs)
    found: dict[str, object] = {"rss_empty": processes.rss()}
    work.enqueue(jobs)
    found["slots_full"] = work.slots()
    found["rss_full"] = processes.rss()

    cancelled = work.cancel(jobs)
    work.settle()
    found["live"], found["slots_compacted"] = jobs - cancelled, work.slots()
    found["rss_compacted"] = processes.rss()
    check(work.slots() <= _allowed(jobs - cancelled), f"{work.slots()} slots for {jobs - cancelled} jobs")

    slots, rss = [], []
    each = min(max(jobs // 10, 2000), 50_000)
    for _ in range(ROUNDS):
        work.enqueue(each)
        work.take(each - work.cancel(each))
        work.settle()
        slots.append(work.slots())
        rss.append(processes.rss())
    check(max(slots) <= _allowed(jobs - cancelled), f"slots grow over the rounds: {slots}")
    check(max(rss[-5:]) <= 1.05 * max(rss[5:10]) + 8e6, f"RSS grows over the rounds: {rss}")

    work.take(jobs - cancelled)
    work.settle()
    check(not work.queue.dequeue(work.want, work.now), "more jobs came out than went in")
    check(work.slots() <= work.queue.state.limits.lane_segment, f"{work.slots()} slots in an empty lane")
    found["rss_drained"] = processes.rss()
    compactions, watch = work.queue.state.compactions, work.watch
    return found | {
        "slots": slots, "rss": rss, "compactions": compactions, "cpu": watch.cpu, "wall": watch.wall,
        "calls": watch.calls, "pauses": watch.pauses,
    }  # fmt: skip


def _allowed(live: int) -> int:
    """Slots that a settled lane may have: half of them empty, and two segments under way."""
    limits = subject.Limits()
    return int(live / (1 - limits.compact_above)) + 2 * limits.lane_segment


class _Work:
    """A queue under work: every call timed, a tick now and then, the order of what comes out checked."""

    def __init__(self, jobs: int) -> None:
        # At 5,000 jobs the default of 100,000 finished ones would never be full.
        self.queue = subject.new_queue(retain_jobs=min(100_000, jobs))
        self.want = subject.want()
        self.watch = subject.Stopwatch()
        self.now = subject.milliseconds()
        self._calls = self._enqueued = self._last_id = 0
        subject.as_the_program_does()
        self._collector = subject.GcControl(self.watch)

    def enqueue(self, count: int) -> None:
        for new in subject.new_jobs(count, self._enqueued):
            self._call("enqueue", self.queue.enqueue, new, self.now)
        self._enqueued += count

    def cancel(self, newest: int) -> int:
        """Cancels a share of the newest jobs, in an order that jumps about; how many."""
        first = self.queue.state.last_number - newest + 1
        count = int(newest * CANCELLED)
        for number in range(count):
            self._call("cancel", self.queue.cancel, first + number * 1_000_003 % newest, self.now)
        return count

    def take(self, count: int) -> None:
        for _ in range(count):
            handed = self._call("dequeue", self.queue.dequeue, self.want, self.now)
            check(len(handed) == 1, "a job is missing")
            job, lease = handed[0]
            check(job.id > self._last_id, f"out of order: {job.id} after {self._last_id}")
            self._last_id = job.id
            self._call("conclude", self.queue.conclude, job.id, lease.token, None, None, self.now)

    def settle(self) -> None:
        """Ticks until nothing is due."""
        while self._tick():
            pass

    def slots(self) -> int:
        return self.queue.lane_figures()[1]

    def _call(self, kind, function, *arguments):
        self._calls += 1
        if self._calls % CALLS_BETWEEN_TICKS == 0:
            self._tick()
        return self.watch.call(kind, function, *arguments)

    def _tick(self) -> bool:
        self.now = subject.milliseconds()
        _, more = self.watch.call("tick", self.queue.tick, self.now)
        more = self.watch.call("compact", self.queue.compact) or more
        self._collector.rest()
        return more
