"""What is wrong: sentences about queues and the server, for the top of the overview."""

from collections.abc import Iterator
from html import escape
from urllib.parse import urlencode

import msgspec

from jobqueue.web.schema.responses import ByStatus, Journal, NewErrorView, PauseView, Queue, Queues, Stats
from jobqueue.web.writers.page_layout import View, cell, link

_SHOWN = 20
# A limit of which this part is used up is told.
_NEARLY = 0.85
# A queue whose oldest job is so many seconds old, and that gets more jobs than it loses, falls behind.
_OLD = 60
_read_queues = msgspec.json.Decoder(Queues).decode
_read_stats = msgspec.json.Decoder(Stats).decode


def what_is_wrong(view: View, queues: bytes, stats: bytes | None) -> str:
    """Returns a list as HTML: first what concerns the server, then new kinds of errors, then the queues.
    `queues` and `stats` are answers as JSON; None: the caller may not see them."""
    lines: list[str] = []
    if stats is not None:
        server = _read_stats(stats)
        lines += _of_server(server)
        lines += [_of_error(view, new) for new in server.new_errors]
    of_queues = [each for queue in _read_queues(queues).queues for each in _of_queue(view, queue)]
    lines += [line for _, line in sorted(of_queues, key=_rank)]
    if not lines:
        return '<p class="dim">No problems found.</p>'
    more = f"<li>and {len(lines) - _SHOWN:,} more</li>" if len(lines) > _SHOWN else ""
    return f'<ul class="wrong">{"".join(f"<li>{line}</li>" for line in lines[:_SHOWN])}{more}</ul>'


def _rank(each: tuple[int, str]) -> int:
    return each[0]


def _of_error(view: View, new: NewErrorView) -> str:
    which = urlencode({"type": new.type, "error": new.error, "order": "desc"})
    times = f", {new.count:,} times" if new.count > 1 else ""
    where = link(view, f"queues/{new.queue}", new.queue)
    error = link(view, f"jobs?{which}", new.error)
    return f"New error in {where}: {error} of {cell(new.type)} jobs, first {cell(new.first_at)}{times}"


def _of_server(stats: Stats) -> Iterator[str]:
    limits, memory = stats.limits, stats.memory
    if isinstance(journal := stats.journal, Journal):
        if isinstance(journal.away, str):
            changes = f"{journal.pending:,} change{'' if journal.pending == 1 else 's'}"
            yield f"The database does not answer, and {changes} wait for it: {cell(journal.away)}"
        if journal.full:
            yield "The disk of the journal is full: nothing can be enqueued."
        if journal.behind:
            yield f"The journal cannot keep up: {journal.pending:,} changes wait, and new jobs are refused."
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


def _of_queue(view: View, queue: Queue) -> Iterator[tuple[int, str]]:
    """Yields what is wrong with a queue. What has the lowest number is shown first."""
    name, jobs, rates = link(view, f"queues/{queue.name}", queue.name), queue.jobs, queue.rates
    age = float(queue.oldest_age) if isinstance(queue.oldest_age, (int, float)) else 0.0
    most = queue.settings.max_jobs
    if isinstance(most, int) and _unfinished(jobs) >= _NEARLY * most:
        yield 0, f"{name} has {_unfinished(jobs):,} of the {most:,} jobs that it may have"
    if queue.paused:
        yield 3, f"{name} is paused{_pause(queue.pause) if isinstance(queue.pause, PauseView) else ''}"
    elif jobs.queued and not (jobs.in_progress or queue.consumers_waiting or rates.out):
        those = _jobs(jobs.queued, "queued")
        yield 1, f"{name}: no consumer takes its {those}; the oldest is {_age(age)} old"
    elif jobs.queued and age > _OLD and rates.into > rates.out:
        speeds = f"{rates.into}/s come, {rates.out}/s go"
        yield 2, f"{name} falls behind: the oldest job is {_age(age)} old, {speeds}"
    if jobs.dead:
        groups = link(view, f"jobs/groups?by=queue,type,error&queue={queue.name}", _jobs(jobs.dead, "dead"))
        yield 4, f"{name} has {groups}"


def _pause(pause: PauseView) -> str:
    """Returns who paused a queue, when, until when, and why."""
    said = f" by {cell(pause.by)}" if isinstance(pause.by, str) else ""
    said += f" since {cell(pause.at)}"
    if isinstance(pause.until, str):
        said += f", until {cell(pause.until)}"
    return said + (f": {cell(pause.reason)}" if isinstance(pause.reason, str) else "")


def _jobs(number: int, kind: str) -> str:
    return f"{number:,} {kind} job{'' if number == 1 else 's'}"


def _unfinished(jobs: ByStatus) -> int:
    return jobs.scheduled + jobs.queued + jobs.in_progress


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return escape(f"{seconds / length:.0f} {unit}")
    return escape(f"{seconds:.0f} s")
