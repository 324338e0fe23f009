"""Shard: one part of the jobs, as a server of the cluster sees it, and the calls that are made of it."""

import asyncio
import logging
import time
from asyncio import CancelledError, Future
from collections.abc import Callable, Sequence
from typing import Any, Final

from jobqueue.cluster import codec
from jobqueue.cluster.codec import Verb
from jobqueue.cluster.outcome import Outcome
from jobqueue.cluster.outcome_future import OutcomeFuture
from jobqueue.cluster.peer import Peer
from jobqueue.cluster.serving import current_deliveries, performed
from jobqueue.cluster.waiting import inside, wait, wait_for_outcome
from jobqueue.engine.api import MaybeFuture
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobQueueError, NotReady, OutcomeUnknown
from jobqueue.model import Consumers, Delivery, ExistingJob, Job
from jobqueue.steps import RELEASE

_log: Final = logging.getLogger("jobqueue")
# Seconds for which a call waits for its shard to have an owner, and before it asks again one that is not.
PATIENCE = 5.0
_AGAIN: Final = 0.05
# Seconds before leases are watched again at a server that did not own their shard.
_WATCH_AGAIN: Final = 0.5


class Shard:
    """`engine`: while this server owns the shard. `peer`: the server that owns it, as far as this one knows.
    At most one of them is set."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.engine: LocalEngine | None = None
        self.peer: Peer | None = None
        self._waiting: dict[RemoteCall, None] = {}
        # Leases that somebody is told the end of, by the ids of their jobs.
        self._watched: dict[int, tuple[Delivery, Callable[[Job], None]]] = {}
        self._watching_later: asyncio.TimerHandle | None = None

    @property
    def has_owner(self) -> bool:
        return self.engine is not None or self.peer is not None

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
        return _future_of(RemoteCall(self, codec.VERBS[verb], arguments))

    def ask(self, verb: str, *arguments: Any) -> MaybeFuture[Any]:
        """As `call`, but inside of `run` the work waits for the answer of another server, so that what is
        refused there is raised here."""
        engine = self.local()
        if engine is not None:
            return getattr(engine, verb)(*arguments)
        call = RemoteCall(self, codec.VERBS[verb], arguments)
        return wait_for_outcome(call) if inside() else _future_of(call)

    def read(self, verb: str, *arguments: Any) -> Any:
        """Calls a verb that reads; inside of `run`."""
        return wait(self.ask(verb, *arguments))

    def owned_by(self, engine: LocalEngine | None, peer: Peer | None) -> None:
        """Sets who owns the shard now."""
        if engine is self.engine and peer is self.peer:
            return
        if self.peer is not None:
            self.peer.forget_leases(self)
        self.engine, self.peer = engine, peer
        self.watch_leases()
        if engine is not None or peer is not None:
            waiting, self._waiting = self._waiting, {}
            for call in waiting:
                call.start()

    def wait(self, call: "RemoteCall") -> None:
        """Starts a call again when the shard has an owner."""
        self._waiting[call] = None

    def forget(self, call: "RemoteCall") -> None:
        self._waiting.pop(call, None)

    # -- leases -------------------------------------------------------------------------------------

    def give_back(self, deliveries: Sequence[Delivery], lose: bool = False) -> None:
        if (engine := self.engine) is not None:
            current = current_deliveries(engine, _leases_of(deliveries))
            (engine.lose if lose else engine.give_back)(current)
        elif deliveries:
            verb = codec.VERBS["lose" if lose else "give_back"]
            # Without an owner in time the leases expire.
            RemoteCall(self, verb, (_leases_of(deliveries),))

    def on_lease_end(self, deliveries: Sequence[Delivery], ended: Callable[[Job], None]) -> None:
        for one in deliveries:
            id, known = one[0].id, self._watched.get(one[0].id)
            if known is not None and known[0][1].token != one[1].token and known[1] != ended:
                # Its end was missed while the shard went to another server: now another consumer has the job.
                self.lease_gone(id, known[0][1].token)
            self._watched[id] = one, ended
        self._watch(deliveries)

    def watch_leases(self) -> None:
        """Watches all leases again: there is another owner, or another connection to it."""
        if self._watched:
            self._watch([one for one, _ in self._watched.values()])

    def watch_leases_later(self) -> None:
        """Who was asked does not own the shard yet, or no longer."""
        if self._watching_later is None:
            loop = asyncio.get_running_loop()
            self._watching_later = loop.call_later(_WATCH_AGAIN, self._watch_after_all)

    def _watch_after_all(self) -> None:
        self._watching_later = None
        self.watch_leases()

    def _watch(self, deliveries: Sequence[Delivery]) -> None:
        leases = _leases_of(deliveries)
        if (engine := self.engine) is not None:
            current = current_deliveries(engine, leases)
            known = {(job.id, lease.token) for job, lease in current}
            engine.on_lease_end(current, self.lease_ended)
            for id, token in leases:
                if (id, token) not in known:
                    self.lease_gone(id, token)
        elif self.peer is not None:
            self.peer.watch_leases(self, leases)

    def lease_ended(self, job: Job) -> None:
        """The lease that `job` has now has ended."""
        known, ended = self._watched.get(job.id), job.lease
        if known is None or ended is None:
            return
        (_, lease), callback = known
        if lease.token != ended.token:
            return
        if lease is not ended:
            lease.ended_at, lease.ended_by = ended.ended_at, ended.ended_by
            lease.expires, lease.length = ended.expires, ended.length
        del self._watched[job.id]
        callback(job)

    def lease_renewed(self, id: int, token: str, expires: int, length: int) -> None:
        known = self._watched.get(id)
        if known is not None and (lease := known[0][1]).token == token:
            lease.expires, lease.length = expires, length

    def lease_gone(self, id: int, token: str) -> None:
        """A lease has ended while nobody watched it, so it is not known how."""
        known = self._watched.get(id)
        if known is not None and known[0][1].token == token:
            (job, lease), callback = self._watched.pop(id)
            lease.ended_by = lease.ended_by or RELEASE
            callback(job)


def _leases_of(deliveries: Sequence[Delivery]) -> list[tuple[int, str]]:
    return [(job.id, lease.token) for job, lease in deliveries]


class RemoteCall(Outcome):
    """A call for a shard that another server owns, or nobody at present."""

    def __init__(self, shard: Shard, verb: Verb, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.kind = verb.kind
        self.shard_index = shard.index
        self.body = codec.encode(arguments)
        self.number = 0
        self._shard = shard
        self._verb = verb
        self._arguments = arguments
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._peer: Peer | None = None  # to which it was given
        self.answered_by: Peer | None = None
        self._here: Future[Any] | None = None  # the call of the engine of this server
        self._stopped = False  # what is answered to the call itself does not count
        self.start()

    def start(self) -> None:
        """Makes the call, or waits for an owner."""
        if self._done:
            return
        if self._timer is not None and self._verb.waits is not None:  # what it has waited already counts
            self.body = codec.encode(self._now())
        self._cancel_timer()
        if (engine := self._shard.engine) is not None:
            self._call_here(engine)
        elif (peer := self._shard.peer) is not None:
            if peer.away >= PATIENCE:
                self._refuse()
                return
            self._peer = peer
            peer.send(self)
        else:
            self._shard.wait(self)
            left = max(self._began + PATIENCE - time.monotonic(), 0)
            self._timer = asyncio.get_running_loop().call_later(left, self._give_up)

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
            result = performed(engine, self._verb, self._now())
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
            self._fail(CancelledError())
        elif (error := result.exception()) is not None:
            self._fail(error)
        else:
            self._succeed(result.result())

    # -- what a peer tells --------------------------------------------------------------------------

    def answered(self, kind: int, body: bytes, behind: int) -> None:
        """Takes the answer. `behind`: milliseconds to add to the times of the owner's clock."""
        if self._stopped:
            return
        if kind in (codec.RESULT, codec.REFUSED):
            self.answered_by = self._peer
            try:
                result = self._read(kind, body, behind)
            except Exception:
                _log.exception("the answer of another server cannot be read")
                self._fail(JobQueueError("the answer of the server that owns the job cannot be read"))
                return
            if isinstance(result, JobQueueError) and kind == codec.REFUSED:
                self._fail(result)
            else:
                self._succeed(result)
        elif kind == codec.NOT_OWNER:
            self.unsent()
        elif kind == codec.WITHDRAWN:
            self._fail(NotReady("the server that owns the job has ended the call", retry_after=1))
        else:
            self._fail(JobQueueError("the server that owns the job failed; its log says why"))

    def _read(self, kind: int, body: bytes, behind: int) -> Any:
        if kind == codec.REFUSED:
            return codec.read_error(body)
        result, unpack = self._verb.result(body), self._verb.unpack
        if unpack is not None:
            result = unpack(result)
        if behind:
            _shift(result, behind)
            if isinstance(result, Consumers):
                result = codec.shift_consumers(result, behind)
        return result

    def unsent(self) -> None:
        """The call was not made. It is tried again, perhaps at another server."""
        if self._done or self._stopped:
            return
        if time.monotonic() - self._began >= PATIENCE:
            self._refuse()
            return
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(_AGAIN, self.start)

    def _refuse(self) -> None:
        self._fail(NotReady("the server that owns these jobs is not reached at present", retry_after=1))

    def lost(self, why: str) -> None:
        """The call was sent, and its answer is lost."""
        if self._stopped:
            return
        if self._verb.again:
            self._arguments = self._now()
            self._began = time.monotonic()
            self.body = codec.encode(self._arguments)
            self.unsent()
        else:
            self._fail(OutcomeUnknown(f"{why}; the call may have taken effect, or not", retry_after=1))

    # -- the end ------------------------------------------------------------------------------------

    def _succeed(self, result: Any) -> None:
        if not self._done:
            self.end(result, None)
        elif self._verb.delivers and result:
            self._shard.give_back(result)  # whoever called has left

    def _fail(self, error: BaseException) -> None:
        self.end(None, error)

    def stop(self) -> None:
        """Ends a wait: this server stops. The result is what there is now."""
        if self._done:
            return
        self._withdraw()
        if self._verb.delivers:
            self._succeed([])
            return
        self._stopped = True
        now = list(self._arguments)
        if self._verb.waits is not None:
            now[self._verb.waits] = 0
        _future_of(RemoteCall(self._shard, self._verb, tuple(now))).add_done_callback(self._done_here)

    def cancel(self) -> bool:
        """Whoever called leaves: what is delivered goes back."""
        if self._done:
            return False
        self._withdraw()
        return super().cancel()

    def _withdraw(self) -> None:
        self._cancel_timer()
        self._shard.forget(self)
        if self._here is not None:
            self._here.cancel()
        elif self._peer is not None:
            self._peer.cancel(self)


def _future_of(call: RemoteCall) -> OutcomeFuture:
    return OutcomeFuture(call, call.stop)


def _shift(result: Any, by: int) -> None:
    """Moves the times in the jobs of a result that was just read."""
    if isinstance(result, Job):
        codec.shift(result, by)
    elif isinstance(result, ExistingJob):
        codec.shift(result.job, by)
    elif isinstance(result, (list, tuple)):
        for part in result:
            _shift(part, by)
