"""A function that was declared as a job: calling, enqueuing, preparing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Final, Generic, NamedTuple, ParamSpec, TypeVar, Unpack

from jobqueue.client import Job, NewJob
from jobqueue.client.encoding import check_names
from jobqueue.jobs.context import Context, current_or_none
from jobqueue.jobs.handle import Handle
from jobqueue.jobs.options import EnqueueOptions, Running
from jobqueue.jobs.shared import Shared
from jobqueue.jobs.signature import Signature

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
_TRACE_HEADERS: Final = ("traceparent", "tracestate")


class Prepared(NamedTuple):
    """A job that is not enqueued yet, for `Jobs.enqueue_many`."""

    declared: DeclaredJob[..., Any, Any]
    new: NewJob

    def handle(self, job: Job) -> Handle[Any]:
        """Returns the handle of this job, once it is enqueued."""
        return Handle(self.declared.shared, self.declared.signature, job)


class DeclaredJob(Generic[P, R, C]):
    """A function that is a job. A call runs it here; `enqueue` runs it in a worker.

    Type checkers see the parameters of the function, without its `Context`. `C` is what a call returns: the
    result, or for an `async def` a coroutine.
    """

    def __init__(
        self,
        shared: Shared,
        function: Callable[..., Any],
        type: str,
        options: EnqueueOptions,
        key_of: Callable[..., str] | None,
        running: Running,
    ) -> None:
        self.shared = shared
        self.function = function
        self.type = type
        self.running = running
        self.signature = Signature(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self._options = options
        self._key_of = key_of
        # As functools.wraps does, so that documentation tools see the function.
        update_wrapper(self, function, updated=())
        name = function.__qualname__
        if running.process and self.is_async:
            raise TypeError(f"{name}: process=True is for a def, not for an async def")
        if running.process and "<locals>" in name:
            raise TypeError(
                f"{name}: a process finds its function by the name in its module, so a job with "
                "process=True cannot be defined inside a function"
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Runs the function here, without the queue."""
        if self.signature.takes_context:
            context = current_or_none() or Context(type=self.type)
            result: C = self.function(context, *args, **kwargs)
        else:
            result = self.function(*args, **kwargs)
        return result

    def options(self, **options: Unpack[EnqueueOptions]) -> DeclaredJob[P, R, C]:
        """Returns a copy that enqueues with other options."""
        check_names(options, EnqueueOptions, self.type)
        copy: DeclaredJob[P, R, C] = object.__new__(type(self))
        vars(copy).update(vars(self))
        copy._options = {**self._options, **options}
        if "key" in options:
            copy._key_of = None
        return copy

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueues a job with these arguments. Raises what `client.jobs.enqueue` does."""
        new, key = self._new(args, kwargs)
        job = self.shared.client.jobs.enqueue(new.type, new.payload, idempotency_key=key, **new.options)
        return Handle(self.shared, self.signature, job)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """As `enqueue`, awaited."""
        new, key = self._new(args, kwargs)
        job = await self.shared.aclient.jobs.enqueue(
            new.type, new.payload, idempotency_key=key, **new.options
        )
        return Handle(self.shared, self.signature, job)

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared:
        """Returns a job for `Jobs.enqueue_many`, which gives idempotency keys itself.

        Raises `TypeError` if the options have an `idempotency_key`.
        """
        new, key = self._new(args, kwargs)
        if key is not None:
            raise TypeError("a batch has one idempotency_key: give it to enqueue_many")
        return Prepared(self, new)

    def _new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[NewJob, str | None]:
        options: dict[str, Any] = dict(self._options)
        key = options.pop("idempotency_key", None)
        if self._key_of is not None:
            options["key"] = str(self._key_of(**self.signature.arguments(args, kwargs)))
        traced = self.shared.trace_headers() or _headers_of_the_job_here()
        if traced:
            options["headers"] = {**traced, **options.get("headers", {})}
        return NewJob(self.type, self.signature.payload(args, kwargs), options), key  # type: ignore[arg-type]  # checked when they were given

    def __repr__(self) -> str:
        return f"<job {self.type}>"


def _headers_of_the_job_here() -> dict[str, str]:
    """Returns the trace headers of the job that runs here; empty: it has none, or none runs."""
    around = current_or_none()
    if around is None:
        return {}
    return {name: around.headers[name] for name in _TRACE_HEADERS if name in around.headers}
