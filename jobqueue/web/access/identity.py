"""Authentication by access tokens.

A token comes as `Authorization: Bearer TOKEN`, or as the password of Basic (`curl -u :TOKEN`). A browser that
has logged in sends a session in its place (`sessions`). Only the
SHA-256 digest of a token is kept, so the file of tokens is no secret. This module decides who calls and
whether the caller has the right that a call needs. `authorized_engine` limits a caller to its queues and
jobs.
"""

import logging
import time
from asyncio import Future, get_running_loop
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from math import ceil
from typing import Any, Final, Generic, TypeVar

from jobqueue.engine.api import Engine, MaybeFuture
from jobqueue.errors import Refused, TooManyRequests, Unauthorized
from jobqueue.settings import Settings
from jobqueue.web.access.rate_limits import TokenBuckets, network
from jobqueue.web.access.sessions import LENGTH, Claim, Sessions
from jobqueue.web.access.tokens import RIGHTS, Token, read_tokens
from jobqueue.web.futures import under_way
from jobqueue.web.http import Request
from jobqueue.web.request_metrics import Operation

_log: Final = logging.getLogger("jobqueue")
# What calls are served with: the `Context`, which this module may not know.
C = TypeVar("C")
# The one token of JOBQUEUE_ACCESS_TOKEN; no token of a file has this name.
DEFAULT_TOKEN: Final = "access-token"
# Wrong tokens that one address may try: at once, and then each second.
_TRIES: Final = 10
_TRIES_A_SECOND: Final = 1.0
# Size of the memos: callers by Authorization header, and access by name of a queue.
_KNOWN: Final = 4096
# Longest time in seconds until the wall clock is read again for tokens that expire: it may be set.
_LOOK: Final = 1.0
_REVOKED: Final = "this access token was revoked"
_EXPIRED: Final = "this access token has expired"


class Principal(Generic[C]):
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
        self.context: C | None = None
        self.permitted: dict[Operation, C] = {}
        # Whether queues may be used, by name; a bounded memo.
        self.queue_access: dict[str, bool] = {}
        # When a call was last made with the token, in seconds of the monotonic clock; None: not yet.
        self.last_used: float | None = None
        self.ended: str | None = None  # why the token is no longer valid
        self._waiting: dict[Future[Any], Engine] = {}

    @property
    def patterns(self) -> tuple[str, ...] | None:
        """Returns those of the names of queues for which `may_use` is true; None: all names."""
        return self.token.queues

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

    def end(self, why: str) -> None:
        """Ends all waiting requests of this caller: its token is no longer valid."""
        self.ended = why
        for future, engine in list(self._waiting.items()):
            engine.end_wait(under_way(future), _unauthorized(why))
        self.context = None
        self.permitted.clear()

    def check(self, wall: int) -> None:
        """Raises `Unauthorized` if the token is no longer valid. `wall` is the wall clock in milliseconds.

        For what goes on over several passes of the loop; the authenticator checks each request.
        """
        if self.ended is not None:
            raise _unauthorized(self.ended)
        if self.expires_at is not None and wall >= self.expires_at:
            raise _unauthorized(_EXPIRED)


