"""Several shards in one PostgreSQL database: each has rows, commits, a fence and an owner of its own."""

import asyncio
import threading

import asyncpg
import pytest
from postgres_server import needs_postgres
from test_postgres import commit_in_the_end, cut, lossy, rows_of

from jobqueue.engine.opening import open_database, prepare_shards
from jobqueue.errors import SettingError
from jobqueue.model import NewJob
from jobqueue.settings import Settings
from jobqueue.shards import first_id_of, shard_of_id
from jobqueue.storage import postgres_schema, postgres_session
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import Place, SessionLost, Silent
from jobqueue.storage.postgres_setup import prepare_database
from jobqueue.storage.postgres_watch import Watch
from jobqueue.storage.records import Counters, Reader, put_counters
from jobqueue.storage.store import JournalError

pytestmark = needs_postgres
SHARDS = 3


@pytest.fixture
def open_shard(postgres, database):
    """A function that opens the store of a shard of the database of the test."""
    opened = []

    def open_one(shard, place=None, silent=None):
        opened.append(PostgresStore(postgres.url(database), 0, place, silent, shard, SHARDS))
        return opened[-1]

    yield open_one
    for store in opened:
        if not store._loop.is_closed():
            store.close()


def test_each_shard_has_rows_and_counters_of_its_own_under_the_same_keys(open_shard):
    stores = [open_shard(shard) for shard in range(SHARDS)]
    for shard, store in enumerate(stores):
        store.commit([(0, b"counters %d" % shard), (2, b"two"), (4, b"four %d" % shard), (-2, b"queue")])
    stores[1].commit([(0, b"counters 1 again"), (2, None), (-2, b"other")])
    stores[2].commit([(4, None)])
    expected = [
        [(-2, b"queue"), (0, b"counters 0"), (2, b"two"), (4, b"four 0")],
        [(-2, b"other"), (0, b"counters 1 again"), (4, b"four 1")],
        [(-2, b"queue"), (0, b"counters 2"), (2, b"two")],
    ]
    assert [rows_of(store) for store in stores] == expected
    for store in stores:
        store.close()
    assert [rows_of(open_shard(shard)) for shard in range(SHARDS)] == expected


def test_the_shards_of_a_database_have_one_identity_and_one_secret(open_shard):
    stores = [open_shard(shard) for shard in range(SHARDS)]
    assert len({(store.identity(), store.secret()) for store in stores}) == 1


def test_a_shard_has_one_owner_and_a_second_one_hears_of_which_shard(open_shard):
    open_shard(0)
    open_shard(1)
    with pytest.raises(
        JournalError, match=r"another server, process \d+ on \S+, is using shard 1 of postgres"
    ):
        open_shard(1)
    open_shard(2)


def test_a_takeover_of_one_shard_leaves_the_sessions_and_commits_of_the_others(
    open_shard, postgres, database
):
    stores = [open_shard(shard) for shard in range(SHARDS)]
    for store in stores:
        for number in range(5):
            store.commit([(2, b"%d" % number)])
    numbers = "SELECT count(*) FROM jobqueue.done JOIN jobqueue.session ON id = session WHERE shard <> 1"
    assert postgres.sql(numbers, database) == "12"
    cut(postgres, database, stores[1])
    taken = open_shard(1)
    assert postgres.sql(numbers, database) == "12"
    with pytest.raises(SessionLost, match="another server has taken over shard 1 of postgres"):
        commit_in_the_end(stores[1], [(2, b"late")])
    for store in (stores[0], stores[2]):
        store.check()
        store.commit([(4, b"more")])
    assert rows_of(taken) == [(2, b"4")]
    assert rows_of(stores[0]) == rows_of(stores[2]) == [(2, b"4"), (4, b"more")]


def test_a_commit_in_doubt_counts_once_while_another_shard_is_taken_over(open_shard, postgres, database):
    first, other = open_shard(0), open_shard(1)
    made = lossy(first, "after")
    with pytest.raises(Exception, match="the connection is lost"):
        first.commit([(2, b"a")])
    cut(postgres, database, other)
    open_shard(1).commit([(2, b"b")])
    commit_in_the_end(first, [(2, b"a")])
    assert [number for number, _ in made.sent] == [1, 1, 2]
    assert rows_of(first) == [(2, b"a")]


