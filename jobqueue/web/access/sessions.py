"""Sessions: a browser that has logged in with an access token sends a cookie in its place.

A cookie has the name of the token, when the session ends, and a code made with a key that is kept with the
jobs, so a session outlives a restart and is valid for the next owner of the jobs. The code covers the digest
of the token, so a session ends with its token. Nothing is kept for a session but the fact that it was ended
early, and that by the engine.
"""

import hmac
import os
from hashlib import sha256

# Milliseconds of a session.
LENGTH = 12 * 3600 * 1000
# Names of the cookie: browsers accept the first one only over TLS, for this host and for all of its paths.
SECURE = "__Host-jobqueue"
PLAIN = "jobqueue"
# Hexadecimal digits that make each cookie another one.
_SALT = 16


class Sessions:
    """`secret`: what the key is made of. `only_secure`: the server is reached by TLS only, and takes no
    cookie that another host could have set."""

    def __init__(self, secret: bytes, only_secure: bool) -> None:
        self._key = hmac.digest(secret, b"sessions of the dashboard", "sha256")
        self._names = (SECURE,) if only_secure else (SECURE, PLAIN)

    def begin(self, name: str, digest: bytes, end: int) -> str:
        """Returns the value of a cookie, another one each time. `end` is in wall-clock milliseconds."""
        salt = os.urandom(_SALT // 2).hex()
        return f"{name}/{end}/{salt}{self._code(name, digest, end, salt)}"

    def claim(self, cookies: bytes | None) -> "Claim | None":
        """Returns what a `Cookie` header says; None: it has no session."""
        if cookies is None:
            return None
        found: dict[str, str] = {}
        for part in cookies.decode("latin-1").split(";"):
            name, _, value = part.strip().partition("=")
            found.setdefault(name, value)
        for name in self._names:  # the one that no other host can have set is the first
            user, _, rest = found.get(name, "").partition("/")
            end, _, code = rest.partition("/")
            if end.isascii() and end.isdigit() and len(end) < 16:
                return Claim(user, int(end), code)
        return None

    def holds(self, claim: "Claim", digest: bytes, wall: int) -> bool:
        """Tells whether a session, unless it was ended early, is valid for the token of this digest. `wall`
        is the wall clock in milliseconds."""
        salt = claim.code[:_SALT]
        right = (salt + self._code(claim.name, digest, claim.end, salt)).encode("latin-1", "replace")
        same = hmac.compare_digest(right, claim.code.encode("latin-1", "replace"))
        return same and wall < claim.end

    def _code(self, name: str, digest: bytes, end: int, salt: str) -> str:
        said = b"%b\0%b\0%d\0%b" % (name.encode(), digest, end, salt.encode("latin-1", "replace"))
        return hmac.new(self._key, said, sha256).hexdigest()


class Claim:
    """What a cookie says: whose session it is, when it ends, and the code that proves it."""

    __slots__ = ("code", "end", "name")

    def __init__(self, name: str, end: int, code: str) -> None:
        self.name = name
        self.end = end
        self.code = code
