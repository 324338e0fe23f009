"""Content negotiation: the same address as JSON, text, HTML or a stream of events.

`?format=` decides, else the `Accept` header. JSON is the default.
"""

from collections.abc import Callable
from functools import lru_cache, partial

from jobqueue.errors import InvalidField
from jobqueue.model import Filter
from jobqueue.web.context import Context
from jobqueue.web.http import EVENTS, HTML, TEXT, Deferred, Request, Response, Stream
from jobqueue.web.operations import jobs, queues, service
from jobqueue.web.operations.replies import job_id
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.readers.fields import queue_name
from jobqueue.web.schema.events import EventFilter
from jobqueue.web.streams.top import watch
from jobqueue.web.writers import html_pages, text_tables

# In order of preference, for clients that accept several equally.
_FACES = {
    "application/json": "json",
    "text/html": "html",
    "text/plain": "text",
    EVENTS: "events",
}
FORMATS = frozenset(_FACES.values())
_SPECIFIC = {"*/*": 0, "text/*": 1, "application/*": 1}


def chosen(request: Request, live: bool = True) -> str:
    """Returns the format that a request wants: json, html, text or, if `live`, events."""
    if "format" in request.query.lower():
        for name, value in query_pairs(request.query):
            if name.lower() == "format":
                if value not in FORMATS or (value == "events" and not live):
                    allowed = "json, text, html or events" if live else "json, text or html"
                    raise InvalidField(f"format: {allowed}", field="format")
                return value
    accept = request.headers.get(b"accept")
    face = "json" if accept is None or accept == b"*/*" else _accepted(accept)
    return "json" if face == "events" and not live else face


@lru_cache(maxsize=256)
def _accepted(accept: bytes) -> str:
    """Returns the format that an `Accept` header prefers; json if it accepts none of them.

    Of several ranges that match, the most specific one counts (RFC 9110, 12.5.1).
    """
    likes = dict(filter(None, map(_like, accept.decode("latin-1").lower().split(","))))
    best, face = (0.0, -1), "json"
    for kind, name in _FACES.items():
        ranges = (kind, kind.partition("/")[0] + "/*", "*/*")
        found = next((one for one in ranges if one in likes), None)
        if found is not None and likes[found] > 0 and (likes[found], _SPECIFIC.get(found, 2)) > best:
            best, face = (likes[found], _SPECIFIC.get(found, 2)), name
    return face


def _like(part: str) -> tuple[str, float] | None:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return kind, float(parameter[2:])
            except ValueError:
                return None
    return kind, 1.0


# -- the calls --------------------------------------------------------------------------------------


def list_queues(context: Context, request: Request) -> Response | Deferred | Stream:
    face = chosen(request)
    if face == "events":
        return watch(context, request, EventFilter(), context.admin.length_of_watch(request, "queues"))
    return _dressed(face, queues.list_queues(context, request), text_tables.queues, html_pages.queues)


def get_queue(context: Context, request: Request) -> Response | Deferred | Stream:
    face = chosen(request)
    if face == "events":
        wanted = EventFilter(queues=frozenset({queue_name(request.param, "name")}))
        return watch(context, request, wanted, context.admin.length_of_watch(request, "queue"))
    return _dressed(
        face, queues.get_queue(context, request), text_tables.one, partial(_queue_page, context, request)
    )


def _queue_page(context: Context, request: Request, body: bytes) -> bytes:
    """Returns the page of a queue, with its first jobs by id."""
    wanted = Filter(queues=frozenset({request.param}))
    listed, following = context.engine.list_jobs(wanted, None, True, html_pages.JOBS)
    return html_pages.queue(body, context.encoder.listed(listed, False, following))


def list_jobs(context: Context, request: Request) -> Response | Deferred:
    return _dressed(
        chosen(request, live=False),
        jobs.list_jobs(context, request),
        text_tables.jobs,
        partial(html_pages.jobs, request.query),
    )


def get_job(context: Context, request: Request) -> Response | Deferred | Stream:
    face = chosen(request)
    if face == "events":
        id = job_id(request.param)
        context.engine.get(id)  # the stream of a job that does not exist is a 404
        return watch(
            context,
            request,
            EventFilter(jobs=frozenset({id})),
            context.admin.length_of_watch(request, "job"),
        )
    return _dressed(face, jobs.get_job(context, request), text_tables.one, html_pages.job)


def root(context: Context, request: Request) -> Response:
    """Returns a page for a browser, and the help text for all other clients."""
    may_read = context.caller is None or "read" in context.caller.rights
    if chosen(request) != "html" or not may_read or context.engine.refuses is not None:
        return service.help_page(context, request)
    shown = queues.list_queues(context, Request("GET", "/queues", "", {}, b"", request.peer, request.id))
    help = service.help_page(context, request).body.decode("utf-8")
    return _page(shown, html_pages.front(shown.body, help))


def _dressed(
    face: str, answer: Response | Deferred, text: Callable[[bytes], str], page: Callable[[bytes], bytes]
) -> Response | Deferred:
    if face == "json":
        return answer
    if isinstance(answer, Deferred):
        render = answer.render
        return Deferred(answer.future, lambda result: _apply_options(face, render(result), text, page))
    return _apply_options(face, answer, text, page)


def _apply_options(
    face: str, answer: Response, text: Callable[[bytes], str], page: Callable[[bytes], bytes]
) -> Response:
    if face == "html":
        return _page(answer, page(answer.body))
    return Response(answer.status, text(answer.body).encode(), answer.headers, TEXT)


def _page(answer: Response, body: bytes) -> Response:
    return Response(answer.status, body, answer.headers + html_pages.HEADERS, HTML)