def test_a_silent_owner_is_replaced_in_its_shard_only(open_shard, postgres, database):
    place = Place("127.0.0.1:1", "secret")
    stores = [open_shard(shard, place) for shard in range(2)]
    beat = postgres.sql("SELECT beat FROM jobqueue.session WHERE shard = 1", database)
    silent = Silent(stores[1].session.id, int(beat))
    with pytest.raises(postgres_session.OtherOwner):  # it is not the owner of that shard
        open_shard(0, place, silent)
    stores[1].check()
    with pytest.raises(postgres_session.OtherOwner):  # its beat has moved
        open_shard(1, place, silent)
    taken = open_shard(1, place, Silent(silent.session, silent.beat + 1))
    assert taken.session.forced
    with pytest.raises(SessionLost):
        commit_in_the_end(stores[1], [(2, b"late")])
    stores[0].commit([(2, b"a")])


def test_a_takeover_that_waits_for_a_commit_holds_up_no_other_shard(open_shard, postgres, database):
    first = open_shard(0)
    name = first.session.id
    under_way = asyncio.new_event_loop()
    committer = under_way.run_until_complete(asyncpg.connect(postgres.url(database)))
    under_way.run_until_complete(committer.execute("BEGIN"))
    locking = "SELECT 1 FROM jobqueue.session WHERE id = $1 FOR SHARE"
    under_way.run_until_complete(committer.fetchval(locking, name))
    cut(postgres, database, first)
    taking_over = threading.Thread(target=lambda: open_shard(0))
    taking_over.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = "
    while postgres.sql(f"{waiting}'{database}'") == "0":
        assert taking_over.is_alive()
    open_shard(1).commit([(2, b"a")])
    assert taking_over.is_alive()
    under_way.run_until_complete(committer.execute("COMMIT"))
    taking_over.join()
    under_way.run_until_complete(committer.close())
    under_way.close()
    with pytest.raises(SessionLost):
        commit_in_the_end(first, [(2, b"late")])


def test_going_back_in_time_is_noticed_in_the_shard_that_did(open_shard, postgres, database):
    stores = [open_shard(shard) for shard in range(2)]
    for store in stores:
        for number in range(3):
            store.commit([(2, b"%d" % number)])
        cut(postgres, database, store)
    postgres.sql(
        f"DELETE FROM jobqueue.done WHERE number > 1 AND session = '{stores[0].session.id}'", database
    )
    with pytest.raises(SessionLost, match="in an older state than the last answer"):
        commit_in_the_end(stores[0], [(4, b"b")])
    commit_in_the_end(stores[1], [(4, b"b")])


def last_number(store):
    [(_, counters)] = Reader().read(rows_of(store)[:1])
    return counters.last_number


def test_after_a_restored_dump_each_shard_gives_ids_above_those_before_and_within_the_shard(
    open_shard, postgres, database
):
    begin = [first_id_of(shard, 0) for shard in range(2)]
    for shard in range(2):
        store = open_shard(shard)
        store.commit([put_counters(Counters(begin[shard], begin[shard] + 7, 0, 0))])
        store.close()
    file = postgres.folder / f"{database}.dump"
    url = postgres.url(database)
    postgres.run("pg_dump", "--format=custom", "--schema=jobqueue", f"--file={file}", f"--dbname={url}")
    postgres.sql("DROP SCHEMA jobqueue CASCADE", database)
    postgres.run("pg_restore", f"--dbname={url}", file)
    raised = []
    for shard in range(2):
        store = open_shard(shard)
        raised.append(last_number(store))
        assert raised[shard] > begin[shard] + 1_000_000
        assert shard_of_id(raised[shard]) == shard
        store.close()
    for shard in range(2):  # and once only
        assert last_number(open_shard(shard)) == raised[shard]


def test_ended_sessions_of_a_shard_are_kept_however_often_the_others_begin(open_shard, postgres, database):
    store = open_shard(0)
    store.commit([(0, b"counters")])
    store.close()
    for _ in range(20):
        open_shard(1).close()
    count = "SELECT shard, count(*) FROM jobqueue.session GROUP BY shard ORDER BY shard"
    assert postgres.sql(count, database) == "0|1\n1|17"
    assert rows_of(open_shard(0)) == [(0, b"counters")]
    assert postgres.sql(count, database) == "0|2\n1|17"


