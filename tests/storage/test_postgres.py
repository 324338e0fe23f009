"""PostgresStore: the fence, commits whose answer was lost, and databases that it refuses."""

import asyncio
import contextlib
import itertools
import re
import sys

import asyncpg
import pytest
from postgres_server import Postgres, needs_postgres

from jobqueue.storage import postgres as postgres_module
from jobqueue.storage import postgres_session
from jobqueue.storage.postgres import PostgresStore
from jobqueue.storage.postgres_session import Place, SessionLost, shown
from jobqueue.storage.postgres_watch import Watch
from jobqueue.storage.records import Counters, Reader, put_counters
from jobqueue.storage.store import JournalError, Unavailable

pytestmark = needs_postgres


@pytest.fixture
def open_store(postgres, database):
    """A function that opens a store on the database of the test."""
    opened = []

    def open_one(patience=0.0):
        opened.append(PostgresStore(postgres.url(database), patience))
        return opened[-1]

    yield open_one
    for store in opened:
        if not store._loop.is_closed():
            store.close()


def rows_of(store):
    return [row for rows in store.load(400, 1 << 20) for row in rows]


def cut(postgres, database, store):
    """Ends the connection of a store, as the network might, without its knowledge."""
    name = f"jobqueue {store.session.id}"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
    postgres.sql(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{name}'"
    )
    assert postgres.sql(count) == "0"


# -- the fence --------------------------------------------------------------------------------------


def test_a_second_server_is_refused_and_told_who_the_first_is(open_store):
    open_store()
    with pytest.raises(
        JournalError, match=r"another server, process \d+ on \S+, is using postgresql://admin@/q"
    ):
        open_store()


def test_after_close_the_next_server_begins_at_once(open_store):
    open_store().close()
    open_store().close()


def test_a_session_that_was_lost_writes_nothing_and_the_next_one_has_all_that_counted(
    open_store, postgres, database
):
    first = open_store()
    first.commit([(0, b"1"), (2, b"a")])
    cut(postgres, database, first)
    second = open_store()
    assert rows_of(second) == [(0, b"1"), (2, b"a")]
    second.commit([(0, b"2"), (4, b"b")])
    for attempt in (lambda: first.commit([(0, b"3"), (6, b"c")]), first.check):
        with pytest.raises((SessionLost, Unavailable)) as lost:
            attempt()
        if isinstance(lost.value, Unavailable):  # that the connection is lost is found out first
            with pytest.raises(SessionLost, match="another server has taken over"):
                attempt()
    second.commit([(8, b"d")])
    assert rows_of(second) == [(0, b"2"), (2, b"a"), (4, b"b"), (8, b"d")]


def test_a_session_that_was_ended_over_a_living_connection_writes_nothing(open_store, postgres, database):
    store = open_store()
    store.commit([(2, b"a")])
    postgres.sql("UPDATE jobqueue.session SET alive = false", database)
    with pytest.raises(SessionLost):
        store.check()
    with pytest.raises(SessionLost):
        store.commit([(2, b"b"), (4, b"c")])
    assert rows_of(store) == [(2, b"a")]