class Authenticator(Generic[C]):
    """All access tokens.

    Sessions are valid for all servers whose engine has the same secret. Which of them were ended early is
    kept with the jobs. `on_end` is called when tokens have become invalid, once their waiting requests have
    ended. Raises `SettingError` if the file of tokens cannot be read.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._wall = engine.wall_now
        self._by_digest: dict[bytes, Principal[C]] = {}
        self._by_name: dict[str, Principal[C]] = {}
        self._sessions = Sessions(engine.secret, only_secure=settings.tls_cert is not None)
        # Codes of sessions that this process has ended: their streams end although the engine, which may be
        # that of another server, cannot be asked then. The oldest ones are dropped.
        self._ended_here: dict[str, None] = {}
        self._signers: dict[str, Principal[C]] = {}  # those with a secret for SQS, by name
        # A memo of valid tokens, by the Authorization header as it was sent.
        self.known: dict[bytes | None, Principal[C]] = {}  # emptied when it is full
        self._tries = TokenBuckets(_TRIES_A_SECOND, _TRIES)
        self.on_end: Callable[[], None] = _nothing
        # Callers with a token that expires, for which something is or was under way
        self._expiring: set[Principal[C]] = set()
        self._take(self.read())

    def __len__(self) -> int:
        return len(self._by_digest)

    def principals(self) -> list[Principal[C]]:
        """Returns all callers that have a token."""
        return list(self._by_digest.values())

    def reload(self, tokens: list[Token] | None = None) -> None:
        """Replaces the tokens by those that `read` returned, or reads them now.

        A token that was removed or changed is revoked, and requests that wait under it end. Raises
        `SettingError`, and then nothing changes.
        """
        before = self._by_digest
        self._take(self.read() if tokens is None else tokens)
        for digest, principal in before.items():
            if self._by_digest.get(digest) is not principal:
                principal.end(_REVOKED)
        self.on_end()

    def read(self) -> list[Token]:
        """Reads the file. May be called on any thread. Raises `SettingError`."""
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
        self._by_name = {who.name: who for who in self._by_digest.values()}
        self._signers = {
            who.name: who for who in self._by_digest.values() if who.token.sqs_secret is not None
        }
        self.known.clear()

    def watch_expiry(self, who: Principal[C]) -> None:
        """Ends what is under way for `who` as soon as its token expires."""
        if who.expires_at is not None and who not in self._expiring:
            self._expiring.add(who)
            if len(self._expiring) == 1:
                self._look_soon()

    def _look_soon(self) -> None:
        due = min([who.expires_at or 0 for who in self._expiring]) - self._wall()
        get_running_loop().call_later(min(max(due / 1000, 0.001), _LOOK), self._look)

    def _look(self) -> None:
        self.end_expired()
        if self._expiring:
            self._look_soon()

    def end_expired(self) -> None:
        """Ends what is under way for callers whose tokens have expired."""
        now = self._wall()
        expired = [who for who in self._expiring if who.expires_at is not None and now >= who.expires_at]
        for who in expired:
            who.end(_EXPIRED)
        self._expiring = {who for who in self._expiring if who.ended is None}
        if expired:
            self.on_end()

    def validity(self, who: Principal[C], request: Request) -> Callable[[], bool]:
        """Returns a function that tells whether the token of `who`, or the session by which it sent
        `request`, is still valid."""
        claim = None if b"authorization" in request.headers else self._claim(request)
        return partial(self._is_valid, who, claim)

    def _is_valid(self, who: Principal[C], claim: Claim | None) -> bool:
        if claim is not None:
            return claim.code not in self._ended_here and self._session_of(claim) is who
        expired = who.expires_at is not None and self._wall() >= who.expires_at
        return not expired and self._by_digest.get(who.token.digest) is who

    def check(self, right: str | None, request: Request) -> Principal[C] | None:
        """Returns the caller, who has the right `right`; None if the call needs no token.

        Raises `Unauthorized`, `Refused` or `TooManyRequests`.
        """
        if right is None:
            return None
        header = request.headers.get(b"authorization")
        who: Principal[C] | None = request.caller or self.known.get(header)
        if who is None:
            who = self._of_session(request) if header is None else self._identify(header, request.peer)
        if who.expires_at is not None and self._wall() >= who.expires_at:
            raise _unauthorized(_EXPIRED)
        if right not in who.rights:
            raise Refused(f"this access token has not the right {right!r}")
        return who

    # -- sessions -----------------------------------------------------------------------------------

    def begin_session(self, token: str, peer: str) -> tuple[str, int]:
        """Returns the value of a cookie for the holder of a token, and for how many seconds it is valid.

        Raises `Unauthorized` or `TooManyRequests`, as for a token in a header.
        """
        header = b"Bearer " + token.encode()
        who = self.known.get(header) or self._identify(header, peer)
        now = self._wall()
        who.check(now)
        end = now + LENGTH if who.expires_at is None else min(now + LENGTH, who.expires_at)
        return self._sessions.begin(who.name, who.token.digest, end), (end - now) // 1000

    def end_session(self, request: Request) -> MaybeFuture[None]:
        """Ends the session of a request, if it has one, and returns when that is durable."""
        claim = self._claim(request)
        if claim is None or self._session_of(claim) is None:
            return None
        self._ended_here[claim.code] = None
        while len(self._ended_here) > _KNOWN:
            del self._ended_here[next(iter(self._ended_here))]
        return self._engine.end_session(claim.code)

    def _claim(self, request: Request) -> Claim | None:
        """Returns the session of a request; None: it has none, or the server has no pages."""
        return self._sessions.claim(request.headers.get(b"cookie")) if self._settings.ui == "on" else None

    def _session_of(self, claim: Claim) -> Principal[C] | None:
        who = self._by_name.get(claim.name)
        if who is None or not self._sessions.holds(claim, who.token.digest, self._wall()):
            return None
        return None if self._engine.has_ended(claim.code) else who

    def _of_session(self, request: Request) -> Principal[C]:
        """Returns the caller of a request without a token. Raises `Unauthorized`."""
        claim = self._claim(request)
        if claim is None:
            raise _unauthorized("this server wants an access token")
        who = self._session_of(claim)
        if who is None:
            raise Unauthorized("this session has ended; log in again at /login", session=True)
        return who

    # -- tokens -------------------------------------------------------------------------------------

    def _identify(self, header: bytes, peer: str) -> Principal[C]:
        """Returns the caller of a request whose token is not in the memo. Slows down those who try tokens."""
        address, now = network(peer), time.monotonic()
        if wait := self._tries.wait(address, now):
            raise TooManyRequests("too many wrong access tokens from this address", retry_after=ceil(wait))
        who = self._holder(header)
        if who is None:
            self._tries.take(address, now)
            raise _unauthorized("this access token is not known here")
        return who

    def _holder(self, header: bytes) -> Principal[C] | None:
        token = _token_of(header)
        who = self._by_digest.get(sha256(token).digest()) if token is not None else None
        if who is not None:
            if len(self.known) >= _KNOWN:
                self.known.clear()
            self.known[header] = who
        return who

    def sqs_secret(self, name: str) -> str | None:
        """Returns what the holder of the token of this name signs with; None: it may not sign."""
        who = self._signers.get(name)
        return who.token.sqs_secret if who is not None else None

    def named(self, name: str) -> Principal[C]:
        """Returns the caller of this name, which has a secret. `check` comes after it."""
        return self._signers[name]

    def caller(self, request: Request) -> Principal[C] | None:
        """Returns the caller of a request without checking rights; None: it has no valid token.

        While an address is slowed down for its wrong tokens, only tokens that were used before are
        recognised: otherwise it could go on guessing.
        """
        header = request.headers.get(b"authorization")
        if header is None:
            claim = self._claim(request)
            return self._session_of(claim) if claim is not None else None
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


def _nothing() -> None:
    """Does nothing: nobody wants to know."""


def _unauthorized(why: str) -> Unauthorized:
    return Unauthorized(
        f"{why}; send one as Authorization: Bearer TOKEN, or by curl -u :TOKEN; in a browser log in at /login"
    )
