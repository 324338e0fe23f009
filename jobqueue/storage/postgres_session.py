"""The session of the owner of a shard in a PostgreSQL database: connecting, and who may write.

Everything is in the schema `jobqueue` (`postgres_schema`). A database has one shard, or as many as were asked
for when it was created. Any number of servers may be started on one database. Each shard has one owner, which
has all jobs of it; the others stand by (`Watch`). Three things tell them apart. An advisory lock is held by
the connection of the owner, so that the others know when it has gone. The owner counts up the `beat` of its
row twice a second over that connection, so that they know when it hangs. And since a connection can break,
and a process stand still, without the server's knowing, each commit locks the row of its session and is void
unless that is alive: the fence (`PostgresStore`).
"""

import asyncio
import importlib
import os
import socket
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from jobqueue.clock import SystemClock, first_id_at
from jobqueue.shards import first_id_of
from jobqueue.storage.postgres_schema import check_schema
from jobqueue.storage.records import COUNTERS, Counters, Damaged, Reader, put_counters
from jobqueue.storage.store import JournalError, Unavailable

OLDEST_SERVER = 13  # the major version of PostgreSQL
# Seconds that connecting, and a command of a session, may take.
CONNECT = 3.0
COMMAND = 20.0
# The advisory lock of the owner of shard 0: "jobq". Those of the other shards are the numbers after it.
LOCK = 0x6A6F6271
# How often, and after how many seconds, the lock of a connection that was just ended is tried again.
_LOCK_TRIES = 40
_LOCK_PAUSE = 0.05
# Ended sessions of a shard that are kept for people to look at.
_KEPT_SESSIONS = 16
# What the promises rest on, whatever the defaults of the database are. A plan is made once: PostgreSQL would
# plan small commits to a large table each time, which takes longer than executing them.
_PARAMETERS = {
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # The database notices within about 15 s that the machine of a server is gone.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "5",
}
# Ends the session of any other owner of a shard. It waits for a commit of that session which is under way.
END_OTHERS = "UPDATE jobqueue.session SET alive = false WHERE alive AND owner AND shard = $1"
# The same for one whose beat stands still.
END_SILENT = """
    UPDATE jobqueue.session SET alive = false
    WHERE id = $1 AND alive AND owner AND beat IS NOT DISTINCT FROM $2 AND shard = $3 RETURNING 1
"""
_LAST_OWNER = """
    SELECT server, alive FROM jobqueue.session WHERE owner AND shard = $1 ORDER BY serial DESC LIMIT 1
"""
# The same in a schema of any version, for messages.
_OTHER_OWNER = """
    SELECT server FROM jobqueue.session, to_jsonb(session) AS its WHERE alive
    AND coalesce((its ->> 'owner')::boolean, true) AND coalesce((its ->> 'shard')::integer, 0) = $1
    ORDER BY serial DESC LIMIT 1
"""
# The numbers of all sessions of a shard, and those whose session is not known.
_FORGET_DONE = """
    DELETE FROM jobqueue.done WHERE session NOT IN (SELECT id FROM jobqueue.session WHERE shard <> $1)
"""
# Old sessions of a shard, and those of servers on standby that did not come to end them. Serial numbers are
# those of all shards, so they do not tell how many sessions of this one are newer.
_FORGET_SESSIONS = """
    DELETE FROM jobqueue.session
    WHERE owner AND shard = $1 AND NOT alive AND serial NOT IN (
        SELECT serial FROM jobqueue.session WHERE owner AND shard = $1 ORDER BY serial DESC LIMIT $2
    ) OR NOT owner AND beat_at < now() - interval '1 minute'
"""
# Whether a session is alive, and the number of its last commit.
_STILL_OURS = """
    SELECT (SELECT alive FROM jobqueue.session WHERE id = $1),
        (SELECT max(number) FROM jobqueue.done WHERE session = $1)
"""
_END_CONNECTIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = $1 AND pid <> pg_backend_pid()
"""
LAST_COUNTERS = """
    SELECT counters FROM jobqueue.done JOIN jobqueue.session ON session = id WHERE shard = $1
    ORDER BY serial DESC, number DESC LIMIT 1
"""
# Changes when the rows are on other storage: a restored dump, another cluster, a promoted replica.
_PLACE = """
    SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        'jobqueue.record'::regclass::oid, pg_relation_filenode('jobqueue.record'))
