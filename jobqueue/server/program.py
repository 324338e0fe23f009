"""Program: starts an engine, a front and a listening socket, serves until a signal, and stops."""

import asyncio
import gc
import importlib.util
import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jobqueue.cluster.link import Link
from jobqueue.engine import local
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.memory_limit import default_limit
from jobqueue.engine.opening import open_database, open_journal
from jobqueue.engine.ticker import Ticker
from jobqueue.errors import SettingError
from jobqueue.server import log
from jobqueue.server.front import Front
from jobqueue.server.gc_control import GcControl
from jobqueue.server.listener import CannotListenError, Listener, connection_limit, listen
from jobqueue.server.log_writer import LogWriter
from jobqueue.server.member import Sockets
from jobqueue.server.reload import Reload
from jobqueue.server.signals import Signals
from jobqueue.server.tls import Tls
from jobqueue.server.watchdog import Watchdog
from jobqueue.settings import Settings, is_database
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.postgres_session import OtherOwner, SessionLost, Silent, shown
from jobqueue.storage.store import JournalError
from jobqueue.version import VERSION
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.tornado_app import application

if TYPE_CHECKING:  # a package that it needs comes with PostgreSQL only
    from jobqueue.cluster.engine import ClusterEngine

_log = logging.getLogger("jobqueue")
# Each connection is checked for its deadline once in two seconds: one of 20 parts every 100 ms.
_PARTS = 20
_MS_A_PART = 100.0
# Loop passes after which every task and callback of a cut connection has run.
_PASSES = 5
# Seconds in which the first start waits for a database.
PATIENCE = 10.0
# Seconds before a member that could not become the owner looks again.
_LOOK_AGAIN = 0.25
# Seconds that requests under way may take when another server has taken over.
_LOST_DRAIN = 1.0


class Turn(NamedTuple):
    """What a member begins with when it becomes the owner: its sockets, the owner whom it replaces, if any,
    the clients that wait, whether it is its first turn after the start, and what a signal set that came
    before the program takes them."""

    sockets: Sockets
    silent: Silent | None
    waiting: list[tuple[socket.socket, str]]
    first: bool
    stopped: asyncio.Event


