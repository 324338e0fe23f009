"""Intake: a job that has lived in another queue is taken in, with what it went through there."""

from jobqueue import steps
from jobqueue.core.control import Control
from jobqueue.model import ExistingJob, ImportedHistory, Job, JobExtras, NewJob, OneObject


class Intake(Control):
    __slots__ = ()

    def import_jobs(self, new: NewJob, past: ImportedHistory, now: int) -> Job | ExistingJob:
        """Makes a job as `enqueue` does, under an id of this queue, and gives it its past. A dead one stays
        dead, in the queue it died in. `ExistingJob` where its unique key is taken, whatever it asks for then;
        `QueueFull`."""
        holder = self._holder(new)
        if holder is not None:
            return ExistingJob(holder)
        if self.last_number >= self._admitted_until:
            self._refuse_beyond(1)
        queue = self.queues.get(new.queue)
        if queue is None:
            self._refuse_new_queues((new.queue,))
            queue = self._new_queue(new.queue, now)
        elif queue.bounded and past.died_at is None:
            self._refuse_full([new], {}, now)
        id: OneObject = self.last_number + 1
        self.last_number = id
        job = Job(id, queue.name, new.type, new.priority, new.payload, past.created_at, id)
        job.attempts, job.leases = past.attempts, past.leases
        if new.options is not None or new.delay or new.run_at is not None or new.expires_in is not None:
            self._apply_options(job, new, now)
        if past.trace is not None:
            job.extras = job.extras or JobExtras()
            job.extras.trace = past.trace
        if job.extras is not None and past.died_at is not None:
            job.extras.run_at = job.extras.due = None  # its time has come long ago
        if job.extras is not None and job.extras.run_at is not None:
            job.place = 0
            self.transition(job, steps.SCHEDULE, now, queue)
        else:
            self.transition(job, steps.ENQUEUE, now, queue)
        if past.died_at is not None:
            self.transition(job, steps.BURY, now, queue)
            assert job.extras is not None
            job.extras.finished_at = past.died_at
            if self._over_retention:
                self._make_room(now)
        return self._after_matching(job, now)
