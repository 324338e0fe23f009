"""`GET /metrics` in Prometheus's text format, made when it is requested from counts that the queue keeps
anyway.

Only requests are counted for this alone (`request_metrics`). Cardinality is bounded:
`JOBQUEUE_METRICS_QUEUES` queues have their own series, all others share the label `(others)`, which no queue
can have as its name. A queue keeps the series in which it was counted until the server ends, also when it is
removed: a count that moved to another series would be counted twice by `rate()`.

One family is written in each pass of the loop, so that a scrape does not delay other requests.
"""

import asyncio
import gc
import time
from asyncio import Future
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from jobqueue.histogram import DecayingHistogram
from jobqueue.model import DatabaseStats, EngineStats, JournalStats, Member, QueueView, ScheduleFigures
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHERS = "(others)"
# Bounds of the histograms of waiting and running times, in milliseconds.
_TIMES = (5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 15_000, 60_000, 300_000, 1_800_000, 21_600_000)
_BOUNDS = [*(f"{ms / 1000:g}" for ms in _TIMES), "+Inf"]


def metrics(context: Context, request: Request) -> Deferred:
    context.admin.nothing(request)
    loop = asyncio.get_running_loop()
    text: Future[bytes] = loop.create_future()
    families = _families(context)
    written: list[bytes] = []

    def go_on() -> None:
        if text.cancelled():
            return
        try:
            family = next(families, None)
            if family is None:
                text.set_result(b"".join(written))
                return
            written.append(generate_latest(_Only(family)))
        except Exception as bug:
            text.set_exception(bug)
            return
        loop.call_soon(go_on)

    loop.call_soon(go_on)
    return Deferred(text, _answer)


def _answer(text: bytes) -> Response:
    return Response(200, text, b"", CONTENT_TYPE)


