"""The pages for a browser. Each is made of the answers of the API as JSON."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlencode

import msgspec

from jobqueue.steps import STATUSES
from jobqueue.units import instant, parse_instant
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.schema.events import EVENT_NAMES
from jobqueue.web.schema.responses import Cluster, PauseView, Queue, Queues, Series, Takeover
from jobqueue.web.writers import text_tables
from jobqueue.web.writers.action_forms import (
    box,
    bulk,
    folded,
    of_queue,
    of_selected,
    redrive_group,
)
from jobqueue.web.writers.charts import chart, highest_of, spark
from jobqueue.web.writers.overview import paused, what_is_wrong
from jobqueue.web.writers.page_layout import (
    View,
    age,
    cell,
    facts_table,
    link,
    live,
    mark_current,
    more_link,
    page,
    status,
    table,
    tiles,
)
from jobqueue.web.writers.queue_settings import settings_form

# Jobs on the page of a queue.
JOBS = 50
# Queues of the overview that have a small chart.
SPARKS = 20
_FILTERS = (
    ("queue", "queue"), ("type", "type"), ("tag", "tag"), ("key", "key"), ("error", "error"),
    ("text", "text in the payload"),
)  # fmt: skip
# Lengths of the charts on the page of a queue: label, milliseconds, query of the page.
HOUR = 3_600_000
_TEN = 600_000
_LENGTHS = (("10 min", _TEN, "?for=10m"), ("1 h", HOUR, ""), ("6 h", 6 * HOUR, "?for=6h"))
# Columns of a group before those by which it is one.
_COUNTS = 3
# Filters of a list that bulk calls take, too.
_SELECT = ("status", "type", "tag", "key", "older_than", "retrying", "text", "error")
_read_queue = msgspec.json.Decoder(Queue).decode
_read_queues = msgspec.json.Decoder(Queues).decode
_read_cluster = msgspec.json.Decoder(Cluster).decode
_read_series = msgspec.json.Decoder(Series).decode


def queues(
    view: View, body: bytes, stats: bytes | None = None, charts: Mapping[str, bytes] | None = None
) -> bytes:
    """Returns the overview. `charts`: the series of queues by name, as JSON."""
    return page(
        view, "queues", live("overview", _overview(view, body, stats, charts or {})), watch="", refresh=True
    )


def front(view: View, body: bytes, stats: bytes | None, charts: Mapping[str, bytes], help: str) -> bytes:
    """Returns the page at `/`: the overview, and the help."""
    shown = live("overview", _overview(view, body, stats, charts))
    folded = f"<details><summary>The API on one screen</summary><pre>{escape(help)}</pre></details>"
    return page(view, "overview", shown + folded, watch="", refresh=True)


def name_of(body: bytes) -> str:
    """Returns the name of the queue that an answer shows."""
    return dict(text_tables.facts(body))["name"]


def queue(
    view: View,
    body: bytes,
    listed: bytes,
    series: bytes,
    length: int,
    until: int | None,
    defaults: Mapping[str, str],
) -> bytes:
    """`body` is the queue as JSON, `listed` its newest jobs, `series` what happened in it in the `length`
    milliseconds before `until`, by the wall clock; None: before now. `defaults`: what holds if a
    setting is not set."""
    seen, facts = _read_queue(body), text_tables.facts(body)
    name = seen.name
    shown = _jobs(view, f"queue={name}&order=desc", listed)
    pause = f'<p class="warn">Paused{paused(seen.pause)}</p>' if isinstance(seen.pause, PauseView) else ""
    return page(
        view,
        f"queue {name}",
        live("figures", pause + _figures(view, seen))
        + live(
            "actions", of_queue(view, name, seen.paused, view.version, settings_form(view, seen, defaults))
        )
        + live("charts", _charts(view, name, series, length, until))
        + live("jobs", f"<h2>newest jobs</h2>{shown}")
        + live("facts", folded("All figures and settings", facts_table(facts))),
        f"?queue={name}",
    )


def _figures(view: View, queue: Queue) -> str:
    """Returns the figures of a queue that are looked at most."""
    jobs = queue.jobs
    counts = (
        ("queued", "queued", jobs.queued), ("running", "in_progress", jobs.in_progress),
        ("later", "scheduled", jobs.scheduled), ("dead", "dead", jobs.dead),
        ("done", "concluded", jobs.concluded),
    )  # fmt: skip
    figures = [
        (label, link(view, f"jobs?queue={queue.name}&status={one}", f"{count:,}"))
        for label, one, count in counts
    ]
    lengths = (("oldest", queue.oldest_age), ("wait, p95", queue.wait_p95), ("run, p95", queue.run_p95))
    figures += [(label, _length(float(one))) for label, one in lengths if isinstance(one, (int, float))]
    figures += [("in/s", _rate(queue.rates.into)), ("out/s", _rate(queue.rates.out))]
    return tiles([*figures, ("waiting", f"{queue.consumers_waiting:,}")])


def _rate(jobs: float) -> str:
    return f"{jobs:,.0f}" if jobs >= 100 else f"{jobs:.3g}"


def _length(seconds: float) -> str:
    return age(seconds) if seconds >= 10 else f"{seconds:.3g} s"


def series(view: View, body: bytes) -> bytes:
    name = dict(text_tables.facts(body))["queue"]
    shown = f"<pre>{escape(text_tables.series(body))}</pre>"
    return page(view, f"series of queue {name}", f"<p>{link(view, f'queues/{name}', name)}</p>{shown}")


def jobs(view: View, body: bytes) -> bytes:
    """Returns a list of jobs, and what may be done with all that match."""
    asked = {name.lower(): value for name, value in query_pairs(view.query)}
    filters = {name: asked[name] for name in _SELECT if asked.get(name)}
    many = ""
    if (queue := asked.get("queue", "")) and "," not in queue:
        many = folded(f"All jobs of {queue} that match", bulk(view, queue, filters))
    elif "admin" in view.rights:
        many = '<p class="dim">To change all jobs that match, choose one queue.</p>'
    watch = f"?queue={queue}" if queue and "," not in queue else ""
    shown = live("jobs", _jobs(view, view.query, body))
    return page(view, "jobs", _filter(view, asked) + many + shown, watch)


def groups(view: View, body: bytes) -> bytes:
    """Returns the groups of dead and retrying jobs."""
    heads, *lines = text_tables.group_rows(body)
    names = [head.lower() for head in heads]
    given = {name.lower(): value for name, value in query_pairs(view.query)}
    filters = {name: given[name] for name in _SELECT if given.get(name)}
    rows, acts = [], False
    for line in lines:
        group = dict(zip(names, line, strict=True))
        asked = [(name, group[name]) for name in ("queue", "type", "error", "key") if group.get(name)]
        number = link(view, f"jobs?{urlencode(asked)}", line[0])
        of_group = dict(zip(names[_COUNTS:], line[_COUNTS:], strict=True))
        form = redrive_group(view, of_group, filters, group["dead"])
        acts = acts or bool(form)
        rows.append([number, *map(cell, line[1:]), form])
    if not acts:
        rows = [row[:-1] for row in rows]
    kinds = {**dict.fromkeys(range(len(heads)), "t"), **dict.fromkeys(text_tables.GROUP_NUMBERS, "n")}
    shown = table([*names, ""] if acts else names, rows, kinds)
    left = f"<p>{escape(text_tables.jobs_left(body))}</p>"
    return page(view, "dead and retrying jobs", live("groups", shown + left), "")


def consumers(view: View, body: bytes) -> bytes:
    """Returns who holds jobs, and who waits."""
    holding, waiting = text_tables.consumer_rows(body)
    rows = []
    for *before, id, queue, type, since, until in holding:
        cells = [link(view, f"jobs/{id}", id), link(view, f"queues/{queue}", queue)]
        rows.append([*map(cell, before), *cells, *map(cell, (type, since, until))])
    kinds = {0: "t", 5: "t", **dict.fromkeys(text_tables.CONSUMER_NUMBERS, "n")}
    holds = table([head.lower() for head in text_tables.CONSUMER_HEADS], rows, kinds)
    heads = [head.lower() for head in text_tables.WAITING_HEADS]
    waits = table(heads, [[*map(cell, row)] for row in waiting], {0: "t", 1: "t"})
    return page(
        view, "consumers", live("consumers", holds + "<h2>waiting</h2>" + waits), watch="", refresh=True
    )


def cluster(view: View, body: bytes) -> bytes:
    """Returns the servers that share a database."""
    rows = [[*map(cell, row)] for row in text_tables.server_rows(body)]
    heads = [head.lower() for head in text_tables.SERVER_HEADS]
    if rows:
        said = "One server has the jobs. The others pass their clients on to it; one of them takes its place."
        if isinstance(_read_cluster(body).servers[0].shards, tuple):
            said = "Each server has some shards of the jobs. It passes on what concerns those of the others."
        shown = table(heads, rows, {0: "t", 4: "t"})
        if isinstance(last := _read_cluster(body).last_takeover, Takeover):
            how = "had not handed over" if last.forced else "handed over"
            shown += f"<p>The last takeover was {cell(last.at)}, from {cell(last.before)}, which {how}.</p>"
    else:
        said = "This server shares its jobs with no other. Servers that share a PostgreSQL database do."
        shown = ""
    return page(view, "cluster", f"<p>{said}</p>" + live("servers", shown), watch="", refresh=True)


def events(view: View) -> bytes:
    """Returns the page on which scripts show events as they happen."""
    asked = {name.lower(): value for name, value in query_pairs(view.query)}
    inputs = "".join(
        f'<label>{name}<input name="{name}" value="{escape(asked.get(name, ""))}"{hint}></label>'
        for name, hint in (("queue", ""), ("job", ""), ("event", ' placeholder="dead,failed"'))
    )
    kinds = ", ".join(EVENT_NAMES)
    shown = (
        f'<form class="fields" action="{view.up}events" aria-label="Filter">{inputs}'
        f'<button>Show</button></form><p class="dim">Kinds of events: {kinds}. The newest is the first. What '
        "happened before the page was opened is not shown.</p>"
        '<noscript><p class="bad">This page needs scripts. The same in a terminal: '
        "<code>curl -N $Q/events</code></p></noscript>"
        '<div id="events" data-kinds="'
        + ",".join(EVENT_NAMES)
        + '" hidden><p><button type="button" aria-pressed="false">Pause</button> '
        '<span class="dim"></span></p><table><thead><tr><th scope="col">at</th><th scope="col">event</th>'
        '<th scope="col" class="n">job</th><th scope="col">queue</th><th scope="col">type</th>'
        '<th scope="col">consumer</th></tr></thead><tbody></tbody></table></div>'
    )
    return page(view, "events", shown)


def selected_page(view: View, count: int, failed: Sequence[tuple[int, str]], back: str) -> bytes:
    """Returns what became of `count` jobs that were selected. `failed`: those that are as they were, and
    why."""
    done = f'<p role="status">Done: {count - len(failed):,} of {count:,} jobs. These are as they were:</p>'
    rows = [[link(view, f"jobs/{id}", str(id)), cell(why)] for id, why in failed]
    shown = table(("job", "why"), rows, {0: "n", 1: "t"})
    return page(view, "not all is done", f"{done}{shown}<p>{link(view, back, 'Back')}</p>")


def _overview(view: View, body: bytes, stats: bytes | None, charts: Mapping[str, bytes]) -> str:
    rows = []
    for queue in _read_queues(body).queues:
        name, jobs, rates = queue.name, queue.jobs, queue.rates
        counts = (jobs.queued, jobs.in_progress, jobs.scheduled, jobs.dead, jobs.concluded)
        oldest = age(float(queue.oldest_age)) if isinstance(queue.oldest_age, (int, float)) else ""
        figures = (_rate(rates.into), _rate(rates.out), f"{queue.consumers_waiting:,}")
        drawn = _spark(charts[name]) if name in charts else ""
        named = link(view, f"queues/{name}", name)
        state = "paused" if queue.paused else ""
        rows.append([named, *[f"{count:,}" for count in counts], oldest, *figures, state, drawn])
    kinds = {0: "t", **dict.fromkeys(text_tables.NUMBERS, "n")}
    heads = [*[head.lower() for head in text_tables.HEADS[:-1]], "state", "in and out, 1 h"]
    return (
        what_is_wrong(view, body, stats)
        + table(heads, rows, kinds)
        + more_link(
            view, "queues", view.query if view.here.startswith("queues") else "", text_tables.more(body)
        )
    )


def _spark(series: bytes) -> str:
    found = _read_series(series)
    if not found.kept:
        return ""
    return spark("jobs in and out in the last hour", [("in", found.enqueued), ("out", found.concluded)])


def _charts(view: View, name: str, series: bytes, length: int, until: int | None) -> str:
    """Returns the charts of the `length` milliseconds before `until`, or before now, and links to other
    lengths, and to parts of this one."""
    here = f"{view.up}queues/{escape(name)}"
    links = "".join(
        f'<li><a href="{here}{query}"{mark_current(until is None and length == one)}>{label}</a></li>'
        for label, one, query in _LENGTHS
    )
    found = _read_series(series)
    if until is not None:
        links += _beside(here, found, length, until)
    shown = f'<nav class="tabs" aria-label="Length of the charts"><ul>{links}</ul></nav>'
    if not found.kept:
        return '<p class="dim">No charts: there are too many queues, or this one has not been used.</p>'
    if not found.enqueued and until is not None:
        return f'{shown}<p class="dim">Nothing is kept of that time.</p>'
    if not found.enqueued:
        return f'{shown}<p class="dim">The charts begin after the first step of {_length(found.step)}.</p>'
    flow = [
        ("enqueued", "in", found.enqueued),
        ("concluded", "out", found.concluded),
        ("failed", "bad", found.failed),
    ]
    depth = [("queued", "depth", found.queued)]
    is_part = until is not None
    return (
        f'{shown}<div class="charts">'
        f"{_chart(f'jobs every {_length(found.step)}', flow, found, is_part)}"
        f"{_chart('jobs that wait', depth, found, is_part)}</div>{_parts(here, found, length)}"
    )


def _beside(here: str, found: Series, length: int, until: int) -> str:
    """Returns links to the parts before and after one, as far as something is kept of them."""
    links = ""
    if parse_instant(found.since) <= until - length:
        links += f'<li><a href="{_part_of(here, length, until - length)}">earlier</a></li>'
    if parse_instant(found.until) >= until:
        links += f'<li><a href="{_part_of(here, length, until + length)}">later</a></li>'
    return links


def _part_of(here: str, length: int, until: int) -> str:
    """Returns the address of the charts of a part."""
    return f"{here}?for={length // 1000}s&amp;until={instant(until)}"


def _parts(here: str, found: Series, length: int) -> str:
    """Returns links to the parts of charts: to the hours of several, to ten minutes of less. They begin at
    full hours, or full ten minutes, and the last one may not be over yet."""
    part = HOUR if length > HOUR else _TEN
    if length <= part:
        return ""
    begin, end = parse_instant(found.since), parse_instant(found.until)
    links = "".join(
        f'<li><a href="{_part_of(here, part, at + part)}">{_minute(at)}</a></li>'
        for at in range(begin // part * part, end, part)
    )
    said = "An hour" if part == HOUR else "Ten minutes"
    links = f"<li>{said} from (UTC):</li>{links}"
    return f'<nav class="tabs" aria-label="Parts of the charts"><ul>{links}</ul></nav>'


def _minute(at: int) -> str:
    """Returns the time of day of an instant, in UTC."""
    return instant(at)[11:16]


def _chart(title: str, lines: Sequence[tuple[str, str, Sequence[int]]], found: Series, is_part: bool) -> str:
    """Returns a chart that says what its peak was, and when. `is_part`: it does not end now."""
    shown = len(found.enqueued) * float(found.step)
    since = f"{shown / 3600:.2g} h ago" if shown >= 3600 else f"{age(shown)} ago"
    until = "now"
    if is_part:
        since, until = (f"{_minute(parse_instant(at))} UTC" for at in (found.since, found.until))
    highest = highest_of(lines)
    if not highest:
        return chart(title, lines, since, until, "Nothing happened.")
    name, _, numbers = next(line for line in lines if highest in line[2])
    # The end of the step, since what happened is known then.
    before = (len(numbers) - 1 - numbers.index(highest)) * float(found.step)
    at = instant(round(parse_instant(found.until) - before * 1000))
    return chart(title, lines, since, until, f"Peak: {highest:,} {name}, {cell(at)}")


def _filter(view: View, asked: Mapping[str, str]) -> str:
    """Returns the filter of a list of jobs. Its form leads to an address in which the filter is the query."""
    inputs = "".join(
        f'<label>{label}<input name="{name}" value="{escape(asked.get(name, ""))}"></label>'
        for name, label in _FILTERS
    )
    choices = "".join(
        f'<option value="{one}"{" selected" if asked.get("status") == one else ""}>{one or "any"}</option>'
        for one in ("", *STATUSES)
    )
    orders = "".join(
        f'<option value="{one}"{" selected" if asked.get("order", "asc") == one else ""}>{label}</option>'
        for one, label in (("desc", "newest first"), ("asc", "oldest first"))
    )
    return (
        f'<form class="fields" action="{view.up}find" aria-label="Filter">'
        f'<label>status<select name="status">{choices}</select></label>{inputs}'
        f'<label>order<select name="order">{orders}</select></label><button>Show</button></form>'
    )


def _jobs(view: View, query: str, body: bytes) -> str:
    rows = [
        [link(view, f"jobs/{id}", id), status(state), link(view, f"queues/{queue}", queue), *map(cell, cells)]
        for id, state, queue, *cells in text_tables.job_rows(body)
    ]
    kinds = {2: "t", 3: "t", 7: "t", **dict.fromkeys(text_tables.JOB_NUMBERS, "n")}
    heads = [head.lower() for head in text_tables.JOB_HEADS]
    asked = dict(query_pairs(query))
    acts = of_selected(view, asked.get("status", "")) if rows else ""
    if acts:
        ids = [id for id, *_ in text_tables.job_rows(body)]
        rows = [[box(id), *row] for id, row in zip(ids, rows, strict=True)]
        kinds = {0: "c", **{at + 1: kind for at, kind in kinds.items()}}
        heads = ["select", *heads]
    return table(heads, rows, kinds) + acts + more_link(view, "jobs", query, text_tables.more(body))
