"""`jobqueue work`: runs the worker of a program's jobs, in one process or several."""

from __future__ import annotations

import argparse
import atexit
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Final

from jobqueue.jobs.registry import Jobs
from jobqueue.worker.source_files import SourceFiles
from jobqueue.worker.worker import REFUSED, REFUSED_TO_CHILD, SUPERVISOR, Worker

USAGE: Final = 2
# Seconds before a process that ended is replaced: twice as long each time, if it did not live long.
_FIRST_DELAY: Final = 1.0
_MAX_DELAY: Final = 30.0
_LONG_LIFE: Final = 60.0
# Seconds between two looks at the files of a program that is reloaded.
_LOOK: Final = 0.5
_logger = logging.getLogger("jobqueue.worker")


def main(arguments: Sequence[str]) -> int:
    """Runs the command, and returns its exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if not given.verbose else logging.DEBUG,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    if given.processes > 1 or given.reload:
        kept = [argument for argument in arguments if argument != "--reload"]
        command = [sys.executable, "-m", "jobqueue", "work", *kept, "--processes", "1"]
        files = None
        if given.reload:
            # The bytecode of a module that changes twice in a second but not in size is not replaced.
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            files = SourceFiles(os.getcwd())
        return Supervisor(given.processes, command, files).run()
    try:
        jobs = load(given.jobs)
        worker = Worker(
            jobs,
            [name for name in given.queues.split(",") if name],
            concurrency=given.concurrency,
            lease_for=given.lease_for,
            grace=given.grace,
            name=given.name,
        )
    except (ValueError, ImportError) as bad:
        print(f"jobqueue work: {bad}", file=sys.stderr)
        return USAGE
    status = worker.run()
    end_now(status)
    return status


def end_now(status: int) -> None:
    """Ends the process if threads that jobs have left behind would keep it alive."""
    if all(one.daemon for one in threading.enumerate() if one is not threading.main_thread()):
        return
    _logger.warning("threads of jobs do not end; the process ends without them")
    atexit._run_exitfuncs()
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobqueue work",
        description="Runs the jobs that a Python module declares. JOBQUEUE_URL is the address of the server, "
        "JOBQUEUE_TOKEN its access token.",
    )
    add = parser.add_argument
    add("jobs", metavar="MODULE:NAME", help="the Jobs object, such as shop.jobs:jobs; found from this folder")
    add_worker_options(parser, queues="default")
    add("--reload", action="store_true", help="start again when a Python file below this folder changes")
    add("-v", "--verbose", action="store_true", help="log more")
    return parser


def add_worker_options(parser: argparse.ArgumentParser, queues: str | None) -> None:
    """Adds the options of a worker. `queues` are those that it takes jobs of by default; None: the caller
    knows them."""
    add = parser.add_argument
    known = queues or "those of the backend"
    add("-q", "--queues", default=queues, metavar="A,B", help=f"queues, the first one first ({known})")
    add("-c", "--concurrency", type=int, default=16, metavar="N", help="jobs at a time in a process (16)")
    add("-p", "--processes", type=int, default=1, metavar="N", help="number of processes (1)")
    add("-l", "--lease-for", default="30s", metavar="TIME", help="lease of a job; it is renewed (30s)")
    add("-g", "--grace", default="8s", metavar="TIME", help="how long jobs may run on after a signal (8s)")
    add("-n", "--name", metavar="NAME", help="name of the consumer (host and process)")


def load(target: str) -> Jobs:
    """Imports `MODULE:NAME`, with the current folder first on the path.

    Raises `ValueError`, or what the import raises.
    """
    name, colon, attribute = target.partition(":")
    if not name or not colon or not attribute:
        raise ValueError(f"{target!r} is not MODULE:NAME, such as shop.jobs:jobs; a command comes after `--`")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{name}.".startswith(f"{missing.name}."):
            raise ImportError(f"there is no module {missing.name!r} in {folder} or on PYTHONPATH") from None
        raise ImportError(f"{name} cannot be imported: {missing}") from missing
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{name} has no {attribute}")
        found = getattr(found, part)
    if not isinstance(found, Jobs):
        raise ValueError(f"{target} is a {type(found).__name__}, not a jobqueue.Jobs")
    return found


class Supervisor:
    """Runs several workers as processes, each by the same command, and replaces those that end.

    It ends when the server refuses to give jobs to all of them, or one says that the command is wrong. With
    `files` all are replaced when one of the files has changed, and what ended by itself, such as for an error
    in a file, waits for that.
    """

    def __init__(self, count: int, command: Sequence[str], files: SourceFiles | None = None) -> None:
        self._command = list(command)
        self._places = [_Place() for _ in range(count)]
        self._files = files
        self._look_at = 0.0
        self._signals = 0

    def run(self) -> int:
        """Serves until a signal. Returns the exit status: 0, `REFUSED` or `USAGE`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        result = 0
        while True:
            now = time.monotonic()
            self._look(now)
            for place in self._places:
                status = place.check(now)
                if status is None or self._signals:
                    pass
                elif self._files is not None and status != REFUSED_TO_CHILD:
                    place.starts_at = inf
                    _logger.error(
                        "a worker ended with status %d; it starts again when a file changes", status
                    )
                elif status == USAGE:  # and the next one would say the same
                    result, self._signals = USAGE, 1
                else:
                    _logger.error("a worker ended with status %d; it is replaced", status)
                if place.process is None and not self._signals and now >= place.starts_at:
                    place.start(self._command, now)
            if all(place.refused for place in self._places) and not self._signals:  # none of them gets jobs
                result, self._signals = REFUSED, 1
            for place in self._places:
                place.terminate(self._signals)
            if self._signals and all(place.process is None for place in self._places):
                return result
            time.sleep(0.1)

    def _look(self, now: float) -> None:
        """Replaces all processes if a file has changed."""
        if self._files is None or self._signals or now < self._look_at:
            return
        self._look_at = now + _LOOK
        changed = self._files.changed()
        if changed:
            _logger.info("%s has changed: starting again", changed[0])
            for place in self._places:
                place.replace(now)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1  # the loop passes it on, also to a process that is just being started


