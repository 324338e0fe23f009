"""The program: an engine, a front, a listening socket, and the way up and down."""

import asyncio
import errno
import importlib.util
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping

from jobqueue.engine import local
from jobqueue.engine.api import Engine
from jobqueue.engine.local import LocalEngine, open_journal
from jobqueue.engine.memory_limit import default_limit
from jobqueue.engine.ticker import Ticker
from jobqueue.errors import SettingError
from jobqueue.server import log
from jobqueue.server.front import Front
from jobqueue.server.gc_control import GcControl
from jobqueue.server.listener import SPARE_DESCRIPTORS, Listener, bind, raise_file_limit
from jobqueue.server.tls import Tls
from jobqueue.server.watchdog import Watchdog
from jobqueue.settings import Settings, is_foreign
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.store import JournalError
from jobqueue.version import VERSION
from jobqueue.web.app import application
from jobqueue.web.dispatch import Dispatcher

_log = logging.getLogger("jobqueue")
# Connections are looked at once in two seconds, a part at a time; seconds between the parts.
_PARTS = 20
_A_PART = 0.1
# Of the loop, after which a connection that was cut has told all whom it concerns.
_PASSES = 5


def main(environ: Mapping[str, str]) -> int:
    """Serves until a signal; the exit status: 0 stopped, 1 could not serve or was told twice, 2 a setting,
    74 the journal could not be written."""
    try:
        settings = Settings.from_environment(environ)
    except SettingError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 2
    log.configure(settings.log_level, settings.log_format)
    if is_foreign("JOBQUEUE_PORT", environ.get("JOBQUEUE_PORT", "")):
        _log.warning("JOBQUEUE_PORT=%s is Kubernetes's, not a port: ignored", environ["JOBQUEUE_PORT"])
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(Program(settings, environ).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: it is faster, and means the same."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


class Program:
    """One running server. `environ`: in which there may be what is not for it, and is mentioned."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._port_of_runner = environ.get("PORT")
        self._token_of_workers = "JOBQUEUE_TOKEN" in environ
        self._stop = asyncio.Event()
        self._second_signal = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        settings = self._settings
        try:
            tls = Tls(settings)
            engine = self._engine()
            api = Dispatcher(engine)
        except (SettingError, JournalError) as bad:
            print(f"jobqueue: {bad.detail}", file=sys.stderr)
            return 2 if isinstance(bad, SettingError) else 1
        try:
            listening = bind(settings.host, settings.port)
        except OSError as failed:
            at = settings.host if _by_path(settings) else f"{settings.host} port {settings.port}"
            taken = failed.errno == errno.EADDRINUSE and not _by_path(settings)
            said = f"{failed.strerror or failed}{'; JOBQUEUE_PORT=… chooses another' if taken else ''}"
            print(f"jobqueue: cannot listen on {at}: {said}", file=sys.stderr)
            engine.close()
            return 1
        files = raise_file_limit()
        limit = max(files - SPARE_DESCRIPTORS, files // 2)
        limit = min(limit, settings.max_connections) if settings.max_connections else limit
        access = log.AccessLog(settings.access_log)
        api.access = access.request
        front = self._front(api, access, tls)
        api.server.connections = front.connections
        api.server.max_connections = limit
        front.peers.limit = settings.max_connections_by_address or max(limit // 2, 1)
        api.server.max_connections_by_address = front.peers.limit
        listener = Listener(listening, limit, front.connections, front.take, front.peers)
        self._watch_signals(api, tls)
        collector = GcControl(lambda: sum(engine.stats().jobs.values()))
        chores = [
            Ticker(access.flush, 1000),
            Ticker(lambda: front.sweep(_PARTS), 1000 * _A_PART),
        ]
        for chore in chores:
            chore.start()
        collector.start()
        watchdog = Watchdog()
        watchdog.start()
        api.server.lag = lambda: watchdog.lag
        api.server.more_metrics.append(watchdog.metrics)
        collector.freeze()
        port = 0 if _by_path(settings) else listening.getsockname()[1]
        self._say_start(front.name, port, api)
        loading = asyncio.ensure_future(self._load(engine, collector))
        await self._stop.wait()

        loading.cancel()
        loaded = engine.refuses is None
        engine.stop_waiting()
        told_twice = 0
        if loaded and settings.data is not None:
            # Workers are stopped at the same moment: what they have finished is still taken, and kept.
            told_twice = await self._drain(lambda: front.busy() + engine.stats().jobs["in_progress"], 0.5)
        listener.close()
        front.drain()
        told_twice = told_twice or await self._drain(front.busy, 0.5 if settings.data is not None else 1)
        front.close()
        for _ in range(_PASSES):  # until the connections have given back what they had not sent
            await asyncio.sleep(0)
        engine.close()
        for chore in chores:
            chore.stop()
        collector.stop()
        watchdog.stop()
        access.flush()
        if loaded and not self._status:
            self._say_stop(engine)
        return self._status or told_twice

    def _engine(self) -> LocalEngine:
        """Raises `JournalError`."""
        settings = self._settings
        if settings.data is None:
            engine = LocalEngine(settings)
            engine.memory_limit.limit = engine.memory_limit.limit or default_limit()
            return engine
        engine = open_journal(DataDir(settings.data), settings)
        engine.on_failure = self._broken
        engine.memory_limit.limit = engine.memory_limit.limit or default_limit()
        # The writing thread does little between its waits; it should not wait 5 ms for each.
        sys.setswitchinterval(0.0005)
        return engine

    async def _load(self, engine: LocalEngine, collector: GcControl) -> None:
        if self._settings.data is None:
            return
        started = time.monotonic()
        try:
            jobs = await engine.load()
        except JournalError as bad:
            self._broken(bad.detail, 1)
            return
        except Exception as bug:
            _log.exception("unexpected error")
            self._broken(f"the journal could not be read: {bug}", 1)
            return
        collector.freeze()
        self._say("loaded", f"loaded {jobs:,} jobs in {time.monotonic() - started:.1f} s")

    def _broken(self, reason: str, status: int = 74) -> None:
        """The journal cannot be read, or not be written any more."""
        print(f"jobqueue: {reason}", file=sys.stderr, flush=True)
        self._status = status
        self._stop.set()

    def _front(self, api: Dispatcher, access: log.AccessLog, tls: Tls) -> Front:
        wanted = self._settings.http
        if wanted == "fast" or (wanted == "auto" and importlib.util.find_spec("httptools") is not None):
            from jobqueue.server.http1.front import FastFront

            return FastFront(api, access, tls)
        from jobqueue.server.tornado_front import TornadoFront

        return TornadoFront(api, application(api), tls)

    def _watch_signals(self, api: Dispatcher, tls: Tls) -> None:
        loop = asyncio.get_running_loop()
        if self._settings.tokens_file is not None or tls.context is not None:
            loop.add_signal_handler(signal.SIGHUP, _reload, api, tls)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self._second_signal if self._stop.is_set() else self._stop).set()

    async def _drain(self, busy: Callable[[], int], share: float) -> int:
        """Lets what is under way end, for that share of `settings.drain` at most. 1 if a second signal cut
        that short."""
        until = time.monotonic() + share * self._settings.drain / 1000
        # At least one pass, so that the answers to those who waited are written.
        while not self._second_signal.is_set():
            try:
                await asyncio.wait_for(self._second_signal.wait(), 0.02)
            except TimeoutError:
                if not busy() or time.monotonic() >= until:
                    return 0
        return 1

    def _say_start(self, front: str, port: int, api: Dispatcher) -> None:
        host = self._settings.host
        scheme = "http" if self._settings.tls_cert is None else "https"
        at = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        if _by_path(self._settings):
            at = host
        if self._settings.data is None:
            kept = "memory only: a stop loses all jobs"
        else:
            kept = f"journal in {self._settings.data}, sync {self._settings.sync}"
        how = front if str(local.__file__).endswith(".py") else f"{front}, compiled"
        line = f"jobqueue {VERSION} on {at} ({how}), {kept}; {_who_may_call(api)}"
        if self._port_of_runner and port and self._port_of_runner != str(port):
            line += f"; PORT={self._port_of_runner} is not read: set JOBQUEUE_PORT=$PORT to use it"
        if self._token_of_workers and api.auth is None:
            line += "; JOBQUEUE_TOKEN is what workers send: JOBQUEUE_ACCESS_TOKEN has the server want it"
        self._say("start", line)

    def _say_stop(self, engine: Engine) -> None:
        jobs = engine.stats().jobs
        gone = "discarded" if self._settings.data is None else "kept"
        self._say(
            "stop",
            f"stopped; {jobs['queued']:,} queued, {jobs['in_progress']:,} in progress, "
            f"{jobs['scheduled']:,} scheduled jobs {gone}",
        )

    def _say(self, event: str, line: str) -> None:
        """The first and the last line, whatever the level."""
        if self._settings.log_format == "json":
            line = log.json_line({"event": event, "message": line})
        print(line, file=sys.stderr, flush=True)


def _who_may_call(api: Dispatcher) -> str:
    if api.auth is not None:
        return f"access tokens: {len(api.auth)}"
    return "no tokens: open to all who reach it" + (", also what destroys" if api.settings.open_admin else "")


def _reload(api: Dispatcher, tls: Tls) -> None:
    """SIGHUP: what is good in the files holds from now on; a file that is not good changes nothing."""
    try:
        tls.reload()
        if api.auth is not None:
            api.auth.reload()
    except SettingError as bad:
        _log.error("not reloaded: %s", bad.detail)
    else:
        _log.info("reloaded; access tokens: %d", len(api.auth) if api.auth is not None else 0)


def _by_path(settings: Settings) -> bool:
    return settings.host.startswith("unix:")
