"""Runs the server and a worker of the shop under steady load, and shows whether their memory is flat.

    PYTHONPATH=. .venv/bin/python tests/worker/soak.py --minutes 60

Jobs of every kind come at a steady rate: tasks, threads, processes, failures, retries, cancelled jobs, large
results, jobs that are stopped by their timeout. Prints the resident memory every 10 seconds. At the end prints as
JSON the medians of the second and the last sixth of the time, the difference as a share, and the slope of a line
through all samples but those of the first sixth. Exits with 1 if a job was lost, or if memory grew by more than
`--most`, 5 % by default.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import linear_regression, median

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "server")]
import shop  # noqa: E402  # its folder has to be on the path first
from running import PACKAGE, Program, environment  # noqa: E402

from jobqueue import Client  # noqa: E402

QUEUE = "soak"


def rss(pid: int) -> int:
    """Returns the resident memory of a process and of all that it has started, in bytes."""
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return own_rss(pid) + sum(rss(int(child)) for some in children for child in some)


def own_rss(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # it has just ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def enqueue(round_: int, rate: int) -> int:
    """Enqueues the jobs of one second, and returns their number."""
    options = {"queue": QUEUE}
    made = [shop.noop.options(**options).prepare() for _ in range(rate // 2)]
    made += [shop.add.options(**options).prepare(number) for number in range(rate // 4)]
    address = shop.Address("retry")
    made += [shop.send_mail.options(**options, backoff=[0]).prepare(address) for _ in range(rate // 20)]
    made += [shop.fail.options(**options).prepare("value") for _ in range(rate // 20)]
    made += [shop.big.options(**options).prepare(10_000) for _ in range(rate // 20)]
    made.append(shop.encode.options(**options).prepare("ada", "a.mp4"))
    if round_ % 30 == 0:
        made += [shop.slow.options(**options).prepare(), shop.slow_in_thread.options(**options).prepare()]
        made.append(shop.encode.options(**options).prepare("bob", "endless"))
        made.append(shop.encode.options(**options).prepare("eve", "crash"))
    # Without idempotency keys, which the server remembers for a day.
    count = len(shop.jobs.client.jobs.enqueue_each([one.new for one in made]))
    if round_ % 10 == 0:
        nap = shop.nap.options(**options).enqueue(60)
        time.sleep(0.2)
        nap.cancel()
        return count + 1
    return count


def run(minutes: float, rate: int, most: float) -> int:
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_RETAIN="5s", JOBQUEUE_DEAD_RETAIN="5s") as program:
        url = f"http://127.0.0.1:{program.port}"
        client = Client(url)
        shop.jobs.shared.use_clients(client, None)
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue", "work", "shop:jobs", "-q", QUEUE, "-c", "32"],
            cwd=HERE, env=environment(JOBQUEUE_URL=url, PYTHONPATH=str(PACKAGE)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        began, enqueued, second = time.monotonic(), 0, 0
        samples: list[tuple[float, int, int, int]] = []
        try:
            while (now := time.monotonic() - began) < minutes * 60:
                enqueued += enqueue(second, rate)
                if second % 10 == 0:
                    samples.append((now, own_rss(program.pid), own_rss(worker.pid), rss(worker.pid)))
                    print(*[f"{figure:,.0f}" for figure in samples[-1]], file=sys.stderr, flush=True)
                second += 1
                time.sleep(max(0.0, began + second - time.monotonic()))
            end = time.monotonic() + 120
            while (queue := client.queues.get(QUEUE)).totals.concluded + queue.totals.dead < enqueued:
                if time.monotonic() > end or worker.poll() is not None:
                    break
                if queue.totals.concluded + queue.totals.dead + queue.totals.cancelled >= enqueued:
                    break
                time.sleep(0.2)
        finally:
            worker.send_signal(signal.SIGTERM)
            status = worker.wait(60)
        totals = client.queues.get(QUEUE).totals
        client.close()
    lost = enqueued - totals.concluded - totals.dead - totals.cancelled
    sixth = len(samples) // 6
    result: dict[str, object] = {
        "minutes": minutes, "jobs": enqueued, "lost": lost, "exit": status, "stale": totals.stale,
    }  # fmt: skip
    grew = 0.0
    for place, name in ((1, "server"), (2, "worker"), (3, "worker_with_processes")):
        early = median(sample[place] for sample in samples[sixth : 2 * sixth] or samples)
        late = median(sample[place] for sample in samples[-sixth:] if sample)
        result[f"{name}_mib"] = [round(early / (1 << 20), 1), round(late / (1 << 20), 1)]
        grew = max(grew, late / early - 1)
        if len(later := samples[sixth:]) > 1:
            slope = linear_regression(
                [sample[0] for sample in later], [sample[place] for sample in later]
            ).slope
            result[f"{name}_kib_a_minute"] = round(slope * 60 / 1024, 1)
    print(json.dumps(result | {"grew": round(grew, 3)}))
    return 0 if lost == 0 and status == 0 and grew <= most else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=200, help="jobs a second")
    parser.add_argument("--most", type=float, default=0.05, help="growth of memory that is accepted, a share")
    given = parser.parse_args()
    return run(given.minutes, given.rate, given.most)


if __name__ == "__main__":
    sys.exit(main())
