"""The log, on stderr: lines of text or JSON, and a line for each request.

No payload, result, error text or token is logged at any level, and only the path of a URL, since the query
may have a lease in it. Control characters are escaped, so that no client can forge a line.
"""

import logging
import time
import traceback
from typing import Final

import msgspec

from jobqueue.server.log_writer import LogHandler, LogWriter
from jobqueue.units import instant

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)]}
# Successful requests with a line of their own in one second, in mode `auto`.
LINES_A_SECOND: Final = 100
# The same for refused requests in all modes but `all`, so that no client can fill the disk.
ERRORS_A_SECOND: Final = 1000
# Health checks are logged only when they fail.
_QUIET: Final = frozenset({"/healthz", "/readyz"})


def escape(text: str) -> str:
    return text if text.isprintable() else text.translate(_ESCAPES)


class LineFormatter(logging.Formatter):
    """`2026-11-24T03:14:15.123Z info message`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        message = escape(record.getMessage())
        line = f"{instant(int(record.created * 1000))} {record.levelname.lower()} {message}"
        return line if record.exc_info is None else f"{line}\n{_trace(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, event, and the members of that event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": instant(int(record.created * 1000)),
            "level": record.levelname.lower(),
        }
        line.update(getattr(record, "members", None) or {"event": record.getMessage()})
        if record.exc_info is not None:
            line["traceback"] = _trace(record)
        return msgspec.json.encode(line).decode("utf-8")


def json_line(members: dict[str, object]) -> str:
    """A line of the JSON log, dated now."""
    return JsonFormatter().format(logging.makeLogRecord({"levelname": "INFO", "members": members}))


def lost_line(count: int) -> str:
    """The line that says how many lines could not be written."""
    said = "1 log line was lost" if count == 1 else f"{count} log lines were lost"
    return LineFormatter().format(logging.makeLogRecord({"levelname": "WARNING", "msg": said}))


def json_lost_line(count: int) -> str:
    return JsonFormatter().format(
        logging.makeLogRecord({"levelname": "WARNING", "members": {"event": "lost_lines", "count": count}})
    )


def _trace(record: logging.LogRecord) -> str:
    assert record.exc_info is not None
    return "".join(traceback.format_exception(*record.exc_info)).rstrip()


def configure(level: str, format: str, writer: LogWriter) -> None:
    """Sends all log records of this process to `writer`. Called by the program, not by embedders."""
    handler = LogHandler(writer)
    handler.setFormatter(JsonFormatter() if format == "json" else LineFormatter())
    writer.lost_line = json_lost_line if format == "json" else lost_line
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Tornado logs each malformed request at info, asyncio its selector at debug.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class AccessLog:
    """Writes a line for each request, as far as `mode` allows.

    `flush` must be called once a second. `full`: a further successful request in this second gets no line;
    `summed`: how many got none.
    """

    def __init__(self, mode: str) -> None:
        self._log = logging.getLogger("jobqueue.access")
        self._all = mode == "all"
        self._errors = mode != "off"
        self._left_in_second = LINES_A_SECOND if mode == "auto" else 0
        self._left = self._left_in_second
        self.full = not (self._all or self._left)
        self.summed = 0
        self._auto = mode == "auto"
        self._errors_left = ERRORS_A_SECOND
        self._errors_summed = 0

    def request(
        self, method: str, path: str, status: int, started: float, size: int, peer: str, request_id: str
    ) -> None:
        """`started`: monotonic seconds. `size`: bytes of the body."""
        if status < 400:
            if self.full:
                self.summed += 1
                return
            if path in _QUIET:
                return
            if not self._all:
                self._left -= 1
                self.full = self._left <= 0
        elif not self._errors:
            return
        elif not self._all:
            if self._errors_left <= 0:
                self._errors_summed += 1
                return
            self._errors_left -= 1
        ms = int((time.monotonic() - started) * 1000)
        path = escape(path[:200])
        self._log.info(
            "%s %s %d %dms %s rid=%s",
            method,
            path,
            status,
            ms,
            peer,
            request_id,
            extra={
                "members": {
                    "event": "request",
                    "method": method,
                    "path": path,
                    "status": status,
                    "ms": ms,
                    "bytes": size,
                    "peer": peer,
                    "request_id": request_id,
                }
            },
        )

    def flush(self) -> None:
        """Logs how many requests had no line of their own, and begins a new second."""
        if self.summed and self._auto:
            self._log.info(
                "%d more requests in this second",
                self.summed,
                extra={"members": {"event": "requests", "count": self.summed}},
            )
        if self._errors_summed:
            self._log.info(
                "%d more requests were refused in this second",
                self._errors_summed,
                extra={"members": {"event": "refusals", "count": self._errors_summed}},
            )
        self._errors_left, self._errors_summed = ERRORS_A_SECOND, 0
        self.summed = 0
        self._left = self._left_in_second
        self.full = not (self._all or self._left)
