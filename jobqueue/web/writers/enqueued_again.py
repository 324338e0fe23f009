"""What enqueues a job like one that is there: a form, and a line for a shell."""

import shlex
from collections.abc import Mapping
from html import escape

import msgspec
from msgspec import Raw

from jobqueue.web.writers.action_forms import enqueue_form, folded
from jobqueue.web.writers.page_layout import View
from jobqueue.web.writers.worker_files import HOST

# Characters of a payload that a form takes, and of a job that a line does.
_IN_A_FORM = 2000
_IN_A_LINE = 16 << 10
# Fields of the form, and options for which it has none.
_TEXTS = ("type", "priority", "key")
_HIDDEN = ("lease_for", "max_run_for", "max_attempts", "backoff", "retain_for", "headers")
# What the line has. A `unique_key` would give the old job, not a new one.
_OPTIONS = (*_HIDDEN, "key", "tags", "content_type", "payload_encoding")
_read_tags = msgspec.json.Decoder(list[str]).decode


def form(view: View, job: Mapping[str, Raw]) -> str:
    """Returns the form that enqueues a job like this one, or a line that says why there is none."""
    if "enqueue" not in view.rights:
        return ""
    if "content_type" in job or "payload_encoding" in job:
        return _without("its payload is not JSON")
    payload = printable(bytes(job["payload"]).decode())
    if payload[0] in "[{" and len(payload) <= _IN_A_FORM:
        payload = msgspec.json.format(payload, indent=2)
    if len(payload) > _IN_A_FORM:
        return _without("its payload is too long for a form")
    given = {name: _text(job[name]) for name in _TEXTS if name in job}
    if not all(text.isprintable() for text in given.values()):
        return _without("its type or key has characters that a form cannot show")
    more = {name: job[name] for name in _HIDDEN if name in job}
    if "tags" in job:
        tags = _read_tags(job["tags"])
        if all(tag == tag.strip() and "," not in tag and tag.isprintable() for tag in tags):
            given["tags"] = ",".join(tags)
        else:
            more["tags"] = job["tags"]
    options = printable(msgspec.json.encode(more).decode()) if more else ""
    shown = enqueue_form(view, _text(job["queue"]), {**given, "payload": payload}, options)
    return folded("Enqueue again", shown)


def _without(why: str) -> str:
    return f'<span class="dim">No form to enqueue it again: {why}.</span>'


def _text(value: Raw) -> str:
    return str(msgspec.json.decode(value))


def curl(job: Mapping[str, Raw], scheme: str, host: str, has_tokens: bool) -> str:
    """Returns the part of a page that has the line. `scheme` and `host`: where the page was asked for."""
    line = curl_line(job, scheme, host, has_tokens)
    shown = f'<pre class="copied">{escape(line)}</pre>' if line else "<p>The job is too long for a line.</p>"
    return folded("Copy as curl", shown)


def curl_line(job: Mapping[str, Raw], scheme: str, host: str, has_tokens: bool) -> str:
    """Returns a command for a POSIX shell that enqueues a job like this one; "" if it would be too long."""
    asked = {name: job[name] for name in ("type", "queue", "priority", "payload", *_OPTIONS) if name in job}
    body = printable(msgspec.json.encode(asked).decode())
    if len(body) > _IN_A_LINE:
        return ""
    at = host if HOST.fullmatch(host) else "localhost:8080"
    token = '-H "Authorization: Bearer $JOBQUEUE_TOKEN" ' if has_tokens else ""
    return f"curl {token}-d {shlex.quote(body)} {shlex.quote(f'{scheme}://{at}/jobs/enqueue')}"


def printable(text: str) -> str:
    """Returns JSON with escapes for what a page or a terminal would not show as it is. JSON has such
    characters in its strings only."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
