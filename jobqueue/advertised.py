"""Advertised URLs: where the servers of a cluster say that clients reach each of them, and the header with
which an answer names the server that owns what the request was about."""

import re
from typing import Final

HEADER: Final = "Job-Server"
LONGEST: Final = 1000
_URL: Final = re.compile(
    r"https?://"
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?)"
    r"(:(?P<port>[1-9][0-9]{0,4}))?"
    r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
)


def is_advertisable(url: str) -> bool:
    """Tells whether clients follow `url`: http or https, a host, perhaps a port and a path, but no user and
    no query."""
    found = _URL.fullmatch(url) if len(url) <= LONGEST else None
    return found is not None and int(found["port"] or 1) <= 0xFFFF
