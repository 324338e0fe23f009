"""Content negotiation: the same address as JSON, text, HTML or a stream of events.

`?format=` decides, else the `Accept` header. JSON is the default.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import urlencode

from msgspec.structs import replace

from jobqueue.errors import InvalidField, JobQueueError, NotReady
from jobqueue.model import SERIES_LENGTH, SERIES_STEP, Filter, QueueSeries
from jobqueue.steps import QUEUED, SCHEDULED
from jobqueue.web.context import Context
from jobqueue.web.http import EVENTS, HTML, TEXT, Deferred, Request, Response, Stream
from jobqueue.web.operations import explain, jobs, queues, service
from jobqueue.web.operations.replies import job_id, queue_of_path
from jobqueue.web.operations.viewers import view
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.schema.events import EventFilter
from jobqueue.web.streams import top
from jobqueue.web.streams.top import watch
from jobqueue.web.writers import administration_pages, encoder, html_pages, job_page, text_tables
from jobqueue.web.writers.answer_size import page
from jobqueue.web.writers.html_pages import HOUR
from jobqueue.web.writers.page_layout import HEADERS, View
from jobqueue.web.writers.queue_settings import length_text

# Queues of an overview, unless the address says how many.
MOST_QUEUES = 100
# What a job waits in.
WAITING = (QUEUED, SCHEDULED)
# Of the charts, in milliseconds.
_MINUTE = 60_000
# Points of a chart on the page of a queue, at most.
_POINTS = 120
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


def format_for(context: Context, request: Request, live: bool = True) -> str:
    """Returns the format of an answer: that which the request wants, but JSON in place of a page if the
    server has no pages."""
    face = chosen(request, live)
    return "json" if face == "html" and context.settings.ui == "off" else face


def asks_for_page(request: Request) -> bool:
    """Tells whether the answer is for a person, who opens a page or sends a form."""
    if request.method not in ("GET", "HEAD") and not request.path.startswith("/form/"):
        return False
    if b"text/html" not in request.headers.get(b"accept", b""):
        return False  # a program that asks for HTML by `format` gets problems as all programs do
    try:
        return chosen(request) == "html"
    except JobQueueError:  # the answer tells what is wrong with the query
        return False


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
    face = format_for(context, request)
    if face == "events":
        return watch(context, request, EventFilter(), context.admin.length_of_watch(request, "queues"))
    return dressed(
        context,
        request,
        face,
        queues.list_queues(context, _shorter(request) if face == "html" else request),
        text_tables.queues,
        partial(_overview, context),
    )


def get_queue(context: Context, request: Request) -> Response | Deferred | Stream:
    face = format_for(context, request)
    if face == "events":
        wanted = EventFilter(queues=frozenset({queue_of_path(request)}))
        return watch(context, request, wanted, context.admin.length_of_watch(request, "queue"))
    return dressed(
        context,
        request,
        face,
        queues.get_queue(context, request),
        text_tables.one,
        partial(_queue_page, context, request),
    )


def get_series(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    return dressed(
        context,
        request,
        face,
        queues.get_series(context, request),
        text_tables.series,
        html_pages.series,
    )


def list_consumers(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    return dressed(
        context,
        request,
        face,
        queues.list_consumers(context, request),
        text_tables.consumers,
        html_pages.consumers,
    )


def group_jobs(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    return dressed(
        context,
        request,
        face,
        jobs.group_jobs(context, request),
        text_tables.groups,
        html_pages.groups,
    )


def _queue_page(context: Context, request: Request, seen: View, body: bytes) -> bytes:
    """Returns the page of a queue, with its newest jobs, and charts of the last `for`, or of that before
    `until`."""
    name = html_pages.name_of(body)
    wanted = Filter(queues=frozenset({name}))
    listed, following = context.engine.list_jobs(wanted, None, False, html_pages.JOBS)
    shown, following = page(listed, False, following)
    asked, until = context.admin.charts(request)
    length = min(max(asked or HOUR, _MINUTE), SERIES_LENGTH)
    series = encoder.series(_part(context, name, length, until))
    jobs = context.encoder.listed(shown, False, following)
    return html_pages.queue(seen, body, jobs, series, length, until, _defaults(context))


def _part(context: Context, name: str, length: int, until: int | None) -> QueueSeries:
    """Returns the series of a queue for the `length` before `until`, in steps of which a chart can show all;
    what is still kept of it."""
    step = -(-length // (_POINTS * SERIES_STEP)) * SERIES_STEP
    if until is None:
        return context.engine.series(name, length, step)
    ago = max(context.engine.wall_now() - until, 0)
    found = context.engine.series(name, min(ago + length + step, SERIES_LENGTH), step)
    begin = max(-((found.since + length - until) // step), 0)
    end = max((until - found.since) // step, begin)
    points = {kind: numbers[begin:end] for kind, numbers in found.points.items()}
    shown = len(points["enqueued"])
    since = found.since + begin * step
    return found._replace(since=since, until=since + shown * step, points=points)


def _defaults(context: Context) -> dict[str, str]:
    """Returns what holds for settings that a queue has not set."""
    settings = context.settings
    attempts = "no limit" if settings.max_attempts is None else str(settings.max_attempts)
    return {
        "lease_for": length_text(settings.lease / 1000),
        "retain_for": length_text(settings.retain / 1000),
        "max_attempts": attempts,
    }


def _overview(context: Context, seen: View, body: bytes) -> bytes:
    return html_pages.queues(seen, body, _stats(context), _charts(context, body))


def _stats(context: Context) -> bytes:
    """Returns the statistics of the server, whatever the query of a request says."""
    return service.stats(context, _plain("/stats")).body


def _charts(context: Context, body: bytes) -> dict[str, bytes]:
    """Returns the series of the first queues of a list."""
    names = [row[0] for row in text_tables.queue_rows(body)[: html_pages.SPARKS]]
    engine = context.engine
    return {name: encoder.series(engine.series(name, HOUR, _MINUTE)) for name in names}


def _shorter(request: Request) -> Request:
    """Returns a request for fewer queues than a program gets, unless it says how many."""
    if any(name.lower() == "limit" for name, _ in query_pairs(request.query)):
        return request
    query = f"{request.query}&limit={MOST_QUEUES}".lstrip("&")
    return Request("GET", "/queues", query, request.headers, request.body, request.peer, request.id)


def _plain(path: str) -> Request:
    return Request("GET", path, "", {}, b"", "", "")


def list_jobs(context: Context, request: Request) -> Response | Deferred:
    return dressed(
        context,
        request,
        format_for(context, request, live=False),
        jobs.list_jobs(context, request),
        text_tables.jobs,
        html_pages.jobs,
    )


def get_job(context: Context, request: Request) -> Response | Deferred | Stream:
    face = format_for(context, request)
    if face == "events":
        id = job_id(request.param)
        context.engine.get(id)  # the stream of a job that does not exist is a 404
        return watch(
            context,
            request,
            EventFilter(jobs=frozenset({id})),
            context.admin.length_of_watch(request, "job"),
        )
    shown = jobs.get_job(context, request)
    return dressed(context, request, face, shown, text_tables.one, partial(_job_page, context, request))


def _job_page(context: Context, request: Request, seen: View, body: bytes) -> bytes:
    """Returns the page of a job, and why it waits."""
    id, status = job_page.job_of(body)
    address, has_tokens = context.browser_policy.address(request), context.server.has_tokens
    if status not in WAITING:
        return job_page.job(seen, body, address, has_tokens)
    why = explain.explained(context, _plain(f"/jobs/{id}/explain"), context.engine.explain(id))
    return job_page.job(seen, body, address, has_tokens, why.body)


def root(context: Context, request: Request) -> Response:
    """Returns a page for a browser, and the help text for all other clients. Raises `NotReady`."""
    may_read = context.caller is None or "read" in context.caller.rights
    if format_for(context, request) != "html" or not may_read:
        return service.help_page(context, request)
    if context.engine.refuses is not None:
        raise NotReady(context.engine.refuses, retry_after=1)
    shown = queues.list_queues(context, _shorter(_plain("/queues")))
    help = service.help_page(context, request).body.decode("utf-8")
    seen = view(context, request)
    return _page(
        shown, html_pages.front(seen, shown.body, _stats(context), _charts(context, shown.body), help)
    )


def stats(context: Context, request: Request) -> Response:
    """Returns statistics, and the page of the server to a browser."""
    answer = service.stats(context, request)
    if format_for(context, request, live=False) != "html":
        return answer
    return _page(answer, administration_pages.server(view(context, request), answer.body))


def cluster(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    shown = service.cluster(context, request)
    return dressed(context, request, face, shown, text_tables.cluster, html_pages.cluster)


def events(context: Context, request: Request) -> Response | Stream:
    """Returns a stream of events, and to a browser a page that shows one."""
    if format_for(context, request) != "html":
        return top.events(context, request)
    given = query_pairs(request.query)
    if left := [name for name, value in given if not value.strip()]:  # fields of the form that are empty
        kept = urlencode([(name, value) for name, value in given if name not in left])
        return Response(303, b"", f"\r\nLocation: events{'?' if kept else ''}{kept}".encode("ascii"))
    context.admin.events(request)  # says what is wrong with the filter
    return Response(200, html_pages.events(view(context, request)), HEADERS, HTML)


def dressed(
    context: Context,
    request: Request,
    face: str,
    answer: Response | Deferred,
    text: Callable[[bytes], str],
    page: Callable[[View, bytes], bytes],
) -> Response | Deferred:
    """Returns a JSON answer in the format `face`; `text` and `page` make text and HTML of it."""
    if face == "json":
        return answer

    def shown(answer: Response) -> Response:
        if face == "html":
            seen = replace(view(context, request), version=_version(answer.headers))
            return _page(answer, page(seen, answer.body))
        return Response(answer.status, text(answer.body).encode(), answer.headers, TEXT)

    if isinstance(answer, Deferred):
        render = answer.render
        return Deferred(answer.future, lambda result: shown(render(result)))
    return shown(answer)


def _version(headers: bytes) -> str:
    """Returns the version in the entity tag of an answer, for `If-Match`; "*" if it has none."""
    _, _, rest = headers.partition(b'\r\nETag: "')
    return rest.partition(b'"')[0].decode("ascii") or "*"


def _page(answer: Response, body: bytes) -> Response:
    return Response(answer.status, body, answer.headers + HEADERS, HTML)
