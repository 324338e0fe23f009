"""Shard: one part of the jobs, as a server of the cluster sees it, and the calls that are made of it."""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any, Final

from jobqueue.cluster import codec
from jobqueue.cluster.codec import Verb
from jobqueue.cluster.peer import Peer
from jobqueue.cluster.serving import current_deliveries
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.local import LocalEngine
from jobqueue.engine.wait_future import WaitFuture, nothing
from jobqueue.errors import JobQueueError, NotReady, OutcomeUnknown
from jobqueue.model import Delivery, Job

# Seconds for which a call waits for its shard to have an owner, and before it asks again one that is not.
PATIENCE: Final = 5.0
_AGAIN: Final = 0.05


class Shard:
    """`engine`: while this server owns the shard. `peer`: the server that owns it, as far as this one knows.
    At most one of them is set."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.engine: LocalEngine | None = None
        self.peer: Peer | None = None
        self._waiting: list[RemoteCall] = []

    def local(self) -> LocalEngine | None:
        """Returns the engine if this server owns the shard. Raises `NotReady` if it may not use it now."""
        engine = self.engine
        if engine is not None and (refuses := engine.refuses) is not None:
            raise NotReady(refuses, retry_after=1)
        return engine

    def call(self, verb: str, *arguments: Any) -> MaybeFuture[Any]:
        """Calls a verb of the engine, here or at the owner. Waits if nobody owns the shard at present."""
        engine = self.local()
        if engine is not None:
            return getattr(engine, verb)(*arguments)
        return RemoteCall(self, codec.VERBS[verb], arguments)

    def owned_by(self, engine: LocalEngine | None, peer: Peer | None) -> None:
        """Sets who owns the shard now."""
        if engine is self.engine and peer is self.peer:
            return
        self.engine, self.peer = engine, peer
        if engine is not None or peer is not None:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call.start()

    def wait(self, call: "RemoteCall") -> None:
        """Starts a call again when the shard has an owner."""
        self._waiting.append(call)

    def forget(self, call: "RemoteCall") -> None:
        if call in self._waiting:
            self._waiting.remove(call)

    # -- leases -------------------------------------------------------------------------------------

    def give_back(self, deliveries: Sequence[Delivery], lose: bool = False) -> None:
        if (engine := self.engine) is not None:
            current = current_deliveries(engine, [(job.id, lease.token) for job, lease in deliveries])
            (engine.lose if lose else engine.give_back)(current)
        elif self.peer is not None:
            self.peer.give_back(self.index, deliveries, lose)

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        if (engine := self.engine) is not None:
            engine.on_lease_end(deliveries, ended)
        elif self.peer is not None:
            self.peer.on_lease_end(self.index, deliveries, ended)


class RemoteCall(WaitFuture[Any]):
    """A call for a shard that another server owns, or nobody at present."""

    def __init__(self, shard: Shard, verb: Verb, arguments: tuple[Any, ...]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.kind = verb.kind
        self.shard_index = shard.index
        self.body = codec.encode(arguments)
        self.left = False
        self.withdraw = self._leave
        self._shard = shard
        self._verb = verb
        self._arguments = arguments
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._peer: Peer | None = None  # to which it was given
        self._here: Future[Any] | None = None  # the call of the engine of this server
        self.start()

    def start(self) -> None:
        """Makes the call, or waits for an owner."""
        if self.done():
            return
        self._cancel_timer()
        if (engine := self._shard.engine) is not None:
            self._call_here(engine)
        elif (peer := self._shard.peer) is not None:
            self._peer = peer
            peer.send(self)
        else:
            self._shard.wait(self)
            left = max(self._began + PATIENCE - time.monotonic(), 0)
            self._timer = self.get_loop().call_later(left, self._give_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._shard.forget(self)
        self._fail(
            NotReady("no server owns these jobs at present; one takes over in a few seconds", retry_after=1)
        )

    def _call_here(self, engine: LocalEngine) -> None:
        """This server has become the owner meanwhile."""
        try:
            if (refuses := engine.refuses) is not None:
                raise NotReady(refuses, retry_after=1)
            result = getattr(engine, self._verb.name)(*self._now())
        except Exception as error:
            self._fail(error)
            return
        if isinstance(result, Future):
            self._here = result
            result.add_done_callback(self._done_here)
        else:
            self._succeed(result)

    def _now(self) -> tuple[Any, ...]:
        """Returns the arguments, with what is left of the time for which the call waits."""
        at = self._verb.waits
        if at is None:
            return self._arguments
        gone = int((time.monotonic() - self._began) * 1000)
        arguments = list(self._arguments)
        arguments[at] = max(arguments[at] - gone, 0)
        return tuple(arguments)

    def _done_here(self, result: Future[Any]) -> None:
        if result.cancelled():
            self.withdraw = nothing
            self.cancel()
        elif (error := result.exception()) is not None:
            self._fail(error)
        else:
            self._succeed(result.result())

    # -- what a peer tells --------------------------------------------------------------------------

    def answered(self, kind: int, body: Any, behind: int) -> None:
        """Takes the answer. `behind`: milliseconds to add to the times of the owner's clock."""
        if kind == codec.RESULT:
            result = self._verb.result(body)
            if behind:
                _shift(result, behind)
            if self._verb.unpack is not None:
                result = self._verb.unpack(result)
            self._succeed(result)
        elif kind == codec.REFUSED:
            self._fail(codec.read_error(body))
        elif kind == codec.NOT_OWNER:
            self.unsent()
        elif kind == codec.WITHDRAWN:
            self._succeed_with_nothing()
        else:
            self._fail(JobQueueError("the server that owns the job failed; its log says why"))

    def unsent(self) -> None:
        """The call was not made. It is tried again, perhaps at another server."""
        if self.done():
            return
        if time.monotonic() - self._began >= PATIENCE:
            why = "the server that owns these jobs is not reached at present"
            self._fail(NotReady(why, retry_after=1))
            return
        self._cancel_timer()
        self._timer = self.get_loop().call_later(_AGAIN, self.start)

    def lost(self, why: str) -> None:
        """The call was sent, and its answer is lost."""
        if self._verb.again:
            self._arguments = self._now()
            self._began = time.monotonic()
            self.body = codec.encode(self._arguments)
            self.unsent()
        else:
            self._fail(OutcomeUnknown(f"{why}; the call may have taken effect, or not", retry_after=1))

    # -- the end ------------------------------------------------------------------------------------

    def _succeed(self, result: Any) -> None:
        if not self.done():
            self.withdraw = nothing
            self.set_result(result)
        elif self._verb.name in ("dequeue", "dequeue_job") and result:
            self._shard.give_back(result)  # whoever called has left

    def _succeed_with_nothing(self) -> None:
        """The wait was ended by the owner."""
        if not self.done():
            self.withdraw = nothing
            self.cancel()

    def _fail(self, error: BaseException) -> None:
        if not self.done():
            self.withdraw = nothing
            self.set_exception(error)

    def _leave(self) -> None:
        """Whoever called has left: what is delivered goes back."""
        self.left = True
        self._cancel_timer()
        self._shard.forget(self)
        if self._here is not None:
            self._here.cancel()
        elif self._peer is not None:
            self._peer.cancel(self)


def _shift(result: Any, by: int) -> None:
    """Moves the times in the jobs of a result that was just read."""
    if isinstance(result, Job):
        codec.shift(result, by)
    elif isinstance(result, (list, tuple)):
        for part in result:
            _shift(part, by)
