"""The contract of `Store`, for each store that the server has."""

import asyncio

import pytest
from postgres_server import needs_postgres

from jobqueue.core.queue import JobQueue
from jobqueue.storage.loader import load
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.row_builder import RowBuilder
from jobqueue.storage.sqlite import SQLiteStore
from jobqueue.storage.store import JournalError

HIGHEST, LOWEST = (1 << 62) - 1, -(1 << 62) - 7


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def place(request, tmp_path):
    """A function that opens the store of the test, again each time."""
    opened = []

    def open_store():
        while opened:
            opened.pop().close()
        if request.param == "sqlite":
            opened.append(SQLiteStore(tmp_path))
        else:
            postgres, database = request.getfixturevalue("postgres"), request.getfixturevalue("database")
            opened.append(PostgresStore(postgres.url(database), 0))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def rows_of(store, max_rows=100, max_bytes=1 << 20):
    return [row for rows in store.load(max_rows, max_bytes) for row in rows]


def test_a_new_store_is_empty(place):
    assert rows_of(place()) == []
    assert rows_of(place()) == []


def test_what_was_committed_is_there_again_by_rising_key(place):
    rows = [
        (8, b"eight"),
        (0, b"counters"),
        (-3, b""),
        (HIGHEST, b"\0\xff"),
        (LOWEST, b"low"),
        (9, b"x" * 300_000),
    ]
    place().commit(rows)
    assert rows_of(place()) == sorted(rows)


def test_a_later_row_replaces_an_earlier_one_and_a_row_without_body_deletes(place):
    store = place()
    store.commit([(2, b"a"), (4, b"b"), (2, b"c"), (6, b"d"), (0, b"1")])
    store.commit([(4, None), (6, b"e"), (6, None), (8, None), (10, None), (10, b"f"), (0, b"2")])
    assert rows_of(place()) == [(0, b"2"), (2, b"c"), (10, b"f")]


def test_the_counters_stay_when_a_group_has_none(place):
    store = place()
    store.commit([(0, b"1"), (2, b"a")])
    store.commit([(4, b"b")])
    place().commit([(6, b"c")])
    assert rows_of(place()) == [(0, b"1"), (2, b"a"), (4, b"b"), (6, b"c")]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 3_000])
def test_a_group_of_any_size_is_written(place, count):
    rows = [(2 * number, b"%d" % number) for number in range(count)]
    place().commit(rows)
    assert rows_of(place(), 400) == rows


def test_slices_have_at_most_so_many_rows_and_about_so_many_bytes(place):
    store = place()
    store.commit([(key, b"x" * 1_000) for key in range(1, 51)])
    assert {len(rows) for rows in store.load(7, 1 << 20) if rows} == {7, 1}
    for limit in (1, 2_500):
        slices = [rows for rows in store.load(50, limit) if rows]
        assert max(sum(len(body) for _, body in rows) for rows in slices) <= limit + 1_000
        assert sum(map(len, slices)) == 50


def test_it_can_be_used_on_a_thread_whose_loop_runs(place):
    async def use():
        store = place()
        store.commit([(2, b"a")])
        store.check()
        return rows_of(place())

    assert asyncio.run(use()) == [(2, b"a")]


def test_its_size_and_its_place_are_known(place):
    store = place()
    store.commit([(2, b"a")])
    store.check()
    assert not store.release_space()
    assert store.size() > 0
    assert store.location
    assert store.location in str(damage_of(store))


def damage_of(store):
    """What the loader says of a store with damage."""
    store.commit([(2, b"no checksum")])
    queue = JobQueue(lambda: "t", 1)
    with pytest.raises(JournalError) as damaged:
        list(load(store, queue, RowBuilder(queue.state), lambda: 0))
    assert str(damaged.value).endswith(f"job 1: its checksum is wrong. {store.remedy}")
    return damaged.value
