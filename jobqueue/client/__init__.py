"""The Python client: `Client` blocks, `AsyncClient` awaits. docs/client.md shows how they are used.

It may not know the server: of this package it imports `advertised`, `errors`, `shards`, `units` and `version`
only.
"""

from jobqueue.client.client import AsyncClient, Client
from jobqueue.client.encoding import (
    Conclude,
    Duration,
    Fail,
    Heartbeat,
    Instant,
    JobOptions,
    NewJob,
    NewSchedule,
    Release,
    ScheduleOptions,
)
from jobqueue.client.errors import AnswerLost, BadAnswer, MaybeEnqueued, Unreachable
from jobqueue.client.http import (
    AsyncStreamed,
    AsyncTransport,
    Request,
    Response,
    Streamed,
    Timeouts,
    Transport,
)
from jobqueue.client.models import Event, Job, JobError, Outcome, Queue, Schedule
from jobqueue.client.streams import AsyncStream, Stream

__all__ = [
    "AnswerLost",
    "AsyncClient",
    "AsyncStream",
    "AsyncStreamed",
    "AsyncTransport",
    "BadAnswer",
    "Client",
    "Conclude",
    "Duration",
    "Event",
    "Fail",
    "Heartbeat",
    "Instant",
    "Job",
    "JobError",
    "JobOptions",
    "MaybeEnqueued",
    "NewJob",
    "NewSchedule",
    "Outcome",
    "Queue",
    "Release",
    "Request",
    "Response",
    "Schedule",
    "ScheduleOptions",
    "Stream",
    "Streamed",
    "Timeouts",
    "Transport",
    "Unreachable",
]
