"""Scale: what each verb of the core costs against jobs queued, queues, priorities, keys, waiters.

One thing grows, the rest stays: jobs in one queue; queues and priorities with a few jobs each, taken and
filled at random; waiters on one queue. Each figure is the median of blocks of calls, in CPU time. The longest
single call of any verb, building up included, is in the last column: a cost that is small on average may
still come at once.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from statistics import median

from tests.bench import plot, processes, subject, verbs
from tests.bench.report import Report, check, figure

JOBS = [1000, 10_000, 100_000, 1_000_000, 5_000_000]
NAMES = [1, 10, 100, 1000, 10_000, 100_000]
WAITERS = [1, 10, 100, 1000, 10_000]
KEYS = [1, 10, 100, 1000, 10_000]
BLOCKED = 10  # jobs of each key that its limit holds back
BLOCK = 1000
ROUNDS = 9
KEY_VERBS = ["enqueue with a key", "dequeue past the blocked", "conclude, and unblock"]
WAITING_VERBS = ["wait", "enqueue and deliver", "stop waiting"]


def run(quick: bool) -> Report:
    report = Report("scale: cost of each verb")
    dimensions = {
        "jobs queued": ("jobs", [100, 1000] if quick else JOBS),
        "queues": ("queues", [1, 100] if quick else NAMES),
        "priorities": ("priorities", [1, 100] if quick else NAMES),
        "keys that take turns": ("turns", [1, 100] if quick else KEYS),
        "keys at their limit, 10 jobs blocked behind each": ("keys", [1, 100] if quick else KEYS),
        "waiters": ("waiters", [1, 100] if quick else WAITERS),
    }
    shown: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, (dimension, sizes) in dimensions.items():
        if sizes[-1] * 600 > processes.memory_available():
            report.skip(f"{sizes[-1]:,} {name}: too little memory is free")
            sizes = sizes[:-1]
        found = processes.fresh(f"scale:{dimension}", sizes=sizes, rounds=1 if quick else ROUNDS)
        columns = {"waiters": WAITING_VERBS, "keys": KEY_VERBS}.get(dimension, verbs.VERBS)
        report.table(
            f"Against {name}: µs a call",
            [name, *columns, "longest call, ms (CPU)"],
            [
                [
                    f"{size:,}",
                    *(figure(costs[verb]) for verb in columns),
                    f"{costs['longest']:.1f} {costs['of']}",
                ]
                for size, costs in zip(sizes, found, strict=True)
            ],
        )
        shown[name] = {
            verb: [(size, costs[verb]) for size, costs in zip(sizes, found, strict=True)] for verb in columns
        }
        for verb in columns:
            grows = found[-1][verb] / found[0][verb]
            report.at_most(f"{verb}: {sizes[-1]:,} {name} against {sizes[0]:,}", grows, 3, "times")
    if not quick:
        report.plots["scale.svg"] = plot.panels("Cost of each verb in the core", "µs", shown)
    return report


# -- in processes of their own ----------------------------------------------------------------------


def jobs(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    queue, watch = subject.new_queue(), subject.Stopwatch()
    subject.as_the_program_does()
    news, wants = list(subject.new_jobs(BLOCK)), [subject.want()] * BLOCK
    found, have = [], 0
    for size in sizes:
        _put(queue, watch, subject.new_jobs(size - have))
        have = size
        found.append(_measured(queue, watch, lambda: (news, wants), rounds))
        check(queue.state.counts.jobs()["queued"] == size, f"not {size} jobs queued")
    return found


def queues(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    """Two jobs in each queue. A block uses queues at random for both enqueue and dequeue."""
    found = []
    for size in sizes:
        queue, watch = subject.new_queue(), subject.Stopwatch()
        subject.as_the_program_does()
        names = [f"queue-{number}" for number in range(size)]
        _put(queue, watch, (new for name in names for new in subject.new_jobs(2, 0, name)))
        random = Random(1)

        def block(names: list[str] = names, random: Random = random):
            some = random.choices(names, k=BLOCK)
            news = [new for name in some for new in subject.new_jobs(1, 0, name)]
            return news, [subject.want(name) for name in some]

        found.append(_measured(queue, watch, block, rounds))
    return found


def priorities(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    """Two jobs at each priority. A block enqueues at random priorities and dequeues from the highest."""
    found = []
    for size in sizes:
        queue, watch = subject.new_queue(), subject.Stopwatch()
        subject.as_the_program_does()
        random = Random(1)
        order = random.sample(range(size), size)
        _put(queue, watch, (new for number in order for new in subject.new_jobs(2, 0, "default", number)))
        wants = [subject.want()] * BLOCK

        def block(size: int = size, random: Random = random, wants: list[subject.DequeueRequest] = wants):
            some = [random.randrange(size) for _ in range(BLOCK)]
            return [new for number in some for new in subject.new_jobs(1, 0, "default", number)], wants

        found.append(_measured(queue, watch, block, rounds))
    return found


def turns(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    """Two jobs of each key of a queue with `fair_keys`. A block enqueues with random keys."""
    found = []
    for size in sizes:
        queue, watch = subject.new_queue(), subject.Stopwatch()
        subject.as_the_program_does()
        queue.configure("default", {"fair_keys": True}, subject.milliseconds())
        _put(queue, watch, (_keyed_job(f"key-{number % size}") for number in range(2 * size)))
        random = Random(1)
        wants = [subject.want()] * BLOCK

        def block(size: int = size, random: Random = random, wants: list[subject.DequeueRequest] = wants):
            return [_keyed_job(f"key-{random.randrange(size)}") for _ in range(BLOCK)], wants

        found.append(_measured(queue, watch, block, rounds))
    return found


def _keyed_job(key: str) -> subject.NewJob:
    return subject.NewJob("bench", payload=b"1", options=subject.Options(key=key))


def keys(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    return [_keyed(size, rounds) for size in sizes]


def _keyed(size: int, rounds: int) -> dict[str, object]:
    """Each of `size` keys has one job in progress and more that wait for it; other keys come with one job each."""
    queue, watch = subject.new_queue(), subject.Stopwatch()
    subject.as_the_program_does()
    now = subject.milliseconds()
    queue.configure("default", {"key_limits": subject.KeyLimits(max_in_progress=1)}, now)
    want = subject.want()
    keyed = _keyed_job
    for number in range(size):
        queue.enqueue(keyed(f"busy-{number}"), now)
    holders = [queue.dequeue(want, now)[0] for _ in range(size)]
    for _ in range(BLOCKED):
        for number in range(size):
            watch.call("enqueue", queue.enqueue, keyed(f"busy-{number}"), now)
    check(not queue.dequeue(want, now), "a key at its limit was handed out")
    found = []
    for number in range(rounds):
        news = [keyed(f"free-{number}-{each}") for each in range(BLOCK)]
        spent = {KEY_VERBS[0]: _spent(queue.enqueue, [(new, now) for new in news])}
        takes: list[list[subject.Delivery]] = []
        take = partial(_append, takes, queue.dequeue)
        spent[KEY_VERBS[1]] = _spent(take, [(want, now)] * BLOCK)
        handed = [one for taken in takes for one in taken]
        check(len(handed) == BLOCK, "jobs of free keys were not handed out")
        spent[KEY_VERBS[2]] = _spent(
            queue.conclude, [(job.id, lease.token, None, None, now) for job, lease in handed]
        )
        found.append(spent)
    for job, lease in holders[:BLOCK]:
        watch.call("conclude", queue.conclude, job.id, lease.token, None, None, now)
        check(len(watch.call("dequeue", queue.dequeue, want, now)) == 1, "the key's next job was not let go")
    costs = {verb: median(spent[verb] for spent in found) / BLOCK / 1000 for verb in KEY_VERBS}
    return costs | _longest(watch)


def _append(found: list, call: Callable[..., object], *arguments: object) -> None:
    found.append(call(*arguments))


def waiters(sizes: list[int], rounds: int) -> list[dict[str, object]]:
    return [_waiting(size, rounds) for size in sizes]


def _put(queue: subject.JobQueue, watch: subject.Stopwatch, news: Iterator[subject.NewJob]) -> None:
    now = subject.milliseconds()
    for new in news:
        watch.call("enqueue", queue.enqueue, new, now)


def _measured(queue: subject.JobQueue, watch: subject.Stopwatch, block, rounds: int) -> dict[str, object]:
    """Returns microseconds of each verb by name, the `longest` single call in milliseconds and the verb `of` that call."""
    found = []
    for _ in range(rounds):
        now = subject.milliseconds()
        while watch.call("tick", queue.tick, now)[1] or watch.call("compact", queue.compact):
            pass
        news, wants = block()
        found.append(verbs.costs(queue, news, wants, now))
    _single_calls(queue, watch, *block())
    costs = {verb: median(costs[verb] for costs in found) / 1000 for verb in verbs.VERBS}
    return costs | _longest(watch)


def _single_calls(queue: subject.JobQueue, watch: subject.Stopwatch, news, wants) -> None:
    """Runs each verb once more, call by call, and notes the longest."""
    now = subject.milliseconds()
    for new in news:
        watch.call("enqueue", queue.enqueue, new, now)
        job = watch.call("enqueue", queue.enqueue, new, now)
        watch.call("cancel", queue.cancel, job.id, now)
    for want in wants:
        for job, lease in watch.call("dequeue", queue.dequeue, want, now):
            watch.call("conclude", queue.conclude, job.id, lease.token, None, None, now)


def _longest(watch: subject.Stopwatch) -> dict[str, object]:
    kind = max(watch.cpu, key=lambda kind: watch.cpu[kind])
    return {"longest": watch.cpu[kind], "of": kind}


def _waiting(size: int, rounds: int) -> dict[str, object]:
    """`size` consumers wait on one queue. In each block some are served, some wait again, some hang up."""
    queue, watch, random = subject.new_queue(), subject.Stopwatch(), Random(1)
    subject.as_the_program_does()
    now, delivered = subject.milliseconds(), []
    want, new = subject.want(), next(subject.new_jobs(1))

    def fresh(count: int) -> list[subject.Waiter]:
        return [subject.Waiter(want, now + 60_000 + n % 1000, delivered.append) for n in range(count)]

    waiting = dict.fromkeys(fresh(size))  # in the order in which they wait
    for waiter in waiting:
        watch.call("wait", queue.wait, waiter)
    count, found = min(size, BLOCK), []
    for _ in range(rounds):
        spent = dict.fromkeys(WAITING_VERBS, 0.0)
        for _ in range(BLOCK // count):
            spent["enqueue and deliver"] += _spent(queue.enqueue, [(new, now)] * count)
            check(len(delivered) == count, f"{len(delivered)} deliveries to {count} waiters")
            for served in list(waiting)[:count]:
                del waiting[served]
            newcomers = fresh(count)
            spent["wait"] += _spent(queue.wait, [(waiter,) for waiter in newcomers])
            waiting |= dict.fromkeys(newcomers)
            leaving = random.sample(list(waiting), count)
            spent["stop waiting"] += _spent(queue.stop_waiting, [(waiter,) for waiter in leaving])
            for waiter, newcomer in zip(leaving, fresh(count), strict=True):
                del waiting[waiter]
                waiting[newcomer] = None
                queue.wait(newcomer)
            for job, lease in (one for handed in delivered for one in handed):
                queue.conclude(job.id, lease.token, None, None, now)
            delivered.clear()
        found.append(spent)
    done = BLOCK // count * count
    costs = {verb: median(spent[verb] for spent in found) / done / 1000 for verb in WAITING_VERBS}
    return costs | _longest(watch)


def _spent(call: Callable[..., object], calls: list[tuple[object, ...]]) -> int:
    """Returns the CPU time of all `calls` in nanoseconds, without the cost of reading the clock."""
    start = time.thread_time_ns()
    between = time.thread_time_ns()
    for arguments in calls:
        call(*arguments)
    return max(time.thread_time_ns() - between - (between - start), 0)
