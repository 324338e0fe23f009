"""The program's entry: settings, a loop, and what is served until a signal.

With a PostgreSQL database that has one shard a server is in turn on standby and the owner of the jobs. With
one that has several it always serves, and owns some of them."""

import asyncio
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping

from jobqueue.engine.opening import prepare_shards
from jobqueue.errors import SettingError
from jobqueue.server import log
from jobqueue.server.listener import CannotListenError
from jobqueue.server.log_writer import LogStream, LogWriter
from jobqueue.server.member import Sockets, Standby, warn_unless_reached
from jobqueue.server.program import PATIENCE, Program, Turn, address_of, report
from jobqueue.server.signals import Signals, hold
from jobqueue.settings import Settings, is_database, is_foreign
from jobqueue.storage.postgres_setup import read_schema
from jobqueue.storage.store import JournalError
from jobqueue.version import VERSION

_log = logging.getLogger("jobqueue")


def main(environ: Mapping[str, str]) -> int:
    """Serves until a signal. Returns the exit status: 0 stopped, 1 could not serve or stopped by a second
    signal, 2 a bad setting, 74 the journal could not be written."""
    hold()
    out = LogWriter()
    sys.stderr = LogStream(out)
    signals = Signals(out)
    try:
        return _serve(environ, out, signals)
    except Exception:
        _log.exception("unexpected error")
        return 1
    finally:
        out.stop()


def _serve(environ: Mapping[str, str], out: LogWriter, signals: Signals) -> int:
    try:
        settings = Settings.from_environment(environ)
    except SettingError as bad:
        out.write(f"jobqueue: {bad.detail}")
        return 2
    log.configure(settings.log_level, settings.log_format, out)
    if is_foreign("JOBQUEUE_PORT", environ.get("JOBQUEUE_PORT", "")):
        port = environ["JOBQUEUE_PORT"]
        _log.warning("JOBQUEUE_PORT=%s is set by Kubernetes and is not a port number: ignored", port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if settings.data is not None and is_database(settings.data):
            return runner.run(_share(settings, environ, out, signals))
        return runner.run(Program(settings, environ, out, signals).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop if it is installed: it is faster."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


async def _share(settings: Settings, environ: Mapping[str, str], out: LogWriter, signals: Signals) -> int:
    """Serves with the other servers of a database. Returns the exit status."""
    try:
        shards = prepare_shards(settings, PATIENCE)
        sockets = Sockets(settings)
    except (SettingError, JournalError, CannotListenError) as failed:
        out.write(f"jobqueue: {failed.detail}")
        return 2 if isinstance(failed, SettingError) else 1
    try:
        await warn_unless_reached(settings, sockets.place)
        if shards == 1:
            return await _take_turns(settings, environ, out, signals, sockets)
        try:
            from jobqueue.server.cluster_program import ClusterProgram
        except ImportError:
            raise JournalError(
                f"a database with {shards} shards needs the package greenlet: pip install "
                "'jobqueue-http[server,postgres]'"
            ) from None
        assert settings.data is not None
        schema = read_schema(settings.data, PATIENCE)
        return await ClusterProgram(settings, environ, out, signals, sockets, schema).run()
    except JournalError as refused:
        out.write(f"jobqueue: {refused.detail}")
        return 1
    finally:
        sockets.close()


async def _take_turns(
    settings: Settings, environ: Mapping[str, str], out: LogWriter, signals: Signals, sockets: Sockets
) -> int:
    """Stands by, is the owner, and stands by again, until a signal. Returns the exit status."""
    line = f"jobqueue {VERSION} on {address_of(settings, sockets.port)} is on "
    stopped = asyncio.Event()

    def take_signals() -> None:
        # Tokens and certificates are read when this server becomes the owner.
        signals.serve(stopped.set, lambda: None, settings.drain / 1000, 1)

    def say(state: str) -> None:
        take_signals()
        report(settings, out, line + state)

    first = True
    while True:
        if not first:
            take_signals()
        standby = Standby(settings, sockets, stopped, say)
        if (found := await standby.wait(at_once=first)) is None:
            return 0
        program = Program(settings, environ, out, signals, Turn(sockets, *found, first, stopped))
        status = await program.run()
        if not program.lost or program.was_signalled:
            return status
        first = False
