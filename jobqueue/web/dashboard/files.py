"""Serves the static files of the pages."""

from jobqueue.errors import NoSuchRoute
from jobqueue.web.context import Context
from jobqueue.web.http import Request, Response
from jobqueue.web.writers.static_files import static_files

# In seconds: a year.
_FOR_EVER = 31_536_000


def static_file(context: Context, request: Request) -> Response:
    """Returns a static file. Under the address of its version a browser never asks for it again."""
    found = static_files()
    file = found.files.get(request.param)
    if file is None:
        raise NoSuchRoute(f"there is no static file {request.param[:100]!r}")
    if request.query == f"v={found.version}":
        caching = f"public, max-age={_FOR_EVER}, immutable"
    else:
        caching = "no-cache"
    tag = f'"{found.version}"'
    headers = f"\r\nETag: {tag}\r\nCache-Control: {caching}".encode()
    if tag in (request.header(b"if-none-match") or ""):
        return Response(304, b"", headers, file.content_type)
    return Response(200, file.body, headers, file.content_type)
