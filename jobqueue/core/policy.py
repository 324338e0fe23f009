"""Pure rules: who may finish a job, and how long a failed one rests.

The order of the cases in `may_use_lease` is the table "Who may" of the API.
"""

from jobqueue.errors import LeaseLost, LeaseRequired, NotInProgress, NotTheConsumer
from jobqueue.model import INHERIT, Backoff, Job, Options
from jobqueue.steps import IN_PROGRESS, Step


def may_use_lease(
    job: Job, steps: tuple[Step, ...], token: str | None, consumer: str | None, require_lease: bool
) -> bool:
    """True: do it. False: this caller has done it already by this same verb; answer with the job as it
    stands. Raises `LeaseLost`, `NotInProgress`, `LeaseRequired` or `NotTheConsumer`. `steps` are what the
    verb may do to a job; none for a heartbeat, which ends no lease."""
    lease = job.lease
    running = job.status == IN_PROGRESS
    if token is not None:
        if lease is not None and token == lease.token:
            if running:
                return True
            if lease.ended_by in steps:
                return False
        raise LeaseLost(
            "this lease is not the current one of the job: it ran out and the job went back to its queue, "
            "the job was finished another way, or it never was this job's. Drop the work, or dequeue again.",
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


def backoff_delay_without_jitter(backoff: Backoff, attempt: int) -> int:
    """Milliseconds until the next attempt after attempt number `attempt` (1, 2, …) failed."""
    if backoff.steps:
        return backoff.steps[min(attempt, len(backoff.steps)) - 1]
    try:  # both fail beyond what a float can say, and between the two lies infinity
        return min(int(backoff.base * backoff.factor ** (attempt - 1)), backoff.longest)
    except OverflowError:
        return backoff.longest if backoff.base else 0


def backoff_delay(backoff: Backoff, attempt: int, chance: float) -> int:
    """The same, longer or shorter by up to the share `jitter`; `chance` is from 0 to 1."""
    exact = backoff_delay_without_jitter(backoff, attempt)
    return round(exact * (1 + backoff.jitter * (2 * chance - 1)))


def attempts_exhausted(job: Job, options: Options | None, of_the_queue: int | None) -> bool:
    """Has the job had all its attempts? None: there is no limit."""
    limit = of_the_queue if options is None or options.max_attempts == INHERIT else options.max_attempts
    return limit is not None and job.attempts >= limit
