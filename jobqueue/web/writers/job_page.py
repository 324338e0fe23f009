"""The page of one job: what may be done with it, why it waits, its errors and attempts, its payload."""

from html import escape

import msgspec
from msgspec import Raw

from jobqueue.web.schema.responses import Explained
from jobqueue.web.writers import enqueued_again, text_tables
from jobqueue.web.writers.action_forms import of_job
from jobqueue.web.writers.page_layout import View, cell, facts_table, link, live, page, status, table

# JSON of more bytes is shown as it is, and no more characters of any.
_PRETTY = 64 << 10
_LONG = 2000
# Members that have a part of the page to themselves.
_CARRIED = ("payload", "result", "headers")
_ATTEMPT = ("attempt", "consumer", "started_at", "ended_at", "outcome", "reason", "error")
_read = msgspec.json.Decoder(dict[str, Raw]).decode
_read_attempts = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_read_explained = msgspec.json.Decoder(Explained).decode


def job_of(body: bytes) -> tuple[int, str]:
    """Returns the id and the status of the job that an answer shows."""
    known = _read(body)
    return int(bytes(known["id"])), text_tables.plain(known["status"])


def job(
    view: View, body: bytes, address: tuple[str, str], has_tokens: bool, explained: bytes | None = None
) -> bytes:
    """Returns the page of a job. `address`: scheme and host by which it was asked for. `explained`: why it
    waits, as JSON."""
    document, facts = _read(body), text_tables.facts(body)
    known = dict(facts)
    queue = known["queue"]
    inside = (
        f"<p>{status(known['status'])}, {cell(known['type'])} in {link(view, f'queues/{queue}', queue)}</p>"
    )
    why = _why(explained) if explained is not None else ""
    again = enqueued_again.form(view, document) + enqueued_again.curl(document, *address, has_tokens)
    actions = f'<div class="actions">{of_job(view, known, view.version)}{again}</div>'
    errors = [(name, value) for name, value in facts if name == "error" or name.startswith("error.")]
    parts = [f"<h2>last error</h2>{facts_table(errors)}"] if errors else []
    if "history" in document:
        parts.append(f"<h2>attempts</h2>{_attempts(document['history'])}")
    parts += [
        f"<h2>{name}</h2><pre>{escape(pretty(document[name]))}</pre>" for name in _CARRIED if name in document
    ]
    others = [
        (name, value)
        for name, value in facts
        if not name.startswith(("attempt ", "error", *_CARRIED)) or name == "payload_encoding"
    ]
    return page(
        view,
        f"job {known['id']}",
        live("actions", inside + why + actions)
        + live("parts", "".join(parts))
        + live("facts", f"<h2>all fields</h2>{facts_table(others)}"),
        f"?job={known['id']}",
    )


def _why(explained: bytes) -> str:
    reasons = _read_explained(explained).reasons
    if not reasons:
        return "<p>The next dequeue gets it.</p>"
    lines = "".join(f"<li>{cell(reason.detail)}</li>" for reason in reasons)
    return f"<p>It waits:</p><ul>{lines}</ul>"


def _attempts(history: Raw) -> str:
    attempts = _read_attempts(history)
    names = [name for name in _ATTEMPT if any(name in one for one in attempts)]
    rows = [
        [
            cell(text_tables.short_error(one[name]) if name == "error" else text_tables.plain(one[name]))
            if name in one
            else ""
            for name in names
        ]
        for one in attempts
    ]
    kinds = {at: "n" if name == "attempt" else "t" for at, name in enumerate(names)}
    return table([name.removesuffix("_at") for name in names], rows, kinds)


def pretty(value: Raw) -> str:
    """Returns a JSON value as text for people, cut if it is long."""
    raw = bytes(value)
    if raw[:1] == b'"' or len(raw) > _PRETTY:
        return text_tables.plain(value)
    text = msgspec.json.format(raw, indent=2).decode()
    if len(text) > _LONG:
        text = f"{text[:_LONG]}… ({len(text):,} characters)"
    return text_tables.visible(text)