class Interleaved:
    """A commit of one session of a shard, and its end by another one, step by step in a given order. A step
    that waits for the other side is passed over until it has ended."""

    def __init__(self, commit_statement, shard=0):
        self._statement, self._shard = commit_statement, shard

    async def run(self, url, order):
        """Returns whether the commit was acknowledged, and whether the next session sees all of it."""
        committer, killer, self._watcher = [await asyncpg.connect(url) for _ in range(3)]
        session = "00000000-0000-0000-0000-000000000001"
        await committer.execute(
            "TRUNCATE jobqueue.session, jobqueue.done, jobqueue.record;"
            f"INSERT INTO jobqueue.session (id, server, shard) VALUES ('{session}', 'first', {self._shard});"
            f"INSERT INTO jobqueue.done VALUES ('{session}', 0, 'before')"
        )
        seen = []

        async def send():
            self.alive = await committer.fetchval(
                self._statement, session, 1, b"after", [], [2, 4], [b"a", b"b"]
            )

        async def look():
            seen.append(await killer.fetchval(postgres_session.LAST_COUNTERS, self._shard) == b"after")

        async def load():
            rows = await killer.fetch(postgres_module._LOAD, -9, 9, 9, 999, self._shard)
            seen.append([tuple(row) for row in rows] == [(2, b"a"), (4, b"b")])

        steps = {
            "commit": iter([lambda: committer.execute("BEGIN"), send, lambda: committer.execute("COMMIT")]),
            "kill": iter([
                lambda: killer.execute("BEGIN"),
                lambda: killer.execute(postgres_session.END_OTHERS, self._shard),
                look,
                lambda: killer.execute("COMMIT"),
                load,
            ]),
        }  # fmt: skip
        under_way, connections = {}, {"commit": committer, "kill": killer}
        for side in itertools.chain(order, ["commit", "kill"] * 20):  # the rest of both, by turns
            if (task := under_way.pop(side, None)) is None:
                if (step := next(steps[side], None)) is None:
                    continue
                task = asyncio.ensure_future(step())
            if not await self._ended_or_waits(task, connections[side]):
                under_way[side] = task
        assert not under_way
        for connection in (committer, killer, self._watcher):
            await connection.close()
        assert len(seen) == 2
        return bool(self.alive), all(seen)

    async def _ended_or_waits(self, task, connection):
        """True if the step ended; False if the other side has to go on first."""
        for _ in range(1_000):
            done, _ = await asyncio.wait([task], timeout=0.005)
            if done:
                task.result()
                return True
            waits = await self._watcher.fetchval(
                "SELECT cardinality(pg_blocking_pids($1)) > 0", connection.get_server_pid()
            )
            if waits:
                return False
        raise AssertionError("a step neither ends nor waits")


ORDERS = sorted(set(itertools.permutations(["commit"] * 3 + ["kill"] * 5)))


def wrong_orders(postgres, database, statement, shard=0):
    """Returns in which orders a commit was acknowledged that the next session does not see."""
    PostgresStore(postgres.url(database), 0).close()
    interleaved = Interleaved(statement, shard)
    url = postgres.url(database)

    async def run_all():
        return [
            order
            for order in ORDERS
            for acknowledged, seen in [await interleaved.run(url, order)]
            if acknowledged and not seen
        ]

    return asyncio.run(run_all())


def test_in_no_order_of_a_commit_and_the_end_of_its_session_is_something_acknowledged_and_lost(
    postgres, database
):
    assert len(ORDERS) == 56
    assert wrong_orders(postgres, database, postgres_module._COMMIT) == []


def test_in_another_shard_it_is_the_same(postgres, database):
    assert wrong_orders(postgres, database, postgres_module._COMMIT, 5) == []


def test_without_its_lock_the_fence_would_lose_acknowledged_commits(postgres, database):
    """The control: the test before this one can fail."""
    without = postgres_module._COMMIT.replace("FOR SHARE", "")
    assert without != postgres_module._COMMIT
    assert len(wrong_orders(postgres, database, without)) > 5


# -- commits whose answer was lost -------------------------------------------------------------------


class Lossy:
    """The prepared statement of a store, whose next `losses` commits do not come to an answer: the request is
    lost before it is sent ("before"), or the answer afterwards ("after")."""

    def __init__(self, store, losses):
        self._store, self._losses = store, list(losses)
        self._prepare = store._prepare
        store._prepare = self.prepare
        self.sent = []

    async def prepare(self):
        await self._prepare()
        self.statement, self._store._statement = self._store._statement, self

    async def fetchval(self, session, number, counters, gone, keys, bodies, **limit):
        loss = self._losses.pop(0) if self._losses else None
        self.sent.append((number, keys))
        if loss != "before":
            answer = self.statement.fetchval(session, number, counters, gone, keys, bodies, **limit)
            if loss is None:
                return await answer
            with contextlib.suppress(asyncpg.UniqueViolationError):
                await answer
        raise ConnectionResetError("the connection is lost")


