"""The real engine and the real dispatcher, for requests of this process: what a server is without sockets."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop, Future
from typing import Any, Final, NamedTuple, cast

from jobqueue.client import Request, Response
from jobqueue.engine.api import Engine, MaybeFuture
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import BadRequest, JobQueueError
from jobqueue.model import Delivery, DequeueRequest, Job
from jobqueue.settings import Settings
from jobqueue.steps import FINISHED
from jobqueue.testing.clock import ManualClock
from jobqueue.testing.immediate_loop import ImmediateLoop
from jobqueue.web import http
from jobqueue.web.dispatch import Dispatcher

_PEER: Final = "127.0.0.1"


class Waiting(NamedTuple):
    """A request that waits for a job to finish, for `wait` milliseconds at most."""

    job: int
    wait: int
    deferred: http.Deferred
    asked: http.Request


class FrozenTimeEngine:
    """An engine in which no time passes while a request waits.

    A dequeue gets what there is. The wait for a job is noted in `waited`, as its id and milliseconds; its
    Future is completed by `InProcessServer.finish`.
    """

    def __init__(self, engine: LocalEngine, loop: ImmediateLoop) -> None:
        self._engine = engine
        self._loop = cast(AbstractEventLoop, loop)
        self.waited: tuple[int, int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def dequeue(self, request: DequeueRequest, wait: int = 0) -> MaybeFuture[list[Delivery]]:
        return self._engine.dequeue(request, 0)

    def wait_for(self, id: int, wait: int) -> MaybeFuture[Job]:
        job = self._engine.get(id)
        if not wait or job.status in FINISHED:
            return job
        self.waited = id, wait
        return Future(loop=self._loop)


class InProcessServer:
    """Answers requests, one at a time; several threads may send some."""

    def __init__(self, settings: Settings, clock: ManualClock) -> None:
        self.engine = LocalEngine(settings, clock)
        self._loop = ImmediateLoop()
        self._frozen = FrozenTimeEngine(self.engine, self._loop)
        self._dispatcher = Dispatcher(cast(Engine, self._frozen))
        self._lock = threading.Lock()

    def begin(self, request: Request) -> Response | Waiting:
        """Returns the answer; or what the request waits for, which `finish` answers."""
        with self._lock, self._loop.running():
            asked = self._asked(request)
            answer = self._answer(asked)
            self._loop.run()
            while isinstance(answer, http.Deferred):
                if self._frozen.waited is not None:
                    job, wait = self._frozen.waited
                    self._frozen.waited = None
                    return Waiting(job, wait, answer, asked)
                answer = self._dispatcher.finish(answer, asked)
            return self._response(answer, asked)

    def finish(self, waiting: Waiting) -> Response:
        """Answers a request with the job as it is now."""
        with self._lock, self._loop.running():
            future = waiting.deferred.future
            try:
                future.set_result(self.engine.get(waiting.job))
            except JobQueueError as error:
                future.set_exception(error)
            return self._response(self._dispatcher.finish(waiting.deferred, waiting.asked), waiting.asked)

    def abandon(self, waiting: Waiting) -> None:
        """Withdraws a request that nobody will finish."""
        with self._lock, self._loop.running():
            waiting.deferred.future.cancel()

    def tick(self) -> None:
        """Does what is due."""
        with self._lock, self._loop.running():
            self.engine.tick()

    def close(self) -> None:
        with self._lock, self._loop.running():
            self.engine.close()

    def _asked(self, request: Request) -> http.Request:
        path, _, query = request.target.partition("?")
        headers = {name.lower(): value for name, value in request.headers}
        id = self._dispatcher.request_id(headers.get(b"x-request-id"))
        return http.Request(request.method, path, query, headers, request.body, _PEER, id)

    def _answer(self, asked: http.Request) -> http.Answer:
        most = self._dispatcher.settings.max_request
        if len(asked.body) > most and asked.path not in self._dispatcher.router.uploads:
            return self._dispatcher.refuse(self._dispatcher.too_large(), asked)
        return self._dispatcher.answer(asked)

    def _response(self, answer: http.Answer, asked: http.Request) -> Response:
        """Returns an answer that is there, as a client reads it from a socket."""
        if isinstance(answer, (http.Stream, http.Upload)):
            answer = self._loop.complete(self._whole(answer, asked))
        assert isinstance(answer, http.Response)
        headers = [(b"X-Request-Id", asked.id.encode("latin-1"))]
        if answer.status != 204:
            headers.append((b"Content-Type", answer.content_type.encode("latin-1")))
        for line in answer.headers.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        return Response(answer.status, headers, b"" if asked.method == "HEAD" else answer.body)

    async def _whole(self, answer: http.Stream | http.Upload, asked: http.Request) -> http.Response:
        """Returns what an export or an import answers."""
        try:
            if isinstance(answer, http.Upload):
                await answer.take(asked.body)
                whole = await answer.end()
            elif asked.path.endswith("/export"):
                body = b"".join([piece async for piece in answer.pieces])
                whole = http.Response(answer.status, body, answer.headers, answer.content_type)
            else:
                raise BadRequest(
                    "no time passes here by itself, so there are no live streams; "
                    "test them with the fixture jobqueue_server"
                )
        except Exception as error:
            whole = self._dispatcher.failed(error, asked.id)
        self._dispatcher.streamed(asked, whole.status)
        return whole
