"""The pages of schedules: the list, and one with its next instants and what became of the last ones."""

import msgspec
from msgspec import UNSET

from jobqueue.web.schema.schedules import FiringView, ScheduleHistory, ScheduleView
from jobqueue.web.writers import text_tables
from jobqueue.web.writers.action_forms import folded, of_schedule
from jobqueue.web.writers.page_layout import (
    View,
    cell,
    facts_table,
    link,
    live,
    more_link,
    page,
    table,
)
from jobqueue.web.writers.schedule_form import schedule_form

_read = msgspec.json.Decoder(ScheduleView).decode
_read_history = msgspec.json.Decoder(ScheduleHistory).decode


def schedules(view: View, body: bytes) -> bytes:
    """Returns a list of schedules."""
    rows = [
        [link(view, f"schedules/{name}", name), *map(cell, cells)]
        for name, *cells in text_tables.schedule_rows(body)
    ]
    heads = [head.lower() for head in (*text_tables.SCHEDULE_HEADS[:-1], "STATE")]
    shown = table(heads, rows, {0: "t", 1: "t", 6: "t", 7: "t"})
    more = more_link(view, "schedules", view.query, text_tables.more(body))
    return page(view, "schedules", live("schedules", shown + more), "?list=schedules", refresh=True)


def schedule(view: View, body: bytes, history: bytes) -> bytes:
    """Returns the page of a schedule. `history`: what became of its last instants, as JSON."""
    seen = _read(body)
    change = schedule_form(view, seen.name, body)
    actions = of_schedule(view, seen.name, seen.paused, view.version, change)
    return page(
        view,
        f"schedule {seen.name}",
        live("plan", _state(view, seen))
        + live("actions", actions)
        + live("history", f"<h2>last instants</h2>{_history(view, _read_history(history))}")
        + live("facts", folded("All fields", facts_table(text_tables.facts(body)))),
        f"?schedule={seen.name}",
    )


def _state(view: View, seen: ScheduleView) -> str:
    """Returns what it does, whether it does, and its next instants."""
    job = f"{cell(seen.job.type)} in {link(view, f'queues/{seen.job.queue}', seen.job.queue)}"
    zone = f" ({cell(seen.timezone)})" if isinstance(seen.timezone, str) else ""
    means = f"{cell(seen.means)}{zone}: " if isinstance(seen.means, str) else ""
    shown = f"<p>{means}{job}</p>"
    if seen.pause is not UNSET and seen.pause is not None:
        why = f": {cell(seen.pause.reason)}" if isinstance(seen.pause.reason, str) else ""
        shown += f'<p class="warn">Paused since {cell(seen.pause.at)}{why}</p>'
    if isinstance(seen.blocked, str):
        shown += f'<p class="bad">Blocked: {cell(seen.blocked)}</p>'
    if isinstance(seen.next, list) and seen.next:
        shown += f"<p>Next: {', '.join(map(cell, seen.next))}</p>"
    elif not seen.paused:
        shown += "<p>It has no further instants.</p>"
    return shown


def _history(view: View, known: ScheduleHistory) -> str:
    rows = [
        [
            cell(one.due_at),
            cell(one.outcome.replace("_", " ")),
            link(view, f"jobs/{one.job}", str(one.job)) if isinstance(one.job, int) else "",
            _why(one),
        ]
        for one in known.history
    ]
    return table(("due", "outcome", "job", "why"), rows, {2: "n", 3: "t"})


def _why(one: FiringView) -> str:
    why = cell(one.reason) if isinstance(one.reason, str) else ""
    since = f" (instants since {cell(one.since)})" if isinstance(one.since, str) else ""
    return why + since