def lossy(store, *losses):
    made = Lossy(store, losses)
    store._run(made.prepare())
    return made


def commit_in_the_end(store, *groups):
    """Commits as the writing thread does it: what has come meanwhile goes into the next try."""
    rows, tries = [], 0
    groups = list(groups)
    while True:
        if groups:
            rows += groups.pop(0)
        tries += 1
        try:
            store.commit(rows)
        except Unavailable:
            assert tries < 20
        else:
            if not groups:
                return tries
            rows = []


@pytest.mark.parametrize("losses", list(itertools.product(["before", "after"], repeat=3)))
def test_a_commit_in_doubt_counts_exactly_once_whatever_was_lost(open_store, losses):
    store = open_store()
    store.commit([(0, b"1"), (2, b"a")])
    made = lossy(store, *losses)
    tries = commit_in_the_end(store, [(0, b"2"), (2, None), (4, b"b")], [(0, b"3"), (4, b"c"), (6, b"d")])
    assert tries >= 4  # and some more while the database still has an old connection
    expected = [(0, b"3"), (4, b"c"), (6, b"d")]
    assert rows_of(store) == expected
    store.commit([(8, b"e")])
    numbers = [number for number, _ in made.sent]
    assert numbers == sorted(numbers)
    assert [keys for number, keys in made.sent if number == 2] == [[4]] * numbers.count(2)
    store.close()
    assert rows_of(open_store()) == [*expected, (8, b"e")]


def test_after_a_commit_in_doubt_that_had_counted_another_one_confirms_it_before_it_is_acknowledged(
    open_store,
):
    store = open_store()
    made = lossy(store, "after")
    assert commit_in_the_end(store, [(2, b"a")]) == 2
    assert made.sent == [(1, [2]), (1, [2]), (2, [])]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_commit_that_still_runs_when_it_is_sent_again_counts_once(open_store, postgres, database, end):
    store = open_store()
    made = lossy(store, "before")
    rows = [(2, b"a"), (4, b"b")]
    with pytest.raises(Unavailable):
        store.commit(rows)

    async def run():
        """The first statement goes on in the database, though its client has gone."""
        first = await asyncpg.connect(postgres.url(database))
        await first.execute("BEGIN")
        await first.fetchval(postgres_module._COMMIT, store.session.id, 1, None, [], [2, 4], [b"a", b"b"])
        again = asyncio.create_task(asyncio.to_thread(store.commit, rows))
        watching = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
        watcher = await asyncpg.connect(postgres.url(database))
        while not await watcher.fetchval(f"{watching} AND datname = current_database()"):
            assert not again.done()
        await first.execute(end)
        await again
        await first.close()
        await watcher.close()

    asyncio.run(run())
    assert [number for number, _ in made.sent] == ([1, 1, 2] if end == "COMMIT" else [1, 1])
    assert rows_of(store) == rows


def test_a_connection_that_is_closed_before_a_commit_begins_is_one_that_is_away(open_store):
    store = open_store()
    store.session.connection.terminate()
    with pytest.raises(Unavailable):
        store.commit([(2, b"a")])
    commit_in_the_end(store, [(2, b"a")])
    assert rows_of(store) == [(2, b"a")]


def test_a_commit_is_not_in_doubt_because_the_size_could_not_be_asked_for(open_store, monkeypatch):
    store = open_store()
    monkeypatch.setattr(postgres_module, "_SIZE_INTERVAL", -1.0)
    monkeypatch.setattr(postgres_module, "_MEASURE", "SELECT pg_terminate_backend(pg_backend_pid())")
    store.commit([(2, b"a")])
    monkeypatch.setattr(postgres_module, "_SIZE_INTERVAL", 30.0)
    store.commit([(4, b"b")])
    assert rows_of(store) == [(2, b"a"), (4, b"b")]