class Program:
    """One running server. `environ` is searched for variables that users confuse with settings. `turn`: of a
    member. `sockets`: those that it has already. `lost`: another member is the owner now, or is to be."""

    _shards = ""  # for the first line

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        out: LogWriter,
        signals: Signals,
        turn: Turn | None = None,
        sockets: Sockets | None = None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._out = out
        self._signals = signals
        self._stop_signal = asyncio.Event()
        self._second_signal = asyncio.Event()
        self._turn = turn
        self._sockets = turn.sockets if turn is not None else sockets
        self._link: Link | None = None
        self.lost = False
        self._status = 0

    async def run(self) -> int:
        try:
            self.start()
        except OtherOwner:
            await self._give_up_turn()
            return 0
        except (SettingError, JournalError, CannotListenError) as failed:
            self._out.write(f"jobqueue: {failed.detail}")
            if self._turn is not None and not self._turn.first:  # the database is away again, perhaps
                await self._give_up_turn()
            return 2 if isinstance(failed, SettingError) else 1
        await self.serve()
        return await self.stop()

    async def _give_up_turn(self) -> None:
        """Stands by again after a start that failed."""
        assert self._turn is not None
        self.lost = True
        for client, _ in self._turn.waiting:
            client.close()
        await asyncio.sleep(_LOOK_AGAIN)

    # -- start --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens everything and accepts connections. Raises `SettingError`, `JournalError`,
        `CannotListenError`."""
        settings = self._settings
        self._tls = Tls(settings)
        self._engine = self._open_engine()
        self._dispatcher = dispatcher = Dispatcher(self._engine)
        dispatcher.in_flight.set_limit(self._engine.memory_limit.limit, settings.max_request)
        self._access_log = log.AccessLog(settings.access_log)
        dispatcher.access = self._access_log.request
        self._front = front = self._make_front()
        self._limit = limit = connection_limit(settings.max_connections)
        front.peers.set_limits(settings.max_connections_by_address, limit)
        if (proxies := dispatcher.browser_policy.proxies) is not None:
            front.peers.is_proxy = proxies.trusts
        server = dispatcher.server
        server.connections = front.connections
        server.max_connections = limit
        server.max_connections_by_address = front.peers.limit
        self._port = self._listen(limit)
        self._engine.watch_arrivals(lambda: self._listener.arriving() or front.arriving())
        self._gc = GcControl(self._engine.held)
        watchdog = Watchdog()
        server.lag = lambda: watchdog.lag
        server.more_metrics += [watchdog.metrics, self._out.metrics]
        self._background: list[Ticker | GcControl | Watchdog] = [
            Ticker(self._access_log.flush, 1000),
            Ticker(lambda: front.sweep(_PARTS), _MS_A_PART),
            self._gc,
            watchdog,
        ]
        for each in self._background:
            each.start()
        reload = Reload(self._tls, dispatcher.auth, settings)
        drain = settings.drain / 1000
        self._signals.serve(self._signalled, reload.start, drain, 1 if settings.data is None else 74)
        self._connect_servers()
        self._gc.freeze()
        self._report("start", self._start_line())

    def _connect_servers(self) -> None:
        """Takes the connections that other servers pass on, and those that have waited."""
        if self._turn is not None:
            sockets = self._turn.sockets
            self._dispatcher.administrators.link_port = sockets.servers.getsockname()[1]
            unread = self._settings.write_timeout
            self._link = Link(sockets.servers.dup(), sockets.place.secret, self._take_passed_on, unread)
            for client, peer in self._turn.waiting:
                self._front.take(client, peer)

    def _take_passed_on(self, client: socket.socket, peer: str) -> None:
        """Takes a client of another server, unless a limit is reached."""
        front = self._front
        if front.connections() >= self._limit or front.peers.full(peer):
            client.close()
        else:
            front.take(client, peer)

    def _open_engine(self) -> "LocalEngine | ClusterEngine":
        settings = self._settings
        if settings.data is None:
            engine = LocalEngine(settings)
        else:
            if (turn := self._turn) is not None:
                patience = PATIENCE if turn.first else 0.0
                engine = open_database(
                    settings.data, settings, None, patience, turn.sockets.place, turn.silent
                )
            else:
                engine = open_journal(DataDir(settings.data), settings)
            engine.on_failure = self._failed
            # The writer thread does little between its waits, and should not wait 5 ms for each turn.
            sys.setswitchinterval(0.0005)
        engine.memory_limit.limit = engine.memory_limit.limit or default_limit()
        return engine

    def _make_front(self) -> Front:
        wanted = self._settings.http
        if wanted == "fast" or (wanted == "auto" and importlib.util.find_spec("httptools") is not None):
            from jobqueue.server.http1.front import FastFront

            return FastFront(self._dispatcher, self._access_log, self._tls)
        from jobqueue.server.tornado_front import TornadoFront

        return TornadoFront(self._dispatcher, application(self._dispatcher), self._tls)

    def _listen(self, limit: int) -> int:
        """Accepts at most `limit` connections at once; returns the port, 0 for a Unix socket."""
        settings, front = self._settings, self._front
        if self._sockets is not None:
            listening = self._sockets.clients.dup()
            listening.setblocking(False)
        else:
            try:
                listening = listen(settings.host, settings.port)
            except CannotListenError:
                self._engine.close()
                raise
        by_path = listening.family == socket.AF_UNIX
        self._listener = Listener(
            listening, limit, front.connections, front.take, front.peers, keep=self._sockets is not None
        )
        return 0 if by_path else int(listening.getsockname()[1])

    def _signalled(self) -> None:
        (self._second_signal if self._stop_signal.is_set() else self._stop_signal).set()

    @property
    def was_signalled(self) -> bool:
        """Whether a signal to stop came after it had begun to stop."""
        return self._second_signal.is_set()

    # -- serve --------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Loads the journal, and serves until a signal or a failure of the journal."""
        loading = asyncio.ensure_future(self._load())
        await asyncio.sleep(0)
        if self._turn is not None and self._turn.stopped.is_set():
            self._stop_signal.set()
        await self._stop_signal.wait()
        loading.cancel()

    async def _load(self) -> None:
        if self._settings.data is None:
            return
        started = time.monotonic()
        try:
            jobs = await self._load_jobs()
        except JournalError as bad:
            self._fail(bad.detail, 1)
            return
        except SessionLost as lost:
            self._failed(lost)
            return
        except Exception as bug:
            _log.exception("unexpected error")
            self._fail(f"the journal could not be read: {bug}", 1)
            return
        self._gc.freeze()
        self._report("loaded", f"loaded {jobs:,} jobs in {time.monotonic() - started:.1f} s")

    async def _load_jobs(self) -> int:
        assert isinstance(self._engine, LocalEngine)
        return await self._engine.load()

    def _failed(self, error: Exception) -> None:
        """Ends this turn as the owner, or the server, since nothing can be written any more."""
        if isinstance(error, SessionLost) and not self._stop_signal.is_set():
            self.lost = True
            self._out.write(f"jobqueue: {error}; this server stands by")
            self._stop_signal.set()
        else:
            self._fail(str(error))

    def _fail(self, reason: str, status: int = 74) -> None:
        """Stops because the journal cannot be read, or no longer be written."""
        self._out.write(f"jobqueue: {reason}")
        self._status = status
        self._stop_signal.set()

    # -- stop ---------------------------------------------------------------------------------------

    async def stop(self) -> int:
        """Lets what is under way end, for `settings.drain` at most, and closes everything. Returns the exit
        status."""
        stop_is_over = self._signals.limit_stop()
        engine, front = self._engine, self._front
        loaded = engine.refuses is None
        engine.stop_waiting()
        cut_short = False
        share = 1.0 if self._settings.data is None else 0.5
        handed_over = self.lost or len(engine.members()) > 1
        if loaded and self._settings.data is not None and not handed_over:
            # Workers are often stopped at the same moment: what they have finished is still taken and kept.
            cut_short = await self._drain(
                lambda: front.busy() + engine.stats(own=True).jobs["in_progress"], share
            )
        self._listener.close()
        if self._link is not None:
            self._link.close()
        if self.lost:  # what had come while this server stood still gets its 503
            await self._drain(front.arriving, share)
        front.drain()
        cut_short = cut_short or await self._drain(front.busy, share)
        front.close()
        for _ in range(_PASSES):  # until the connections have given back the jobs they had not sent
            await asyncio.sleep(0)
        engine.close()
        for each in self._background:
            each.stop()
        self._access_log.flush()
        if self.lost:
            gc.unfreeze()  # so that its jobs go
            stop_is_over()
        elif loaded and not self._status:
            self._report("stop", self._stop_line())
        return self._status or int(cut_short)

    async def _drain(self, busy: Callable[[], int], share: float) -> bool:
        """Waits while `busy`, for this share of `settings.drain` at most. True: a second signal cut it
        short."""
        seconds = share * self._settings.drain / 1000
        until = time.monotonic() + (min(seconds, _LOST_DRAIN) if self.lost else seconds)
        # At least one round, so that the responses to waiting clients are written.
        while not self._second_signal.is_set():
            try:
                await asyncio.wait_for(self._second_signal.wait(), 0.02)
            except TimeoutError:
                if not busy() or time.monotonic() >= until:
                    return False
        return True

    # -- the first and the last line ----------------------------------------------------------------

    def _start_line(self) -> str:
        settings, auth = self._settings, self._dispatcher.auth
        address = address_of(settings, self._port)
        compiled = "" if str(local.__file__).endswith(".py") else ", compiled"
        kept = "memory only: a stop loses all jobs"
        if settings.data is not None:
            kept = f"journal in {settings.data}, sync {settings.sync}"
            if is_database(settings.data):
                kept = f"PostgreSQL at {shown(settings.data)}{self._shards}"
        access = "no access tokens: anyone who can reach it may use it"
        if auth is not None:
            access = f"access tokens: {len(auth)}"
        elif settings.open_admin:
            access += ", administrative calls included"
        line = f"jobqueue {VERSION} on {address} ({self._front.name}{compiled}), {kept}; {access}"
        other_port = self._environ.get("PORT")
        if other_port and self._port and other_port != str(self._port):
            line += f"; PORT={other_port} is not read: set JOBQUEUE_PORT=$PORT to use it"
        if "JOBQUEUE_TOKEN" in self._environ and auth is None:
            line += "; JOBQUEUE_TOKEN is for workers: set JOBQUEUE_ACCESS_TOKEN to require a token"
        return line

    def _stop_line(self) -> str:
        jobs = self._engine.stats(own=True).jobs
        fate = "discarded" if self._settings.data is None else "kept"
        return (
            f"stopped; {jobs['queued']:,} queued, {jobs['in_progress']:,} in progress, "
            f"{jobs['scheduled']:,} scheduled jobs {fate}"
        )

    def _report(self, event: str, line: str) -> None:
        """Prints a line whatever the log level."""
        report(self._settings, self._out, line, event)


def address_of(settings: Settings, port: int) -> str:
    """Returns the URL at which clients reach this server; `port` is 0 for a Unix socket."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{host}:{port}" if port else settings.host


def report(settings: Settings, out: LogWriter, line: str, event: str = "standby") -> None:
    """Prints a line whatever the log level."""
    out.write(log.json_line({"event": event, "message": line}) if settings.log_format == "json" else line)
