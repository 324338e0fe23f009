"""The workers that the server hands out: one file each, written for the address that it was fetched from."""

import re
from functools import cache
from pathlib import Path

from jobqueue.errors import BadRequest

# Nothing but this is written into what people paste, or pipe to a shell.
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_FOLDER = Path(__file__).parents[1] / "static"
_ADDRESS = "http://localhost:8080"
_VERSION = "0.0.0"


def worker(name: str, scheme: str, host: str, version: str) -> bytes:
    """The file `name`. `scheme`: http or https; `host`: as it was sent. `BadRequest` where it is none."""
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
