"""What schedules cost a tick: 10,000 of which none is due, and 1,000 that are due at once; and what the series of
queues cost it.

On the engine with jobs in memory, with the garbage collector as in the program. One slice is one turn of the
loop: other requests are served between two slices. The clock is set forward by hand, and every slice is timed.
"""

import time
import tracemalloc
from statistics import median

from tests.bench import processes, subject
from tests.bench.report import Report, check, figure, spread

HOUR, MINUTE = 3_600_000, 60_000
# How each kind of schedule is due, and by how many minutes the clock is set forward.
_KINDS: dict[str, tuple[dict[str, object], int]] = {
    "every minute, on time": ({"every": MINUTE}, 1),
    "`* * * * *` in Berlin, on time": ({"cron": "* * * * *", "timezone": "Europe/Berlin"}, 1),
    "the same, an hour missed, once": ({"cron": "* * * * *", "timezone": "Europe/Berlin"}, 61),
    "the same, an hour missed, all": (
        {"cron": "* * * * *", "timezone": "Europe/Berlin", "misfire": "all"}, 61,
    ),
}  # fmt: skip


def run(quick: bool) -> Report:
    report = Report("ticks: what schedules and series cost")
    count, due, rounds = (200, 20, 1) if quick else (10_000, 1_000, 5)
    idle = [processes.fresh("ticks:idle", schedules=number) for number in (0, count)]
    report.table(
        "A tick in which nothing is due: median (least–most)",
        ["schedules", "CPU time, µs"],
        [["0", spread(idle[0])], [f"{count:,}", spread(idle[1])]],
    )
    report.at_most(
        f"a tick with {count:,} schedules and none due, above one without", median(idle[1]) - median(idle[0]),
        5, "µs",
    )  # fmt: skip
    rows = []
    for name in _KINDS:
        found = [processes.fresh("ticks:due", schedules=due, kind=name) for _ in range(rounds)]
        longest = [each["longest"] for each in found]
        rows.append([
            name, f"{found[0]['jobs']:,}", figure(median([each["slices"] for each in found])),
            spread(longest), spread([each["all"] for each in found]),
        ])  # fmt: skip
        report.at_most(f"longest slice, {name}", median(longest), subject.PAUSE_MS, "ms")
    report.table(
        f"{due:,} schedules due at once, CPU time: median (least–most)",
        ["schedules", "jobs", "slices", "longest slice, ms", "all slices, ms"],
        rows,
    )
    _series(report, 200 if quick else 10_000)
    return report


def _series(report: Report, queues: int) -> None:
    found = {count: processes.fresh("ticks:series", queues=count) for count in (1, queues)}
    rows = [
        [f"{count:,}", spread(each["idle"]), figure(each["longest"]), figure(each["points"]),
         figure(each["bytes"] / 1e6)]
        for count, each in found.items()
    ]  # fmt: skip
    report.table(
        "Series of queues, CPU time; a point every 10 s",
        ["queues", "tick without a point, µs", "longest tick, µs", "all ticks of a point, µs", "memory, MB"],
        rows,
    )
    report.at_most(f"longest tick of a point, {queues:,} queues", found[queues]["longest"], 1_000, "µs")
    report.at_most(f"memory of all series, {queues:,} queues", found[queues]["bytes"] / 1e6, 7, "MB")


# -- in a process of their own ----------------------------------------------------------------------


def idle(schedules: int) -> list[float]:
    """Microseconds of a tick, a hundred ticks at a time."""
    engine = subject.new_scheduled_engine(schedules, {"every": HOUR}, subject.ManualClock())
    subject.as_the_program_does()
    found = []
    for _ in range(15):
        start = time.thread_time_ns()
        for _ in range(100):
            engine.tick()
        found.append((time.thread_time_ns() - start) / 100_000)
    return found


def due(schedules: int, kind: str) -> dict[str, object]:
    """Milliseconds of the longest slice and of all; how many slices and jobs there were."""
    when, minutes = _KINDS[kind]
    clock = subject.ManualClock()
    engine = subject.new_scheduled_engine(schedules, when, clock)
    subject.as_the_program_does()
    watch, slices, spent = subject.Stopwatch(), 0, 0.0
    collector = subject.GcControl(watch)
    clock.advance(minutes * 60)
    more = True
    while more:
        start = time.thread_time_ns()
        more = watch.call("slice", subject.slice_of, engine)
        spent += (time.thread_time_ns() - start) / 1e6
        slices += 1
        collector.rest()
    jobs = engine.stats().totals["enqueued"]
    check(jobs >= schedules, f"{schedules} schedules were due, but there are {jobs} jobs")
    return {"longest": watch.cpu["slice"], "all": spent, "slices": slices, "jobs": jobs}


def series(queues: int) -> dict[str, object]:
    """Microseconds of a tick that adds no point, of the longest one that does, and of all that a point takes;
    bytes of all points."""
    clock = subject.ManualClock()
    engine = subject.new_engine(max_queues=queues + 1)
    for number in range(queues):
        engine.enqueue(subject.NewJob("bench", f"q{number}", 0, b"null"))
    kept, now = subject.new_series(engine), clock.monotonic()
    tracemalloc.start()
    kept.add(now)
    for step in range(1, 60):
        kept.add(now + 100 * step)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    subject.as_the_program_does()
    idle, longest, points = [], 0.0, []
    for _ in range(15):
        now += 10_000
        costs = []
        for step in range(10):  # the ticks of the first second
            start = time.thread_time_ns()
            kept.add(now + 100 * step)
            costs.append((time.thread_time_ns() - start) / 1000)
        points.append(sum(costs))
        longest = max(longest, *costs)
        start = time.thread_time_ns()
        for step in range(1_000):
            kept.add(now + 1_000 + step)
        idle.append((time.thread_time_ns() - start) / 1_000_000)
    return {"idle": idle, "longest": longest, "points": median(points), "bytes": size}
