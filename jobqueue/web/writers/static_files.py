"""The static files of the pages: one stylesheet, an icon, and small ES modules.

All have one version, a digest of all their bytes. It is in the addresses that pages and modules use, so a
browser keeps a file for ever and asks for another address after an upgrade.
"""

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

_FOLDER = Path(__file__).parents[1] / "static"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMPORT = re.compile(rb'(from "\./[\w.]+\.js)"')


class StaticFile(Struct, frozen=True):
    body: bytes
    content_type: str


class StaticFiles(Struct, frozen=True):
    version: str
    files: dict[str, StaticFile]


@cache
def static_files() -> StaticFiles:
    """Returns all files by name. They are read at first use."""
    read = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _KINDS}
    digest = sha256(b"".join(b"%b\0%b\0" % (name.encode(), body) for name, body in read.items()))
    version = digest.hexdigest()[:16]
    files = {}
    for name, body in read.items():
        body = _IMPORT.sub(rb'\1?v=%b"' % version.encode(), body)
        files[name] = StaticFile(body, _KINDS[name[name.rindex(".") :]])
    return StaticFiles(version, files)
