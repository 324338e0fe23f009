"""Groups of several shards in one statement: each under its own fence and number, and what happens when that fails."""

import asyncio
import time

import pytest
from postgres_server import needs_postgres

from jobqueue.storage import shared_writer
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import Place, SessionLost
from jobqueue.storage.postgres_setup import prepare_database
from jobqueue.storage.shared_writer import SharedWriter

pytestmark = needs_postgres
SHARDS = 4


class Shard:
    """A shard with its channel, and what was called back."""

    def __init__(self, writer, url, index, number):
        self.store = PostgresStore(url, 0, Place(f"10.0.0.{number}:1", "secret"), None, index, SHARDS)
        self.written, self.retries, self.failures = 0, [], []
        self.channel = writer.channel(
            self.store,
            asyncio.get_running_loop(),
            self._on_written,
            self.retries.append,
            self.failures.append,
        )
        list(self.store.load(1000, 1 << 20))
        self.channel.start()

    def _on_written(self, groups):
        self.written += groups

    def close(self):
        left = self.channel.stop()
        self.store.close()
        return left


class Server:
    def __init__(self, url, shards=range(SHARDS), number=1):
        self.writer = SharedWriter(url)
        self.writer.start()
        self.shards = [Shard(self.writer, url, index, number) for index in shards]

    def close(self):
        left = [shard.close() for shard in self.shards]
        self.writer.close()
        return left


@pytest.fixture
def url(postgres, database):
    url = postgres.url(database)
    prepare_database(url, SHARDS, 0)
    return url


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def rows_of(url):
    found = []
    for index in range(SHARDS):
        store = PostgresStore(url, 5, None, None, index, SHARDS)
        found.append({key: body for part in store.load(1000, 1 << 20) for key, body in part if key})
        store.close()
    return found


async def test_groups_of_several_shards_are_written_in_order_each_in_its_own_shard(url):
    server = Server(url)
    for number in range(50):
        for index, shard in enumerate(server.shards):
            shard.channel.write([(2, b"%d of %d" % (number, index)), (4 + 2 * number, b"x")])
        await asyncio.sleep(0.001)
    server.shards[0].channel.write([(4, None)])
    await until(lambda: [shard.written for shard in server.shards] == [51, 50, 50, 50])
    assert [shard.channel.rows.count > 0 for shard in server.shards] == [True] * SHARDS
    assert server.close() == [([], None)] * SHARDS
    rows = rows_of(url)
    assert [row[2] for row in rows] == [b"49 of %d" % index for index in range(SHARDS)]
    assert [len(row) for row in rows] == [50, 51, 51, 51]


async def test_what_was_handed_over_before_a_stop_is_written(url):
    server = Server(url)
    for shard in server.shards:
        for number in range(20):
            shard.channel.write([(2 + 2 * number, b"x")])
    assert server.close() == [([], None)] * SHARDS
    assert [len(row) for row in rows_of(url)] == [20] * SHARDS


async def test_a_shard_that_another_server_took_is_lost_and_the_others_go_on(url):
    server = Server(url)
    shard = server.shards[1]
    for each in server.shards:
        each.channel.write([(2, b"before")])
    await until(lambda: all(each.written == 1 for each in server.shards))
    silent = (shard.store.session.id, None)
    postgres = shard.store.session.driver
    connection = await postgres.connect(url)
    await connection.execute("UPDATE jobqueue.session SET alive = false WHERE id = $1", silent[0])
    await connection.close()
    for each in server.shards:
        each.channel.write([(2, b"after")])
    await until(lambda: shard.failures)
    assert isinstance(shard.failures[0], SessionLost)
    await until(lambda: [each.written for each in server.shards] == [2, 1, 2, 2])
    server.close()
    assert [row[2] for row in rows_of(url)] == [b"after", b"before", b"after", b"after"]


