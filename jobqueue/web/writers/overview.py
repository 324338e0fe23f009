"""What is wrong: sentences about queues and the server, for the top of the overview."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import msgspec

from jobqueue.web.schema.responses import ByStatus, Journal, NewErrorView, PauseView, Queue, Queues, Stats
from jobqueue.web.writers.page_layout import View, age, cell, link

_SHOWN = 20
_ERRORS = 5
# Queues with dead jobs that are named.
_NAMED = 8
# What has this number, or a higher one, is less urgent.
_WARN = 2
# A limit of which this part is used up is told.
_NEARLY = 0.85
# A queue whose oldest job is so many seconds old, and that gets so many times the jobs that it loses, falls
# behind.
_OLD = 60
_FASTER = 1.05
_read_queues = msgspec.json.Decoder(Queues).decode
_read_stats = msgspec.json.Decoder(Stats).decode


def what_is_wrong(view: View, queues: bytes, stats: bytes | None) -> str:
    """Returns a list as HTML: first what concerns the server, then new kinds of errors, then the queues.
    `queues` and `stats` are answers as JSON; None: the caller may not see them."""
    lines: list[tuple[int, str]] = []
    if stats is not None:
        server = _read_stats(stats)
        lines += [(0, line) for line in _of_server(server)]
        lines += [(0, _of_error(view, new)) for new in server.new_errors[:_ERRORS]]
        if (others := len(server.new_errors) - _ERRORS) > 0:
            lines.append((0, f"{others:,} more new kinds of errors"))
    shown = _read_queues(queues).queues
    lines += sorted([each for queue in shown for each in _of_queue(view, queue)], key=_rank)
    if dead := sorted([queue for queue in shown if queue.jobs.dead], key=_dead, reverse=True):
        lines.append((_WARN, _of_dead(view, dead)))
    if not lines:
        return '<p class="dim">No problems found.</p>'
    items = "".join(
        f'<li class="{"bad" if rank < _WARN else "warn"}">{line}</li>' for rank, line in lines[:_SHOWN]
    )
    more = f"<li>and {len(lines) - _SHOWN:,} more</li>" if len(lines) > _SHOWN else ""
    return f'<ul class="wrong">{items}{more}</ul>'


def _rank(each: tuple[int, str]) -> int:
    return each[0]


def _dead(queue: Queue) -> int:
    return queue.jobs.dead


def _of_dead(view: View, queues: Sequence[Queue]) -> str:
    """Returns how many dead jobs there are in which queues."""
    groups = "jobs/groups?by=queue,type,error&queue="
    each = [
        f"{link(view, groups + queue.name, _jobs(queue.jobs.dead, 'dead'))} in {cell(queue.name)}"
        for queue in queues[:_NAMED]
    ]
    rest = sum(map(_dead, queues[_NAMED:]))
    return ", ".join(each) + (f", {rest:,} in {len(queues) - _NAMED:,} other queues" if rest else "")


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
    oldest = float(queue.oldest_age) if isinstance(queue.oldest_age, (int, float)) else 0.0
    most = queue.settings.max_jobs
    if isinstance(most, int) and _unfinished(jobs) >= _NEARLY * most:
        yield 0, f"{name} has {_unfinished(jobs):,} of the {most:,} jobs that it may have"
    if queue.paused:
        yield 3, f"{name} is paused{paused(queue.pause) if isinstance(queue.pause, PauseView) else ''}"
    elif jobs.queued and not (jobs.in_progress or queue.consumers_waiting or rates.out):
        those = _jobs(jobs.queued, "queued")
        yield 1, f"{name}: no consumer takes its {those}; the oldest is {age(oldest)} old"
    elif jobs.queued and oldest > _OLD and rates.into > _FASTER * rates.out:
        speeds = f"{rates.into:.3g}/s come, {rates.out:.3g}/s go"
        yield 2, f"{name} falls behind: the oldest job is {age(oldest)} old, {speeds}"


def paused(pause: PauseView) -> str:
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
