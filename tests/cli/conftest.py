"""The command line as a process of its own, against the real program. The tests of one module share a server;
each has queues of its own.

A command's standard output is no terminal here, so it prints JSON. `terminal` gives it a terminal.
"""

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.append(str(Path(__file__).parents[1] / "server"))
from running import CLI, Program, environment  # the folder has to be on the path first


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which is one line of JSON."""
        assert self.status == 0, self.err
        assert self.out.endswith("\n")
        return json.loads(self.out)

    @property
    def items(self) -> list[Any]:
        """What it printed, a line of JSON each."""
        assert self.status == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Done]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with Program(JOBQUEUE_ACCESS_LOG="off") as running:
        yield running
        running.stop()


@pytest.fixture
def url(program: Program) -> str:
    return f"http://127.0.0.1:{program.port}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of the command line, in which it may write."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def run_cli(*arguments: str, home: Path, input: str | bytes = "", **settings: str) -> Done:
    data = input.encode() if isinstance(input, str) else input
    done = subprocess.run(
        [*CLI, *arguments], input=data, capture_output=True, timeout=60, check=False,
        cwd=home, env=environment(HOME=str(home), XDG_CONFIG_HOME="", **settings),
    )  # fmt: skip
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def cli(url: str, home: Path) -> Cli:
    """Runs a command about the server, and returns how it ended."""

    def run(*arguments: str, input: str | bytes = "", **settings: str) -> Done:
        return run_cli(*arguments, home=home, input=input, **{"JOBQUEUE_URL": url, **settings})

    return run


@pytest.fixture
def bare(home: Path) -> Cli:
    """Runs a command without a server in its environment."""

    def run(*arguments: str, input: str | bytes = "", **settings: str) -> Done:
        return run_cli(*arguments, home=home, input=input, **settings)

    return run


@pytest.fixture
def terminal(url: str, home: Path) -> Callable[..., tuple[int, str]]:
    """Runs a command in a terminal of 80 × 24, types `typed` when it asks, and returns its exit status and
    what is on the terminal."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        pid, screen = pty.fork()
        if pid == 0:
            try:
                os.chdir(home)
                variables = environment(HOME=str(home), JOBQUEUE_URL=url, COLUMNS="80", LINES="24")
                os.execvpe(CLI[0], [*CLI, *arguments], variables)
            finally:
                os._exit(127)
        seen = b""
        while select.select([screen], [], [], 60)[0]:
            try:
                piece = os.read(screen, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            seen += piece
            if typed and b"to do it:" in seen:
                os.write(screen, typed.encode() + b"\n")
                typed = ""
        _, status = os.waitpid(pid, 0)
        os.close(screen)
        return os.waitstatus_to_exitcode(status), seen.decode().replace("\r\n", "\n")

    return run
