"""Member: one of the servers that share a PostgreSQL database. It is in turn

    on standby    another server is the owner of the jobs: connections are passed on to that one (`Passing`)
    the owner     it has the jobs in memory, and serves (`Program`)

It goes from one to the other without ending: the listening sockets stay, and what arrives meanwhile waits in
them.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from jobqueue.cluster.link import connect, reason
from jobqueue.server.listener import CannotListenError, Listener, bind, connection_limit, listen
from jobqueue.server.passing import Passing
from jobqueue.settings import Settings
from jobqueue.storage.postgres_session import Place, Silent
from jobqueue.storage.postgres_watch import INTERVAL, Watch
from jobqueue.storage.store import JournalError, Unavailable

_log = logging.getLogger("jobqueue")
# Seconds that connecting to itself may take.
_REACH = 2.0


class Sockets:
    """The listening sockets of a member: for clients, and for the other servers. Raises
    `CannotListenError`."""

    def __init__(self, settings: Settings) -> None:
        self.clients = listen(settings.host, settings.port)
        self.by_path = self.clients.family == socket.AF_UNIX
        self.port = 0 if self.by_path else int(self.clients.getsockname()[1])
        host, port = _advertised(settings)
        every = "::" if ":" in host else "0.0.0.0"
        try:
            self.servers = bind(every if self.by_path else settings.host, port)
        except OSError as failed:
            raise CannotListenError(f"cannot listen on port {port}: {failed.strerror}") from None
        if not port:
            port = self.servers.getsockname()[1]
        self.place = Place(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", os.urandom(16).hex())

    def close(self) -> None:
        if self.by_path:
            with suppress(OSError):
                os.unlink(self.clients.getsockname())
        self.clients.close()
        self.servers.close()


def _advertised(settings: Settings) -> tuple[str, int]:
    """Returns the host and the port at which other servers find this one; port 0: any."""
    given = settings.advertise
    if given is None:
        return _own_address(settings.host), 0
    host, _, port = given.rpartition(":")
    if not host or given.endswith("]"):
        return given.strip("[]"), 0
    return host.strip("[]"), int(port)


async def warn_unless_reached(settings: Settings, place: Place) -> None:
    """Warns if `JOBQUEUE_ADVERTISE` does not lead to this server."""
    if settings.advertise is None:
        return
    try:
        async with asyncio.timeout(_REACH):
            (await connect(place.address)).close()
    except (OSError, UnicodeError) as failed:
        _log.warning(
            "JOBQUEUE_ADVERTISE=%s does not lead to this server: %s. If other servers cannot reach it there, "
            "they cannot pass connections on to it",
            settings.advertise,
            reason(failed),
        )


def _own_address(host: str) -> str:
    """Returns `host` if it is an address of its own, else the one by which this machine reaches others."""
    if host not in ("0.0.0.0", "::", "") and not host.startswith("unix:"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # an address for documents; nothing is sent
        return str(probe.getsockname()[0])
    return "127.0.0.1"


class Standby:
    """Passes connections on until this server is to be the owner, or `stopped` is set."""

    def __init__(
        self, settings: Settings, sockets: Sockets, stopped: asyncio.Event, report: Callable[[str], None]
    ) -> None:
        assert settings.data is not None
        self._settings = settings
        self._sockets = sockets
        self._stopped = stopped
        self._report = report
        self._watch = Watch(settings.data, sockets.place)
        self._passing: Passing | None = None
        self._away = False

    async def wait(self, at_once: bool) -> tuple[Silent | None, list[tuple[socket.socket, str]]] | None:
        """Returns whom to replace, if anybody, and the clients that wait; None after a stop. `at_once`: the
        first look is also the last if the database does not answer it. Raises `JournalError` if that look
        finds that the database cannot be used."""
        listener: Listener | None = None
        try:
            while not self._stopped.is_set():
                found = await self._look(at_once)
                if found is not False:
                    waiting = [] if self._passing is None else self._passing.close()
                    return None if found is True else found, waiting
                at_once = False
                if self._passing is None:
                    self._passing = Passing(self._settings.tls_cert is not None, self._settings.write_timeout)
                    limit = connection_limit(self._settings.max_connections)
                    own = self._sockets.clients.dup()
                    own.setblocking(False)
                    listener = Listener(own, limit, self._passing.count, self._passing.take, keep=True)
                    self._report(f"standby; {self._watch.whose} is the owner of the jobs")
                self._passing.send_to(self._watch.owner)
                await self._pause()
            if self._passing is not None:
                for client, _ in self._passing.close():
                    client.close()
            return None
        finally:
            if listener is not None:
                listener.close()
            await self._watch.close(for_good=True)

    async def _look(self, at_once: bool) -> Silent | bool:
        try:
            found = await self._watch.look()
        except Exception as bad:
            if at_once:
                if isinstance(bad, JournalError):
                    raise
                return True  # opening the database waits for it, and reports why it does not answer
            if not self._away:
                why = bad.detail if isinstance(bad, (JournalError, Unavailable)) else str(bad)
                _log.warning("this server cannot stand by: %s", why)
            self._away = True
            return False
        if self._away:
            _log.info("this server stands by again")
            self._away = False
        return found

    async def _pause(self) -> None:
        """Waits for the next look: an interval, or less if the owner has ended its session."""
        self._watch.woken.clear()
        waits = [
            asyncio.ensure_future(self._watch.woken.wait()), asyncio.ensure_future(self._stopped.wait())
        ]  # fmt: skip
        await asyncio.wait(waits, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
