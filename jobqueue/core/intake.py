"""Intake: a job that has lived in another queue is taken in, with what it went through there."""

from jobqueue.core.control import Control
from jobqueue.core.job import BURY, ENQUEUE, SCHEDULE, Duplicate, Job, More, NewJob, OneObject, Past


class Intake(Control):
    __slots__ = ()

    def take_in(self, new: NewJob, past: Past, now: int) -> Job | Duplicate:
        """Makes a job as `enqueue` does, under an id of this queue, and gives it its past. A dead one stays
        dead, in the queue it died in. `Duplicate` where its unique key is taken, whatever it asks for then;
        `QueueFull`."""
        holder = self._holder(new)
        if holder is not None:
            return Duplicate(holder)
        if self.last_number >= self._room_to:
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
            self._dress(job, new, now)
        if past.trail is not None:
            job.more = job.more or More()
            job.more.trail = past.trail
        if job.more is not None and past.died_at is not None:
            job.more.run_at = job.more.due = None  # its time has come long ago
        if job.more is not None and job.more.run_at is not None:
            job.place = 0
            self._move(job, SCHEDULE, now, queue)
        else:
            self._move(job, ENQUEUE, now, queue)
        if past.died_at is not None:
            self._move(job, BURY, now, queue)
            assert job.more is not None
            job.more.finished_at = past.died_at
            if self._crowded:
                self._make_room(now)
        return self._settled(job, now)
