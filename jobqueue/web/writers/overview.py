"""What is wrong: sentences about queues and the server, for the top of the overview."""

from collections.abc import Iterator
from html import escape

import msgspec

from jobqueue.web.schema.responses import ByStatus, Queue, Queues, Stats
from jobqueue.web.writers.page_layout import View, cell, link

_SHOWN = 20
# A limit of which this part is used up is told.
_NEARLY = 0.85
# A queue whose oldest job is so many seconds old, and that gets more jobs than it loses, falls behind.
_OLD = 60
_read_queues = msgspec.json.Decoder(Queues).decode
_read_stats = msgspec.json.Decoder(Stats).decode


def what_is_wrong(view: View, queues: bytes, stats: bytes | None) -> str:
    """Returns a list as HTML. `queues` and `stats` are answers as JSON; None: the caller may not see them."""
    lines = list(_of_server(_read_stats(stats))) if stats is not None else []
    for queue in _read_queues(queues).queues:
        lines += _of_queue(view, queue)
    if not lines:
        return '<p class="dim">No problems found.</p>'
    more = f"<li>and {len(lines) - _SHOWN:,} more</li>" if len(lines) > _SHOWN else ""
    return f'<ul class="wrong">{"".join(f"<li>{line}</li>" for line in lines[:_SHOWN])}{more}</ul>'


def _of_server(stats: Stats) -> Iterator[str]:
    limits, memory = stats.limits, stats.memory
    if isinstance(stats.journal, msgspec.Struct) and stats.journal.full:
        yield "The disk of the journal is full: nothing can be enqueued."
    used: list[tuple[str, object, object]] = [
        ("memory in bytes", memory.rss_bytes, memory.limit_bytes),
        ("unfinished jobs", _unfinished(stats.jobs), limits.max_jobs),
        ("queues", stats.queues, limits.max_queues),
        ("waiting consumers", stats.consumers_waiting, limits.max_waiters),
        ("connections", stats.connections, limits.max_connections),
    ]
    for what, now, most in used:
        if isinstance(now, int) and isinstance(most, int) and most and now >= _NEARLY * most:
            yield f"A limit of the server is nearly used up: {now:,} of {most:,} {what}."


def _of_queue(view: View, queue: Queue) -> Iterator[str]:
    name, jobs, rates = link(view, f"queues/{queue.name}", queue.name), queue.jobs, queue.rates
    age = float(queue.oldest_age) if isinstance(queue.oldest_age, (int, float)) else 0.0
    if queue.paused:
        pause = queue.pause
        said = f" since {cell(pause.at)}" if isinstance(pause, msgspec.Struct) else ""
        if isinstance(pause, msgspec.Struct) and isinstance(pause.until, str):
            said += f", until {cell(pause.until)}"
        if isinstance(pause, msgspec.Struct) and isinstance(pause.reason, str):
            said += f": {cell(pause.reason)}"
        yield f"{name} is paused{said}"
    elif jobs.queued and not (jobs.in_progress or queue.consumers_waiting or rates.out):
        yield f"{name}: no consumer takes its {_jobs(jobs.queued, 'queued')}; the oldest is {_age(age)} old"
    elif jobs.queued and age > _OLD and rates.into > rates.out:
        yield f"{name} falls behind: the oldest job is {_age(age)} old, {rates.into}/s come, {rates.out}/s go"
    if jobs.dead:
        groups = link(view, f"jobs/groups?by=queue,type,error&queue={queue.name}", _jobs(jobs.dead, "dead"))
        yield f"{name} has {groups}"
    most = queue.settings.max_jobs
    if isinstance(most, int) and _unfinished(jobs) >= _NEARLY * most:
        yield f"{name} has {_unfinished(jobs):,} of the {most:,} jobs that it may have"


def _jobs(number: int, kind: str) -> str:
    return f"{number:,} {kind} job{'' if number == 1 else 's'}"


def _unfinished(jobs: ByStatus) -> int:
    return jobs.scheduled + jobs.queued + jobs.in_progress


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return escape(f"{seconds / length:.0f} {unit}")
    return escape(f"{seconds:.0f} s")