class _Only(Collector):
    """The collector that `generate_latest` expects, with a single family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


def _families(context: Context) -> Iterator[Metric]:
    stats = context.engine.stats(own=True)
    queues = context.engine.measured_queues(context.settings.metrics_queues)
    yield from _of_queues(stats, queues, whole=context.may_use_all)
    yield from _of_the_engine(stats)
    yield from _of_schedules(context.engine.schedule_figures())
    if context.may_use_all:  # these would show what other callers do
        yield from _of_requests(context)
        yield _of_the_dropped(context, stats)
        yield from _of_the_lanes(stats)
        if stats.journal is not None:
            yield from _of_the_journal(stats.journal)
            if stats.journal.database is not None:
                yield from _of_the_database(stats.journal.database, context.engine.members())
    yield from _of_the_process(context, stats)
    for more in context.server.more_metrics:
        yield from more()


def _of_queues(stats: EngineStats, queues: list[QueueView], whole: bool) -> Iterator[Metric]:
    """Yields the families of queues.

    `whole`: the caller may see all queues, so the others are shown as a sum.
    """
    jobs = GaugeMetricFamily("jobqueue_jobs", "Jobs now, by status.", labels=["queue", "status"])
    events = CounterMetricFamily("jobqueue_events", "What has happened to jobs.", labels=["queue", "event"])
    for queue in queues:
        for status, count in queue.jobs.items():
            jobs.add_metric([queue.name, status], count)
        for event, count in queue.totals.items():
            events.add_metric([queue.name, event], count)
    of_others = {
        event: max(count - sum(queue.totals[event] for queue in queues), 0)
        for event, count in stats.totals.items()
    }
    if whole and (stats.queues > len(queues) or any(of_others.values())):
        for status, count in stats.jobs.items():
            jobs.add_metric([OTHERS, status], count - sum(queue.jobs[status] for queue in queues))
        for event, count in of_others.items():
            events.add_metric([OTHERS, event], count)
    yield jobs
    yield events
    oldest = GaugeMetricFamily(
        "jobqueue_oldest_age_seconds", "Time since the oldest queued job was enqueued.", labels=["queue"]
    )
    waiting = GaugeMetricFamily(
        "jobqueue_consumers_waiting", "Dequeues that wait for a job of this queue.", labels=["queue"]
    )
    paused = GaugeMetricFamily(
        "jobqueue_paused", "1: the queue is paused, nothing is handed out.", labels=["queue"]
    )
    for queue in queues:
        oldest.add_metric([queue.name], (queue.oldest_age or 0) / 1000)
        waiting.add_metric([queue.name], queue.consumers_waiting)
        paused.add_metric([queue.name], queue.pause is not None)
    yield oldest
    yield waiting
    yield paused
    yield _times(
        "jobqueue_wait_seconds",
        "Time from enqueue to the first lease; of a sample, scaled up.",
        queues,
        lambda queue: queue.waits,
    )
    yield _times(
        "jobqueue_run_seconds",
        "Time from the last lease to conclude; of a sample, scaled up.",
        queues,
        lambda queue: queue.runs,
    )


def _times(
    name: str, meaning: str, queues: list[QueueView], times: Callable[[QueueView], DecayingHistogram]
) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=["queue"])
    for queue in queues:
        measured = times(queue)
        if measured.all_counts:
            buckets = list(zip(_BOUNDS, measured.below(_TIMES), strict=True))
            family.add_metric([queue.name], buckets, measured.all_ms / 1000)
    return family


def _of_requests(context: Context) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "jobqueue_http_requests", "Requests answered.", labels=["operation", "status"]
    )
    seconds = HistogramMetricFamily(
        "jobqueue_http_request_seconds",
        "Time from a request's end to its answer; of a sample, scaled up.",
        labels=["operation"],
    )
    for operation, status, count in context.server.meter.answered():
        requests.add_metric([operation, str(status)], count)
    for operation, times in context.server.meter.times():
        seconds.add_metric([operation], times.below(), times.total)
    yield requests
    yield seconds


def _of_the_engine(stats: EngineStats) -> Iterator[Metric]:
    yield GaugeMetricFamily("jobqueue_queues", "Named queues.", stats.queues)
    yield GaugeMetricFamily("jobqueue_waiters", "Dequeues that wait, on all queues.", stats.consumers_waiting)
    yield CounterMetricFamily("jobqueue_ticks", "Slices of due work that ticks have done.", stats.ticks)
    yield GaugeMetricFamily(
        "jobqueue_tick_max_seconds", "The longest slice of due work so far.", stats.tick_max / 1000
    )


def _of_schedules(figures: ScheduleFigures) -> Iterator[Metric]:
    schedules = GaugeMetricFamily("jobqueue_schedules", "Schedules now, by state.", labels=["state"])
    for state, count in figures.states.items():
        schedules.add_metric([state], count)
    yield schedules
    yield GaugeMetricFamily(
        "jobqueue_schedule_lag_seconds",
        "For how long the first instant that is due has had no job.",
        figures.lag / 1000,
    )
    if figures.outcomes:  # they are not told to a caller that sees some of the schedules only
        outcomes = CounterMetricFamily(
            "jobqueue_schedule_outcomes", "What became of instants of schedules.", labels=["outcome"]
        )
        for outcome, count in figures.outcomes.items():
            outcomes.add_metric([outcome], count)
        yield outcomes


def _of_the_dropped(context: Context, stats: EngineStats) -> Metric:
    dropped = CounterMetricFamily(
        "jobqueue_dropped",
        "What was forgotten before its time, because a limit was reached.",
        labels=["kind"],
    )
    for kind, count in {**stats.dropped, "events": context.events.log.dropped}.items():
        dropped.add_metric([kind], count)
    return dropped


def _of_the_lanes(stats: EngineStats) -> Iterator[Metric]:
    yield CounterMetricFamily("jobqueue_compactions", "Lanes rid of their empty slots.", stats.compactions)
    yield GaugeMetricFamily(
        "jobqueue_compaction_max_seconds",
        "The longest slice of compaction so far.",
        stats.compaction_max / 1000,
    )
    slots = GaugeMetricFamily("jobqueue_slots", "Slots of all lanes, live or empty.", labels=["state"])
    slots.add_metric(["live"], stats.slots - stats.empty_slots)
    slots.add_metric(["empty"], stats.empty_slots)
    yield slots
    yield GaugeMetricFamily(
        "jobqueue_remembered_jobs", "Finished jobs that are remembered.", stats.remembered
    )
    yield GaugeMetricFamily(
        "jobqueue_remembered_bytes", "What the remembered jobs take.", stats.remembered_bytes
    )
    yield GaugeMetricFamily(
        "jobqueue_idempotency_keys", "Idempotency keys that are remembered.", stats.idempotency_keys
    )


def _of_the_journal(journal: JournalStats) -> Iterator[Metric]:
    size = HistogramMetricFamily("jobqueue_journal_group_rows", "Rows of each commit.")
    size.add_metric([], journal.rows.below(), journal.rows.total)
    yield size
    taken = HistogramMetricFamily("jobqueue_journal_commit_seconds", "Time until a commit was on disk.")
    taken.add_metric([], journal.seconds.below(), journal.seconds.total)
    yield taken
    yield GaugeMetricFamily("jobqueue_journal_pending", "Changes that are not on disk yet.", journal.pending)
    yield GaugeMetricFamily("jobqueue_journal_bytes", "Size of the journal's file and its log.", journal.size)
    yield GaugeMetricFamily("jobqueue_journal_full", "1: the disk has no room for new jobs.", journal.full)


def _of_the_database(database: DatabaseStats, members: Sequence[Member]) -> Iterator[Metric]:
    yield GaugeMetricFamily("jobqueue_cluster_servers", "Servers that share the database.", len(members))
    if not any(member.shards is not None for member in members):
        yield GaugeMetricFamily(
            "jobqueue_cluster_owner_start_time_seconds",
            "When the owner of the jobs became it, in Unix time.",
            next((member.started_at / 1000 for member in members if member.owner), 0.0),
        )
    yield CounterMetricFamily(
        "jobqueue_database_doubts", "Commits whose answer was lost and that were sent again.", database.doubts
    )
    yield GaugeMetricFamily(
        "jobqueue_database_oldest_transaction_seconds",
        "Age of the oldest transaction in the database.",
        database.snapshot,
    )
    yield GaugeMetricFamily(
        "jobqueue_database_dead_rows", "Old versions of rows that wait for autovacuum.", database.dead_rows
    )


def _of_the_process(context: Context, stats: EngineStats) -> Iterator[Metric]:
    auth = "none" if not context.server.has_tokens else "tokens"
    yield InfoMetricFamily(
        "jobqueue",
        "Version, durability, access control.",
        {"version": context.server.version, "durability": context.engine.durability, "auth": auth},
    )
    yield GaugeMetricFamily(
        "jobqueue_start_time_seconds",
        "When the server started, in Unix time.",
        context.server.started_at / 1000,
    )
    yield GaugeMetricFamily(
        "jobqueue_uptime_seconds", "Time since the server started.", time.monotonic() - context.server.started
    )
    if (connections := context.server.connections()) is not None:
        yield GaugeMetricFamily("jobqueue_connections", "Connections now.", connections)
    if context.server.max_connections is not None:
        yield GaugeMetricFamily(
            "jobqueue_connections_limit", "Connections, at most.", context.server.max_connections
        )
    if stats.memory_limit is not None:
        yield GaugeMetricFamily(
            "jobqueue_memory_limit_bytes", "Memory above which no job is put in.", stats.memory_limit
        )
    if stats.memory is not None and context.may_use_all:
        yield GaugeMetricFamily(
            "jobqueue_resident_memory_bytes", "Memory that the process has.", stats.memory
        )
    collections = CounterMetricFamily(
        "jobqueue_gc_collections", "Runs of Python's collector.", labels=["generation"]
    )
    for generation, figures in enumerate(gc.get_stats()):
        collections.add_metric([str(generation)], figures["collections"])
    yield collections