def test_a_start_that_breaks_off_after_its_session_began_is_tried_again(postgres, database, monkeypatch):
    measure, losses = PostgresStore._measure, [True]

    async def measure_once_lost(self):
        if losses and losses.pop():
            self.session.drop()
            raise Unavailable("the connection is lost")
        await measure(self)

    monkeypatch.setattr(PostgresStore, "_measure", measure_once_lost)
    store = PostgresStore(postgres.url(database), 10)
    store.commit([(2, b"a")])
    assert rows_of(store) == [(2, b"a")]
    store.close()


@pytest.mark.parametrize("at", ["a slice", "a beat"])
def test_a_database_that_goes_while_it_is_read_ends_the_session_not_the_server(
    open_store, postgres, database, at
):
    store = open_store()
    store.commit([(2, b"a"), (4, b"b")])
    slices = store.load(1, 1 << 20)
    next(slices)
    if at == "a beat":
        store._beaten_at = 0.0
    cut(postgres, database, store)
    with pytest.raises(SessionLost, match="was lost while it was read"):
        next(slices)


def test_a_database_that_has_gone_back_in_time_is_noticed(open_store, postgres, database):
    store = open_store()
    for number in range(3):
        store.commit([(2, b"%d" % number)])
    cut(postgres, database, store)
    postgres.sql("DELETE FROM jobqueue.done WHERE number > 1", database)  # as a replica that was behind
    with pytest.raises(SessionLost, match="in an older state than the last answer"):
        commit_in_the_end(store, [(4, b"b")])


def test_only_the_last_numbers_are_kept(open_store, postgres, database):
    store = open_store()
    for number in range(150):
        store.commit([(2, b"%d" % number)])
    assert (
        postgres.sql("SELECT count(*), min(number), max(number) FROM jobqueue.done", database) == "64|87|150"
    )


def test_a_dump_that_is_restored_has_all_rows_and_gives_no_id_again(open_store, postgres, database):
    store = open_store()
    store.commit([put_counters(Counters(1, 7, 0, 0)), (14, b"row")])
    file = postgres.folder / f"{database}.dump"
    postgres.run(
        "pg_dump", "--format=custom", "--schema=jobqueue", f"--file={file}", f"--dbname={store.session.url}"
    )
    store.commit([put_counters(Counters(1, 8, 0, 0)), (16, b"later")])
    url = store.session.url
    store.close()
    for restored in (False, True):
        if restored:
            postgres.sql("DROP SCHEMA jobqueue CASCADE", database)
            postgres.run("pg_restore", f"--dbname={url}", file)
        store = open_store()
        counters, *rows = rows_of(store)
        [(_, counters)] = Reader().read([counters])
        assert rows == [(14, b"row")] if restored else [(14, b"row"), (16, b"later")]
        assert (counters.last_number > 8) == restored
        store.close()


# -- databases that it refuses -----------------------------------------------------------------------


def refusal(url, patience=0.0):
    with pytest.raises(JournalError) as refused:
        PostgresStore(url, patience)
    assert "secret" not in refused.value.detail
    return refused.value.detail


def test_what_is_wrong_with_a_url_or_a_login_is_said_in_a_line(postgres, database):
    user = f"u{database}"
    postgres.sql(f"CREATE ROLE {user} LOGIN PASSWORD 'right'")
    local = f"127.0.0.1:{postgres.port}"
    for url, told in (
        (postgres.url("none"), 'database "none" does not exist; create it with `createdb`'),
        (postgres.url(database, "nobody"), 'refuses the login .*: role "nobody" does not exist'),
        (f"postgresql://{user}:secret@{local}/{database}", "refuses the login .*: password authentication failed"),
        (f"postgresql://{user}:secret@127.0.0.1:1/{database}", "cannot reach .*: Connection refused$"),
        (f"postgresql://{user}:secret@nowhere.invalid/x", "cannot reach postgresql://.*@nowhere.invalid/x"),
        ("postgresql://a:se/secret@h/x", "the URL postgresql://a@h/x is wrong: write postgresql://user:password@"),
        ("postgresql://a:secret@h:port/x", "the URL postgresql://a@h:port/x is wrong"),
        ("postgresql://a:secret@h/x?sslmode=some", "the URL postgresql://a@h/x is wrong: .*sslmode.*must be one of"),
        (postgres.url(database, user), "no rights in .*: .*: CREATE SCHEMA jobqueue AUTHORIZATION"),
    ):  # fmt: skip
        detail = refusal(url)
        assert re.search(told, detail), detail


