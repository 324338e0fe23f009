"""Calls of the API that come as forms of a page.

A form has a path, `/form/queues/mail/pause`, and fields. It becomes the request of that call, so rights, the
browser policy and the audit log are those of the call; the answer becomes a page, or a redirect to the page
where the form was. A form counts in the metrics and for a limit of rate, as well as its call.
"""

import re
from urllib.parse import urlencode

import msgspec
from msgspec import Raw

from jobqueue.errors import InvalidField, JobQueueError, NoSuchRoute
from jobqueue.web.dashboard.finding import redirect
from jobqueue.web.http import HTML, PROBLEM, Answer, Deferred, Request, Response
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.readers.json_text import REFUSED
from jobqueue.web.schema.responses import BulkResult, Problem
from jobqueue.web.writers.action_forms import BULK, TYPED, confirm
from jobqueue.web.writers.page_layout import HEADERS, View, cell, link, page, view_of
from jobqueue.web.writers.problems import problem

PREFIX = "/form"
_QUEUE = re.compile(r"/queues/[^/]+/(pause|resume|enqueue|redrive|run_now|cancel|purge|move)")
_JOB = re.compile(r"/jobs/[^/]+/redrive")
_SCHEDULE = re.compile(r"/schedules/[^/]+/(run|pause|resume)")
_ONE = re.compile(r"/(queues|jobs|schedules)/[^/]+")
_METHODS = {"queues": ("PATCH",), "jobs": ("PATCH", "DELETE"), "schedules": ("DELETE",)}
_BULK = frozenset({*BULK, "move"})
# A page of this server, from its root.
_BACK = re.compile(
    r"(?:(?:queues|jobs|schedules|consumers|stats)(?:/(?!\.)[A-Za-z0-9_.:%~-]+){0,2})?(?:\?[ -~]*)?"
)
_KEPT = re.compile(rb"\r\n(?:WWW-Authenticate|Retry-After): [^\r]*")
_TITLES = {412: "changed meanwhile", 403: "not allowed", 401: "log in", 409: "not possible now"}
_read_swept = msgspec.json.Decoder(BulkResult).decode
_read_problem = msgspec.json.Decoder(Problem).decode


class FormCall:
    """One form. Raises `JobQueueError` if no page offers this form."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.path = request.path[len(PREFIX) :]
        try:
            text = request.body.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidField("a form is sent URL-encoded", field="_back") from None
        # A browser sends line breaks of a text area as CRLF.
        fields = {name: value for name, value in query_pairs(text) if value.strip()}
        self._own = {name: value for name, value in fields.items() if name.startswith("_")}
        self.fields = {name: value for name, value in fields.items() if not name.startswith("_")}
        self.method = _method(self.path, self._own.get("_method", "POST"))
        back = self._own.get("_back", "")
        self._back = back if _BACK.fullmatch(back) else ""
        of_queue = _QUEUE.fullmatch(self.path)
        self._verb = of_queue[1] if of_queue is not None else ""

    def _check_number(self) -> None:
        """Checks that a person has typed the number of jobs of a call that cannot be undone."""
        if self._verb not in TYPED or "dry_run" in self.fields:
            return
        expected = self._own.get("_expected")
        if expected is None or self._own.get("_typed", "").strip() != expected:
            raise InvalidField("type the number of jobs to confirm; nothing was done", field="_typed")

    def request(self) -> Request:
        """Returns the request of the call. Raises `InvalidField`."""
        self._check_number()
        outer = self._request
        options = dict(self.fields)
        body = b""
        if (payload := options.pop("payload", None)) is not None:
            try:
                msgspec.json.decode(payload, type=Raw)
            except REFUSED as bad:
                raise InvalidField(f"payload: must be JSON: {bad}", field="payload") from None
            body = msgspec.json.encode({"payload": Raw(payload.encode())})
        headers = {
            name: value
            for name, value in outer.headers.items()
            if name not in (b"content-type", b"content-length", b"accept", b"prefer", b"idempotency-key")
        }
        if "_if_match" in self._own:
            headers[b"if-match"] = f'"{self._own["_if_match"]}"'.encode()
        inner = Request(
            self.method, self.path, urlencode(options), headers, body, outer.through or outer.peer, outer.id,
            version=outer.version,
        )  # fmt: skip
        inner.descriptor = outer.descriptor
        return inner

    def shown(self, answer: Answer) -> Answer:
        """Returns an answer of the API as a page or a redirect."""
        if isinstance(answer, Deferred):
            render = answer.render

            def later(result: object) -> Answer:
                try:
                    return self.shown(render(result))
                except JobQueueError as error:
                    return self.refused(problem(error, self._request.id))

            answer.render = later
            return answer
        assert isinstance(answer, Response)
        if answer.content_type == PROBLEM:
            return self.refused(answer)
        if self._verb in _BULK:
            return self._swept(answer)
        return redirect(f"{self._view().up}{self._back}#done")

    def _view(self) -> View:
        return view_of(self._request.path, "", frozenset())

    def _swept(self, answer: Response) -> Response:
        """Returns what a bulk call did, or would do."""
        view, swept = self._view(), _read_swept(answer.body)
        name = self.path.split("/")[2]
        if "dry_run" in self.fields:
            shown = confirm(view, self.path, self.fields, swept.matched, swept.sample, self._back)
            title = f"{self._verb.replace('_', ' ')} in {name}?"
        else:
            shown = f'<p role="status">Done: {swept.changed:,} of {swept.matched:,} jobs.</p>'
            title = f"{self._verb.replace('_', ' ')} in {name}"
        return _page(200, page(view, title, shown + self._way_back(view)), b"")

    def refused(self, answer: Response) -> Response:
        """Returns a problem as a page."""
        view, why = self._view(), _read_problem(answer.body)
        title = _TITLES.get(answer.status, "not done")
        shown = f'<p class="bad" role="alert">{cell(why.detail)}</p>'
        if answer.status == 412:
            shown += "<p>Somebody changed it since the page was loaded. Look again, then decide.</p>"
        kept = b"".join(_KEPT.findall(answer.headers))
        return _page(answer.status, page(view, title, shown + self._way_back(view)), kept)

    def _way_back(self, view: View) -> str:
        return f"<p>{link(view, self._back, 'Back')}</p>"


def _method(path: str, method: str) -> str:
    """Returns the method of a call that a form may make. Raises `NoSuchRoute`."""
    one = _ONE.fullmatch(path)
    if one and method in _METHODS[one[1]]:
        return method
    if method == "POST" and (_QUEUE.fullmatch(path) or _JOB.fullmatch(path) or _SCHEDULE.fullmatch(path)):
        return method
    raise NoSuchRoute(f"no form of a page makes the call {method[:20]} {path[:100]!r}")


def _page(status: int, body: bytes, headers: bytes) -> Response:
    return Response(status, body, headers + HEADERS, HTML)
