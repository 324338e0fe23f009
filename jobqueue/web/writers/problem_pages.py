"""Problems as pages: what a browser shows in the place of a problem document."""

import re

import msgspec

from jobqueue.web.http import HTML, Response
from jobqueue.web.schema.responses import Problem
from jobqueue.web.writers.page_layout import HEADERS, View, bare_page, cell, link, page

_KEPT = re.compile(rb"\r\n(?:WWW-Authenticate|Retry-After|Allow): [^\r]*")
_TITLES = {
    401: "log in", 403: "not allowed", 404: "not found", 405: "not found", 409: "not possible now",
    410: "no longer here", 412: "changed meanwhile", 429: "too many requests", 500: "a mistake of the server",
    503: "not ready",
}  # fmt: skip
# Seconds after which a page of a server that is not ready is loaded again.
_AGAIN = 3
_read = msgspec.json.Decoder(Problem).decode


def problem_page(view: View, answer: Response, back: str | None = None) -> Response:
    """Returns a problem document as a page. `back`: the page to go back to, from the root."""
    why = _read(answer.body)
    shown = f'<p class="bad" role="alert">{cell(why.detail)}</p>'
    if answer.status == 412:
        shown += "<p>Somebody changed it since the page was loaded. Look again, then decide.</p>"
    if answer.status == 500:
        shown += f'<p class="dim">request {cell(why.request_id)}</p>'
    title = _TITLES.get(answer.status, "not done")
    kept = b"".join(_KEPT.findall(answer.headers)) + HEADERS
    if answer.status == 401:
        shown += f'<p><a href="{view.up}login">Log in</a></p>'
        return Response(401, bare_page(view.up, title, shown), kept, HTML)
    if back is not None:
        shown += f"<p>{link(view, back, 'Back')}</p>"
    again = _AGAIN if answer.status == 503 and back is None else None
    return Response(answer.status, page(view, title, shown, again=again), kept, HTML)
