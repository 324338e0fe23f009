"""What goes between a worker and the processes of its jobs."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from jobqueue.client import Conclude, Fail, Release
from jobqueue.worker.running_job import Report


class Order(Struct, array_like=True):
    """A job for a process."""

    module: str
    name: str
    id: int
    lease: str | None
    queue: str
    type: str
    attempt: int
    headers: dict[str, str]
    timeout: float | None
    payload: bytes


class Started(Struct, array_like=True, tag="started"):
    """The function was found, and is called now."""


class Progress(Struct, array_like=True, tag="progress"):
    """What a job reports while it runs."""

    percent: int | None
    message: str | None


class Done(Struct, array_like=True, tag="done"):
    """How a job ended: `kind` is "conclude", "fail" or "release". `json` is the result or the error."""

    kind: str
    json: bytes | None = None
    retry: bool = True
    delay: float | None = None


def done_of(report: Report) -> Done:
    """Returns a report in the form in which it goes between processes."""
    if isinstance(report, Conclude):
        return Done("conclude", None if report.result is UNSET else bytes(report.result))
    if isinstance(report, Fail):
        delay = None if report.retry_in is None else float(report.retry_in)  # type: ignore[arg-type]  # seconds
        return Done("fail", msgspec.json.encode(report.error), report.retry, delay)
    assert isinstance(report, Release)
    return Done("release", delay=float(report.delay))  # type: ignore[arg-type]  # seconds


def report_of(done: Done, id: int, lease: str | None) -> Report:
    json: Any = UNSET if done.json is None else Raw(done.json)
    if done.kind == "conclude":
        return Conclude(id, lease, json)
    if done.kind == "fail":
        return Fail(id, lease, json, done.retry, done.delay)
    return Release(id, lease, done.delay or 0)
