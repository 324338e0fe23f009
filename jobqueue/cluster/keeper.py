"""Keeper: takes shards for this server, and hands them over, by what it sees in the database.

Each look shows which servers live, and who owns each shard. From the servers follows who is to own which
(`assignment`), and all servers come to the same answer.

    nobody owns it, or its owner is silent, and it is to be ours  ─▶ take it, load it, serve it
    the same, and it is to be another server's, which does not    ─▶ take it after `_SPARE` looks
    it is ours and is to be another server's for `_SURE` looks    ─▶ end its waits, commit, give it up
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from jobqueue.cluster.assignment import assigned
from jobqueue.cluster.engine import ClusterEngine
from jobqueue.cluster.links import Links
from jobqueue.cluster.shard import Shard
from jobqueue.cluster.transfers import Transfers
from jobqueue.engine.local import LocalEngine
from jobqueue.shards import shard_of_queue
from jobqueue.storage.postgres_session import OtherOwner, Place, SessionLost, Silent
from jobqueue.storage.store import JournalError, Unavailable

_log: Final = logging.getLogger("jobqueue")
# Looks for which a shard without an owner is left to the server that is to have it; and for which this one
# keeps a shard that is to be another server's.
_SPARE: Final = 3
_SURE: Final = 2
# Seconds between two searches for jobs that belong to other shards.
_TRANSFERS: Final = 0.05
# Shards that are loaded at the same time.
_LOADING: Final = 4


class Found(Protocol):
    """What a look shows of one shard. `replace`: False: it has an owner; True: it has none; `Silent`: its
    owner has gone or hangs."""

    @property
    def owner(self) -> Place | None: ...

    @property
    def replace(self) -> Silent | bool: ...


class Watcher(Protocol):
    """What looks at the database. `servers`: the addresses of those that live. `woken` is set when it is
    worth while to look at once."""

    woken: asyncio.Event

    @property
    def servers(self) -> Sequence[str]: ...

    async def look(self) -> Sequence[Found]:
        """Returns what it finds of each shard. Raises `Unavailable` or `JournalError`."""

    async def leave(self) -> None:
        """Tells the others that this server is to own nothing any more."""


class Keeper:
    """`open_shard(index, silent)`: returns an engine for a shard that is to be loaded; called on a thread.
    `interval`: seconds between two looks. `say`: prints a line."""

    def __init__(
        self,
        engine: ClusterEngine,
        links: Links,
        watch: Watcher,
        place: Place,
        open_shard: Callable[[int, Silent | None], LocalEngine],
        interval: float,
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._links = links
        self._watch = watch
        self._place = place
        self._open_shard = open_shard
        self._interval = interval
        self._say = say
        count = len(engine.shards)
        self._vacant = [0] * count  # looks since a shard had an owner
        self._unwanted = [0] * count  # looks since it was to be another server's
        self._changing: dict[int, asyncio.Task[None]] = {}  # it is being taken or given up
        self._loading = asyncio.Semaphore(_LOADING)
        self._transfers = Transfers(lambda name: engine.shards[shard_of_queue(name, count)])
        self._bad: dict[int, JournalError] = {}  # shards that could not be taken, which was logged
        self._tasks: list[asyncio.Task[None]] = []
        self._away = False
        self._leaving = False
        self.takeovers = 0  # shards taken from an owner that had not given them up
        self.loaded = 0  # jobs

    async def start(self) -> None:
        """Looks for the first time, and takes what is to be ours. Raises `Unavailable`, and `JournalError`
        also if one shard cannot be loaded."""
        self._see(await self._watch.look())
        while self._changing:
            await asyncio.wait(self._changing.values())
        if self._bad:
            raise next(iter(self._bad.values()))
        self._engine.refuses = None
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look_on()), loop.create_task(self._transfer())]

    async def leave(self) -> None:
        """Gives up all shards. What is asked of them goes to their next owners."""
        self._leaving = True
        while self._changing:
            await asyncio.wait(self._changing.values())
        await self._watch.leave()
        await asyncio.gather(
            *(self._give_up(shard) for shard in self._engine.shards if shard.engine is not None)
        )

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- looking ------------------------------------------------------------------------------------

    async def _look_on(self) -> None:
        while True:
            woken = self._watch.woken
            woken.clear()
            try:
                async with asyncio.timeout(self._interval):
                    await woken.wait()
            except TimeoutError:
                pass
            try:
                self._see(await self._watch.look())
            except (JournalError, Unavailable) as bad:
                if not self._away:
                    self._away = True
                    _log.warning("this server does not see the others: %s", bad.detail)
            except Exception:
                _log.exception("unexpected error")
            else:
                if self._away:
                    self._away = False
                    _log.info("this server sees the others again")
            self._links.servings.tell_clock()

    def _see(self, found: Sequence[Found]) -> None:
        servers = self._watch.servers
        own = self._place.address
        to_be = assigned(servers, len(found)) if servers else []
        used: set[Place] = set()
        for shard, seen in zip(self._engine.shards, found, strict=True):
            index = shard.index
            if seen.owner is not None and seen.owner != self._place:
                used.add(seen.owner)
            if index in self._changing:
                continue
            if shard.engine is not None:
                away = bool(to_be) and to_be[index] != own
                self._unwanted[index] = self._unwanted[index] + 1 if away else 0
                if self._unwanted[index] >= _SURE and not self._leaving:
                    self._begin(shard, self._give_up(shard))
                continue
            self._unwanted[index] = 0
            owner = seen.owner if seen.replace is False and seen.owner != self._place else None
            shard.owned_by(None, self._links.peer(owner) if owner is not None else None)
            if seen.replace is False:
                self._vacant[index] = 0
                continue
            self._vacant[index] += 1
            if not self._leaving and own in servers and (to_be[index] == own or self._vacant[index] > _SPARE):
                silent = seen.replace if isinstance(seen.replace, Silent) else None
                self._begin(shard, self._take(shard, silent))
        self._links.keep_only(used)

    def _begin(self, shard: Shard, change: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(change)
        self._changing[shard.index] = task
        task.add_done_callback(lambda _: self._changing.pop(shard.index, None))

    # -- taking and giving up -----------------------------------------------------------------------

    async def _take(self, shard: Shard, silent: Silent | None) -> None:
        engine: LocalEngine | None = None
        try:
            async with self._loading:
                loop = asyncio.get_running_loop()
                engine = await loop.run_in_executor(None, self._open_shard, shard.index, silent)
                engine.on_failure = partial(self._lost, shard, engine)
                count = await engine.load()
                self.loaded += count  # not `+= await`: others load meanwhile
        except (OtherOwner, SessionLost):
            pass
        except JournalError as bad:
            if shard.index not in self._bad:
                _log.error("shard %d cannot be taken: %s", shard.index, bad.detail)
            self._bad[shard.index] = bad
        except Unavailable as away:
            _log.warning("shard %d could not be taken: %s", shard.index, away.detail)
        except asyncio.CancelledError:
            if engine is not None:
                engine.close()
            raise
        except Exception:
            _log.exception("unexpected error")
        else:
            self._bad.pop(shard.index, None)
            if not engine.stopping:  # else it was lost while it was loaded
                self._serve(shard, engine)
                self.takeovers += silent is not None
                return
        if engine is not None:
            engine.close()

    def _serve(self, shard: Shard, engine: LocalEngine) -> None:
        count = len(self._engine.shards)
        engine.memory_limit.limit = self._engine.memory_limit.limit
        engine.own_only(lambda name: shard_of_queue(name, count) == shard.index)
        if self._engine.arriving is not None:
            engine.watch_arrivals(self._engine.arriving)
        self._engine.own.append(engine)
        self._links.watch(engine)
        self._vacant[shard.index] = 0
        shard.owned_by(engine, None)
        if self._engine.stopping:
            engine.stop_waiting()

    async def _give_up(self, shard: Shard) -> None:
        """Ends what goes on in a shard, commits it, and lets another server have it."""
        engine = shard.engine
        if engine is None:  # it was lost before this began
            return
        shard.owned_by(None, None)
        self._engine.own.remove(engine)
        engine.stop_waiting()
        committed = engine.after_commit(None)
        if isinstance(committed, Future):
            await asyncio.wait([committed])
        engine.close()
        self._watch.woken.set()

    def _lost(self, shard: Shard, engine: LocalEngine, error: Exception) -> None:
        """Another server has taken a shard, or its changes can no longer be written."""
        if shard.engine is engine:
            shard.owned_by(None, None)
            self._engine.own.remove(engine)
        if isinstance(error, SessionLost):
            self._say(f"shard {shard.index}: {error}")
        else:
            _log.error("shard %d is given up: %s", shard.index, error)
        asyncio.get_running_loop().call_soon(engine.close)

    # -- jobs that belong elsewhere -----------------------------------------------------------------

    async def _transfer(self) -> None:
        while True:
            await asyncio.sleep(_TRANSFERS)
            for engine in list(self._engine.own):
                try:
                    if engine.foreign_queues():
                        await self._transfers.run(engine)
                except Exception:
                    _log.exception("unexpected error")