def test_a_role_that_owns_the_schema_needs_no_other_right(postgres, database):
    user = f"u{database}"
    postgres.sql(f"CREATE ROLE {user} LOGIN")
    postgres.sql(f"CREATE SCHEMA jobqueue AUTHORIZATION {user}", database)
    store = PostgresStore(postgres.url(database, user), 0)
    store.commit([(2, b"a")])
    assert rows_of(store) == [(2, b"a")]
    cut(postgres, database, store)
    commit_in_the_end(store, [(4, b"b")])
    store.close()


def test_a_newer_schema_is_refused_by_its_version(open_store, postgres, database):
    open_store().close()
    postgres.sql("UPDATE jobqueue.meta SET version = 4", database)
    assert "is of version 4; this jobqueue knows versions up to 3: use a newer one" in refusal(
        postgres.url(database)
    )


def refusal_of_a_watch(url):
    """What a server hears that would stand by."""

    async def look():
        watch = Watch(url, Place("h:1", "secret"))
        try:
            with pytest.raises(JournalError) as refused:
                await watch.look()
        finally:
            await watch.close(for_good=True)
        return refused.value.detail

    return asyncio.run(look())


def test_a_server_that_would_stand_by_but_cannot_is_told_why(open_store, postgres, database):
    open_store()
    user = f"u{database}"
    postgres.sql(f"CREATE ROLE {user} LOGIN")
    nobody = postgres.url(database, user)
    assert "permission denied for schema jobqueue. Use the role that owns the schema" in refusal_of_a_watch(
        nobody
    )
    postgres.sql("UPDATE jobqueue.meta SET version = 4", database)
    assert "is of version 4; this jobqueue knows versions up to 3" in refusal_of_a_watch(
        postgres.url(database)
    )
    postgres.sql("UPDATE jobqueue.meta SET version = 3", database)
    postgres.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert refusal_of_a_watch(postgres.url(database)).endswith("give the URL of the primary")


def test_a_database_that_takes_no_writes_is_refused(postgres, database):
    postgres.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert "is read-only" in refusal(postgres.url(database))


def test_a_replica_is_refused():
    replica = Postgres()
    try:
        replica.stop()
        (replica.data / "standby.signal").touch()
        replica.start()
        assert refusal(replica.url("postgres")).endswith(
            "is a read-only replica: give the URL of the primary"
        )
    finally:
        replica.remove()


def test_an_old_postgresql_is_refused_by_its_version(postgres, database, monkeypatch):
    monkeypatch.setattr(postgres_session, "OLDEST_SERVER", 99)
    assert "jobqueue needs 99 or newer" in refusal(postgres.url(database))


def test_without_the_driver_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert refusal("postgresql://h/x").endswith("pip install 'jobqueue-http[server,postgres]'")


def test_defaults_of_the_database_that_would_weaken_the_promises_are_not_used(postgres, database, open_store):
    for setting in (
        "synchronous_commit = off", "statement_timeout = 1", "default_transaction_isolation = 'repeatable read'",
    ):  # fmt: skip
        postgres.sql(f"ALTER DATABASE {database} SET {setting}")
    store = open_store()
    shown_settings = store._run(
        store.session.connection.fetch(
            "SELECT setting FROM pg_settings WHERE name IN"
            " ('synchronous_commit', 'statement_timeout', 'default_transaction_isolation') ORDER BY name"
        )
    )
    assert [setting for (setting,) in shown_settings] == ["read committed", "0", "on"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ann:pw@h:1/d?sslmode=require&password=pw", "postgresql://ann@h:1/d"),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql://ann:p@w/x@h/d", "postgresql://ann@h/d"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_a_url_is_shown_without_password(url, expected):
    assert shown(url) == expected