"""
_PUT_PLACE = """
    INSERT INTO jobqueue.shard VALUES ($1, $2) ON CONFLICT (shard) DO UPDATE SET place = excluded.place
"""


# Who listens on it begins to look for an owner.
CHANNEL = "jobqueue"


class SessionLost(Exception):
    """This session may not write any more. What it did not commit is void."""


class OtherOwner(Exception):
    """Another server is the owner of the jobs, or begins to be it."""


class Place(NamedTuple):
    """Where the other servers of a database pass connections on to: `host:port`. `secret`: by which this
    server knows that they come from them."""

    address: str
    secret: str


class Silent(NamedTuple):
    """An owner that has gone or hangs: its session, and the beat at which that stands still."""

    session: UUID
    beat: int | None


def machine() -> str:
    """Returns what two processes have in common that see each other's process ids, or "" if that is not
    known."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def application(session: UUID) -> str:
    """Returns the name by which the connection of an owner is found in the database."""
    return f"jobqueue {session}"


def load_driver() -> ModuleType:
    """Imports asyncpg. Raises `JournalError` if it is not installed."""
    try:
        # By its name: mypyc follows imports, and the driver is not there when a package is built.
        return importlib.import_module("asyncpg")
    except ImportError:
        raise JournalError(
            "a PostgreSQL database needs the package asyncpg: pip install 'jobqueue-http[server,postgres]'"
        ) from None


def shown(url: str) -> str:
    """Returns the URL as it may be logged: without password and options."""
    rest = url.partition("://")[2]
    user, _, place = rest.rpartition("@")
    user = user.partition(":")[0]
    place = place.partition("?")[0]
    return f"postgresql://{user}@{place}" if user else f"postgresql://{place}"


