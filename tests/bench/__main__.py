"""`./scripts/bench.sh [names] [--quick] [--write]`: runs the benchmarks, prints their tables at the end."""

import argparse
import importlib
import signal
import sys
import time

from tests.bench import docs
from tests.bench.report import Broken, Report, Skip

BENCHMARKS = {
    "core": "a lifecycle and each verb in the core; memory of a queued job",
    "compaction": "slots, memory, order and the longest pause, up to 5 million jobs",
    "pauses": "what compaction, stale jobs and depth do to the requests that run meanwhile",
    "http": "lifecycles over HTTP, both fronts; the generator's ceiling",
    "peers": "against beanstalkd and Redis in the same run",
    "fewer-turns": "two requests a job, and pipelined ones, against beanstalkd in the same run",
    "batch": "many jobs in one request",
    "consuming": "one consumer: separate calls, conclude and next, a stream",
    "clients": "the Python client against http.client and aiohttp",
    "task-queues": "the Python worker beside rq, huey, dramatiq, celery, arq and taskiq",
    "sqs": "send, receive and delete by the SQS protocol beside the API",
    "waiting": "idle long-polls, and how fast a job reaches one",
    "journal": "with a journal: against beanstalkd with its binlog; a start; the file; a slow disk",
    "postgres": "a journal in PostgreSQL beside one in a file, directly and through a standby",
    "scale": "cost of each verb against jobs, queues, priorities and waiters",
    "ticks": "schedules, 10,000 of which none is due and 1,000 that are due at once; series of queues",
    "pages": "what open pages of the dashboard cost the requests that run meanwhile",
    "guard": "what metrics and access tokens cost on the way of a request",
    "instructions": "instructions of each kind of request, by callgrind; fails if they are not as recorded",
    "against": "this checkout against another one (BENCH_AGAINST=FOLDER), pair by pair",
    "profile": "where the server's time goes, by py-spy",
}
_LIMIT_SECONDS = 1800


def main() -> int:
    options = _options()
    if sys.platform != "linux":
        print("SKIPPED all benchmarks: they need Linux (/proc, epoll)")
        return 0
    names = options.names or list(BENCHMARKS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, _too_long)
    machine = docs.machine()
    reports: dict[str, Report] = {}
    failures, skips = [], []
    for name in names:
        print(f"{name}: {BENCHMARKS[name]} …", file=sys.stderr, end=" ", flush=True)
        start = time.monotonic()
        load_before = docs.load()
        signal.alarm(_LIMIT_SECONDS)
        try:
            report = importlib.import_module(f"tests.bench.{name.replace('-', '_')}").run(options.quick)
        except Skip as skipped:
            skips.append(f"{name}: {skipped}")
            outcome = f"skipped: {skipped}"
        except Broken as broken:
            failures.append(f"{name}: {broken}")
            outcome = f"FAILED: {broken}"
        else:
            skips += [f"{name}: {skip}" for skip in report.skips]
            reports[name] = report
            outcome = "done"
            if report.failures and not options.write:
                failures += [f"{name}: {failure}" for failure in report.failures]
                outcome = "FAILED"
        signal.alarm(0)
        print(f"{outcome}, {time.monotonic() - start:.1f} s", file=sys.stderr)
        if options.write and name in reports:
            docs.write(name, reports[name], machine, load_before)
    print(machine, *(report.text(options.quick) for report in reports.values()), sep="\n\n")
    for skip in skips:
        print(f"SKIPPED {skip}")
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    listed = "\n".join(f"  {name:11} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="bench.sh", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"benchmarks:\n{listed}"
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which benchmarks; default: all of them")
    parser.add_argument("--quick", action="store_true", help="each once and tiny: what CI runs")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/benchmarks.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.quick and options.write:
        parser.error("--write is for full runs: the figures of --quick mean nothing")
    return options


def _too_long(*_: object) -> None:
    raise Broken(f"took longer than {_LIMIT_SECONDS} seconds")


if __name__ == "__main__":
    sys.exit(main())