async def test_after_a_restart_of_the_database_each_shard_is_locked_again_though_nothing_is_written(
    url, postgres
):
    server = Server(url)
    driver = server.shards[0].store.session.driver

    async def locked():
        connection = await driver.connect(url)
        count = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        await connection.close()
        return count

    server.shards[0].channel.write([(2, b"x")])
    await until(lambda: server.shards[0].written == 1)
    assert await locked() == SHARDS
    await asyncio.sleep(shared_writer._AGAIN)  # so the common connection is made again at once
    connection = await driver.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'jobqueue%'"
    )
    await connection.close()
    server.shards[0].channel.write([(2, b"x")])
    async with asyncio.timeout(10):
        while await locked() < SHARDS:
            await asyncio.sleep(0.1)
    for shard in server.shards:
        shard.channel.write([(2, b"y")])
    await until(lambda: [shard.written for shard in server.shards] == [3, 1, 1, 1])
    assert server.close() == [([], None)] * SHARDS


async def test_a_common_connection_that_breaks_at_any_moment_loses_and_doubles_nothing(url):
    server = Server(url)
    driver = server.shards[0].store.session.driver
    killer = await driver.connect(url)
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'jobqueue commits'"
    sent, killed, end = 0, 0, time.monotonic() + 3
    while time.monotonic() < end:
        sent += 1
        for shard in server.shards:
            shard.channel.write([(2, b"%d" % sent), (2 + 2 * sent, b"x")])
        if sent % 10 == 0:
            killed += await killer.fetchval(kill)
        await asyncio.sleep(0.002)
    await killer.close()
    await until(lambda: all(shard.written == sent for shard in server.shards))
    assert killed > 1
    assert all(shard.failures == [] for shard in server.shards)
    numbers = [(shard.store.acknowledged, shard.store._number) for shard in server.shards]
    assert all(one == other for one, other in numbers)
    server.close()
    for row in rows_of(url):
        assert (row[2], len(row)) == (b"%d" % sent, 1 + sent)


async def test_while_the_database_is_away_all_wait_and_then_all_is_written(url, postgres, database):
    server = Server(url)
    for shard in server.shards:
        shard.channel.write([(2, b"before")])
    await until(lambda: all(shard.written == 1 for shard in server.shards))
    postgres.sever(database)
    for shard in server.shards:
        shard.channel.write([(2, b"after")])
    await until(lambda: all(shard.retries for shard in server.shards))
    assert all(shard.written == 1 for shard in server.shards)
    postgres.restore(database)
    await until(lambda: all(shard.written >= 2 for shard in server.shards), 20)
    assert all(shard.failures == [] for shard in server.shards)
    server.close()
    assert [row[2] for row in rows_of(url)] == [b"after"] * SHARDS


async def test_beats_are_sent_together_and_keep_the_shards_fresh(url):
    server = Server(url)
    await asyncio.sleep(2.6)
    assert not any(shard.store.may_be_stale() for shard in server.shards)
    connection = await server.shards[0].store.session.driver.connect(url)
    beats = await connection.fetch("SELECT beat FROM jobqueue.session WHERE owner AND alive")
    await connection.close()
    assert all(3 <= row["beat"] <= 8 for row in beats)
    assert len(beats) == SHARDS
    server.close()


async def test_a_database_that_is_in_an_older_state_is_left_to_the_stores(url):
    """The common connection must not write where what was acknowledged is missing."""
    server = Server(url)
    for shard in server.shards:
        shard.channel.write([(2, b"x")])
    await until(lambda: all(shard.written == 1 for shard in server.shards))
    connection = await server.shards[0].store.session.driver.connect(url)
    id = server.shards[2].store.session.id
    await connection.execute("DELETE FROM jobqueue.done WHERE session = $1", id)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await connection.close()
    for shard in server.shards:
        shard.channel.write([(2, b"y")])
    await until(lambda: server.shards[2].failures)
    assert "older state" in str(server.shards[2].failures[0])
    await until(lambda: all(server.shards[index].written == 2 for index in (0, 1, 3)))
    server.close()


async def test_a_fault_of_the_thread_itself_fails_all_and_hangs_none(url, monkeypatch):
    server = Server(url)
    monkeypatch.setattr(server.writer, "_commit", lambda ready: 1 / 0)
    server.shards[0].channel.write([(2, b"x")])
    await until(lambda: all(shard.failures for shard in server.shards))
    assert isinstance(server.shards[3].failures[0], ZeroDivisionError)
    for shard in server.shards:
        shard.channel.stop()
        shard.store.close()
    server.writer.close()
