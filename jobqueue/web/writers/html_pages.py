"""Pages for a browser: tables without scripts, rendered by the server and reloaded every few seconds.

All values are escaped, and the policy header forbids the browser to load or run anything.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from urllib.parse import urlencode

from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.writers import text_tables

# Jobs on the page of a queue, and seconds after which a page is loaded again.
JOBS = 50
_REFRESH = 5
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em;max-width:80em;overflow-wrap:break-word}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left;"
    "vertical-align:top;white-space:nowrap}.n{text-align:right}pre{overflow:auto}"
    ".t{white-space:pre-wrap;overflow-wrap:anywhere;min-width:8em}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; form-action 'none'; "
    "base-uri 'none'"
)
HEADERS = (
    f"\r\nContent-Security-Policy: {_POLICY}\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY"
    "\r\nReferrer-Policy: no-referrer"
).encode()
_LINKS = '<p><a href="/">queues</a> · <a href="/stats">stats</a> · <a href="/help">help</a></p>'


def queues(body: bytes) -> bytes:
    return _page("queues", _queues(body))


def front(body: bytes, help: str) -> bytes:
    """Returns the page at `/`: the queues, and the help."""
    return _page("jobqueue", f"{_queues(body)}<pre>{escape(help)}</pre>")


def queue(body: bytes, listed: bytes) -> bytes:
    """`body` is the queue as JSON, `listed` its first jobs."""
    facts = text_tables.facts(body)
    name = dict(facts)["name"]
    shown = _jobs(f"queue={name}", listed)
    return _page(f"queue {name}", f"{_facts(facts)}<h2>jobs by id</h2>{shown}")


def jobs(query: str, body: bytes) -> bytes:
    """Returns a list of jobs. `query` is the query of the request."""
    return _page("jobs", _jobs(query, body))


def job(body: bytes) -> bytes:
    facts = text_tables.facts(body)
    known = dict(facts)
    link = f'<p>in <a href="/queues/{escape(known["queue"])}">{escape(known["queue"])}</a></p>'
    return _page(f"job {known['id']}", link + _facts(facts))


def _queues(body: bytes) -> str:
    rows = []
    for name, *cells in text_tables.queue_rows(body):
        link = f'<a href="/queues/{escape(name)}">{escape(name)}</a>'
        rows.append([link, *map(escape, cells)])
    kinds = {0: "t", **dict.fromkeys(text_tables.NUMBERS, "n")}
    cursor = text_tables.more(body)
    rest = "" if cursor is None else f'<p><a href="/queues?cursor={escape(cursor)}">more</a></p>'
    return _table([head.lower() for head in text_tables.HEADS], rows, kinds) + rest


def _jobs(query: str, body: bytes) -> str:
    rows = []
    for id, *cells in text_tables.job_rows(body):
        rows.append([f'<a href="/jobs/{id}">{id}</a>', *map(escape, cells)])
    kinds = {2: "t", 3: "t", **dict.fromkeys(text_tables.JOB_NUMBERS, "n")}
    shown = _table([head.lower() for head in text_tables.JOB_HEADS], rows, kinds)
    if (cursor := text_tables.more(body)) is None:
        return shown
    asked = [(name, value) for name, value in query_pairs(query) if name.lower() != "cursor"]
    link = urlencode([*asked, ("cursor", cursor)])
    return f'{shown}<p><a href="/jobs?{escape(link)}">more</a></p>'


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return _table((), [[_text(name), _text(value)] for name, value in facts], {1: "t"})


def _text(text: str) -> str:
    return escape(text_tables.visible(text))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Mapping[int, str]) -> str:
    """Returns a table of escaped cells.

    `kinds` marks columns of numbers, "n", and of text of any length, "t". Only the latter may be wrapped;
    names and numbers would be wrapped letter by letter.
    """
    top = f"<tr>{_cells('th', heads, kinds)}</tr>" if heads else ""
    lines = "".join(f"<tr>{_cells('td', row, kinds)}</tr>" for row in rows)
    return f"<table>{top}{lines}</table>"


def _cells(tag: str, cells: Sequence[str], kinds: Mapping[int, str]) -> str:
    return "".join(
        f'<{tag} class="{kinds[number]}">{cell}</{tag}>' if number in kinds else f"<{tag}>{cell}</{tag}>"
        for number, cell in enumerate(cells)
    )


def _page(title: str, body: str) -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="refresh" content="{_REFRESH}"><style>{_STYLE}</style></head>'
        f"<body>{_LINKS}<h1>{escape(title)}</h1>{body}</body></html>\n"
    ).encode()