class _Place:
    """A place for a process.

    `refused`: the server refused jobs to the last one that ended, and none has lived long since.
    `_replacing`: the process was told to end, and the next one starts then.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.refused = False
        self.starts_at = 0.0
        self._signals = 0
        self._replacing = False
        self._started = 0.0
        self._delay = _FIRST_DELAY

    def start(self, command: Sequence[str], now: float) -> None:
        # A group of its own: Ctrl-C reaches it from here only, as every signal does.
        variables = {**os.environ, SUPERVISOR: str(os.getpid())}
        self.process = subprocess.Popen(command, start_new_session=True, env=variables)
        self._started = now

    def check(self, now: float) -> int | None:
        """Returns the exit status if the process has ended since the last check."""
        if self.process is None:
            return None
        if now - self._started > _LONG_LIFE:
            self.refused = False
            self._delay = _FIRST_DELAY
        status = self.process.poll()
        if status is None:
            return None
        self.process = None
        if self._replacing:
            self._replacing, self.starts_at = False, now
            return None
        self.refused = status == REFUSED_TO_CHILD and now - self._started <= _LONG_LIFE
        self.starts_at = now + self._delay
        self._delay = min(2 * self._delay, _MAX_DELAY)
        return status

    def replace(self, now: float) -> None:
        """Has the process end as after a signal, and another one start then."""
        self.starts_at = now
        self._delay = _FIRST_DELAY
        if self.process is not None and not self._replacing:
            self._replacing = True
            self.process.terminate()

    def terminate(self, signals: int) -> None:
        """Passes on the first two signals: the second one ends the grace."""
        if self.process is not None and self._signals < min(signals, 2) and self.process.poll() is None:
            self._signals += 1
            self.process.terminate()
