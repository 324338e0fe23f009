"""Pure rules: who may finish a job, and how much is remembered.

The order of the cases in `may_use_lease` is the table "Who may" of the API.
"""

from jobqueue.core.job import IN_PROGRESS, Job, Step
from jobqueue.errors import LeaseLost, LeaseRequired, NotInProgress, NotTheConsumer


def may_use_lease(
    job: Job, step: Step | None, token: str | None, consumer: str | None, require_lease: bool
) -> bool:
    """True: do it. False: this caller has done it already by this same verb; answer with the job as it
    stands. Raises `LeaseLost`, `NotInProgress`, `LeaseRequired` or `NotTheConsumer`. `step` is what the verb
    does to a job; None for a heartbeat, which ends no lease."""
    lease = job.lease
    running = job.status == IN_PROGRESS
    if token is not None:
        if lease is not None and token == lease.token:
            if running:
                return True
            if step is not None and lease.ended_by == step:
                return False
        raise LeaseLost(
            "this lease is not the current one of the job: it ran out and the job went back to its queue, or "
            "the job was finished another way. Drop the work, or dequeue again.",
            job_status=job.status,
            attempts=job.attempts,
        )
    if not running or lease is None:
        finished_by_it = lease is not None and consumer is not None and lease.consumer == consumer
        if finished_by_it and step is not None and lease is not None and lease.ended_by == step:
            return False
        raise NotInProgress(
            f"the job is {job.status}, not in progress; only a dequeued job can be finished or extended",
            job_status=job.status,
            attempts=job.attempts,
        )
    if require_lease:
        raise LeaseRequired(
            "send the lease that dequeue answered: in the body, as ?lease=…, or as header Job-Lease",
            field="lease",
            setting="JOBQUEUE_REQUIRE_LEASE",
        )
    if lease.consumer is not None and lease.consumer != consumer:
        raise NotTheConsumer(
            "the job is leased under another consumer's name; send the lease that dequeue answered, or the "
            "same consumer",
            job_status=job.status,
        )
    return True
