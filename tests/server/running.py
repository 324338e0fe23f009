"""The real program in a process of its own, and the lines that it writes to stderr."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jobqueue
from jobqueue.engine import local

ROOT = Path(__file__).parents[2]
PACKAGE = Path(jobqueue.__file__).parents[1]  # the sources, or a compiled copy
# Addition to the first line if it is the copy.
COMPILED = "" if str(local.__file__).endswith(".py") else ", compiled"
CLI = (sys.executable, "-P", "-m", "jobqueue")
MODULE = (*CLI, "serve")
SCRIPT = (str(ROOT / "scripts" / "run.sh"),)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of jobqueue; the python of the tests is first on the PATH."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("JOBQUEUE_") and name != "PORT"
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": path, "PYTHONPATH": str(PACKAGE)} | settings


class Program:
    """Runs for the length of a `with`, and is killed if it still runs then. A traceback in its log fails the test,
    and so does a 5xx response unless `expect_5xx` allows it."""

    def __init__(
        self,
        command: tuple[str, ...] = MODULE,
        expect_5xx: bool = False,
        host: str = "127.0.0.1",
        **settings: str,
    ) -> None:
        self._expect_5xx = expect_5xx
        self.host = host
        self._process = subprocess.Popen(
            command,
            env=environment(**{"JOBQUEUE_PORT": "0", "JOBQUEUE_HOST": host} | settings),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self._may_read = threading.Event()
        self._may_read.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._may_read.wait()
            if b"the event loop was blocked" not in line:  # the watchdog logs this on a busy machine
                self.lines.append(line.decode().rstrip("\n"))

    def __enter__(self) -> Self:
        try:
            until(lambda: self.start_line or self._process.poll() is not None)
            if not self.start_line:
                self._reader.join(5)
            assert self.start_line, f"ended with {self._process.poll()}: {self.lines}"
        except BaseException as failed:
            self.__exit__(type(failed))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.read_log(True)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        if kind is None:
            trouble = [line for line in self.lines if "Traceback" in line or "unexpected error" in line]
            if not self._expect_5xx:
                trouble += [
                    line
                    for line in self.lines
                    if re.search(r'(?:[A-Z]+ /(?!readyz )\S*|"status":) ?5\d\d\b', line)
                ]
            assert not trouble, "\n".join(self.lines)

    def read_log(self, wanted: bool) -> None:
        """Stops reading its stderr, or goes on."""
        (self._may_read.set if wanted else self._may_read.clear)()

    def drop_log(self) -> None:
        """Closes the reading end of its stderr."""
        assert self._process.stderr is not None
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, self._process.stderr.fileno())
        os.close(null)

    @property
    def start_line(self) -> str:
        return next((line for line in self.lines if re.search(r" on (https?://|unix:)", line)), "")

    @property
    def port(self) -> int:
        found = re.search(r"on https?://\S+:(\d+) ", self.start_line)
        assert found
        return int(found[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def exit_status(self, seconds: float = 10) -> int:
        """The exit status of the program, which must end by itself. All its lines are in `lines` afterwards."""
        status = self._process.wait(seconds)
        self._reader.join()
        return status

    def stop(self) -> int:
        self.signal()
        return self.exit_status()

    def connect(self) -> "Connection":
        return Connection(self.port, self.host)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request on a connection of its own. Returns the status, and the JSON body if there is one."""
        with self.connect() as connection:
            answer = connection.call(method, path, body, **headers)
        return answer.status, json.loads(answer.body) if answer.body[:1] in (b"{", b"[") else answer.body

    def cpu_seconds(self) -> float:
        """Processor time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A blocking client that sends any bytes and reads responses."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def read(self, method: str = "GET") -> Answer:
        """Reads one response. `method`: of its request."""
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the server has closed the connection")
        status = int(line.split(b" ")[1])
        headers = {}
        while (line := self._file.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        bodyless = method == "HEAD" or status in (204, 304)
        body = b"" if bodyless else self._file.read(int(headers.get("content-length", "-1")))
        return Answer(status, headers, body)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        self.ask(method, path, body, **headers)
        return self.read(method)

    def ended(self) -> bool:
        """The server has closed the connection without sending more."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Waits until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for does not happen"
        time.sleep(0.005)
