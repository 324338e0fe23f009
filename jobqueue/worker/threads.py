"""Runs each `def` job in a thread. Threads are made when they are needed, and reused."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextvars import Context as Variables
from queue import SimpleQueue

from jobqueue.client import Fail
from jobqueue.jobs.outcomes import JobStopped
from jobqueue.worker.hooks import SyncHook, call
from jobqueue.worker.running_job import Report, RunningJob, raised, stopped


class Threads:
    """`ended` is called in the thread of the job, once for each job that ends."""

    def __init__(
        self,
        variables: Variables,
        hooks: Sequence[SyncHook],
        ended: Callable[[RunningJob, Report], None],
    ) -> None:
        self._variables = variables
        self._hooks = list(hooks)
        self._ended = ended
        self._waiting: SimpleQueue[RunningJob | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0
        self._made = 0
        self._closed = False

    def start(self, jobs: Sequence[RunningJob]) -> None:
        """Starts jobs, from any thread. If the system has no more threads, they wait for one of ours.

        Raises `RuntimeError` if there are none.
        """
        for running in jobs:
            with self._lock:
                missing = self._idle <= 0
                if missing:
                    self._count += 1
                    self._made += 1
                else:
                    self._idle -= 1
            self._waiting.put(running)
            if missing:
                # A daemon: a thread that is stuck in its job must not keep the process alive.
                thread = threading.Thread(target=self._serve, name=f"jobqueue-{self._made}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    with self._lock:
                        self._count -= 1
                        self._idle -= 1  # one of the others takes this job, and is not idle then
                        if self._count == 0:
                            self._idle = 0
                            raise

    def close(self) -> None:
        """Ends the threads as soon as they are idle."""
        with self._lock:
            self._closed = True
            idle, self._idle = max(self._idle, 0), 0
        for _ in range(idle):
            self._waiting.put(None)

    def _serve(self) -> None:
        while True:
            running = self._waiting.get()
            if running is None:
                return
            if running.reported:  # given back, as it could not be started
                continue
            self._run(running)
            with self._lock:
                if running.given_up or self._closed:  # another thread has its place
                    self._count -= 1
                    return
                self._idle += 1

    def _run(self, running: RunningJob) -> None:
        self._ended(running, run(running, self._variables.copy(), self._hooks))


def run(
    running: RunningJob,
    variables: Variables,
    hooks: list[SyncHook],
    failures: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
) -> Report:
    """Runs a job in this thread, and returns what to report. `running.stop` stops it, from any thread.

    Exceptions that are `failures` fail the job; others go through.
    """
    stopper = _Stopper()
    try:
        try:
            running.stop = stopper.stop
            report = stopped(running) if running.is_stopped() else variables.run(_call, running, hooks)
        except JobStopped as error:
            report = stopped(running) if running.stopped else raised(running.id, running.lease, error, ())
        except failures as error:  # SystemExit in a thread ends the job, not the worker
            report = raised(running.id, running.lease, error, running.declared.running.dead_on)
        stopper.over()
    except JobStopped:  # it came when the job had just ended
        report = stopped(running)
    if running.is_stopped() and isinstance(report, Fail):
        return stopped(running)  # what it raised is what stopping it did
    return report


def _call(running: RunningJob, hooks: list[SyncHook]) -> Report:
    payload = bytes(running.job.payload_json)
    return call(running.declared, running.id, running.lease, payload, running.context, hooks)


class _Stopper:
    """Raises `JobStopped` in the thread that made it, until `over`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._over = False

    def stop(self) -> None:
        """Raises the exception at the next bytecode of the thread. Code in C has to return first."""
        with self._lock:
            if not self._over:
                _raise_in(self._thread, JobStopped)

    def over(self) -> None:
        """Takes back an exception that has not been raised yet."""
        with self._lock:
            self._over = True
            _raise_in(self._thread, None)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    exception = ctypes.py_object(kind) if kind is not None else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)
