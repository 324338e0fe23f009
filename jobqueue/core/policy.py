"""Policy: who may use a lease, how long a failed job waits, when its attempts are exhausted."""

from jobqueue.errors import LeaseLost, LeaseRequired, NotInProgress, NotTheConsumer
from jobqueue.model import INHERIT, Backoff, Job, Options
from jobqueue.steps import IN_PROGRESS, Step


def may_use_lease(
    job: Job, steps: tuple[Step, ...], token: str | None, consumer: str | None, require_lease: bool
) -> bool:
    """Returns whether a verb may act on the lease of `job`: False if the caller has ended the lease before by
    the same verb, and the answer is the job as it is. `steps` are those by which the verb ends a lease; a
    heartbeat has none.

    1  no such job                                                  (`QueueState.get` raises)
    2  the token of the current lease                               True
    3  the token of the last lease, which this verb ended           False
    4  any other token                                              `LeaseLost`
    5  no token, the consumer whose lease this verb ended           False
    6  no token, the job is not in progress                         `NotInProgress`
    7  no token, and `require_lease`                                `LeaseRequired`
    8  no token, not the consumer that the lease names              `NotTheConsumer`
    9  no token, the consumer that it names, or it names none       True
    """
    lease = job.lease
    running = job.status == IN_PROGRESS
    if token is not None:
        if lease is not None and token == lease.token:
            if running:
                return True
            if lease.ended_by in steps:
                return False
        raise LeaseLost(
            "this lease is not the current one of the job: it expired and the job went back to its queue, "
            "the job was finished in another way, or the lease is that of another job. Drop the work, or "
            "dequeue again.",
            job_status=job.status,
            attempts=job.attempts,
        )
    if not running or lease is None:
        finished_by_it = lease is not None and consumer is not None and lease.consumer == consumer
        if finished_by_it and lease is not None and lease.ended_by in steps:
            return False
        raise NotInProgress(
            f"the job is {job.status}, not in progress; only a dequeued job can be finished or extended",
            job_status=job.status,
            attempts=job.attempts,
        )
    if require_lease:
        raise LeaseRequired(
            "send the lease from the answer to dequeue: in the body, as ?lease=…, or in the header Job-Lease",
            field="lease",
            setting="JOBQUEUE_REQUIRE_LEASE",
        )
    if lease.consumer is not None and lease.consumer != consumer:
        raise NotTheConsumer(
            "the job is leased under the name of another consumer; send the lease from the answer to "
            "dequeue, or the same consumer",
            job_status=job.status,
        )
    return True


def backoff_delay_without_jitter(backoff: Backoff, attempt: int) -> int:
    """Returns the milliseconds until the next attempt, after attempt number `attempt` (1, 2, …) failed."""
    if backoff.steps:
        return backoff.steps[min(attempt, len(backoff.steps)) - 1]
    try:  # the power overflows, or its product is infinite and has no int
        return min(int(backoff.base * backoff.factor ** (attempt - 1)), backoff.longest)
    except OverflowError:
        return backoff.longest if backoff.base else 0


def backoff_delay(backoff: Backoff, attempt: int, chance: float) -> int:
    """Returns the same, longer or shorter by up to the share `jitter`. `chance` is from 0 to 1."""
    exact = backoff_delay_without_jitter(backoff, attempt)
    return round(exact * (1 + backoff.jitter * (2 * chance - 1)))


def attempts_exhausted(job: Job, options: Options | None, of_queue: int | None) -> bool:
    """Returns whether the job has had all its attempts. `of_queue` is the limit for jobs without one of their
    own; None: no limit."""
    limit = of_queue if options is None or options.max_attempts == INHERIT else options.max_attempts
    return limit is not None and job.attempts >= limit