class PostgresSession:
    """One run of an owner of a `shard`, out of `shards`, in the database at `url`. `place`: where it is
    reached; None for a command, which has no beat. `connection` is its connection, or None while there is
    none. `before`: the server that was the owner before it; `forced`: that one had not ended its session. All
    methods run on the loop of the store."""

    def __init__(self, url: str, place: Place | None = None, shard: int = 0, shards: int = 1) -> None:
        self.driver = load_driver()
        self.url = url
        self._shard, self._shards = shard, shards
        self._place = place
        self.location = shown(url)
        self.id: UUID = uuid4()  # never used again by another run
        self.identity = ""
        self.secret = ""
        self.connection: Any = None
        self.before: str | None = None
        self.forced = False

    # -- the start ----------------------------------------------------------------------------------

    async def open(self, silent: Silent | None) -> bytes | None:
        """Connects, creates the schema or brings it up to date, ends the session of an owner that is `silent`
        or whose connection is gone, and begins this one. Returns the body of the counters, if there are any.
        Raises `JournalError`, and `Unavailable` if it may be tried again."""
        self.id = uuid4()  # a try before may have begun a session, without its answer
        connection = await self._connect()
        try:
            await refuse_replica(connection, self.location)
            if silent is not None:
                if not await connection.fetchval(END_SILENT, *silent, self._shard):
                    raise OtherOwner(await self._describe_other(connection))
                await connection.execute(_END_CONNECTIONS, application(silent.session))
            if not await self._lock(connection, _LOCK_TRIES if silent is not None else 1):
                other = await self._describe_other(connection)
                raise Unavailable(other) if self._place is None else OtherOwner(other)
            async with connection.transaction():
                schema = await check_schema(connection, self.location, self._shards)
                self.identity, self.secret = schema.identity, schema.secret
                counters = await self._begin(connection)
            self.forced = self.forced or silent is not None
        except BaseException as bad:
            connection.terminate()
            raise self._translate(bad) from bad
        self._use(connection)
        return counters

    async def _begin(self, connection: Any) -> bytes | None:
        shard = self._shard
        if (last := await connection.fetchrow(_LAST_OWNER, shard)) is not None:
            self.before, self.forced = last["server"], last["alive"]
        await connection.execute(END_OTHERS, shard)
        counters: bytes | None = await connection.fetchval(LAST_COUNTERS, shard)
        place = await connection.fetchval(_PLACE)
        if await connection.fetchval("SELECT place FROM jobqueue.shard WHERE shard = $1", shard) != place:
            await connection.execute(_PUT_PLACE, shard, place)
            counters = counters and self._with_raised_ids(counters)
        await connection.execute(_FORGET_DONE, shard)
        await add_session(connection, self.id, self._place, True, shard)
        await connection.execute("INSERT INTO jobqueue.done VALUES ($1, 0, $2)", self.id, counters)
        await connection.execute(_FORGET_SESSIONS, shard, _KEPT_SESSIONS + 1)
        return counters

    def _with_raised_ids(self, body: bytes) -> bytes:
        """Returns counters whose last number is at least the clock's. The rows may be older than the last ids
        that were given out."""
        try:
            [(_, counters)] = Reader().read([(COUNTERS, body)])
        except Damaged:  # the loader reports it
            return body
        assert isinstance(counters, Counters)
        wall = SystemClock().wall()
        first = first_id_at(wall) if self._shards == 1 else first_id_of(self._shard, wall)
        raised = put_counters(counters._replace(last_number=max(counters.last_number, first)))[1]
        assert raised is not None
        return raised

    async def _describe_other(self, connection: Any) -> str:
        server = None
        if await connection.fetchval("SELECT to_regclass('jobqueue.session') IS NOT NULL"):
            server = await connection.fetchval(_OTHER_OWNER, self._shard)
        return f"another server, {server or 'which is starting'}, is using {self._what()}"

    def _what(self) -> str:
        return self.location if self._shards == 1 else f"shard {self._shard} of {self.location}"

    # -- connecting ---------------------------------------------------------------------------------

    async def reconnect(self, acknowledged: int) -> None:
        """Connects again, for the same session. `acknowledged`: the number of its last commit that was
        acknowledged. Raises `SessionLost`, and `Unavailable` if it may be tried again."""
        try:
            connection = await self._connect()
        except JournalError as refused:  # such as a password that was changed
            raise Unavailable(refused.detail) from refused
        try:
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise Unavailable(f"{self.location} is a read-only replica")
            await self._check_still_ours(connection, acknowledged)
            if not await self._lock(connection):
                await self._end_old_connection(connection)
                raise Unavailable("the database still has the connection that was lost")
        except BaseException as bad:
            connection.terminate()
            failed = self._translate(bad)
            raise Unavailable(failed.detail) if isinstance(failed, JournalError) else failed from bad
        self._use(connection)

    async def _check_still_ours(self, connection: Any, acknowledged: int) -> None:
        alive, newest = await connection.fetchrow(_STILL_OURS, self.id)  # as of one moment
        if alive is False:
            raise self.taken_over()
        if alive is None or newest is None or newest < acknowledged:
            raise SessionLost(
                f"{self.location} is in an older state than the last answer of this server: a backup was "
                "restored, or a replica that was behind has become the primary. What was acknowledged since "
                "is lost. The next start loads what is there"
            )

    def taken_over(self) -> SessionLost:
        return SessionLost(f"another server has taken over {self._what()}")

    async def _end_old_connection(self, connection: Any) -> None:
        """Ends the backend of this session's former connection, which may take long to notice that it is
        lost."""
        await connection.execute(_END_CONNECTIONS, application(self.id))

    async def _lock(self, connection: Any, tries: int = 1) -> bool:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK + self._shard):
            tries -= 1
            if not tries:
                return False
            await asyncio.sleep(_LOCK_PAUSE)
        return True

    async def _connect(self) -> Any:
        return await connect(self.driver, self.url, application(self.id))

    def _use(self, connection: Any) -> None:
        self.connection = connection

    def drop(self) -> None:
        """Drops a connection that failed."""
        if self.connection is not None:
            self.connection.terminate()
            self.connection = None

    async def close(self) -> None:
        """Ends the session, so that another server may begin at once."""
        if (connection := self.connection) is not None:
            self.connection = None
            try:
                ending = "UPDATE jobqueue.session SET alive = false WHERE id = $1"
                await connection.execute(ending, self.id, timeout=CONNECT)
                await connection.execute(f"NOTIFY {CHANNEL}", timeout=CONNECT)
                await connection.close(timeout=CONNECT)
            except Exception:  # it ends with the connection in any case
                connection.terminate()

    def _translate(self, bad: BaseException) -> BaseException:
        return explained(bad, self.driver.exceptions, self.location)


