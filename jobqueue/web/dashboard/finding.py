"""Search: what the search box and the filter of a list ask becomes the address of a page."""

import re
from urllib.parse import urlencode

from jobqueue.web.context import Context
from jobqueue.web.http import Request, Response
from jobqueue.web.readers.decoder import query_pairs

_ID = re.compile(r"[0-9]{1,16}")
_NAMED = re.compile(r"(queue|type|tag|key|status|error|text):(\S.*)")
_FILTERS = ("status", "queue", "type", "tag", "key", "error", "text", "order")


def find(context: Context, request: Request) -> Response:
    """Returns a redirect to a job, or to the list of jobs that match.

    `q` is an id, `type:…` and the like, or else a text in payloads. Fields that are left empty are left out.
    """
    asked = {name: value.strip() for name, value in query_pairs(request.query)}
    wanted = asked.get("q", "")
    if _ID.fullmatch(wanted):
        return redirect(f"jobs/{wanted}")
    filters = [(name, asked[name]) for name in _FILTERS if asked.get(name)]
    if named := _NAMED.fullmatch(wanted):
        filters.append((named[1], named[2]))
    elif wanted:
        filters.append(("text", wanted))
    return redirect(f"jobs?{urlencode(filters)}" if filters else "jobs")


def redirect(to: str) -> Response:
    """Returns a redirect to an address that is relative to that of the request."""
    return Response(303, b"", f"\r\nLocation: {to}".encode("ascii"))
