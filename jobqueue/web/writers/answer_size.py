"""How long an answer with many jobs may become.

An answer is made in one go, and kept until its client has taken it. A job alone may have megabytes, and a
request may name a thousand.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from jobqueue.job import with_extras
from jobqueue.model import Job, JobExtras, Options, QueueView

# Bytes of an answer after which no further job is added to it. A dequeue has the same limit:
# `core.matching.BATCH_BYTES`.
PAGE_BYTES: Final = 2 << 20
# Approximate size of a job without what may be long.
_JOB_BYTES: Final = 400


def page(
    jobs: Sequence[Job], payload: bool, following: int | None = None
) -> tuple[Sequence[Job], int | None]:
    """Returns the first of `jobs`, at least one, up to `PAGE_BYTES`; and the id to continue after.

    `payload`: it is shown, too. `following` is the id to continue after all of them.
    """
    size = 0
    for number, job in enumerate(jobs, 1):
        size += _JOB_BYTES + _long(job.extras)
        if payload:
            size += len(job.payload)
        if size >= PAGE_BYTES and number < len(jobs):
            return jobs[:number], job.id
    return jobs, following


def page_of_queues(views: list[QueueView]) -> list[QueueView]:
    """Returns the first of `views`, at least one, up to `PAGE_BYTES` of attributes."""
    size = 0
    for number, view in enumerate(views, 1):
        size += len(view.settings.attributes or b"")
        if size >= PAGE_BYTES:
            return views[:number]
    return views


def is_plain(extras: JobExtras) -> bool:
    """Tells whether nothing is set except `finished_at`."""
    return extras.options is None and extras.trace is None and extras.result is None and extras.run_at is None


class AnswerSize:
    """The size of an answer that has to show all of its jobs, such as that to many concludes."""

    def __init__(self) -> None:
        self._left = PAGE_BYTES

    def fit(self, job: Job) -> Job:
        """Returns `job`, or beyond `PAGE_BYTES` a copy of it without result, error and headers."""
        extras = job.extras
        if extras is None or is_plain(extras):
            return job
        self._left -= _long(extras)
        if self._left >= 0:
            return job
        options, trace = extras.options, extras.trace
        shown = JobExtras(
            extras.finished_at,
            None,
            extras.cancel_requested,
            extras.run_at,
            extras.due,
            None if options is None else replace(options, headers=None),
            None if trace is None else replace(trace, error=None),
        )
        return with_extras(job, shown)


def _long(extras: JobExtras | None) -> int:
    """Returns the bytes of a job's result, error and headers."""
    if extras is None:
        return 0
    size = 0
    if extras.result is not None:
        size += len(extras.result)
    options: Options | None = extras.options
    if options is not None and options.headers is not None:
        size += len(options.headers)
    trace = extras.trace
    if trace is not None and trace.error is not None:
        size += len(trace.error)
    return size
