"""ClusterProgram: a server of a database with several shards. It always serves, owns some of the shards, and
passes on what is asked of the others."""

import asyncio
import sys
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from jobqueue.cluster.engine import ClusterEngine
from jobqueue.cluster.keeper import Keeper
from jobqueue.cluster.link_tls import link_tls
from jobqueue.cluster.links import Links
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.memory_limit import default_limit
from jobqueue.engine.opening import check_sync, open_database
from jobqueue.server.log_writer import LogWriter
from jobqueue.server.member import Sockets
from jobqueue.server.program import Program
from jobqueue.server.signals import Signals
from jobqueue.settings import Settings
from jobqueue.storage.postgres_schema import Schema
from jobqueue.storage.postgres_session import Silent
from jobqueue.storage.postgres_watch import INTERVAL, ShardsWatch
from jobqueue.storage.shared_writer import SharedWriter


class ClusterProgram(Program):
    """`sockets`: of this server. `schema`: what its database says."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        out: LogWriter,
        signals: Signals,
        sockets: Sockets,
        schema: Schema,
    ) -> None:
        super().__init__(settings, environ, out, signals, sockets=sockets)
        assert settings.data is not None
        self._place = sockets.place
        self._servers = sockets.servers
        self._schema = schema
        self._shards = f", {schema.shards} shards"
        self._watch = ShardsWatch(settings.data, sockets.place, schema.shards)

    def _open_engine(self) -> ClusterEngine:
        check_sync(self._settings)
        schema = self._schema
        engine = ClusterEngine(self._settings, schema.shards, schema.identity, bytes.fromhex(schema.secret))
        engine.memory_limit.limit = engine.memory_limit.limit or default_limit()
        engine.members_seen = lambda: self._watch.members
        sys.setswitchinterval(0.0005)  # the writer threads should not wait 5 ms for each turn
        self._cluster = engine
        assert self._settings.data is not None
        self._writer = SharedWriter(self._settings.data)
        self._writer.start()
        return engine

    def _connect_servers(self) -> None:
        settings = self._settings
        tls = None if settings.tls_cert is None else link_tls(settings.tls_cert, settings.tls_key)
        self._links = Links(self._cluster, self._servers.dup(), self._place, tls)
        self._keeper = Keeper(
            self._cluster, self._links, self._watch, self._place, self._open_shard, INTERVAL, self._say
        )

        self._dispatcher.server.more_metrics.append(self._metrics)

    def _metrics(self) -> Iterator[Metric]:
        shards = self._cluster.shards
        yield GaugeMetricFamily(
            "jobqueue_cluster_shards",
            "Shards that this server owns.",
            sum(each.engine is not None for each in shards),
        )
        yield GaugeMetricFamily(
            "jobqueue_cluster_shards_without_owner",
            "Shards that no server owns, as far as this one knows.",
            sum(each.engine is None and each.peer is None for each in shards),
        )
        yield CounterMetricFamily(
            "jobqueue_cluster_takeovers",
            "Shards that this server took from one that had not handed them over.",
            self._keeper.takeovers,
        )
        yield CounterMetricFamily(
            "jobqueue_cluster_calls_passed_on",
            "Calls that this server passed on to others.",
            self._links.passed_on(),
        )

    def _open_shard(self, shard: int, silent: Silent | None) -> LocalEngine:
        """Opens a shard that this server takes. Called on a thread."""
        settings, shards = self._settings, self._schema.shards
        assert settings.data is not None
        return open_database(
            settings.data, settings, None, 0.0, self._place, silent, shard, shards, self._writer.channel
        )

    def _say(self, line: str) -> None:
        self._out.write(f"jobqueue: {line}")

    async def _load_jobs(self) -> int:
        await self._keeper.start()
        return self._keeper.loaded

    async def stop(self) -> int:
        """Hands all shards over, and stops as any server does. The only server keeps them to the end, so that
        workers that are stopped at the same moment can conclude what they have finished."""
        if len(self._watch.servers) > 1:
            await self._hand_over()
        status = await super().stop()
        await self._keeper.stop()
        self._links.close()
        await self._watch.close(for_good=True)
        self._writer.close()
        return status

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(self._settings.drain / 2000):
                await self._keeper.leave()
        except TimeoutError:
            self._say("the database does not answer; other servers take over")

    def _stop_line(self) -> str:
        return super()._stop_line() if self._cluster.own else "stopped; other servers take over its shards"
