"""The server under test, which is killed and started again on the same port and directory."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.bench.processes import HOST, PACKAGE, ROOT, free_port
from tests.bench.report import Skip
from tests.crash.clients import Caller, Cut, Unsent


class Broken(Exception):
    """The server broke a promise."""


def need_strace() -> None:
    if shutil.which("strace") is None:
        raise Skip("strace is not installed; on Debian and Ubuntu: apt install strace")


class Victim:
    """One server at a time, with a journal in `folder`. `settings`: further settings by their lower-case
    names."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        self.starts = 0
        self._settings = {
            "host": HOST, "port": self.port, "data": folder, "retain": "24h", "retain_jobs": 10_000_000,
            "retain_bytes": "1GiB", "access_log": "off", **settings,
        }  # fmt: skip
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *before: str, **settings: object) -> None:
        """Starts the server. `before`: a command that runs it, such as a tracer."""
        given = {**self._settings, **settings}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")}
        kept |= {f"JOBQUEUE_{name.upper()}": str(value) for name, value in given.items()}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-P", "-m", "jobqueue", "serve"], cwd=ROOT, env={**kept, "PYTHONPATH": str(PACKAGE)},
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output,
        )  # fmt: skip
        self.starts += 1

    def wait_ready(self, seconds: float = 60) -> None:
        caller = Caller(self.port)
        until = time.monotonic() + seconds
        while True:
            try:
                if caller.call("GET", "/readyz").status == 200:
                    break
            except (Unsent, Cut):
                pass
            if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                raise Broken(f"the server does not start: {self.output()[-800:]}")
            time.sleep(0.005)
        caller.close()

    def come_up(self) -> None:
        self.start()
        self.wait_ready()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def status(self, seconds: float = 30) -> int:
        """Waits for the server to end. Returns its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        if self.status() != 0:
            raise Broken(f"the server did not stop cleanly: {self.output()[-800:]}")

    def output(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode("utf-8", "replace")
