"""Restoration: fills a fresh `QueueState` with the records of an earlier run.

No job takes a step here, so this does not go through `transition`: each record goes directly to where its
status says. The records have wall-clock times. Of a length that was running only the end is known: it is an
instant from now on, and follows the wall clock. Leases are converted to the monotonic clock.
"""

from jobqueue.core.named_queue import NamedQueue
from jobqueue.core.state import QueueState
from jobqueue.model import Job, Options, Pause, QueueSettings, RecordedAnswer, Schedule
from jobqueue.steps import DEAD, IN_PROGRESS, QUEUED, SCHEDULED, STATUSES, Status

# A lease goes on for at least this long, or its full length: its consumer must first find the server again.
LEAST_LEASE = 30_000
_STATUS: dict[str, Status] = {status: status for status in STATUSES}


class Restoration:
    """Restores into `state` at `now`. Call in this order: `schedule` for each schedule, `named` for each
    queue with settings or a pause, `job` for each job by rising id, `numbers`, `answered` for each
    idempotency key, and `end`."""

    def __init__(self, state: QueueState, now: int) -> None:
        self._state = state
        self._now = now
        self._wall = state.wall(now)
        state.noted_offset = state.wall_offset
        self._texts: dict[str, str] = {}
        # Jobs that need an order other than that of their ids; see `end`.
        self._moved: list[Job] = []
        self._keyed: list[tuple[Job, Options]] = []
        self._leased: list[tuple[Job, int]] = []
        self._finished: list[Job] = []

    def numbers(self, first_id: int, last_number: int) -> None:
        self._state.first_id = first_id
        self._state.last_number = last_number

    def named(self, name: str, settings: QueueSettings, pause: Pause | None, version: int) -> None:
        named = self._named_queue(name)
        named.configure(settings, 0)
        named.version = version
        named.pause = pause
        if pause is not None and pause.until is not None:
            self._state.pause_timers.add(named, pause.until)

    def schedule(self, schedule: Schedule) -> None:
        """Restores a schedule. Its timer is set later."""
        self._state.schedules[schedule.plan.name] = schedule

    def answered(self, owner: str, key: str, answered: RecordedAnswer) -> None:
        """Restores an idempotency key, the oldest first. `until` is a wall-clock time here."""
        self._state.idempotency.restore(owner, key, answered)

    def job(self, job: Job, expires: int | None, due: int | None) -> None:
        """Restores a job. `expires` is the end of its lease if it is in progress; `due` is when it becomes
        ready if it is scheduled by a delay. Both are wall-clock milliseconds."""
        state, now = self._state, self._now
        named = self._named_queue(job.queue)
        job.queue = named.name
        self._share_values(job)
        status = job.status = _STATUS[job.status]
        state.jobs.add(job)
        named.size += 1
        named.counts.restored[status] += 1
        state.counts.restored[status] += 1
        if job.extras is not None and job.extras.options is not None:
            job.extras.options.expires_due = None
            if job.extras.options.unique_key is None:
                state.track_options(job, job.extras.options, None, status, named)
            else:
                self._keyed.append((job, job.extras.options))
        if status is QUEUED:
            if job.place == job.id:
                named.append(job)
            else:
                self._moved.append(job)
        elif status is IN_PROGRESS:
            assert expires is not None
            lease = job.lease
            assert lease is not None
            until = expires - self._wall + now
            if lease.ends is not None:  # both are by the clock of the earlier run
                lease.ends = until + lease.ends - lease.expires
            self._leased.append((job, until))
            named.restore_in_progress(job)
        elif status is SCHEDULED:
            assert job.extras is not None
            job.extras.due = None
            if due is not None:
                job.extras.run_at = due
            state.schedule(job, named)
        else:
            self._finished.append(job)

    def end(self, now: int) -> None:
        """Adds what has an order of its own: unique keys by their claims, returned jobs by their places,
        finished jobs by the time at which they finished. Leases continue from `now`."""
        state = self._state
        state.restored_at = now - 1  # whatever finishes in this run does so later
        for job, options in sorted(self._keyed, key=_claim):
            state.last_claim = max(state.last_claim, options.claim_seq)
            state.track_options(job, options, None, job.status, state.queues[job.queue])
        for job, expires in self._leased:
            lease = job.lease
            assert lease is not None
            lease.expires = now + min(max(expires - now, LEAST_LEASE), lease.length)
            if lease.ends is not None:
                lease.ends = max(lease.ends, lease.expires)
            state.lease_timers.add(job, lease.expires)
        for job in sorted(self._moved, key=_place):
            state.queues[job.queue].put_back(job)
        for job in sorted(self._finished, key=_finished_at):
            age = state.queues[job.queue].settings.retain_for
            if job.extras is not None and job.extras.options is not None:
                age = age if job.extras.options.retain_for is None else job.extras.options.retain_for
            finished = min(_finished_at(job) - self._wall + self._now, state.restored_at)
            if job.status is DEAD:
                state.dead.add(job, finished, state.limits.dead_retain if age is None else age)
            else:
                state.finished.add(job, finished, age)
        for named in state.queues.values():
            if named.size == 0:
                state.mark_idle(named, now)

    def _named_queue(self, name: str) -> NamedQueue:
        return self._state.queues.get(name) or self._state.new_queue(name, self._now)

    def _share_values(self, job: Job) -> None:
        """Lets equal values of many jobs be one object."""
        texts = self._texts
        job.type = texts.setdefault(job.type, job.type)
        lease = job.lease
        if lease is not None and lease.consumer is not None:
            lease.consumer = texts.setdefault(lease.consumer, lease.consumer)


def _place(job: Job) -> int:
    return job.place


def _claim(keyed: tuple[Job, Options]) -> tuple[int, int]:
    """Sorts by claim. Older journals have no `claim_seq`: there it is 0, which comes first."""
    job, options = keyed
    return options.claim_seq, job.place


def _finished_at(job: Job) -> int:
    assert job.extras is not None
    assert job.extras.finished_at is not None
    return job.extras.finished_at
