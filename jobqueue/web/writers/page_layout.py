"""The layout of all pages: headers, navigation, and the parts that pages are made of.

All values are escaped, and the policy header lets a browser load and run nothing but the static files of
this server. Links are relative, so that they also work behind a proxy that publishes the server below a path.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlencode

from msgspec import Struct

from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.writers.static_files import static_files
from jobqueue.web.writers.text_tables import visible

# `same-origin`: with less a browser says of a form that it came from nowhere, and it would be refused.
HEADERS = (
    b"\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    b"require-trusted-types-for 'script'; trusted-types jobqueue"
    b"\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: same-origin"
)
# Seconds after which a list is loaded again by a browser without scripts.
_REFRESH = 30
_LINKS = (
    ("queues", ""),
    ("jobs", "jobs?order=desc"),
    ("dead", "jobs/groups?by=queue,type,error"),
    ("consumers", "consumers"),
    ("schedules", "schedules"),
    ("events", "events"),
    ("server", "stats"),
    ("cluster", "cluster"),
    ("help", "help"),
)
# Pages whose place is that of another one.
_WITHIN = {"tokens": "stats", "audit": "stats"}
_ZEROS = frozenset({"0", "0.0"})
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_INSTANTS = re.compile(rf'\["{_INSTANT.pattern}"(?:,"{_INSTANT.pattern}")*\]')


class View(Struct, frozen=True):
    """Where a page is, and who looks at it.

    `up` is the way from the page to the root: "./" or "../". `here` is the page from the root, with its
    query. `rights` are those of the caller. `version` is that of the entity tag of what the page shows.
    `user` is the name of the token that the caller has logged in with; "": not by a session. `has_cluster`:
    servers share the database.
    """

    up: str
    here: str
    rights: frozenset[str] = frozenset()
    version: str = "*"
    user: str = ""
    has_cluster: bool = False

    @property
    def query(self) -> str:
        return self.here.partition("?")[2]


def view_of(path: str, query: str, rights: frozenset[str]) -> View:
    """Returns the view of the page at `path`, which may be that of a request to a proxy."""
    if "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    here = path[1:] + (f"?{query}" if query else "")
    return View("../" * (path.count("/") - 1) or "./", here, rights)


def bare_page(up: str, title: str, body: str) -> bytes:
    """Returns a page for a caller who is not known. It has no navigation. `up`: the way to the root."""
    return (
        f'{_head(up, title, "")}<body><main id="main"><h1>{_text(title)}</h1>{body}</main></body></html>\n'
    ).encode()


def page(
    view: View,
    title: str,
    body: str,
    watch: str | None = None,
    refresh: bool = False,
    again: int | None = None,
) -> bytes:
    """Returns a page. `body` is HTML, `title` is text. `watch`: what of `/live` says that its live parts have
    changed; "" for all queues, None: they do not change. `refresh`: browsers without scripts load it again
    now and then. `again`: all browsers do, after so many seconds.
    """
    up = view.up
    seconds = again or (_REFRESH if refresh else None)
    noscript = f'<noscript><meta http-equiv="refresh" content="{seconds}"></noscript>' if seconds else ""
    section = view.here.partition("?")[0]
    section = "" if section.startswith("queues") else _WITHIN.get(section, section)
    links = "".join(
        f'<li><a href="{up}{escape(to)}"{_current(section, to)}>{name}</a></li>'
        for name, to in _LINKS
        if view.has_cluster or name != "cluster"
    )
    out = (
        f'<form method="post" action="{up}logout"><button>Log out {_text(view.user)}</button></form>'
        if view.user
        else ""
    )
    watched = "" if watch is None else f' data-watch="{up}live{escape(watch)}"'
    if again is not None:
        watched += f' data-again="{again}"'
    return (
        f'{_head(up, title, noscript)}<body><header><a class="skip" href="#main">Skip to content</a>'
        f'<a class="brand" href="{up}">jobqueue</a><nav aria-label="Pages"><ul>{links}</ul></nav>'
        f'<form role="search" action="{up}find"><input type="search" name="q" required '
        'aria-label="Find jobs by id, by text, or by type:… tag:… key:… queue:… error:…" '
        f'placeholder="id, text or type:…"> <button>Find</button></form>{out}'
        '<span id="state" class="dim"></span></header>'
        f'<main id="main" tabindex="-1"{watched}><h1>{_text(title)}</h1><p id="done" role="status">Done.</p>'
        f"{body}</main></body></html>\n"
    ).encode()


def _head(up: str, title: str, more: str) -> str:
    version = static_files().version
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)} – jobqueue</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="{up}static/icon.svg?v={version}">'
        f'<link rel="stylesheet" href="{up}static/dashboard.css?v={version}">'
        f'<script type="module" src="{up}static/dashboard.js?v={version}"></script>{more}</head>'
    )


def _current(section: str, to: str) -> str:
    return mark_current(section == to.partition("?")[0])


def mark_current(current: bool) -> str:
    """Returns the attribute of a link that leads to where the page is."""
    return ' aria-current="page"' if current else ""


def live(name: str, body: str) -> str:
    """Returns a part of a page that scripts keep up to date. `name` is unique in the page."""
    return f'<section id="{name}" data-live>{body}</section>'


def _text(text: str) -> str:
    return escape(visible(text))


def cell(text: str) -> str:
    """Returns a text as HTML; an instant, or a list of them, as such that scripts show relative to now."""
    if _INSTANT.fullmatch(text):
        return f'<time datetime="{text}">{text}</time>'
    if _INSTANTS.fullmatch(text):
        return ", ".join(map(cell, _INSTANT.findall(text)))
    return _text(text)


def status(text: str) -> str:
    """Returns the status of a job with its mark, so that colour does not tell it alone."""
    return f'<span class="s s-{escape(text)}">{_text(text)}</span>'


def link(view: View, to: str, text: str) -> str:
    """Returns a link. `to` is an address from the root."""
    return f'<a href="{view.up}{escape(to)}">{_text(text)}</a>'


def more_link(view: View, what: str, query: str, cursor: str | None) -> str:
    """Returns a link to the next page of a list; nothing on the last one."""
    if cursor is None:
        return ""
    asked = [(name, value) for name, value in query_pairs(query) if name.lower() != "cursor"]
    following = urlencode([*asked, ("cursor", cursor)])
    return f"<p>{link(view, f'{what}?{following}', 'more')}</p>"


def facts_table(facts: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="t">{cell(value)}</td></tr>'
        for name, value in facts
    )
    return f"<table><tbody>{lines}</tbody></table>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kinds: Mapping[int, str]) -> str:
    """Returns a table of escaped cells.

    `kinds` marks columns of numbers, "n", of boxes, "c", and of text of any length, "t". Only the latter may
    be wrapped; names and numbers would be wrapped letter by letter.
    """
    if not rows:
        return '<p class="dim">nothing here</p>'
    top = "".join(
        f'<th scope="col"{_kind(kinds, at)}>{_head_cell(head, kinds.get(at, ""))}</th>'
        for at, head in enumerate(heads)
    )
    labels = [f' data-label="{escape(head)}"' if head else "" for head in heads]
    lines = "".join(
        "<tr>"
        + "".join(f"<td{_kind(kinds, at, one)}{labels[at]}>{one}</td>" for at, one in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def _head_cell(head: str, kind: str) -> str:
    """Returns the head of a column. That of boxes, or of forms, is for those who hear the page."""
    if head and kind != "c":
        return escape(head)
    return f'<span class="hidden">{escape(head) or "actions"}</span>'


def _kind(kinds: Mapping[int, str], column: int, one: str = "") -> str:
    """Returns the classes of a cell. That of a zero is for what is dimmed, or left out where there is no
    room."""
    if column not in kinds:
        return ""
    return f' class="{kinds[column]} z"' if one in _ZEROS else f' class="{kinds[column]}"'


def age(seconds: float) -> str:
    """Returns a length of time in its largest unit, such as `3 h`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """Returns figures with their names, the most important ones of a page. Both are HTML."""
    each = "".join(f"<div><dt>{name}</dt><dd>{figure}</dd></div>" for name, figure in figures)
    return f'<dl class="tiles">{each}</dl>'
