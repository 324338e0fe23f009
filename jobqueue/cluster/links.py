"""Links: the connections of one server to the others of its cluster, in both directions."""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from jobqueue.cluster.engine import ClusterEngine
from jobqueue.cluster.link import Link
from jobqueue.cluster.link_tls import LinkTls, proof
from jobqueue.cluster.peer import PASSES_CALLS, UNREAD, Peer
from jobqueue.cluster.serving import Servings
from jobqueue.engine.local import LocalEngine
from jobqueue.model import Job
from jobqueue.steps import Kind
from jobqueue.storage.postgres_session import Place

# Seconds in which a server that owns nothing any more may answer the calls that are under way.
_PATIENCE: Final = 2.0


class Links:
    """`listening`: the socket on which other servers connect. `place`: where they find it. `tls`: None: they
    speak in the clear."""

    def __init__(
        self, engine: ClusterEngine, listening: socket.socket, place: Place, tls: LinkTls | None = None
    ) -> None:
        self._engine = engine
        self._place = place
        self._peers: dict[Place, Peer] = {}
        self._unused: dict[Place, float] = {}  # since when a connection is to be closed
        self._passed_on = 0  # calls, over connections that are closed
        self._observer: Callable[[Kind, Job | str], None] | None = None
        self._calling = tls.calling if tls is not None else None
        self.servings = Servings(
            self._own,
            engine.clock,
            None if tls is None else tls.accepting,
            b"" if tls is None else proof(place.secret, tls.certificate),
            engine.settings.advertise_url,
        )
        self.servings.on_watchers = self._watch_own
        engine.on_watch = self._watch
        self._link = Link(listening, place.secret, self._take, UNREAD)

    def _own(self, shard: int) -> LocalEngine | None:
        shards = self._engine.shards
        return shards[shard].engine if shard < len(shards) else None

    def _take(self, link: socket.socket, said: str) -> None:
        if said.startswith(PASSES_CALLS):
            self.servings.take(link)
        else:
            link.close()

    # -- other servers ------------------------------------------------------------------------------

    def peer(self, place: Place) -> Peer:
        """Returns the connection to another server, which is made if there is none."""
        peer = self._peers.get(place)
        if peer is None:
            peer = self._peers[place] = Peer(place, self._place.address, self._engine.clock, self._calling)
            if self._observer is not None:
                peer.watch(self._observer)
        return peer

    def passed_on(self) -> int:
        """Returns how many calls were passed on to other servers since the start."""
        return self._passed_on + sum(peer.passed_on for peer in self._peers.values())

    def keep_only(self, places: Iterable[Place]) -> None:
        """Closes the connections to other servers than these; those with calls under way after `_PATIENCE`: a
        server that stops answers them, and one that stands still does not."""
        now, kept = time.monotonic(), set(places)
        for place in list(self._peers):
            if place in kept:
                self._unused.pop(place, None)
            elif not self._peers[place].busy or now - self._unused.setdefault(place, now) > _PATIENCE:
                self._close(place)

    def _close(self, place: Place) -> None:
        peer = self._peers.pop(place)
        self._unused.pop(place, None)
        self._passed_on += peer.passed_on
        peer.close()

    # -- events -------------------------------------------------------------------------------------

    def _watch(self, observer: Callable[[Kind, Job | str], None] | None) -> None:
        self._observer = observer
        self._watch_own()
        for peer in self._peers.values():
            peer.watch(observer)

    def _watch_own(self) -> None:
        for engine in self._engine.own:
            self.watch(engine)

    def watch(self, engine: LocalEngine) -> None:
        """Watches an engine of this server, if anybody wants to know what happens in it."""
        wanted = self._observer is not None or bool(self.servings.watchers)
        engine.watch(self._event if wanted else None)

    def _event(self, kind: Kind, subject: Job | str) -> None:
        if self._observer is not None:
            self._observer(kind, subject)
        self.servings.event(kind, subject)

    def close(self) -> None:
        self._link.close()
        self.servings.close()
        for place in list(self._peers):
            self._close(place)
