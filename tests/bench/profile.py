"""The profile of the hot path: py-spy on a real server under the lifecycles of 64 connections, by self time.

Time in C (msgspec, dicts, sockets) counts for the function of ours that called it, compiled or not. Time under no
function of ours belongs to the loop itself.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.bench.client import lifecycle_script
from tests.bench.processes import Loading, Server, find, generator, load
from tests.bench.report import Report, check

SHOWN = 25
CONNECTIONS = 64
# Of a function compiled: CPyDef_connection___Connection____answer, and CPyPy_… where Python calls it.
_COMPILED = re.compile(r"CPy(?:Def|Py)_(?P<name>\w+) \(.*__mypyc")
_INTERPRETED = re.compile(r"(?P<name>\S+) \((?:.*/)?(?P<file>jobqueue/[^()]*)\)")
_THE_LOOP = "the loop"
_STARTS_IT = ("__main__.main", "program.main")


def run(quick: bool) -> Report:
    generator()
    seconds = 1 if quick else 20
    spy = Path(sys.executable).with_name("py-spy")
    program = str(spy) if spy.exists() else find("py-spy")
    report = Report("profile: where the server's time goes")
    with Server() as server:
        if not quick:
            load("http", server, CONNECTIONS, 10, lifecycle_script())  # until there is something to forget
        with Loading("http", server, CONNECTIONS, seconds + 2, lifecycle_script()) as loading:
            recorded = subprocess.run(
                [program, "record", "--native", "--pid", str(server.pid), "--duration", str(seconds), "--rate", "100",
                 "--function", "--format", "raw", "--output", "/dev/stdout"],
                capture_output=True, text=True, timeout=seconds + 60, check=False,
            )  # fmt: skip
            check(recorded.returncode == 0, f"py-spy: {recorded.stderr.strip()[-300:]}")
            rate = loading.result().rate
    self_time, whole = _counted(recorded.stdout)
    total = sum(self_time.values())
    check(total > 0, "py-spy saw nothing")
    report.table(
        f"{CONNECTIONS} connections, {rate:,.0f} lifecycles/s while watched; {total:,} samples, "
        f"the first {SHOWN} functions by self time",
        ["function", "self", "with what it calls"],
        [
            [f"`{name}`", f"{count / total:.1%}", f"{whole[name] / total:.1%}"]
            for name, count in self_time.most_common(SHOWN)
        ],
    )
    return report


def _counted(raw: str) -> tuple[Counter[str], Counter[str]]:
    """Counts the samples of each function, alone and with its callees. A line is `outer;…;inner count`."""
    self_time: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit() and "(jobqueue/server/watchdog.py" not in stack:  # whose thread sleeps
            ours = [name for frame in stack.split(";") if (name := _of_ours(frame)) is not None]
            ours = [name for name in ours if name not in _STARTS_IT]
            self_time[ours[-1] if ours else _THE_LOOP] += int(count)
            for name in {_THE_LOOP, *ours}:
                whole[name] += int(count)
    return self_time, whole


def _of_ours(frame: str) -> str | None:
    """Returns `module Class.function` or `function module` if the frame is one of ours."""
    if found := _COMPILED.match(frame):
        return ".".join(re.split(r"(?<=[^_])___(?=[A-Z_a-z])", found["name"]))
    if found := _INTERPRETED.match(frame):
        return f"{found['file'].rpartition('/')[2].partition('.')[0]}.{found['name']}"
    return None
