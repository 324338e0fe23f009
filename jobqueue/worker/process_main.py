"""What runs in a process of a job: one job after the other, as they are sent."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec

from jobqueue.jobs.context import Context
from jobqueue.jobs.declared import DeclaredJob
from jobqueue.worker.hooks import call, sync_hooks
from jobqueue.worker.process_messages import Done, Order, Progress, Started, done_of
from jobqueue.worker.running_job import described, raised

_PR_SET_PDEATHSIG: Final = 1
_orders = msgspec.msgpack.Decoder(Order)


class _Context(Context):
    """Sends progress to the worker at once; the worker passes it on with its next heartbeat."""

    connection: Connection

    def progress(self, percent: int | None = None, message: str | None = None) -> None:
        super().progress(percent, message)
        self.connection.send_bytes(msgspec.msgpack.encode(Progress(*self.take_progress())))


def main(connection: Connection, worker: int) -> None:
    """Runs jobs until the other end is closed. `worker` is the id of the worker's process."""
    # The worker kills the group, so that nothing goes on that a job has started.
    os.setpgid(0, 0)
    # A signal may go to all processes of a service; the worker decides when this one ends. With a handler,
    # since programs that jobs start would ignore what is ignored here.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _not_now)
    _die_with(worker)
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    started: set[int] = set()
    while True:
        try:
            order = _orders.decode(connection.recv_bytes())
        except (EOFError, OSError):
            return
        done = _run(order, connection, started)
        try:
            connection.send_bytes(msgspec.msgpack.encode(done))
        except OSError:
            return


def _not_now(number: int, frame: object) -> None:
    """Waits for the worker to end this process."""


def _die_with(worker: int) -> None:
    """Has Linux kill this process when the worker ends, even if a job holds the interpreter."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it has ended before that
        os._exit(1)


def _end_with_the_worker() -> None:
    """Ends this process when the worker has ended, on other systems than Linux."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(order: Order, connection: Connection, started: set[int]) -> Done:
    try:
        declared = _declared(order.module, order.name)
        shared = declared.shared
        if id(shared) not in started:
            started.add(id(shared))
            for hook in shared.starts:
                if not inspect.iscoroutinefunction(hook):
                    hook()
    except Exception as error:
        return Done("fail", msgspec.json.encode(described(error)))
    context = _Context(
        id=order.id,
        queue=order.queue,
        type=order.type,
        attempt=order.attempt,
        headers=order.headers,
        deadline=None if order.timeout is None else datetime.now(UTC) + timedelta(seconds=order.timeout),
        client=shared.client,
        aclient=shared.aclient,
    )
    context.connection = connection
    connection.send_bytes(msgspec.msgpack.encode(Started()))
    try:
        report = call(declared, order.id, order.lease, order.payload, context, sync_hooks(shared.around))
    except BaseException as error:
        report = raised(order.id, order.lease, error, declared.running.dead_on)
    return done_of(report)


def _declared(module: str, name: str) -> DeclaredJob[..., Any, Any]:
    # The program itself was imported by `multiprocessing`, under another name.
    found: Any = sys.modules["__main__"] if module == "__main__" else importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, DeclaredJob):
        raise TypeError(f"{module}.{name} is not the job any more")
    return found
