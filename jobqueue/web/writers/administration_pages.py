"""The pages about the server: its figures, the access tokens, and the last administrative calls."""

import re

import msgspec

from jobqueue.web.schema.responses import AuditView
from jobqueue.web.writers import text_tables
from jobqueue.web.writers.page_layout import (
    View,
    cell,
    facts_table,
    link,
    live,
    mark_current,
    more_link,
    page,
    table,
)

_PAGES = (("Figures and limits", "stats"), ("Access tokens", "tokens"), ("Audit log", "audit"))
# The queue or the schedule of a call, which has a page.
_SHOWN = re.compile(r"/((?:queues|schedules)/[A-Za-z0-9_.:-]{1,128})(?=/|$)")
_read_audit = msgspec.json.Decoder(AuditView).decode


def server(view: View, stats: bytes) -> bytes:
    """Returns the page of the server: its figures and limits."""
    facts = live("facts", facts_table(text_tables.facts(stats)))
    return page(view, "server", _pages(view) + facts, watch="", refresh=True)


def tokens(view: View, body: bytes) -> bytes:
    """Returns the access tokens by name."""
    rows = [[*map(cell, row)] for row in text_tables.token_rows(body)]
    heads = [head.lower().replace("sqs", "SQS") for head in text_tables.TOKEN_HEADS]
    if rows:
        said = "Who may call this server. A secret is never shown: the server has only its digest."
        shown = table(heads, rows, {0: "t", 1: "t", 2: "t"}) + more_link(
            view, "tokens", view.query, text_tables.more(body)
        )
    else:
        said = (
            "This server has no access tokens: whoever reaches it may make all calls but administrative ones."
        )
        shown = ""
    shown = live("tokens", shown)
    return page(view, "access tokens", f"{_pages(view)}<p>{said}</p>{shown}", watch="?list=tokens")


def audit(view: View, body: bytes) -> bytes:
    """Returns the last administrative calls, the newest first."""
    known = _read_audit(body)
    rows = []
    for at, who, method, path, status, changed, peer, id in text_tables.audit_rows(body):
        found = _SHOWN.match(path)
        call = f"{cell(method)} {cell(path)}" if found is None else _linked(view, method, path, found)
        mark = f'<span class="{"bad" if status >= "400" else "dim"}">{cell(status)}</span>'
        rows.append([cell(at), cell(who), call, mark, cell(changed), cell(peer), cell(id)])
    kinds = {1: "t", 2: "t", 3: "n", 4: "n"}
    heads = ("at", "who", "call", "status", "jobs", "from", "request")
    many = f"{len(rows):,} of {known.total:,}" if isinstance(known.total, int) else f"{len(rows):,}"
    said = (
        f"<p>The last administrative calls, {many} since the server was started {cell(known.since)}. "
        "Its log has all of them.</p>"
    )
    shown = live("calls", said + table(heads, rows, kinds))
    return page(view, "audit log", _pages(view) + shown, watch="?list=audit", refresh=True)


def _linked(view: View, method: str, path: str, found: re.Match[str]) -> str:
    rest = path[found.end() :]
    return f"{cell(method)} {link(view, found[1], found[0])}{cell(rest)}"


def _pages(view: View) -> str:
    """Returns the links between the pages about the server, for those who may see them all."""
    if "admin" not in view.rights:
        return ""
    here = view.here.partition("?")[0]
    links = "".join(
        f'<li><a href="{view.up}{to}"{mark_current(to == here)}>{name}</a></li>' for name, to in _PAGES
    )
    return f'<nav class="tabs" aria-label="Server"><ul>{links}</ul></nav>'
