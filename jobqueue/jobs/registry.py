"""`Jobs`: the jobs of a program, and its connection to the queue."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from weakref import WeakSet

from jobqueue.client import AsyncClient, Client, Duration, NewSchedule, ScheduleOptions, Timeouts
from jobqueue.client.encoding import check_names
from jobqueue.client.models import ScheduleChanges
from jobqueue.jobs.context import Context
from jobqueue.jobs.declared import DeclaredJob, Prepared
from jobqueue.jobs.handle import Handle
from jobqueue.jobs.options import DeclareOptions, EnqueueOptions, Running, timeout_of
from jobqueue.jobs.schedules import DeclaredSchedule, PlanOptions
from jobqueue.jobs.shared import Around, Hook, Shared

if TYPE_CHECKING:
    import ssl

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D", bound=DeclaredJob[..., Any, Any])
A = TypeVar("A", bound=Around)
H = TypeVar("H", bound=Hook)
# All `Jobs` of the program, and who is told of new ones. For test kits.
_instances: WeakSet[Jobs] = WeakSet()
_observers: list[Callable[[Jobs], None]] = []


def all_jobs() -> list[Jobs]:
    """Returns all `Jobs` that the program has made and still uses."""
    return list(_instances)


@contextmanager
def observing_new(observer: Callable[[Jobs], None]) -> Iterator[None]:
    """Calls `observer` with each `Jobs` that is made during the block."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