def test_an_owner_that_was_cut_off_is_told_of_another_one_however_often_other_shards_begin(
    open_shard, postgres, database
):
    first = open_shard(0)
    for _ in range(20):
        open_shard(1).close()
    cut(postgres, database, first)
    open_shard(0).commit([(2, b"a")])
    with pytest.raises(SessionLost, match="another server has taken over shard 0"):
        commit_in_the_end(first, [(2, b"late")])


async def test_an_engine_of_a_shard_gives_ids_of_the_shard(postgres, database):
    engine = open_database(postgres.url(database), patience=0, shard=2, shards=SHARDS)
    await engine.load()
    first = await engine.enqueue(NewJob("t"))
    engine.close()
    assert shard_of_id(first.id) == 2
    engine = open_database(postgres.url(database), patience=0, shard=2, shards=SHARDS)
    await engine.load()
    assert (await engine.enqueue(NewJob("t"))).id == first.id + 1
    engine.close()
    with pytest.raises(SettingError, match="JOBQUEUE_FIRST_ID=1 is for one shard"):
        open_database(postgres.url(database), Settings(first_id=1), None, 0, shard=2, shards=SHARDS)


# -- the number of shards -----------------------------------------------------------------------------


def test_the_number_is_fixed_when_the_database_is_created(postgres, database):
    url = postgres.url(database)
    assert prepare_database(url, 4, 0) == 4
    assert prepare_database(url, None, 0) == 4
    with pytest.raises(JournalError) as refused:
        prepare_database(url, 5, 0)
    assert refused.value.detail == (
        f"postgresql://admin@/{database} has 4 shards, and was to be used with 5: the number is fixed when a "
        "database is created. Leave JOBQUEUE_SHARDS out, or copy the jobs into a new database with `jobqueue "
        "migrate`"
    )
    for shards in (1, 5):
        with pytest.raises(JournalError, match=f"has 4 shards, and was to be used with {shards}:"):
            PostgresStore(url, 0, shards=shards)
    PostgresStore(url, 0, shard=3, shards=4).close()


def test_a_database_has_one_shard_unless_another_number_is_asked_for(postgres, database):
    url = postgres.url(database)
    assert prepare_database(url, None, 0) == 1
    assert prepare_shards(Settings(data=url, first_id=1), 0) == 1
    with pytest.raises(JournalError, match="has 1 shard, and was to be used with 2:"):
        prepare_shards(Settings(data=url, shards=2), 0)


def test_the_first_id_is_refused_with_several_shards(postgres, database):
    url = postgres.url(database)
    with pytest.raises(SettingError, match="JOBQUEUE_FIRST_ID=7 is for one shard: with 2 of them"):
        Settings(data=url, shards=2, first_id=7)
    prepare_database(url, 2, 0)
    with pytest.raises(SettingError, match="JOBQUEUE_FIRST_ID=7 is for one shard: with 2 of them"):
        prepare_shards(Settings(data=url, first_id=7), 0)


def test_shards_are_for_a_database():
    for data in (None, "folder"):
        with pytest.raises(SettingError, match="JOBQUEUE_SHARDS=2 is for a PostgreSQL database: set"):
            Settings(data=data, shards=2)


def test_of_several_servers_that_create_a_database_at_once_all_succeed(postgres, database):
    url, found = postgres.url(database), []
    begin = threading.Barrier(4)

    def create(shards):
        begin.wait()
        found.append(prepare_database(url, shards, 0))

    servers = [threading.Thread(target=create, args=(shards,)) for shards in (3, 3, 3)]
    servers.append(threading.Thread(target=lambda: (begin.wait(), found.append(_opened(url)))))
    for each in servers:
        each.start()
    for each in servers:
        each.join()
    assert found == [3, 3, 3, 3]


def _opened(url):
    PostgresStore(url, 0, shard=1, shards=3).close()
    return 3


