"""The profile of the hot path: py-spy on a real server under the lifecycles of 64 connections, by self time.

What C does (llhttp, msgspec, sockets, the loop of uvloop) counts for the Python function that called it; what
is under none of ours is the loop itself.
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
_FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*)\)")


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
                [program, "record", "--pid", str(server.pid), "--duration", str(seconds), "--rate", "500",
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
    """Samples of each function, by itself and with what it calls. A line is `outer;…;inner count`."""
    self_time: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit():
            frames = [_shown(frame) for frame in stack.split(";")]
            self_time[frames[-1]] += int(count)
            for frame in set(frames):
                whole[frame] += int(count)
    return self_time, whole


def _shown(frame: str) -> str:
    """`function file`, the path from the package on."""
    found = _FRAME.fullmatch(frame)
    if found is None:
        return frame
    file = found["file"].rpartition("/jobqueue/")[2].rpartition("/site-packages/")[2]
    return f"{found['function']} {file.partition(':')[0]}"
