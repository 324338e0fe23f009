"""Other processes: our server, its peers, the load generator, and Python children with fresh memory.

Each is a context manager or is waited for with a limit, and dies with this process even if that is killed.
All listen on 127.0.0.1 only.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jobqueue
from tests.bench.report import Broken, Skip, check

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGE = Path(jobqueue.__file__).parents[1]  # the sources, or a compiled copy
BUILD = HERE / ".build"
HOST = "127.0.0.1"
_START_SECONDS = 20
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(command: Sequence[str], **how: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, preexec_fn=_die_with_parent, **how)  # noqa: PLW1509  # no threads here


def _environment(package: Path = PACKAGE, root: Path = ROOT) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
    return {**kept, "PYTHONPATH": f"{package}{os.pathsep}{root}"}


# -- what the system says of a process --------------------------------------------------------------


def rss(pid: int | str = "self") -> int:
    """Returns the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int | str = "self") -> float:
    """Returns the user and system time of a process so far.

    It is the sum over the living threads where Linux tells it exactly, else in steps of 10 ms.
    """
    with contextlib.suppress(OSError, ValueError):
        threads = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_available() -> int:
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


def need_memory(gigabytes: float) -> None:
    have = memory_available() / (1 << 30)
    if have < gigabytes:
        raise Skip(f"needs {gigabytes:g} GB of free memory; there are {have:.1f}")


# -- servers ----------------------------------------------------------------------------------------


class Process:
    """A server process, alive from `__enter__` to `__exit__`. Its output goes to a file."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self._output = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115  # closed in __exit__
        self.port = 0

    def __enter__(self) -> Self:
        self._process = _start(
            self.command, cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=self._output,
            stderr=self._output,
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            until = time.monotonic() + _START_SECONDS
            while not self.is_up():
                if self._process.poll() is not None or time.monotonic() > until:
                    status, name = self._process.returncode, " ".join(self.command)
                    raise Broken(f"{name} does not come up (status {status}): {self.output()[-500:]}")
                time.sleep(0.02)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def environment(self) -> dict[str, str]:
        return _environment()

    def is_up(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True

    def output(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode("utf-8", "replace")


class Server(Process):
    """Our server, as `scripts/run.sh` starts it.

    `front`: fast or tornado. `package`: the folder from which it imports jobqueue. `settings`: by their
    lower-case names.
    """

    def __init__(self, front: str = "fast", package: Path = PACKAGE, **settings: object) -> None:
        # A checkout to compare with may be older than the command `serve`.
        serve = ["serve"] if (package / "jobqueue" / "cli").is_dir() else []
        super().__init__(sys.executable, "-P", "-m", "jobqueue", *serve)
        self._package = package
        self._settings = {"host": HOST, "port": 0, "http": front, **settings}

    def environment(self) -> dict[str, str]:
        given = {f"JOBQUEUE_{name.upper()}": str(value) for name, value in self._settings.items()}
        return {**_environment(self._package), **given}

    def is_up(self) -> bool:
        found = re.search(rf" on http://{re.escape(HOST)}:(\d+) ", self.output())
        self.port = int(found[1]) if found else 0
        return found is not None

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            said = self.output()
            trouble = re.search(r"^\S+ (error|critical) .*|^Traceback.*", said, re.MULTILINE)
            check(self._process.poll() is None, f"the server died: {said[-500:]}")
            check(trouble is None, f"the server logged: {said[trouble.start() :][:500] if trouble else ''}")
        super().__exit__(*exception)


class Beanstalkd(Process):
    """beanstalkd in memory, or with its binlog in `folder`, synced at each write."""

    def __init__(self, folder: Path | None = None) -> None:
        port = free_port()
        durable = () if folder is None else ("-b", str(folder), "-f", "0")
        super().__init__(find("beanstalkd"), "-l", HOST, "-p", str(port), *durable)
        self.port = port


class Redis(Process):
    """Redis in memory only, as our server is: without snapshots and without its append-only file."""

    def __init__(self) -> None:
        port = free_port()
        super().__init__(
            find("redis-server"), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"
        )
        self.port = port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


_INSTALL = {"py-spy": ".venv/bin/pip install py-spy"}


def find(program: str) -> str:
    """Returns the path of a program. Raises `Skip`, which tells how to install it."""
    for folder in (None, "/usr/local/bin", "/usr/bin", "/usr/sbin"):
        path = shutil.which(program, path=folder)
        if path is not None:
            return path
    how = _INSTALL.get(program, f"on Debian and Ubuntu: apt install {program}")
    raise Skip(f"{program} is not installed; {how}")


def version(program: str, flag: str) -> str:
    """Returns the first line that a program prints about itself, or that it is not installed."""
    try:
        said = subprocess.run([find(program), flag], capture_output=True, text=True, timeout=10, check=False)
    except Skip:
        return f"{program}: not installed"
    return (said.stdout or said.stderr).strip().splitlines()[0]


# -- the load generator -----------------------------------------------------------------------------


class Load(NamedTuple):
    """The result of one run of the load generator.

    Times are microseconds. `cpu` is the share of one core that the generator used, `server_cpu` the seconds of CPU
    time of the server.
    """

    connections: int
    seconds: float
    lifecycles: int
    requests: int
    errors: int
    p50: float
    p99: float
    p999: float
    max: float
    cpu: float
    first_error: str
    server_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Lifecycles a second."""
        return self.lifecycles / self.seconds

    @property
    def cost(self) -> float:
        """CPU time of the server for one lifecycle, in microseconds. On a busy machine it says more than the rate."""
        return self.server_cpu * 1e6 / max(self.lifecycles, 1)


