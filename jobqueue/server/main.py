"""The program: starts an engine, a front and a listening socket, serves until a signal, and stops."""

import asyncio
import errno
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping

from jobqueue.engine import local
from jobqueue.engine.local import LocalEngine, open_journal
from jobqueue.engine.memory_limit import default_limit
from jobqueue.engine.ticker import Ticker
from jobqueue.errors import SettingError
from jobqueue.server import log
from jobqueue.server.front import Front
from jobqueue.server.gc_control import GcControl
from jobqueue.server.listener import Listener, bind, connection_limit
from jobqueue.server.tls import Tls
from jobqueue.server.watchdog import Watchdog
from jobqueue.settings import Settings, is_foreign
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.store import JournalError
from jobqueue.version import VERSION
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.tornado_app import application

_log = logging.getLogger("jobqueue")
# Each connection is checked for its deadline once in two seconds: one of 20 parts every 100 ms.
_PARTS = 20
_MS_A_PART = 100.0
# Loop passes after which every task and callback of a cut connection has run.
_PASSES = 5


def main(environ: Mapping[str, str]) -> int:
    """Serves until a signal. Returns the exit status: 0 stopped, 1 could not serve or stopped by a second
    signal, 2 a bad setting, 74 the journal could not be written."""
    try:
        settings = Settings.from_environment(environ)
    except SettingError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 2
    log.configure(settings.log_level, settings.log_format)
    if is_foreign("JOBQUEUE_PORT", environ.get("JOBQUEUE_PORT", "")):
        port = environ["JOBQUEUE_PORT"]
        _log.warning("JOBQUEUE_PORT=%s is set by Kubernetes and is not a port number: ignored", port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(Program(settings, environ).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if it is installed: it is faster."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


class CannotListenError(Exception):
    """`detail`: the address, and why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Program:
    """One running server. `environ` is searched for variables that users confuse with settings."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._stop_signal = asyncio.Event()
        self._second_signal = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        try:
            self.start()
        except (SettingError, JournalError, CannotListenError) as failed:
            print(f"jobqueue: {failed.detail}", file=sys.stderr)
            return 2 if isinstance(failed, SettingError) else 1
        await self.serve()
        return await self.stop()

    # -- start --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens everything and accepts connections. Raises `SettingError`, `JournalError`,
        `CannotListenError`."""
        settings = self._settings
        self._tls = Tls(settings)
        self._engine = self._open_engine()
        self._dispatcher = dispatcher = Dispatcher(self._engine)
        self._access_log = log.AccessLog(settings.access_log)
        dispatcher.access = self._access_log.request
        self._front = front = self._make_front()
        limit = connection_limit(settings.max_connections)
        front.peers.limit = settings.max_connections_by_address or max(limit // 2, 1)
        server = dispatcher.server
        server.connections = front.connections
        server.max_connections = limit
        server.max_connections_by_address = front.peers.limit
        self._port = self._listen(limit)
        self._gc = GcControl(lambda: sum(self._engine.stats().jobs.values()))
        watchdog = Watchdog()
        server.lag = lambda: watchdog.lag
        server.more_metrics.append(watchdog.metrics)
        self._background: list[Ticker | GcControl | Watchdog] = [
            Ticker(self._access_log.flush, 1000),
            Ticker(lambda: front.sweep(_PARTS), _MS_A_PART),
            self._gc,
            watchdog,
        ]
        for each in self._background:
            each.start()
        self._watch_signals()
        self._gc.freeze()
        self._report("start", self._start_line())

    def _open_engine(self) -> LocalEngine:
        settings = self._settings
        if settings.data is None:
            engine = LocalEngine(settings)
        else:
            engine = open_journal(DataDir(settings.data), settings)
            engine.on_failure = self._fail
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
        by_path = settings.host.startswith("unix:")
        try:
            listening = bind(settings.host, settings.port)
        except OSError as failed:
            self._engine.close()
            address = settings.host if by_path else f"{settings.host} port {settings.port}"
            in_use = failed.errno == errno.EADDRINUSE and not by_path
            hint = "; set JOBQUEUE_PORT to use another port" if in_use else ""
            raise CannotListenError(
                f"cannot listen on {address}: {failed.strerror or failed}{hint}"
            ) from None
        self._listener = Listener(listening, limit, front.connections, front.take, front.peers)
        return 0 if by_path else int(listening.getsockname()[1])

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if self._settings.tokens_file is not None or self._tls.context is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self._second_signal if self._stop_signal.is_set() else self._stop_signal).set()

    def _reload(self) -> None:
        """Reads certificates and tokens again (SIGHUP). A bad file changes nothing."""
        auth = self._dispatcher.auth
        try:
            self._tls.reload()
            if auth is not None:
                auth.reload()
        except SettingError as bad:
            _log.error("not reloaded: %s", bad.detail)
        else:
            _log.info("reloaded; access tokens: %d", len(auth) if auth is not None else 0)

    # -- serve --------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Loads the journal, and serves until a signal or a failure of the journal."""
        loading = asyncio.ensure_future(self._load())
        await self._stop_signal.wait()
        loading.cancel()

    async def _load(self) -> None:
        if self._settings.data is None:
            return
        started = time.monotonic()
        try:
            jobs = await self._engine.load()
        except JournalError as bad:
            self._fail(bad.detail, 1)
            return
        except Exception as bug:
            _log.exception("unexpected error")
            self._fail(f"the journal could not be read: {bug}", 1)
            return
        self._gc.freeze()
        self._report("loaded", f"loaded {jobs:,} jobs in {time.monotonic() - started:.1f} s")

    def _fail(self, reason: str, status: int = 74) -> None:
        """Stops because the journal cannot be read, or no longer be written."""
        print(f"jobqueue: {reason}", file=sys.stderr, flush=True)
        self._status = status
        self._stop_signal.set()

    # -- stop ---------------------------------------------------------------------------------------

    async def stop(self) -> int:
        """Lets what is under way end, for `settings.drain` at most, and closes everything. Returns the exit
        status."""
        engine, front = self._engine, self._front
        loaded = engine.refuses is None
        engine.stop_waiting()
        cut_short = False
        share = 1.0 if self._settings.data is None else 0.5
        if loaded and self._settings.data is not None:
            # Workers are often stopped at the same moment: what they have finished is still taken and kept.
            cut_short = await self._drain(lambda: front.busy() + engine.stats().jobs["in_progress"], share)
        self._listener.close()
        front.drain()
        cut_short = cut_short or await self._drain(front.busy, share)
        front.close()
        for _ in range(_PASSES):  # until the connections have given back the jobs they had not sent
            await asyncio.sleep(0)
        engine.close()
        for each in self._background:
            each.stop()
        self._access_log.flush()
        if loaded and not self._status:
            self._report("stop", self._stop_line())
        return self._status or int(cut_short)

    async def _drain(self, busy: Callable[[], int], share: float) -> bool:
        """Waits while `busy`, for this share of `settings.drain` at most. True: a second signal cut it
        short."""
        until = time.monotonic() + share * self._settings.drain / 1000
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
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "http" if settings.tls_cert is None else "https"
        address = f"{scheme}://{host}:{self._port}" if self._port else settings.host
        compiled = "" if str(local.__file__).endswith(".py") else ", compiled"
        kept = "memory only: a stop loses all jobs"
        if settings.data is not None:
            kept = f"journal in {settings.data}, sync {settings.sync}"
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
        jobs = self._engine.stats().jobs
        fate = "discarded" if self._settings.data is None else "kept"
        return (
            f"stopped; {jobs['queued']:,} queued, {jobs['in_progress']:,} in progress, "
            f"{jobs['scheduled']:,} scheduled jobs {fate}"
        )

    def _report(self, event: str, line: str) -> None:
        """Prints a line whatever the log level."""
        if self._settings.log_format == "json":
            line = log.json_line({"event": event, "message": line})
        print(line, file=sys.stderr, flush=True)
