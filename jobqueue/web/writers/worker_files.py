"""The workers that the server hands out: one file each, with the address that it was fetched from."""

import re
from functools import cache
from pathlib import Path

from jobqueue.errors import BadRequest

# Nothing but this is written into what people paste, or pipe to a shell.
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9._~-]+)*")
_FOLDER = Path(__file__).parents[1] / "static"
_ADDRESS = "http://localhost:8080"
_VERSION = "0.0.0"


def worker(name: str, scheme: str, host: str, version: str) -> bytes:
    """Returns the file `name`.

    `scheme` is http or https, `host` the Host header, with the prefix that a proxy adds. Raises `BadRequest`
    for a bad host.
    """
    if not HOST.fullmatch(host):
        raise BadRequest(
            "this is fetched to be run, with the address that it was asked at in it: the Host header may "
            "have no more than letters, digits, and . : [ ] -"
        )
    text = _template(name).replace(_ADDRESS, f"{scheme}://{host}").replace(_VERSION, version)
    return text.encode("utf-8")


@cache
def _template(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
