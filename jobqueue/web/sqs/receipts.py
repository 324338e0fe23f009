"""DeleteMessage and ChangeMessageVisibility: what a client does with a receipt handle.

A handle names the job and its lease. SQS takes one also after its time, as long as nobody else has received
the message: then the job, which waits again, is leased once more under it. The HTTP API is stricter.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from jobqueue.engine.api import EngineView, MaybeFuture
from jobqueue.errors import Conflict, JobForgotten, JobNotFound, JobQueueError, Refused
from jobqueue.model import Job, LeaseClaim
from jobqueue.steps import IN_PROGRESS, STALE, WAITING
from jobqueue.web.futures import then, without_result
from jobqueue.web.sqs import batches, names, shapes
from jobqueue.web.sqs.call import Call, SqsQueue
from jobqueue.web.sqs.errors import INVALID_PARAMETER, MESSAGE_NOT_INFLIGHT, SqsError, invalid, missing
from jobqueue.web.sqs.names import Receipt
from jobqueue.web.sqs.queue_attributes import MOST_VISIBILITY

_MOMENT: Final = 1000
_GONE: Final = (JobNotFound, JobForgotten)


def delete_message(call: Call, asked: shapes.Delete) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    try:
        return without_result(_delete(call.engine, queue, _receipt(asked.receipt_handle, queue, False)))
    except _GONE:
        return None


def delete_message_batch(call: Call, asked: shapes.DeleteMessageBatch) -> MaybeFuture[dict[str, Any]]:
    queue = call.queue(asked.queue_url)
    entries = batches.check(asked.entries, "DeleteMessageBatchRequestEntry")
    calls = [partial(_delete_entry, call.engine, queue, entry) for entry in entries]
    return then(call.engine.each(calls), partial(_outcome, entries, _GONE))


def _delete_entry(engine: EngineView, queue: SqsQueue, entry: shapes.Delete) -> MaybeFuture[Job]:
    return _delete(engine, queue, _receipt(entry.receipt_handle, queue, True))


def _receipt(handle: str | None, queue: SqsQueue, in_batch: bool) -> Receipt:
    if not handle:
        raise missing("ReceiptHandle")
    return names.read_receipt_handle(handle, queue.name, in_batch)


def _delete(engine: EngineView, queue: SqsQueue, receipt: Receipt) -> MaybeFuture[Job]:
    """Deletes a message, or leaves it if another client has received it since. Raises `SqsError`, and
    `JobNotFound` or `JobForgotten` if it is gone."""
    claim = LeaseClaim(receipt.id, receipt.lease, None)
    if queue.fifo:
        _check_in_time(engine, queue, receipt)
    try:
        return engine.conclude(claim, None)
    except (Conflict, Refused):
        job = engine.get(receipt.id)
        if job.status not in WAITING or not _stands_for_last(job, queue, receipt):
            return job
    assert job.lease is not None
    claim = LeaseClaim(receipt.id, job.lease.token, None)
    try:
        engine.renew(claim, _MOMENT)
    except Conflict:  # the queue is paused, or a limit keeps the job waiting
        return engine.cancel(receipt.id)
    except Refused:  # the last receive was that of another access token
        return job
    return engine.conclude(claim, None)


def _was_last(job: Job, queue: SqsQueue, receipt: Receipt) -> bool:
    """Tells whether nobody has received a message since, here or in a dead-letter queue."""
    return job.queue == queue.name and job.lease is not None and job.lease.token == receipt.lease


def _stands_for_last(job: Job, queue: SqsQueue, receipt: Receipt) -> bool:
    """Tells whether a receipt is the last one of a message, or of a standard queue, where those of earlier
    receives stand for it. A message that was received once has no earlier ones."""
    if _was_last(job, queue, receipt):
        return True
    return not queue.fifo and job.queue == queue.name and job.lease is not None and job.leases > 1


def _check_in_time(engine: EngineView, queue: SqsQueue, receipt: Receipt) -> None:
    """Raises `SqsError` if the time of a receipt is over, which counts in FIFO queues."""
    job = engine.get(receipt.id)
    if not _was_last(job, queue, receipt) or job.lease is None:
        return
    over = job.status in WAITING and job.lease.ended_by == STALE
    if over or (job.lease.ended_by is None and engine.wall(job.lease.expires) <= engine.wall_now()):
        handle = names.receipt_handle(receipt.id, receipt.lease, queue.name)
        raise invalid(handle, "ReceiptHandle", "The receipt handle has expired.")


def change_message_visibility(call: Call, asked: shapes.ChangeVisibility) -> MaybeFuture[None]:
    queue = call.queue(asked.queue_url)
    return without_result(_change(call, queue, False, asked))


def change_message_visibility_batch(
    call: Call, asked: shapes.ChangeMessageVisibilityBatch
) -> MaybeFuture[dict[str, Any]]:
    queue = call.queue(asked.queue_url)
    entries = batches.check(asked.entries, "ChangeMessageVisibilityBatchRequestEntry")
    calls = [partial(_change, call, queue, True, entry) for entry in entries]
    return then(call.engine.each(calls), partial(_outcome, entries, ()))


def _change(call: Call, queue: SqsQueue, in_batch: bool, asked: shapes.ChangeVisibility) -> MaybeFuture[Job]:
    timeout = asked.visibility_timeout
    if timeout is None:
        raise missing("VisibilityTimeout")
    receipt = _receipt(asked.receipt_handle, queue, in_batch)
    if not 0 <= timeout <= MOST_VISIBILITY:
        raise SqsError(
            INVALID_PARAMETER,
            f"Value {timeout} for parameter VisibilityTimeout is invalid. Reason: Must be from 0 to 43200.",
        )
    engine, claim = call.engine, LeaseClaim(receipt.id, receipt.lease, None)
    lease_for = min(timeout * 1000, call.context.settings.lease_max)
    try:
        if queue.fifo:
            if timeout:
                _check_in_time(engine, queue, receipt)
        else:
            claim = _last_claim(engine, queue, receipt)
        if not timeout:
            return engine.fail(claim, None, True, 0)
        return engine.heartbeat(claim, lease_for) if queue.fifo else engine.renew(claim, lease_for)
    except (Conflict, Refused, *_GONE) as refused:
        raise _not_available(engine, queue, receipt, asked.receipt_handle or "", refused) from None


def _last_claim(engine: EngineView, queue: SqsQueue, receipt: Receipt) -> LeaseClaim:
    """Returns the claim to the last lease of a message. Raises `SqsError`."""
    job = engine.get(receipt.id)
    in_progress = job.status == IN_PROGRESS and _stands_for_last(job, queue, receipt)
    if not in_progress and not _was_last(job, queue, receipt):
        raise _unavailable(names.receipt_handle(receipt.id, receipt.lease, queue.name))
    assert job.lease is not None
    return LeaseClaim(receipt.id, job.lease.token, None)


def _not_available(
    engine: EngineView, queue: SqsQueue, receipt: Receipt, handle: str, refused: JobQueueError
) -> SqsError:
    """Returns why the visibility of a message cannot be changed: it is visible, received by another client,
    or gone."""
    if not isinstance(refused, _GONE):
        job = engine.get(receipt.id)
        if _was_last(job, queue, receipt) and job.status in WAITING:
            return SqsError(MESSAGE_NOT_INFLIGHT, "The message referred to is not in flight.")
    return _unavailable(handle)


def _unavailable(handle: str) -> SqsError:
    reason = "Message does not exist or is not available for visibility timeout change."
    return invalid(handle, "ReceiptHandle", reason)


def _outcome(
    entries: Sequence[batches.Entry],
    done: tuple[type[JobQueueError], ...],
    results: list[Job | JobQueueError],
) -> dict[str, Any]:
    """Returns the outcome of a batch. An error of a class in `done` is none."""
    successful, failures = [], []
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, JobQueueError) and not isinstance(result, done):
            failures.append(batches.failed(entry, result))
        else:
            successful.append({"Id": entry.id})
    return batches.outcome(successful, failures)
