"""Which shards a server takes and hands over, by what it sees in the database."""

import asyncio
import logging
from typing import NamedTuple
from uuid import UUID

import pytest

from jobqueue.cluster.assignment import assigned
from jobqueue.cluster.keeper import Keeper
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import NotReady
from jobqueue.model import NewJob
from jobqueue.settings import Settings
from jobqueue.shards import first_id_of, shard_of_queue
from jobqueue.storage.postgres_session import OtherOwner, Place, SessionLost, Silent
from jobqueue.storage.store import JournalError, Unavailable
from tests.cluster.in_process import Server

SHARDS = 8
SILENT = Silent(UUID(int=1), 7)


def test_each_server_has_about_as_many_shards():
    for servers in (["a"], ["a", "b"], ["a", "b", "c"], list("abcdefgh"), list("abcdefghij")):
        places = assigned(servers, 16)
        counts = [places.count(server) for server in servers]
        assert max(counts) <= -(-16 // len(servers))
        assert sum(counts) == 16
    assert assigned(["a", "b"], 16).count("a") == assigned(["b", "a"], 16).count("a") == 8
    with pytest.raises(ValueError, match="no servers"):
        assigned([], 4)


def test_most_shards_stay_when_a_server_joins_or_leaves():
    for number in range(2, 8):
        before = assigned([f"10.0.0.{n}:80" for n in range(number)], 64)
        after = assigned([f"10.0.0.{n}:80" for n in range(number + 1)], 64)
        moved = sum(one != other for one, other in zip(before, after, strict=True))
        assert moved <= 2.5 * 64 / (number + 1)


class Found(NamedTuple):
    owner: Place | None
    whose: str
    replace: Silent | bool


class Database:
    """What all servers see. `opened`: the shards that a server took, and whom it replaced."""

    def __init__(self):
        self.owners = [None] * SHARDS
        self.silent = {}
        self.alive = []
        self.opened = []
        self.engines = {}  # that took a shard last
        self.away = False


class Watch:
    def __init__(self, database, place):
        self._database = database
        self._place = place
        self.woken = asyncio.Event()
        self.left = False

    @property
    def servers(self):
        return sorted(self._database.alive)

    async def look(self):
        if self._database.away:
            raise Unavailable("the database does not answer")
        for shard, engine in self._database.engines.items():
            if engine.stopping and self._database.owners[shard] == self._place:
                self._database.owners[shard] = None
        if not self.left and self._place.address not in self._database.alive:
            self._database.alive.append(self._place.address)
        return [
            Found(owner, "", self._database.silent.get(index, owner is None))
            for index, owner in enumerate(self._database.owners)
        ]

    async def leave(self):
        self.left = True
        self._database.alive.remove(self._place.address)


class Member:
    """One server with a keeper."""

    def __init__(self, database, error=None):
        self.database = database
        self.error = error
        self.server = Server(Settings(), SHARDS)
        self.engine = self.server.engine
        self.engine.refuses = "starting"
        self.watch = Watch(database, self.server.place)
        self.said = []
        self.keeper = Keeper(
            self.engine, self.server.links, self.watch, self.server.place, self.open, 0.01, self.said.append
        )

    def open(self, shard, silent):
        if self.error is not None:
            raise self.error
        self.database.opened.append((shard, silent))
        engine = LocalEngine(Settings(first_id=first_id_of(shard, 0)), None, None)
        self.database.owners[shard] = self.server.place
        self.database.silent.pop(shard, None)
        self.database.engines[shard] = engine
        return engine

    def owned(self):
        return [shard.index for shard in self.engine.shards if shard.engine is not None]

    async def stop(self):
        await self.keeper.stop()
        self.server.close()
        for engine in list(self.engine.own):
            engine.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_first_server_takes_all_shards_and_a_second_one_gets_half():
    database = Database()
    first, second = Member(database), Member(database)
    try:
        await first.keeper.start()
        assert (first.owned(), first.engine.refuses) == (list(range(SHARDS)), None)
        await second.keeper.start()
        await until(lambda: len(first.owned()) == len(second.owned()) == SHARDS // 2)
        assert sorted(first.owned() + second.owned()) == list(range(SHARDS))
        name = next(n for n in map(str, range(99)) if shard_of_queue(n, SHARDS) in second.owned())
        made = first.engine.enqueue(NewJob("t", name))
        assert (await asyncio.wait_for(made, 2)).queue == name
        assert first.keeper.takeovers == second.keeper.takeovers == 0
    finally:
        await first.stop()
        await second.stop()


async def test_a_server_that_leaves_hands_over_and_what_is_asked_meanwhile_waits():
    database = Database()
    first, second = Member(database), Member(database)
    try:
        await first.keeper.start()
        await second.keeper.start()
        await until(lambda: len(first.owned()) == len(second.owned()) == SHARDS // 2)
        name = next(n for n in map(str, range(99)) if shard_of_queue(n, SHARDS) in first.owned())
        await first.keeper.leave()
        made = first.engine.enqueue(NewJob("t", name))
        await until(lambda: len(second.owned()) == SHARDS)
        assert (await asyncio.wait_for(made, 2)).queue == name
        assert first.owned() == []
    finally:
        await first.stop()
        await second.stop()


async def test_the_shards_of_a_silent_server_are_taken():
    database = Database()
    gone = Place("10.9.9.9:1", "secret")
    database.owners = [gone] * SHARDS
    database.alive = [gone.address]
    member = Member(database)
    try:
        await member.keeper.start()
        assert member.owned() == []
        database.alive.remove(gone.address)
        database.silent = dict.fromkeys(range(SHARDS), SILENT)
        await until(lambda: len(member.owned()) == SHARDS)
        assert set(database.opened) == {(shard, SILENT) for shard in range(SHARDS)}
        assert member.keeper.takeovers == SHARDS
    finally:
        await member.stop()


async def test_a_shard_that_its_server_does_not_take_is_taken_by_another_one():
    database = Database()
    database.alive = ["10.9.9.9:1"]  # it lives, and takes nothing
    member = Member(database)
    try:
        await member.keeper.start()
        assert len(member.owned()) == SHARDS // 2
        await until(lambda: len(member.owned()) > SHARDS // 2)
    finally:
        await member.stop()


async def test_a_lost_session_gives_the_shard_up_and_the_next_look_finds_its_owner(logged):
    database = Database()
    member = Member(database)
    try:
        await member.keeper.start()
        shard = member.engine.shards[2]
        other = Place("10.9.9.9:1", "secret")
        database.owners[2] = other
        shard.engine.on_failure(SessionLost("another server has taken over"))
        assert shard.engine is None
        await until(lambda: shard.peer is not None and shard.peer.place == other)
        assert member.said == ["shard 2: another server has taken over"]
    finally:
        await member.stop()
        await asyncio.sleep(0)
        logged.clear()  # nobody is at that address


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 6])
async def test_a_shard_whose_session_is_lost_while_it_is_loaded_is_taken_again(passes):
    database = Database()
    member, loop, lost = Member(database), asyncio.get_running_loop(), []

    def lose(left):
        if left:
            loop.call_soon(lose, left - 1)
        else:
            lost[0]._commit_failed(SessionLost("another server has taken over"))

    def open_and_lose(shard, silent):
        engine = member.open(shard, silent)
        if shard == 2 and not lost:
            lost.append(engine)
            loop.call_soon_threadsafe(lose, passes)
        return engine

    member.keeper._open_shard = open_and_lose
    try:
        await member.keeper.start()
        shard = member.engine.shards[2]
        await until(lambda: shard.engine not in (None, lost[0]))
        assert shard.engine.refuses is None
        assert len(member.engine.own) == SHARDS
    finally:
        await member.stop()


async def test_a_shard_that_is_lost_as_it_is_given_up_stops_no_other():
    database = Database()
    member = Member(database)
    try:
        await member.keeper.start()
        shard, leave = member.engine.shards[2], member.watch.leave

        async def leave_and_lose():
            await leave()
            asyncio.get_running_loop().call_soon(shard.engine._commit_failed, SessionLost("taken over"))

        member.watch.leave = leave_and_lose
        await member.keeper.leave()
        assert member.owned() == member.engine.own == []
        assert all(engine.stopping for engine in database.engines.values())
    finally:
        await member.stop()


async def test_a_stop_ends_the_waits_of_all_shards_although_one_is_lost_meanwhile():
    database = Database()
    member = Member(database)
    try:
        await member.keeper.start()
        first = member.engine.own[0]
        first.when_stopping(lambda: first._failed or first._commit_failed(SessionLost("taken over")))
        member.engine.stop_waiting()
        assert all(engine.stopping for engine in database.engines.values())
    finally:
        await member.stop()


async def test_a_database_that_is_away_is_told_once_and_nothing_is_given_up(logged):
    database = Database()
    member = Member(database)
    try:
        await member.keeper.start()
        database.away = True
        await until(lambda: logged)
        await asyncio.sleep(0.05)
        assert len(logged) == 1
        assert "does not see the others" in logged.pop().getMessage()
        assert len(member.owned()) == SHARDS
    finally:
        await member.stop()


async def test_a_shard_that_cannot_be_read_stops_a_start(logged):
    member = Member(Database(), JournalError("it is damaged"))
    try:
        with pytest.raises(JournalError, match="it is damaged"):
            await member.keeper.start()
        assert member.engine.refuses is not None
        assert {record.levelno for record in logged} == {logging.ERROR}
        logged.clear()
    finally:
        await member.stop()


async def test_a_shard_that_another_server_took_first_is_left_to_it(monkeypatch):
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.1)
    member = Member(Database(), OtherOwner("another server is using it"))
    try:
        await member.keeper.start()
        assert member.owned() == []
        with pytest.raises(NotReady):
            await member.engine.enqueue(NewJob("t"))
    finally:
        await member.stop()
