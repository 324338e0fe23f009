"""Signals: answers every signal that a terminal, a supervisor or a log rotation sends.

A thread of its own takes them. So they are answered before the event loop runs, while the journal is loaded,
and also when the loop is blocked, for example by a disk that does not answer.

    TERM, INT, QUIT    the server stops; a second one ends it at once
    HUP                tokens and certificates are read again
    USR1, USR2, ALRM   nothing happens, one line says so: there is no log file to open again
    PIPE, TTOU         nothing happens: a terminal or a reader that is gone is no reason to stop
    CHLD               nothing happens: a child that the caller had started is forgotten when it ends
    TSTP, CONT, WINCH  the system's own answer: the process pauses, continues, and goes on
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue.server.log_writer import LogWriter

_log = logging.getLogger("jobqueue")
STOPS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_TAKEN = STOPS | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
# Seconds that a stop may take longer than JOBQUEUE_DRAIN, and that it may take after a second signal.
_LIMIT = 30.0
_LIMIT_AT_ONCE = 3.0


def hold() -> None:
    """Keeps the signals that this module answers pending until there is a `Signals`. Call it before any other
    thread starts, since threads inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
    for number in _TAKEN:  # a signal that the caller ignores (nohup does) would not be kept everywhere
        signal.signal(number, _nothing)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    # scripts/run.sh may have started the compiler before it became this process. Nobody waits for that child.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Never runs: the signal is blocked, and the thread takes it."""


class Signals:
    """Takes the signals from now on.

    Before `serve` a stop ends the process with status 0: nothing has been served yet.
    """

    def __init__(self, out: LogWriter) -> None:
        hold()
        self._out = out
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0
        self._reload_wanted = False
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def serve(
        self, on_stop: Callable[[], None], on_reload: Callable[[], None], limit: float, status: int
    ) -> None:
        """From now on calls back on the running loop. `on_stop` is called for each signal that stops.

        `limit`: seconds that a stop should take at most. If it takes much longer, the process ends with
        `status`.
        """
        with self._lock:
            self._on_stop, self._on_reload = on_stop, on_reload
            self._limit, self._status = limit + _LIMIT, status
            self._loop = asyncio.get_running_loop()
            if self._reload_wanted:
                self._loop.call_soon(on_reload)

    def limit_stop(self) -> Callable[[], None]:
        """Ends the process if the stop that begins now takes too long. Returns what is to be called when the
        stop is over and the process goes on."""
        return self._end_after(self._limit, self._status).cancel

    # -- on the thread ------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            number = signal.sigwait(_TAKEN)
            with self._lock:
                if number in STOPS:
                    self._stop()
                elif number == signal.SIGHUP:
                    self._reload()
                else:
                    _log.info(
                        "signal %s: nothing to do; the log goes to stderr", signal.Signals(number).name[3:]
                    )

    def _stop(self) -> None:
        self._stops += 1
        if self._loop is None:
            self._end(0, "stopped before it served")
        self._call(self._on_stop)
        if self._stops == 1:
            self._end_after(self._limit, self._status)
        elif self._stops == 2:
            self._end_after(_LIMIT_AT_ONCE, 1)

    def _reload(self) -> None:
        if self._loop is None:
            self._reload_wanted = True
        else:
            self._call(self._on_reload)

    def _call(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(callback)

    # -- the end ------------------------------------------------------------------------------------

    def _end_after(self, seconds: float, status: int) -> threading.Timer:
        timer = threading.Timer(seconds, self._too_late, (seconds, status))
        timer.daemon = True
        timer.start()
        return timer

    def _too_late(self, seconds: float, status: int) -> None:
        self._end(
            status, f"the stop was not over after {seconds:g} s: something blocks; the process ends now"
        )

    def _end(self, status: int, reason: str) -> None:
        self._out.write(f"jobqueue: {reason}")
        self._out.stop()
        os._exit(status)
