"""Watching the shards of a database: who owns each, whom to replace, and which servers take part."""

import asyncio
import contextlib
import os
import subprocess
import sys

import pytest
from postgres_server import needs_postgres

from jobqueue.storage import postgres_watch
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import OtherOwner, Place, Silent
from jobqueue.storage.postgres_setup import prepare_database
from jobqueue.storage.postgres_watch import Found, ShardsWatch
from jobqueue.storage.store import JournalError, Unavailable

pytestmark = needs_postgres
SHARDS = 3
NOBODY = Found(None, "", True)


@pytest.fixture
def url(postgres, database, monkeypatch):
    """A database of three shards. Every look counts, as if it came an interval after the last one."""
    monkeypatch.setattr(postgres_watch, "INTERVAL", 0.0)
    prepare_database(postgres.url(database), SHARDS, 0)
    return postgres.url(database)


def place_of(name):
    return Place(f"{name}:1", f"secret of {name}")


@contextlib.asynccontextmanager
async def watching(url, *names):
    watches = [ShardsWatch(url, place_of(name), SHARDS) for name in names]
    try:
        yield watches
    finally:
        for watch in watches:
            await watch.close(for_good=True)


@contextlib.asynccontextmanager
async def owning(url, name, *shards, silent=None):
    """Stores of some shards, of a server of that name."""
    stores = [PostgresStore(url, 0, place_of(name), silent, shard, SHARDS) for shard in shards]
    try:
        yield stores
    finally:
        for store in stores:
            if not store._loop.is_closed():
                store.close()


async def looks(count, *watches, meanwhile=lambda: None):
    """Looks so often by turns, and returns what the first one found last."""
    for _ in range(count):
        meanwhile()
        found, *_ = [await watch.look() for watch in watches]
    return found


async def test_each_shard_has_an_owner_or_none(url):
    async with watching(url, "a") as [watch], owning(url, "b", 0, 2) as stores:
        first, second, third = await watch.look()
        assert second == NOBODY
        assert first == third == Found(place_of("b"), first.whose, False)
        assert first.whose.startswith(f"process {os.getpid()} on ")
        stores[0].close()
        assert [found.replace for found in await watch.look()] == [True, True, False]


async def test_servers_are_those_that_take_part_whether_they_own_something_or_not(url):
    async with watching(url, "b", "a", "c") as [b, a, c], owning(url, "b", 1):
        await looks(1, b, a, c)
        await looks(3, a, b, c)
        assert a.servers == b.servers == c.servers == ["a:1", "b:1", "c:1"]
        await c.close(for_good=True)
        await looks(1, a)
        assert a.servers == ["a:1", "b:1"]


async def test_a_server_that_is_alone_lists_itself(url):
    async with watching(url, "a") as [watch]:
        assert watch.servers == ["a:1"]
        assert await watch.look() == [NOBODY] * SHARDS
        assert watch.servers == ["a:1"]


async def test_a_server_whose_beat_stands_still_is_gone_after_six_looks_and_back_when_it_beats(url):
    async with watching(url, "a", "b") as [a, b]:
        await looks(2, b, a)
        for left in range(10):  # `b` is frozen: its connection stays
            await a.look()
            assert a.servers == (["a:1", "b:1"] if left < postgres_watch._STILL - 1 else ["a:1"])
        await looks(1, b)
        await looks(1, a)
        assert a.servers == ["a:1", "b:1"]


async def test_a_server_elsewhere_whose_connection_is_gone_is_gone_after_five_looks(
    url, postgres, database, monkeypatch
):
    async with watching(url, "a", "b") as [a, b]:
        monkeypatch.setattr(postgres_watch, "machine", lambda: "another one")
        await looks(2, b, a)
        await b.close()
        beat = "UPDATE jobqueue.session SET beat = beat + 1 WHERE address = 'b:1'"
        for left in range(8):
            postgres.sql(beat, database)
            await a.look()
            assert a.servers == (["a:1", "b:1"] if left < postgres_watch._GONE - 1 else ["a:1"])
        await b.look()  # it goes on with its session
        await a.look()
        assert a.servers == ["a:1", "b:1"]
        assert postgres.sql("SELECT count(*) FROM jobqueue.session", database) == "2"


async def test_an_owner_that_beats_is_not_replaced_while_its_connection_is_gone(
    url, postgres, database, monkeypatch
):
    async with watching(url, "a") as [watch], owning(url, "b", 0) as [store]:
        monkeypatch.setattr(postgres_watch, "machine", lambda: "another one")
        await watch.look()
        store.session.connection.terminate()
        beat = "UPDATE jobqueue.session SET beat = beat + 1 WHERE address = 'b:1'"
        for _ in range(2 * postgres_watch._STILL):
            postgres.sql(beat, database)
            [found, *_] = await watch.look()
            assert found.owner == place_of("b")
        for left in range(8):
            [found, *_] = await watch.look()
            assert bool(found.replace) == (left >= postgres_watch._GONE - 1)


