"""Calls of the API that come as forms of a page.

A form has a path, `/form/queues/mail/pause`, and fields. It becomes the request of that call, so rights, the
browser policy, the metrics and the audit log are those of the call; the answer becomes a page, or a redirect
to the page where the form was.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from msgspec import Raw

from jobqueue.errors import InvalidField, JobQueueError, NoSuchRoute
from jobqueue.web.context import Context
from jobqueue.web.dashboard.finding import redirect
from jobqueue.web.dashboard.queue_settings import changes
from jobqueue.web.dashboard.schedule_plan import changed
from jobqueue.web.http import HTML, PROBLEM, Answer, Deferred, Request, Response
from jobqueue.web.operations.viewers import view as view_of
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.schema.responses import BulkResult
from jobqueue.web.writers.action_forms import BULK, TYPED, confirm
from jobqueue.web.writers.page_layout import HEADERS, View, link, page
from jobqueue.web.writers.problem_pages import problem_page
from jobqueue.web.writers.problems import problem
from jobqueue.web.writers.queue_settings import GIVEN
from jobqueue.web.writers.schedule_form import PLAN

PREFIX = "/form"
_QUEUE = re.compile(r"/queues/[^/]+/(pause|resume|enqueue|redrive|run_now|cancel|purge|move)")
_JOB = re.compile(r"/jobs/[^/]+/redrive")
_SCHEDULE = re.compile(r"/schedules/[^/]+/(run|pause|resume)")
_ONE = re.compile(r"/(queues|jobs|schedules)/[^/]+")
_METHODS = {"queues": ("PATCH",), "jobs": ("PATCH", "DELETE"), "schedules": ("PUT", "DELETE")}
_BULK = frozenset({*BULK, "move"})
# A page of this server, from its root.
_BACK = re.compile(
    r"(?:(?:queues|jobs|schedules|consumers|stats)(?:/(?!\.)[A-Za-z0-9_.:%~-]+){0,2})?(?:\?[ -~]*)?"
)
_read_options = msgspec.json.Decoder(dict[str, Raw]).decode
_read_swept = msgspec.json.Decoder(BulkResult).decode


class FormCall:
    """One form, and `request`, the call that it makes. Raises `NoSuchRoute` if no page offers this form, and
    `InvalidField`."""

    def __init__(self, outer: Request) -> None:
        self._outer = outer
        self._path = outer.path[len(PREFIX) :]
        own, self._fields = _fields_of(outer)
        method = _method(self._path, own.get("_method", "POST"))
        self._back = back_of(own)
        of_queue = _QUEUE.fullmatch(self._path)
        self._verb = of_queue[1] if of_queue is not None else ""
        self._options: Mapping[str, object] = _options_of(own) if self._verb == "enqueue" else {}
        if method == "PATCH" and self._path.startswith("/queues/"):
            self._options = changes(_all_fields(outer), own.get(GIVEN, "{}"))
            self._fields = {}
        elif method == "PUT":
            self._options = changed(_all_fields(outer), own.get(PLAN, "{}"))
            self._fields = {}
        if self._verb in TYPED and "dry_run" not in self._fields:
            _check_number(own)
        self.request = self._call(method, own.get("_if_match"))

    def _call(self, method: str, version: str | None) -> Request:
        """Returns the request of the call."""
        outer = self._outer
        options = dict(self._fields)
        in_body = dict(self._options)
        if (payload := options.pop("payload", None)) is not None:
            try:
                msgspec.json.decode(payload, type=Raw)
            except REFUSED as bad:
                raise InvalidField(f"payload: must be JSON: {bad}", field="payload") from None
            in_body = {**in_body, "payload": Raw(payload.encode())}
        body = msgspec.json.encode(in_body) if in_body else b""
        headers = {
            name: value
            for name, value in outer.headers.items()
            if name not in (b"content-type", b"content-length", b"accept", b"prefer", b"idempotency-key")
        }
        if version is not None:
            headers[b"if-match"] = b"*" if version == "*" else f'"{version}"'.encode()
        inner = Request(
            method, self._path, urlencode(options), headers, body, outer.through or outer.peer, outer.id,
            version=outer.version,
        )  # fmt: skip
        inner.descriptor = outer.descriptor
        return inner

    def shown(self, answer: Answer, context: Context) -> Answer:
        """Returns the answer to the call as a page or a redirect. `context`: what the call was served
        with."""
        if isinstance(answer, Deferred):
            render = answer.render

            def later(result: object) -> Answer:
                try:
                    return self.shown(render(result), context)
                except JobQueueError as error:
                    return self.shown(problem(error, self._outer.id), context)

            answer.render = later
            return answer
        assert isinstance(answer, Response)
        view = view_of(context, self._outer)
        if answer.content_type == PROBLEM:
            return problem_page(view, answer, self._back)
        if self._verb in _BULK:
            return self._swept(view, answer)
        return redirect(f"{view.up}{self._back}#done")

    def _swept(self, view: View, answer: Response) -> Response:
        """Returns what a bulk call did, or would do."""
        swept = _read_swept(answer.body)
        title = f"{self._verb.replace('_', ' ')} in {self._path.split('/')[2]}"
        if "dry_run" in self._fields:
            title += "?"
            shown = confirm(view, self._path, self._fields, swept.matched, swept.sample, self._back)
        else:
            shown = f'<p role="status">Done: {swept.changed:,} of {swept.matched:,} jobs.</p>'
        back = f"<p>{link(view, self._back, 'Back')}</p>"
        return Response(200, page(view, title, shown + back), HEADERS, HTML)


def refuse_form(context: Context, request: Request) -> Response:
    """Returns why a form makes no call."""
    try:
        FormCall(request)
    except JobQueueError as error:
        back = "" if isinstance(error, NoSuchRoute) else back_of(_fields_of(request)[0])
        return problem_page(view_of(context, request), problem(error, request.id), back)
    raise NoSuchRoute("no page has this form")


def _fields_of(request: Request) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the fields of a form: those for the dashboard, whose names begin with `_`, and those for the
    call."""
    # A browser sends line breaks of a text area as CRLF.
    fields = {name: value for name, value in form_pairs(request) if value.strip()}
    own = {name: value for name, value in fields.items() if name.startswith("_")}
    return own, {name: value for name, value in fields.items() if not name.startswith("_")}


