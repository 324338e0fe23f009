"""Schedules that are declared at a job: `@jobs.cron`, `@jobs.every`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from jobqueue.client import Duration, Instant, NewSchedule, ScheduleOptions
from jobqueue.jobs.declared import DeclaredJob


class PlanOptions(TypedDict, total=False):
    """What a declared schedule says beside its cron expression or interval: docs/schedules.md, "Fields".

    - `name`: the name of the schedule; the job's type unless given.
    - `arguments`: the arguments of the job, by name.
    """

    name: str
    arguments: Mapping[str, Any]
    timezone: str
    misfire: Literal["once", "skip", "all"]
    grace: Duration
    overlap: Literal["skip", "allow", "queue"]
    jitter: Duration
    starts_at: Instant
    ends_at: Instant


class DeclaredSchedule(NamedTuple):
    """A schedule of a declared job."""

    declared: DeclaredJob[..., Any, Any]
    name: str
    arguments: Mapping[str, Any]
    options: ScheduleOptions

    def new(self) -> NewSchedule:
        """Returns what the server takes. Raises `TypeError` if the arguments do not fit the function."""
        prepared = self.declared.prepare(**self.arguments)
        return NewSchedule(self.name, prepared.new, self.options)