async def test_a_server_that_this_one_has_never_seen_alive_is_not_listed(
    url, postgres, database, monkeypatch
):
    monkeypatch.setattr(postgres_watch, "machine", lambda: "another one")
    async with watching(url, "a", "b") as [a, b]:
        await b.look()
        await b.close()
        await a.look()
        assert a.servers == ["a:1"]


async def test_an_owner_whose_beat_stands_still_is_to_be_replaced_in_its_shards_only(url):
    async with watching(url, "a") as [watch], owning(url, "b", 0, 1) as [frozen, beating]:
        found = await looks(postgres_watch._STILL, watch, meanwhile=beating.check)
        assert [each.replace for each in found] == [False, False, True]
        first, second, third = await looks(1, watch, meanwhile=beating.check)
        assert first.owner is None
        assert isinstance(first.replace, Silent)
        assert first.replace.session == frozen.session.id
        assert second == Found(place_of("b"), second.whose, False)
        assert third == NOBODY
        async with owning(url, "a", 0, silent=first.replace) as [taken]:
            taken.commit([(2, b"a")])
            first, *_ = await looks(1, watch, meanwhile=beating.check)
            assert first == Found(place_of("a"), first.whose, False)
            with pytest.raises(OtherOwner):
                PostgresStore(url, 0, place_of("a"), Silent(beating.session.id, 0), 1, SHARDS)


async def test_looks_in_quick_succession_do_not_count(url, monkeypatch):
    monkeypatch.setattr(postgres_watch, "INTERVAL", 60.0)
    async with watching(url, "a", "b") as [a, b], owning(url, "b", 0):
        await b.look()
        first, *_ = await looks(20, a)
        assert first.replace is False
        assert a.servers == ["a:1", "b:1"]


PROGRAM = """
import asyncio, sys
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import Place
from jobqueue.storage.postgres_watch import ShardsWatch
url, place = sys.argv[1], Place("killed:1", "secret")

async def run():
    watch = ShardsWatch(url, place, 3)
    await watch.look()
    store = PostgresStore(url, 0, place, None, 1, 3)
    print("ready", flush=True)
    while True:
        await watch.look()
        store.check()
        await asyncio.sleep(0.05)

asyncio.run(run())
"""


async def test_a_server_that_was_killed_on_this_machine_is_replaced_and_off_the_list_at_once(
    url, monkeypatch
):
    monkeypatch.setattr(postgres_watch, "INTERVAL", 60.0)  # hence it is not for its beat
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, stdout=subprocess.PIPE)
    try:
        assert await program.stdout.readline() == b"ready\n"
        async with watching(url, "a") as [watch]:
            found = await watch.look()
            assert found[1].owner == Place("killed:1", "secret")
            assert watch.servers == ["a:1", "killed:1"]
            program.kill()
            await program.wait()
            for _ in range(200):  # the database has yet to notice that the connections are closed
                found = await watch.look()
                if found[1].replace and watch.servers == ["a:1"]:
                    break
                await asyncio.sleep(0.02)
            assert isinstance(found[1].replace, Silent)
            assert watch.servers == ["a:1"]
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_a_session_that_is_gone_or_was_ended_is_begun_anew(url, postgres, database):
    async with watching(url, "a", "b") as [a, b]:
        await looks(2, a, b)
        for statement in ("DELETE FROM jobqueue.session", "UPDATE jobqueue.session SET alive = false"):
            postgres.sql(f"{statement} WHERE address = 'a:1'", database)
            await b.look()
            assert b.servers == ["b:1"]
            await a.look()
            await b.look()
            assert b.servers == ["a:1", "b:1"]


async def test_a_database_that_does_not_answer_makes_nobody_be_replaced(url, postgres, database):
    async with watching(url, "a") as [watch], owning(url, "b", 0) as [store]:
        await looks(postgres_watch._STILL, watch)
        postgres.sever(database)
        with pytest.raises((Unavailable, JournalError)):
            await watch.look()
        postgres.restore(database)
        with contextlib.suppress(Unavailable):
            store.check()
        store.check()
        found = await looks(postgres_watch._STILL, watch)
        assert [each.replace for each in found] == [False, True, True]


async def test_it_is_woken_when_a_shard_or_a_server_ends_its_session(url):
    async with watching(url, "a", "b") as [a, b], owning(url, "b", 0, 1) as stores:
        await looks(1, a, b)
        a.woken.clear()
        stores[0].close()
        await asyncio.wait_for(a.woken.wait(), 10)
        await asyncio.sleep(0)
        a.woken.clear()
        await b.close(for_good=True)
        await asyncio.wait_for(a.woken.wait(), 10)


async def test_what_cannot_be_watched_is_said(url, postgres, database):
    async with watching(url, "a") as [watch]:
        await watch.look()
        postgres.sql("UPDATE jobqueue.meta SET shards = 5", database)
        with pytest.raises(JournalError, match="has 5 shards, and was to be used with 3:"):
            await watch.look()
        postgres.sql("UPDATE jobqueue.meta SET version = 99", database)
        with pytest.raises(JournalError, match="is of version 99"):
            await watch.look()
        postgres.sql("DROP SCHEMA jobqueue CASCADE", database)
        assert [found.replace for found in await watch.look()] == [True] * SHARDS
