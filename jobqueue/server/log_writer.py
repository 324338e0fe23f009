"""LogWriter: the one thread that writes to stderr, so that the log never holds up the server.

A write to stderr may block for any time: a pipe has a reader that stands still, a terminal is stopped, a file
is on a dead mount. It may also fail: a pipe without a reader, a full disk, a closed descriptor. Neither may
change what the server does. So lines go through a bounded buffer to a thread. Lines that do not fit, or that
cannot be written, are lost and counted. When stderr accepts lines again, a line says how many were lost.

stderr is not made non-blocking: other processes share it, and would see their own writes fail.
"""

import io
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric

# Bytes of lines that wait for stderr, at most.
LIMIT = 1 << 20
# Bytes in one write. A pipe takes up to PIPE_BUF as a whole, so that lines of several processes do not mix.
_LARGEST_TO_A_FILE = 1 << 16
_LARGEST = select.PIPE_BUF
# Seconds between two rounds of the thread: lines of a busy server are written together.
_PAUSE = 0.01
# Seconds that `stop` waits for the last lines.
_LAST_LINES = 1.0


class LogWriter:
    """Writes lines to `descriptor`. `write` may be called on any thread; it never blocks and never raises.

    `lost`: number of lines that were not written. `lost_line(count)` returns the line that says so.
    """

    def __init__(self, descriptor: int = 2, limit: int = LIMIT) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._largest = _largest_write(descriptor)
        # Re-entrant: a destructor may log while a line is added.
        self._lock = threading.RLock()
        self._lines: list[bytes] = []
        self._size = 0  # bytes in the buffer, those that are being written included
        self._idle = True  # the thread waits for `_wake`
        self._unreported = 0
        self._cut = False  # the last line was written in part
        self._closed = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self.lost = 0
        self.lost_line: Callable[[int], str] = "{} log lines were lost".format
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, line: str) -> None:
        """Takes a line, without its line break."""
        if self._closed:
            return
        data = (line + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            if self._size + len(data) > self._limit:
                self._lose(1)
                return
            self._lines.append(data)
            self._size += len(data)
            wake, self._idle = self._idle, False
        if wake:
            self._wake.set()

    def stop(self, seconds: float = _LAST_LINES) -> None:
        """Waits until all lines are written, for `seconds` at most. Takes no lines afterwards."""
        end = time.monotonic() + seconds
        self._hurry.set()
        while self._size and time.monotonic() < end:
            time.sleep(0.001)
        self._closed = True

    def metrics(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "jobqueue_log_lines_lost", "Log lines that could not be written to stderr.", self.lost
        )

    # -- on the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while lines := self._take():
                if self._write_all(lines) and self._unreported:
                    self._report()
                self._hurry.wait(_PAUSE)

    def _take(self) -> list[bytes]:
        with self._lock:
            lines, self._lines = self._lines, []
            self._idle = not lines
        return lines

    def _write_all(self, lines: list[bytes]) -> bool:
        """Writes lines, as many at once as fit into one write. False: the last of them was not written."""
        written = True
        start = size = 0
        for end, line in enumerate(lines):
            if size and size + len(line) > self._largest:
                self._write_some(lines[start:end], size)
                start, size = end, 0
            size += len(line)
        if size:
            written = self._write_some(lines[start:], size)
        return written

    def _write_some(self, lines: list[bytes], size: int) -> bool:
        data = b"".join(lines)
        if self._cut:
            data = b"\n" + data
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # another process made it non-blocking
                    self._wait_until_writable()
        except OSError:
            with self._lock:
                self._lose(min(data.count(b"\n", len(data) - len(left)), len(lines)))
        written = data[: len(data) - len(left)]
        if written:
            self._cut = not written.endswith(b"\n")
        with self._lock:
            self._size -= size
        return not left

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(1000)

    def _report(self) -> None:
        with self._lock:
            count, self._unreported = self._unreported, 0
        line = (self.lost_line(count) + "\n").encode("utf-8", "backslashreplace")
        try:
            os.write(self._descriptor, line)
        except OSError:
            with self._lock:
                self._unreported += count

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._unreported += lines


def _largest_write(descriptor: int) -> int:
    try:
        return _LARGEST_TO_A_FILE if stat.S_ISREG(os.fstat(descriptor).st_mode) else _LARGEST
    except OSError:
        return _LARGEST


class LogHandler(logging.Handler):
    """Hands log records to a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record))
        except Exception:
            self.handleError(record)


class LogStream(io.TextIOBase):
    """Stands in for `sys.stderr`, so that what Python itself reports (warnings, uncaught exceptions) goes to
    the log."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._rest = ""  # of a line that has not ended

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._writer.write(line)
        return len(text)

    def writable(self) -> bool:
        return True
