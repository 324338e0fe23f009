"""What a running job knows of itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobqueue.client import AsyncClient, Client

_NO_HEADERS: Mapping[str, str] = {}
_current: ContextVar[Context] = ContextVar("jobqueue_context")
_logger = logging.getLogger("jobqueue.job")
# Characters of a message of progress; the server takes no more.
_MAX_MESSAGE: Final = 500


class Context:
    """The job that runs. A job gets it as its first parameter, if that is annotated with `Context`; or asks
    for it by `current()`.

    - `id`, `queue`, `type`, `headers`: as they were enqueued.
    - `attempt`: the number of this attempt, 1 for the first one.
    - `deadline`: when the worker stops the job by its `timeout`; None: it has none.
    - `client`, `aclient`: clients of the queue, one that blocks and one for asyncio.
    - `log`: a logger whose lines have the job, queue, type and attempt, as text and in `extra`.
    """

    def __init__(
        self,
        *,
        id: int = 0,
        queue: str = "default",
        type: str = "",
        attempt: int = 1,
        headers: Mapping[str, str] = _NO_HEADERS,
        deadline: datetime | None = None,
        client: Client | None = None,
        aclient: AsyncClient | None = None,
    ) -> None:
        self.id = id
        self.queue = queue
        self.type = type
        self.attempt = attempt
        self.headers = headers
        self.deadline = deadline
        self._client = client
        self._aclient = aclient
        self._log: JobLogger | None = None
        self._cancelled = False
        self._progress: tuple[int | None, str | None] | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise RuntimeError("this job runs without a worker, and has no client")
        return self._client

    @property
    def aclient(self) -> AsyncClient:
        if self._aclient is None:
            raise RuntimeError("this job runs without a worker, and has no client")
        return self._aclient

    @property
    def cancelled(self) -> bool:
        """Is the job to stop? It was cancelled, its lease is lost, its time is over, or the worker ends.

        A job in a long computation may look here and return. Most need not: the worker raises an exception in
        them.
        """
        return self._cancelled

    @property
    def log(self) -> JobLogger:
        if self._log is None:
            self._log = JobLogger(self)
        return self._log

    def progress(self, percent: int | None = None, message: str | None = None) -> None:
        """Reports how far the job is: 0 to 100, and a short text. Both go with the next heartbeat, a few
        seconds later. What is left out stays as it was; text is cut after 500 characters."""
        before = self._progress or (None, None)
        self._progress = (
            before[0] if percent is None else min(max(int(percent), 0), 100),
            before[1] if message is None else writable(str(message))[:_MAX_MESSAGE],
        )

    @property
    def has_progress(self) -> bool:
        """Was anything reported since the last `take_progress`? For workers."""
        return self._progress is not None

    def take_progress(self) -> tuple[int | None, str | None]:
        """Returns what was reported since the last call. For workers."""
        reported, self._progress = self._progress, None
        return reported or (None, None)

    def put_back_progress(self, percent: int | None, message: str | None) -> None:
        """Keeps what was taken and did not reach the server, unless there is something newer. For workers."""
        newer = self._progress or (None, None)
        if percent is not None or message is not None:
            self._progress = (
                percent if newer[0] is None else newer[0], message if newer[1] is None else newer[1]
            )  # fmt: skip

    def stop(self) -> None:
        """Makes `cancelled` true. For workers."""
        self._cancelled = True

    def __repr__(self) -> str:
        return f"<Context of job {self.id}, {self.type}>"


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to `jobqueue.job`, with the job before each message."""

    def __init__(self, context: Context) -> None:
        fields = {
            "job": context.id, "queue": context.queue, "type": context.type, "attempt": context.attempt
        }  # fmt: skip
        super().__init__(_logger, fields)
        self._prefix = f"job {context.id} ({context.type}, attempt {context.attempt}): "

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        # Without arguments logging takes a message as it is, so there "%" must not be doubled.
        prefix = self._prefix.replace("%", "%%") if args else self._prefix
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the line that is shown is that of the job
        super().log(level, f"{prefix}{msg}", *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def writable(text: str) -> str:
    """Returns text as JSON can have it: without halves of surrogate pairs, which names of files may have."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def current() -> Context:
    """Returns the context of the job that runs here. Raises `LookupError` outside of a job."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError("no job runs here") from None


def current_or_none() -> Context | None:
    return _current.get(None)


def enter(context: Context) -> None:
    """Makes `context` the current one, in this thread or task. For workers."""
    _current.set(context)
