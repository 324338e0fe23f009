"""Who looks at a page: decides which actions it offers. The calls themselves check every right again."""

from msgspec.structs import replace

from jobqueue.web.access.administrators import is_local, is_loopback_name
from jobqueue.web.access.browser_policy import UNIX
from jobqueue.web.access.tokens import RIGHTS
from jobqueue.web.context import Context
from jobqueue.web.http import Request
from jobqueue.web.writers.page_layout import View, view_of

_ALL = frozenset(RIGHTS)
_NO_ADMIN = _ALL - {"admin"}


def view(context: Context, request: Request) -> View:
    seen = view_of(request.path, request.query, _rights(context, request))
    seen = replace(seen, has_cluster=bool(context.engine.members()))
    if context.caller is not None and b"authorization" not in request.headers:
        return replace(seen, user=context.caller.name)
    return seen


def _rights(context: Context, request: Request) -> frozenset[str]:
    """Returns the rights of the caller. Without access tokens a person at this machine administers; that the
    caller is a person is found out by the call."""
    if context.caller is not None:
        return context.caller.rights
    if context.settings.open_admin:
        return _ALL
    local = is_local(request.peer, request.headers)
    at_home = request.peer == UNIX or is_loopback_name(request.header(b"host") or "")
    return _ALL if local and at_home else _NO_ADMIN
