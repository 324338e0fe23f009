"""A cluster whose servers are in one process: engines in memory, and real connections between them."""

import asyncio
from collections.abc import Sequence
from socket import create_server

from jobqueue.clock import Clock
from jobqueue.cluster.engine import ClusterEngine
from jobqueue.cluster.link_tls import LinkTls
from jobqueue.cluster.links import Links
from jobqueue.cluster.transfers import Transfers
from jobqueue.engine.local import LocalEngine
from jobqueue.settings import Settings
from jobqueue.shards import first_id_of, shard_of_queue
from jobqueue.storage.postgres_session import Place

SHARDS = 8
IDENTITY = "c0ffee"
SECRET = b"s" * 32


class Server:
    """One server: an engine over all shards, and links to the other servers."""

    def __init__(
        self, settings: Settings, shards: int, tls: LinkTls | None = None, clock: Clock | None = None
    ) -> None:
        listening = create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.place = Place(f"127.0.0.1:{listening.getsockname()[1]}", "secret")
        self.engine = ClusterEngine(settings, shards, IDENTITY, SECRET, clock)
        self.engine.refuses = None
        self.links = Links(self.engine, listening, self.place, tls)

    def close(self) -> None:
        self.links.close()


class InProcess:
    """`servers[n].engine` is that of a server. Shard n is owned by server n modulo their number. `urls`: at which
    clients reach the servers."""

    def __init__(
        self,
        servers: int = 3,
        shards: int = SHARDS,
        tls: Sequence[LinkTls | None] = (None, None, None),
        clock: Clock | None = None,
        urls: Sequence[str | None] = (None, None, None),
        **given: object,
    ) -> None:
        self.servers = [
            Server(Settings(**given, advertise_url=urls[number]), shards, tls[number], clock)
            for number in range(servers)
        ]
        self.engines = [
            LocalEngine(Settings(**given, first_id=first_id_of(shard, 0)), clock, None, IDENTITY, SECRET)
            for shard in range(shards)
        ]
        self.owners = [shard % servers for shard in range(shards)]
        for shard, engine in enumerate(self.engines):
            engine.own_only(lambda name, shard=shard: shard_of_queue(name, shards) == shard)
        for number in range(servers):
            self._tell(number)

    def _tell(self, number: int) -> None:
        """Tells a server who owns what."""
        server = self.servers[number]
        server.engine.own = [
            engine for shard, engine in enumerate(self.engines) if self.owners[shard] == number
        ]
        for shard in server.engine.shards:
            owner = self.owners[shard.index]
            if owner == number:
                shard.owned_by(self.engines[shard.index], None)
            elif owner < 0:
                shard.owned_by(None, None)
            else:
                shard.owned_by(None, server.links.peer(self.servers[owner].place))
        for engine in server.engine.own:
            server.links.watch(engine)

    def hand_over(self, shard: int, to: int) -> None:
        """`to`: a server; -1: nobody."""
        self.owners[shard] = to
        for number in range(len(self.servers)):
            self._tell(number)

    async def transfer(self) -> None:
        """Moves the jobs that belong to other shards."""
        for shard, engine in enumerate(self.engines):
            owner = self.servers[self.owners[shard]].engine
            transfers = Transfers(
                lambda name, owner=owner: owner.shards[shard_of_queue(name, len(owner.shards))]
            )
            while await transfers.run(engine):
                pass

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        for engine in self.engines:
            engine.close()
        await asyncio.sleep(0.01)


def queues_of_servers(servers: int, shards: int = SHARDS, each: int = 1) -> list[list[str]]:
    """Returns names of queues whose shards each server of an `InProcess` owns."""
    found: list[list[str]] = [[] for _ in range(servers)]
    number = 0
    while any(len(names) < each for names in found):
        name = f"queue{number}"
        number += 1
        names = found[shard_of_queue(name, shards) % servers]
        if len(names) < each:
            names.append(name)
    return found
