"""Authentication by access tokens.

A token comes as `Authorization: Bearer TOKEN`, or as the password of Basic (`curl -u :TOKEN`). Only the
SHA-256 digest of a token is kept, so the file of tokens is no secret. This module decides who calls and
whether the caller has the right that a call needs. `authorized_engine` limits a caller to its queues and
jobs.
"""

import logging
import time
from asyncio import Future
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from math import ceil
from typing import Any

from jobqueue.engine.api import Engine
from jobqueue.errors import Refused, TooManyRequests, Unauthorized
from jobqueue.settings import Settings
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.access.tokens import RIGHTS, Token, read_tokens
from jobqueue.web.futures import under_way
from jobqueue.web.http import Request
from jobqueue.web.request_metrics import Operation

_log = logging.getLogger("jobqueue")
# The one token of JOBQUEUE_ACCESS_TOKEN; no token of a file has this name.
DEFAULT_TOKEN = "access-token"
# Wrong tokens that one address may try: at once, and then each second.
_TRIES = 10
_TRIES_A_SECOND = 1.0
# Size of the memos: callers by Authorization header, and access by name of a queue.
_KNOWN = 4096


class Principal:
    """A caller: the holder of one access token.

    `context` is what its calls are served with; the dispatcher makes it at the first call. `permitted` has
    the same context for each operation that the caller has called and may call. It stays empty for a token
    that expires, and is emptied when the token is revoked, so it never permits what is no longer allowed.
    """

    def __init__(self, token: Token) -> None:
        self.token = token
        self.name = token.name
        self.admin = "admin" in token.rights
        # An administrator has all rights. Every token has the right "".
        self.rights = frozenset(RIGHTS if self.admin else token.rights) | {""}
        self.expires_at = token.expires_at
        self.context: Any = None  # a Context, which this module may not know
        self.permitted: dict[Operation, Any] = {}
        # Whether queues may be used, by name; a bounded memo.
        self.queue_access: dict[str, bool] = {}
        self._waiting: dict[Future[Any], Engine] = {}

    def may_use(self, queue: str) -> bool:
        """Tells whether the caller may use the queue of this name."""
        seen = self.queue_access.get(queue)
        if seen is None:
            if len(self.queue_access) >= _KNOWN:
                self.queue_access.clear()
            seen = self.queue_access[queue] = self.token.matches(queue)
        return seen

    def waits(self, future: Future[Any], engine: Engine) -> None:
        """Registers a request of this caller that waits for `future`."""
        self._waiting[future] = engine
        future.add_done_callback(self._waits_no_more)

    def _waits_no_more(self, future: Future[Any]) -> None:
        self._waiting.pop(future, None)

    def revoke(self) -> None:
        """Ends all waiting requests of this caller: its token is no longer valid."""
        for future, engine in list(self._waiting.items()):
            engine.end_wait(under_way(future), _unauthorized("this access token was revoked"))
        self.context = None
        self.permitted.clear()


class Authenticator:
    """All access tokens.

    `wall` reads the wall clock in milliseconds. Raises `SettingError` if the file of tokens cannot be read.
    """

    def __init__(self, settings: Settings, wall: Callable[[], int]) -> None:
        self._settings = settings
        self._wall = wall
        self._by_digest: dict[bytes, Principal] = {}
        # A memo of valid tokens, by the Authorization header as it was sent.
        self.known: dict[bytes | None, Principal] = {}  # emptied when it is full
        self._tries = TokenBuckets(_TRIES_A_SECOND, _TRIES)
        self._take(self._read())

    def __len__(self) -> int:
        return len(self._by_digest)

    def reload(self) -> None:
        """Reads the file again.

        A token that was removed or changed is revoked, and requests that wait under it end. Raises
        `SettingError`, and then nothing changes.
        """
        before = self._by_digest
        self._take(self._read())
        for digest, principal in before.items():
            if self._by_digest.get(digest) is not principal:
                principal.revoke()

    def _read(self) -> list[Token]:
        tokens = []
        if self._settings.access_token is not None:
            tokens.append(Token(DEFAULT_TOKEN, bytes.fromhex(self._settings.access_token), RIGHTS))
        if self._settings.tokens_file is not None:
            tokens += read_tokens(self._settings.tokens_file, reserved={DEFAULT_TOKEN})
        return tokens

    def _take(self, tokens: Iterable[Token]) -> None:
        """Keeps the `Principal` of each unchanged token, since waiting requests are registered there."""
        before, self._by_digest = self._by_digest, {}
        for token in tokens:
            known = before.get(token.digest)
            same = known is not None and known.token == token
            self._by_digest[token.digest] = known if known is not None and same else Principal(token)
        self.known.clear()

    def validity(self, who: Principal) -> Callable[[], bool]:
        """Returns a function that tells whether the token of `who` is still valid."""
        return partial(self._is_valid, who)

    def _is_valid(self, who: Principal) -> bool:
        expired = who.expires_at is not None and self._wall() >= who.expires_at
        return not expired and self._by_digest.get(who.token.digest) is who

    def check(self, right: str | None, request: Request) -> Principal | None:
        """Returns the caller, who has the right `right`; None if the call needs no token.

        Raises `Unauthorized`, `Refused` or `TooManyRequests`.
        """
        if right is None:
            return None
        header = request.headers.get(b"authorization")
        who = request.caller or self.known.get(header)
        if who is None:
            who = self._identify(header, request.peer)
        if who.expires_at is not None and self._wall() >= who.expires_at:
            raise _unauthorized("this access token has expired")
        if right not in who.rights:
            raise Refused(f"this access token has not the right {right!r}")
        return who

    def _identify(self, header: bytes | None, peer: str) -> Principal:
        """Returns the caller of a request whose token is not in the memo. Slows down those who try tokens."""
        if header is None:
            raise _unauthorized("this server wants an access token")
        address, now = network(peer), time.monotonic()
        if wait := self._tries.wait(address, now):
            raise TooManyRequests("too many wrong access tokens from this address", retry_after=ceil(wait))
        who = self._holder(header)
        if who is None:
            self._tries.take(address, now)
            raise _unauthorized("this access token is not known here")
        return who

    def _holder(self, header: bytes) -> Principal | None:
        token = _token_of(header)
        who = self._by_digest.get(sha256(token).digest()) if token is not None else None
        if who is not None:
            if len(self.known) >= _KNOWN:
                self.known.clear()
            self.known[header] = who
        return who

    def caller(self, request: Request) -> Principal | None:
        """Returns the caller of a request without checking rights; None: it has no valid token.

        While an address is slowed down for its wrong tokens, only tokens that were used before are
        recognised: otherwise it could go on guessing.
        """
        header = request.headers.get(b"authorization")
        if header is None:
            return None
        who = self.known.get(header)
        if who is None and not self._tries.wait(network(request.peer), time.monotonic()):
            who = self._holder(header)
        return who


def _token_of(header: bytes) -> bytes | None:
    """Returns the token in an Authorization header; None: the header has another scheme."""
    scheme, _, rest = header.partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest
    if scheme.lower() == b"basic":
        try:
            user, _, password = b64decode(rest, validate=True).partition(b":")
        except NotBase64:
            return None
        return password or user
    return None


def _unauthorized(why: str) -> Unauthorized:
    return Unauthorized(f"{why}; send one as Authorization: Bearer TOKEN, or by curl -u :TOKEN")