async def connect(driver: Any, url: str, name: str) -> Any:
    """Returns a connection of that `name` to a server that is new enough. Raises `JournalError` and
    `Unavailable`."""
    where = shown(url)
    try:
        connection = await driver.connect(
            url,
            timeout=CONNECT,
            command_timeout=COMMAND,
            server_settings=_PARAMETERS | {"application_name": name},
        )
    except Exception as bad:
        raise explained(bad, driver.exceptions, where) from bad
    try:
        major = connection.get_server_version().major
        if major < OLDEST_SERVER:
            raise JournalError(f"{where} is PostgreSQL {major}; jobqueue needs {OLDEST_SERVER} or newer")
        if major >= 14:
            await connection.execute("SET idle_session_timeout = 0")
        if await connection.fetchval("SELECT current_setting('synchronous_commit')") == "off":
            await connection.execute("SET synchronous_commit = on")
    except BaseException as bad:
        connection.terminate()
        raise explained(bad, driver.exceptions, where) from bad
    return connection


async def refuse_replica(connection: Any, where: str) -> None:
    """Raises `JournalError` if the database at `where` is read-only."""
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise JournalError(f"{where} is a read-only replica: give the URL of the primary")


def explained(bad: BaseException, errors: Any, where: str) -> BaseException:
    """Returns the error of the `Store` contract for one of the driver while connecting or starting: a
    `JournalError`, or `Unavailable` for what may go away by itself. `errors`: the driver's exceptions.
    `where`: the database, for messages."""
    if isinstance(bad, errors.InsufficientPrivilegeError):
        remedy = "An administrator may run there: CREATE SCHEMA jobqueue AUTHORIZATION the_role_of_jobqueue"
        if "for database" not in str(bad):  # the schema is there
            remedy = "Use the role that owns the schema jobqueue"
        return JournalError(f"no rights in {where}: {bad}. {remedy}")
    if isinstance(bad, errors.ReadOnlySQLTransactionError):
        return JournalError(f"{where} is read-only: {bad}; give the URL of the primary")
    if isinstance(bad, errors.InvalidCatalogNameError):
        return JournalError(f"cannot use {where}: {bad}; create it with `createdb`")
    if isinstance(bad, (errors.InvalidAuthorizationSpecificationError, errors.InvalidPasswordError)):
        return JournalError(f"PostgreSQL refuses the login to {where}: {bad}")
    if isinstance(bad, errors.ClientConfigurationError):
        return JournalError(f"the URL {where} is wrong: {str(bad).partition(chr(10))[0]}")
    if isinstance(bad, ValueError):  # its text may show parts of the password
        return JournalError(
            f"the URL {where} is wrong: write postgresql://user:password@host:port/database, with "
            "characters such as / @ : # of a password as %2F %40 %3A %23"
        )
    if isinstance(bad, TimeoutError):
        return Unavailable(f"{where} does not answer")
    if isinstance(bad, (OSError, errors.InterfaceError, errors.InternalClientError)):
        return Unavailable(f"cannot reach {where}: {_why(bad)}")
    if isinstance(bad, errors.PostgresError):
        return Unavailable(f"{where}: {bad}") if is_passing(bad) else JournalError(f"{where}: {bad}")
    return bad


async def add_session(connection: Any, id: UUID, place: Place | None, owner: bool, shard: int = 0) -> int:
    """Inserts the row of a session, and returns its serial number. A server on standby is in no shard, which
    is written as 0."""
    values = {
        "id": id,
        "server": f"process {os.getpid()} on {socket.gethostname()}",
        "owner": owner,
        "beat": None if place is None else 0,
        "machine": machine(),
        "process": os.getpid(),
        "address": place and place.address,
        "secret": place and place.secret,
    }
    if shard:  # which no schema of an older version has
        values["shard"] = shard
    serial: int = await connection.fetchval(
        f"INSERT INTO jobqueue.session (beat_at, {', '.join(values)})"
        f" VALUES (now(), {', '.join(f'${number + 1}' for number in range(len(values)))}) RETURNING serial",
        *values.values(),
    )
    return serial


def _why(bad: BaseException) -> str:
    """Returns why a connection failed. asyncio has words of its own for errors of the system, which do not
    say why."""
    if isinstance(bad, OSError) and bad.errno is not None and bad.errno > 0:  # not of a name
        return os.strerror(bad.errno)
    return (isinstance(bad, OSError) and bad.strerror) or str(bad)


def is_passing(bad: Any) -> bool:
    """True for an error of PostgreSQL that may go away by itself: connections, resources, a shutdown, a
    replica. False for one about the statement or its data."""
    return str(bad.sqlstate)[:2] in {"08", "25", "40", "53", "55", "57", "58"}