def generator() -> str:
    """Returns the path of the compiled generator. Raises `Skip` without a compiler."""
    source, program = HERE / "loadgen.c", BUILD / "loadgen"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = find("gcc")
        BUILD.mkdir(exist_ok=True)
        fresh = BUILD / f"loadgen.{os.getpid()}"
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", fresh, source], check=True, timeout=120)
        fresh.replace(program)
    return str(program)


class Loading:
    """A run in progress: do something else while it runs, then ask for its `result`.

    `what` is the script of requests for `http`, else the number of bytes of a payload.
    """

    def __init__(
        self, protocol: str, server: Process, connections: int, seconds: float, what: str | int
    ) -> None:
        self._limit = seconds + 30
        self._server = server.pid
        self._cpu = cpu_seconds(server.pid)
        with tempfile.TemporaryFile("w+") as script:
            if isinstance(what, str):
                script.write(what)
                script.seek(0)
                what = "-"
            self._process = _start(
                [generator(), protocol, str(server.port), str(connections), str(seconds), str(what)],
                stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def result(self) -> Load:
        """Waits for the end. Raises `Broken` if any request failed."""
        said, wrong = self._process.communicate(timeout=self._limit)
        check(self._process.returncode == 0, f"the load generator failed: {wrong.strip()}")
        load = Load(**json.loads(said), server_cpu=cpu_seconds(self._server) - self._cpu)
        check(load.errors == 0, f"{load.errors} requests failed of {load.requests}: {load.first_error}")
        check(load.requests > 0, "the load generator had no answer")
        return load


def load(protocol: str, server: Process, connections: int, seconds: float, what: str | int) -> Load:
    """Runs the generator to its end; see `Loading`."""
    with Loading(protocol, server, connections, seconds, what) as loading:
        return loading.result()


class Static(Process):
    """A server that answers every read with the same bytes. Its rate is the ceiling of the generator."""

    def __init__(self, seconds: float) -> None:
        super().__init__(generator(), "static", str(seconds))

    def is_up(self) -> bool:
        said = self.output()
        self.port = int(said) if said.endswith("\n") else 0
        return self.port > 0


# -- fresh memory -----------------------------------------------------------------------------------


def fresh(
    function: str, limit: float = 600, package: Path = PACKAGE, root: Path = ROOT, **arguments: object
) -> Any:
    """Calls `module:function` of this folder in a new Python process and returns its result, which is JSON.

    `package`: the folder from which that process imports jobqueue. `root`: the checkout whose benchmarks it
    runs.
    """
    command = [sys.executable, "-P", "-m", "tests.bench.fresh", function, json.dumps(arguments)]
    environment = _environment(package, root)
    with _start(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            said, _ = child.communicate(timeout=limit)
        finally:
            child.kill()
    check(child.returncode == 0, f"{function} failed; its last words are above")
    return json.loads(said)
