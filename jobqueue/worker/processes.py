"""Runs jobs with `process=True`, each in a process of its own that can be killed.

Processes are spawned, never forked, since a fork of a program with threads may hang. They are reused. What
goes between them and the worker is msgpack, not pickle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

import msgspec

from jobqueue.client import Fail
from jobqueue.worker.process_main import main
from jobqueue.worker.process_messages import Done, Order, Progress, Started, report_of
from jobqueue.worker.running_job import Report, RunningJob, stopped

_from_process = msgspec.msgpack.Decoder(Started | Progress | Done)
# Seconds between two looks whether a process is alive. What it has forked keeps its connection open.
_LOOK: Final = 0.5


class Processes:
    """`started` and `ended` are called in a thread: when a job's function is called, and when it ends."""

    def __init__(
        self, started: Callable[[RunningJob], None], ended: Callable[[RunningJob, Report], None]
    ) -> None:
        self._started = started
        self._ended = ended
        self._spawning = multiprocessing.get_context("spawn")
        # Linux kills a process when the thread that made it ends, so one thread makes them all.
        self._maker = ThreadPoolExecutor(1, "jobqueue-spawn")
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._closed = False

    def start(self, jobs: Sequence[RunningJob]) -> None:
        """Starts jobs, from any thread."""
        for running in jobs:
            # A thread waits for each process, since sending and receiving may block.
            name = f"jobqueue-process-{running.id}"
            threading.Thread(target=self._run, args=(running,), name=name, daemon=True).start()

    def close(self) -> None:
        """Kills all processes."""
        with self._lock:
            self._closed = True
            processes, self._idle = list(self._all), []
        for process in processes:
            process.kill()
        self._maker.shutdown(wait=False)

    def _run(self, running: RunningJob) -> None:
        try:
            report = self._report(running)
        except Exception as error:  # a process could not be started
            report = Fail(running.id, running.lease, f"no process could run it: {error}"[:2000])
        self._ended(running, report)

    def _report(self, running: RunningJob) -> Report:
        while True:
            process, is_new = self._process()
            killer = _Killer(process)
            running.stop = killer.kill
            try:
                report = None if running.is_stopped() else self._order(running, process)
            except (EOFError, OSError):
                killer.over()
                self._drop(process)
                if running.is_stopped():
                    return stopped(running)
                if not process.was_used and not is_new:
                    continue  # it had ended before this job came
                return Fail(running.id, running.lease, f"its process ended with status {process.status}")
            except BaseException:
                self._drop(process)
                raise
            if killer.over():
                self._keep(process)
            else:  # it was killed just now
                self._drop(process)
            return stopped(running) if report is None else report

    def _order(self, running: RunningJob, process: _Process) -> Report:
        """Has a process run a job. Raises `EOFError` or `OSError` if it ends."""
        process.was_used = False
        process.send(_order(running))
        while True:
            said = process.receive()
            process.was_used = True
            if isinstance(said, Done):
                return report_of(said, running.id, running.lease)
            if isinstance(said, Started):
                self._started(running)
            else:
                running.context.progress(said.percent, said.message)

    def _process(self) -> tuple[_Process, bool]:
        """Returns a process, and whether it is a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        process = self._maker.submit(_Process, self._spawning).result()
        with self._lock:
            self._all.add(process)
            closed = self._closed
        if closed:
            process.kill()
        return process, True

    def _keep(self, process: _Process) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)

    def _drop(self, process: _Process) -> None:
        process.kill()
        process.join()
        with self._lock:
            self._all.discard(process)


class _Killer:
    """Kills a process on behalf of one job, until `over`: then it may be another job's."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._over = self._killed = False

    def kill(self) -> None:
        with self._lock:
            if not self._over:
                self._killed = True
                self._process.kill()

    def over(self) -> bool:
        """Tells whether the process may be used again."""
        with self._lock:
            self._over = True
            return not self._killed


def _order(running: RunningJob) -> Order:
    declared, context = running.declared, running.context
    function = declared.function
    return Order(
        function.__module__,
        function.__qualname__,
        running.id,
        running.lease,
        context.queue,
        context.type,
        context.attempt,
        dict(context.headers),
        declared.running.timeout,
        bytes(running.job.payload_json),
    )


class _Process:
    """A process that runs one job after the other. `was_used`: it has answered to its current job."""

    def __init__(self, spawning: multiprocessing.context.SpawnContext) -> None:
        ours, theirs = spawning.Pipe()
        self.was_used = False
        self._connection: Connection = ours
        self._process = spawning.Process(
            target=main, args=(theirs, os.getpid()), daemon=True, name="jobqueue-job"
        )
        try:
            self._process.start()
        finally:
            theirs.close()

    @property
    def status(self) -> int | None:
        return self._process.exitcode

    def send(self, order: Order) -> None:
        self._connection.send_bytes(msgspec.msgpack.encode(order))

    def receive(self) -> Started | Progress | Done:
        """Raises `EOFError` or `OSError` when the process has ended."""
        while not self._connection.poll(_LOOK):
            if not self._process.is_alive() and not self._connection.poll(0):
                raise EOFError
        said: Started | Progress | Done = _from_process.decode(self._connection.recv_bytes())
        return said

    def kill(self) -> None:
        """Kills the process and what it has started, unless that is in a session of its own."""
        pid = self._process.pid
        if pid is None or self._process.exitcode is not None:
            return
        with suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        self._process.kill()

    def join(self) -> None:
        self._process.join(5)
        self._connection.close()
