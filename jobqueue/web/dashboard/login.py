"""Logging in with an access token, and out again. A browser then sends a cookie in place of the token."""

from functools import partial
from html import escape

from jobqueue.errors import JobQueueError
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.access.sessions import PLAIN, SECURE
from jobqueue.web.context import Context
from jobqueue.web.dashboard.finding import redirect
from jobqueue.web.http import HTML, Deferred, Request, Response
from jobqueue.web.operations.replies import reply
from jobqueue.web.readers.decoder import query_pairs
from jobqueue.web.writers.page_layout import HEADERS, bare_page
from jobqueue.web.writers.problems import problem

_FORM = (
    '<form class="fields" method="post" action="login"><label>access token<input type="password" '
    'name="token" autocomplete="current-password" required autofocus></label><button>Log in</button></form>'
)


class Login:
    """The operations of logging in. `auth`: None, the server has no access tokens."""

    def __init__(self, auth: Authenticator[Context] | None) -> None:
        self._auth = auth

    def login_page(self, context: Context, request: Request) -> Response:
        if self._auth is None:
            return redirect("./")
        return _page(200, "")

    def log_in(self, context: Context, request: Request) -> Response:
        """Begins a session for the holder of a token, or shows the page again with the reason why not."""
        if self._auth is None:
            return redirect("./")
        try:
            token = dict(query_pairs(request.body.decode("ascii", "replace"))).get("token", "").strip()
            value, seconds = self._auth.begin_session(token, request.peer)
        except JobQueueError as error:
            told = problem(error, request.id)
            wait = error.facts.get("retry_after")
            retry = f"\r\nRetry-After: {wait}".encode() if wait is not None else b""
            # 403 for a wrong token: with a 401 a browser would ask for a password as well.
            status = 403 if told.status == 401 else told.status
            return _page(status, f'<p class="bad" role="alert">{escape(error.detail)}</p>', retry)
        answer = redirect("./")
        answer.headers += self._cookie(context, request, value, seconds)
        return answer

    def log_out(self, context: Context, request: Request) -> Response | Deferred:
        """Ends the session of the request."""
        ended = self._auth.end_session(request) if self._auth is not None else None
        return reply(context, ended, partial(self._logged_out, request))

    def _logged_out(self, request: Request, context: Context, _: None) -> Response:
        answer = redirect("login")
        answer.headers += self._cookie(context, request, "", 0)
        return answer

    def _cookie(self, context: Context, request: Request, value: str, seconds: int) -> bytes:
        scheme, _ = context.browser_policy.address(request)
        name, secure = (SECURE, "; Secure") if scheme == "https" else (PLAIN, "")
        return (
            f"\r\nSet-Cookie: {name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        ).encode("ascii")


def _page(status: int, said: str, headers: bytes = b"") -> Response:
    return Response(status, bare_page("./", "log in", said + _FORM), headers + HEADERS, HTML)