def _all_fields(request: Request) -> dict[str, str]:
    """Returns the fields for the call, also those that are empty."""
    return {name: value.replace("\r\n", "\n") for name, value in form_pairs(request) if name[:1] != "_"}


def _options_of(own: Mapping[str, str]) -> dict[str, Raw]:
    """Returns the options of an enqueue for which its form has no field."""
    try:
        return _read_options(own.get("_options", "{}"))
    except REFUSED as bad:
        raise InvalidField(f"_options: must be a JSON object: {bad}", field="_options") from None


def form_pairs(request: Request) -> list[tuple[str, str]]:
    """Returns the names and values of a form. Raises `InvalidField`."""
    try:
        return list(query_pairs(request.body.decode("ascii")))
    except UnicodeDecodeError:
        raise InvalidField("a form is sent URL-encoded", field="_back") from None


def back_of(own: Mapping[str, str]) -> str:
    """Returns the address of the page where a form was, from the root."""
    back = own.get("_back", "")
    return back if _BACK.fullmatch(back) else ""


def _check_number(own: Mapping[str, str]) -> None:
    """Checks that a person has typed the number of jobs of a call that cannot be undone."""
    expected = own.get("_expected")
    if expected is None or own.get("_typed", "").strip() != expected:
        raise InvalidField("type the number of jobs to confirm; nothing was done", field="_typed")


def _method(path: str, method: str) -> str:
    """Returns the method of a call that a form may make. Raises `NoSuchRoute`."""
    one = _ONE.fullmatch(path)
    if one and method in _METHODS[one[1]]:
        return method
    if method == "POST" and (_QUEUE.fullmatch(path) or _JOB.fullmatch(path) or _SCHEDULE.fullmatch(path)):
        return method
    raise NoSuchRoute(f"no form of a page makes the call {method[:20]} {path[:100]!r}")