def test_a_database_that_cannot_be_used_is_refused_in_a_line(postgres, database):
    with pytest.raises(JournalError, match='database "none" does not exist; create it with `createdb`'):
        prepare_database(postgres.url("none"), None, 0)
    with pytest.raises(JournalError, match=r"cannot reach .*: Connection refused"):
        prepare_database("postgresql://127.0.0.1:1/x", None, 0)
    prepare_database(postgres.url(database), None, 0)
    postgres.sql("UPDATE jobqueue.meta SET version = 99", database)
    with pytest.raises(JournalError, match="is of version 99; this jobqueue knows versions up to 3"):
        prepare_database(postgres.url(database), None, 0)


# -- schemas of older versions ------------------------------------------------------------------------


def make_older(postgres, database, version):
    """Makes the schema as it was in a version, with the rows of a queue."""
    schema = postgres_schema._SCHEMA.replace("$$IDENTITY$$", "'0123456789ab'")
    upgrades = [postgres_schema._UPGRADES[older] for older in range(1, version)]
    owner = ", true" if version > 1 else ""
    session = "00000000-0000-0000-0000-000000000001"
    postgres.sql(
        f"""
        CREATE SCHEMA jobqueue; {schema} {" ".join(upgrades)};
        UPDATE jobqueue.meta SET version = {version}, place = ({postgres_session._PLACE});
        INSERT INTO jobqueue.session (id, server, alive{", owner" if owner else ""})
            VALUES ('{session}', 'first', false{owner});
        INSERT INTO jobqueue.record VALUES (2, 'a'), (4, 'b'), (-2, 'c');
        """,
        database,
    )
    body = put_counters(Counters(1, 7, 0, 0))[1].hex()
    postgres.sql(f"INSERT INTO jobqueue.done VALUES ('{session}', 9, '\\x{body}')", database)


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_schema_has_one_shard_and_is_brought_up_to_date_with_its_rows(postgres, database, version):
    make_older(postgres, database, version)
    url = postgres.url(database)
    with pytest.raises(JournalError, match="has 1 shard, and was to be used with 2:"):
        prepare_database(url, 2, 0)
    assert prepare_database(url, None, 0) == prepare_database(url, 1, 0) == 1
    with pytest.raises(JournalError, match="has 1 shard, and was to be used with 2:"):
        PostgresStore(url, 0, shards=2)
    assert postgres.sql("SELECT version FROM jobqueue.meta", database) == str(version)
    store = PostgresStore(url, 0)
    assert store.identity() == "0123456789ab"
    assert rows_of(store) == [(-2, b"c"), put_counters(Counters(1, 7, 0, 0)), (2, b"a"), (4, b"b")]
    store.commit([(2, b"d"), (4, None)])
    store.close()
    assert postgres.sql("SELECT version, shards FROM jobqueue.meta", database) == "3|1"
    store = PostgresStore(url, 0)
    assert rows_of(store) == [(-2, b"c"), put_counters(Counters(1, 7, 0, 0)), (2, b"d")]
    store.close()


def test_an_older_server_that_runs_is_named_and_keeps_its_schema(postgres, database):
    make_older(postgres, database, 2)
    postgres.sql("UPDATE jobqueue.session SET alive = true", database)
    url = postgres.url(database)
    older = asyncio.new_event_loop()
    lock = older.run_until_complete(asyncpg.connect(url))
    older.run_until_complete(lock.execute(f"SELECT pg_advisory_lock({postgres_session.LOCK})"))
    assert prepare_database(url, None, 0) == 1
    assert older.run_until_complete(look_once(url)) == (False, "first")  # a newer one stands by
    with pytest.raises(JournalError, match="another server, first, is using postgresql://"):
        PostgresStore(url, 0)
    assert postgres.sql("SELECT version FROM jobqueue.meta", database) == "2"
    older.run_until_complete(lock.close())
    older.close()
    PostgresStore(url, 0).close()


async def look_once(url):
    watch = Watch(url, Place("127.0.0.1:1", "secret"))
    try:
        return await watch.look(), watch.whose
    finally:
        await watch.close(for_good=True)


def test_what_is_for_one_shard_refuses_to_watch_several(postgres, database):
    url = postgres.url(database)
    prepare_database(url, 2, 0)
    with pytest.raises(JournalError, match="has 2 shards, and was to be used with 1:"):
        asyncio.run(look_once(url))