class Declare(Protocol):
    """Makes a job of a function. Type checkers take an async def first, and a `Context` first."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> DeclaredJob[P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> DeclaredJob[P, R, R]: ...


class DeclareSchedule(Protocol):
    """Gives a declared job a schedule, or makes a job of a function first.

    mypy does not see the arguments of an async job that was declared before: `Any` is a part of its type.
    """

    @overload
    def __call__(self, function: D, /) -> D: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> DeclaredJob[P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> DeclaredJob[P, R, R]: ...


class Jobs:
    """The jobs of a program. It connects at the first call, as `Client` says: by `url` and `token`, else by
    JOBQUEUE_URL and JOBQUEUE_TOKEN, else to http://localhost:8080.

    - `queue`: where jobs go whose declaration names none.
    - `client`, `aclient`: clients of your own, instead of the ones that are made.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        queue: str | None = None,
        timeout: Timeouts | float | None = None,
        ca: str | None = None,
        cert: str | tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        client: Client | None = None,
        aclient: AsyncClient | None = None,
    ) -> None:
        connection: dict[str, Any] = {"url": url, "token": token, "ca": ca, "cert": cert, "tls": tls}
        if timeout is not None:
            connection["timeout"] = timeout
        self._queue = queue
        self.shared = Shared(connection, client, aclient)
        self.types: dict[str, DeclaredJob[..., Any, Any]] = {}
        self.schedules: dict[str, DeclaredSchedule] = {}  # the declared ones, by name
        _instances.add(self)
        for observer in _observers:
            observer(self)

    @property
    def client(self) -> Client:
        """The client that blocks. Threads share it."""
        return self.shared.client

    @property
    def aclient(self) -> AsyncClient:
        """The client for asyncio."""
        return self.shared.aclient

    # -- declare ----------------------------------------------------------------------------------------

    @overload
    def job(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def job(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> DeclaredJob[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def job(self, function: Callable[Concatenate[Context, P], R], /) -> DeclaredJob[P, R, R]: ...
    @overload
    def job(self, function: Callable[P, R], /) -> DeclaredJob[P, R, R]: ...
    @overload
    def job(self, type: str | None = None, /, **options: Unpack[DeclareOptions]) -> Declare: ...
    def job(self, function: Any = None, /, **options: Any) -> Any:
        """Declares a function as a job: `@jobs.job`, or `@jobs.job("its.type", queue="mail", timeout="5m")`.

        The type is the function's name unless another one is given. Options are those of enqueue
        (docs/api.md) and of `DeclareOptions`. Raises `TypeError` for an unknown option, and `ValueError` if
        there is a job of that type already.
        """
        if callable(function):
            return self._declare(function, function.__name__, {})
        check_names(options, DeclareOptions, "a declaration of a job")

        def declare(decorated: Callable[..., Any]) -> DeclaredJob[..., Any, Any]:
            return self._declare(decorated, function or decorated.__name__, options)

        return declare

    def _declare(
        self, function: Callable[..., Any], type: str, given: dict[str, Any]
    ) -> DeclaredJob[..., Any, Any]:
        if type in self.types:
            other = self.types[type].function
            raise ValueError(
                f"there is a job {type!r} already, {other.__module__}.{other.__qualname__}: give this one a "
                f'type, @jobs.job("another.type")'
            )
        options = dict(given)
        running = Running(
            timeout_of(options.pop("timeout", None)),
            options.pop("process", False),
            tuple(options.pop("dead_on", ())),
        )
        key = options.get("key")
        key_of = options.pop("key") if callable(key) else None
        if self._queue is not None:
            options.setdefault("queue", self._queue)
        # The names of the options were checked; their values are for the server.
        declared: DeclaredJob[..., Any, Any] = DeclaredJob(
            self.shared, function, type, cast(EnqueueOptions, options), key_of, running
        )
        self.types[type] = declared
        return declared

    def find(self, type: str) -> DeclaredJob[..., Any, Any] | None:
        """Returns the job that is declared under a type; None: there is none. For workers."""
        return self.types.get(type)

    def cron(self, expression: str, /, **options: Unpack[PlanOptions]) -> DeclareSchedule:
        """Declares a schedule: `@jobs.cron("30 2 * * *", timezone="Europe/Berlin")` above a function, which
        becomes a job, or above `@jobs.job(…)`. `sync_schedules` sends it to the server.

        Options are those of docs/schedules.md, and `name` and `arguments` of the job. A job may have several
        schedules with different names. Raises `TypeError` for an unknown option, or arguments that do not fit
        the function; `ValueError` if there is a schedule of that name already.
        """
        return self._declare_schedule({"cron": expression}, options)

    def every(self, interval: Duration, /, **options: Unpack[PlanOptions]) -> DeclareSchedule:
        """Declares a schedule at an interval: `@jobs.every("15m")`. Otherwise as `cron`."""
        return self._declare_schedule({"every": interval}, options)

    def _declare_schedule(self, when: dict[str, Any], given: Any) -> DeclareSchedule:
        check_names(given, PlanOptions, "a schedule")
        options = {**when, **given}
        name, arguments = options.pop("name", None), options.pop("arguments", {})

        def declare(decorated: Any) -> Any:
            declared = decorated
            if not isinstance(decorated, DeclaredJob):
                declared = self._declare(decorated, decorated.__name__, {})
            # The names of the options were checked; their values are for the server.
            plan = cast(ScheduleOptions, options)
            self._add_schedule(DeclaredSchedule(declared, name or declared.type, arguments, plan))
            return declared

        return cast(DeclareSchedule, declare)

    def _add_schedule(self, schedule: DeclaredSchedule) -> None:
        if schedule.name in self.schedules:
            raise ValueError(
                f'there is a schedule {schedule.name!r} already: give this one a name, name="another.name"'
            )
        schedule.new()  # arguments that do not fit are refused where they are declared
        self.schedules[schedule.name] = schedule

    def around(self, function: A) -> A:
        """Runs a generator function around every job: what is before its `yield` before the job, the rest
        after it. An exception of the job is raised at the `yield`.

        A `def` runs where the job runs: in its thread, its process, or on the loop. An `async def` is for
        async jobs, on the loop. The one declared first is the outermost.
        """
        self.shared.around.append(function)
        return function

    def on_start(self, function: H) -> H:
        """Calls a function when a worker starts, before its first job. It may be an async def."""
        self.shared.starts.append(function)
        return function

    def on_stop(self, function: H) -> H:
        """Calls a function when a worker has ended its last job. It may be an async def."""
        self.shared.stops.append(function)
        return function

    # -- schedules --------------------------------------------------------------------------------------

    def sync_schedules(self, *, group: str, dry_run: bool = False) -> ScheduleChanges:
        """Makes the schedules of a group on the server those that are declared here, at each deployment:
        creates, changes and deletes, and nothing outside the group. `dry_run` only tells what would change.
        Raises what `client.schedules.put_group` does."""
        return self.client.schedules.put_group(group, self._new_schedules(), dry_run=dry_run)

    async def async_schedules(self, *, group: str, dry_run: bool = False) -> ScheduleChanges:
        """As `sync_schedules`, awaited."""
        return await self.aclient.schedules.put_group(group, self._new_schedules(), dry_run=dry_run)

    def _new_schedules(self) -> list[NewSchedule]:
        return [schedule.new() for schedule in self.schedules.values()]

    # -- enqueue many -----------------------------------------------------------------------------------

    def enqueue_many(
        self, prepared: Iterable[Prepared], *, idempotency_key: str | None = None
    ) -> list[Handle[Any]]:
        """Enqueues any number of prepared jobs, 1,000 in a request, and returns their handles in order.

        A lost answer is asked for again under an idempotency key, so no job is enqueued twice. Give
        `idempotency_key` to make the whole call safe to repeat. Raises what `client.jobs.enqueue_many` does.
        """
        kept = list(prepared)
        made = self.client.jobs.enqueue_many((one.new for one in kept), idempotency_key=idempotency_key)
        return [one.handle(job) for one, job in zip(kept, made, strict=True)]

    async def aenqueue_many(
        self, prepared: Iterable[Prepared], *, idempotency_key: str | None = None
    ) -> list[Handle[Any]]:
        """As `enqueue_many`, awaited."""
        kept = list(prepared)
        made = await self.aclient.jobs.enqueue_many(
            (one.new for one in kept), idempotency_key=idempotency_key
        )
        return [one.handle(job) for one, job in zip(kept, made, strict=True)]
