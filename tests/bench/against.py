"""This checkout against another one, pair by pair in one run: did a change cost anything?

`BENCH_AGAINST=FOLDER ./scripts/bench.sh against`: FOLDER is another checkout; its compiled copy is used where
`FOLDER/.venv/compiled` has one. Without the variable this checkout runs against itself, which shows the noise.

Each pair runs the same load on both, one directly after the other, in alternating order. What is compared is
the CPU time that a job takes: the server's own for requests, that of a fresh process for the core. Rates
drift with the machine; the ratio within a pair does so less.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.bench import processes
from tests.bench.batch import HUNDRED, JOB
from tests.bench.client import lifecycle_script
from tests.bench.processes import PACKAGE, ROOT, Server
from tests.bench.report import Report, spread

_BATCH = (
    "POST /jobs/enqueue Content-Type: application/x-ndjson\n" + "\n".join([JOB] * HUNDRED) + "\n%%\n"
    f'POST /jobs/dequeue Content-Type: application/json\n{{"count":{HUNDRED}}}\n%%\n'
    "+POST /jobs/conclude Content-Type: application/x-ndjson\n"
    '{"id":{id},"lease":"{lease}"}\n'
)
_LIMIT = 1.05


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("against: this checkout and another one")
    root = Path(os.environ.get("BENCH_AGAINST", ROOT)).absolute()
    compiled = root / ".venv" / "compiled"
    package = PACKAGE if root == ROOT else compiled if (compiled / "jobqueue").is_dir() else root
    pairs = 1 if quick else 9
    rows = []

    def compare(name: str, new: Callable[[], float], old: Callable[[], float], unit: str) -> None:
        """Measures both `pairs` times and adds a row. Each callable returns the cost of one job."""
        costs: list[tuple[float, float]] = []
        for number in range(pairs):
            if number % 2:
                old_cost, new_cost = old(), new()
            else:
                new_cost, old_cost = new(), old()
            costs.append((new_cost, old_cost))
        ratios = [new_cost / old_cost for new_cost, old_cost in costs]
        mine, theirs = [cost for cost, _ in costs], [cost for _, cost in costs]
        rows.append([f"{name}, {unit}", spread(mine), spread(theirs), spread(ratios)])
        report.at_most(f"ratio: {name}", median(ratios), _LIMIT)

    with contextlib.ExitStack() as stack:
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="jobqueue-bench-", dir="/var/tmp"))
        )
        memory = [stack.enter_context(Server(package=each)) for each in (PACKAGE, package)]
        durable = [
            stack.enter_context(Server(package=each, data=str(scratch / name), sync="always"))
            for each, name in ((PACKAGE, "new"), (package, "old"))
        ]
        seconds = 0.3 if quick else 2.5
        loads = (
            ("lifecycle, 64 connections", memory, 64, lifecycle_script()),
            ("lifecycle, 1 connection", memory, 1, lifecycle_script()),
            (f"lifecycle in batches of {HUNDRED}", memory, 4, _BATCH),
            ("lifecycle, sync always, 64 connections", durable, 64, lifecycle_script()),
        )
        if not quick:
            for server in (*memory, *durable):
                processes.load("http", server, 64, 6, lifecycle_script())
        for name, (new, old), connections, script in loads:
            costs = [_cost(server, connections, seconds, script) for server in (new, old)]
            compare(name, *costs, "µs of CPU")
    compare("lifecycle in the core", _core(PACKAGE, ROOT, quick), _core(package, root, quick), "µs of CPU")
    compare("memory of a queued job", _memory(PACKAGE, ROOT, quick), _memory(package, root, quick), "bytes")
    report.table(
        f"{pairs} pairs: median (least–most); ratios pair by pair",
        ["", "this checkout", "the other", "ratio"],
        rows,
    )
    return report


def _cost(server: Server, connections: int, seconds: float, script: str) -> Callable[[], float]:
    """Returns a function that puts `server` under load and returns its CPU time for one job, in microseconds."""
    return lambda: processes.load("http", server, connections, seconds, script).cost


def _core(package: Path, root: Path, quick: bool) -> Callable[[], float]:
    def cost() -> float:
        found = processes.fresh("core:measure", package=package, root=root, depth=0, quick=quick)
        return float(median(found["lifecycle"]))

    return cost


def _memory(package: Path, root: Path, quick: bool) -> Callable[[], float]:
    jobs = 20_000 if quick else 300_000
    return lambda: float(processes.fresh("core:bytes_per_job", package=package, root=root, jobs=jobs))
