"""Changes: a waiting job becomes another; a unique key is wanted by two."""

from collections.abc import Sequence

from msgspec import UNSET

from jobqueue import steps
from jobqueue.core.moves import Moves
from jobqueue.core.named_queue import key_of
from jobqueue.errors import DuplicateJob
from jobqueue.model import Change, ExistingJob, Job, JobExtras, NewJob, Options
from jobqueue.steps import QUEUED, WAITING


class Changes(Moves):
    """What is done to a job that waits."""

    __slots__ = ()

    def _holder(self, new: NewJob) -> Job | None:
        """The job that has the unique key which `new` wants."""
        key = new.options.unique_key if new.options is not None else None
        queue = self.queues.get(new.queue) if key is not None else None
        return queue.unique.holder.get(key) if queue is not None and key is not None else None

    def resolve_conflict(self, holder: Job, new: NewJob, now: int) -> ExistingJob:
        options = new.options
        assert options is not None
        if options.on_conflict == "reject":
            raise _duplicate(holder.id)
        if options.on_conflict == "replace" and _not_started(holder):
            at = new.run_at if new.run_at is not None else UNSET
            again = Change(
                payload=new.payload, priority=new.priority, delay=new.delay or None, run_at=at,
                content_type=options.content_type,
            )  # fmt: skip
            self._change(holder, again, now)
        return ExistingJob(holder)

    def _refuse_duplicates(self, news: Sequence[NewJob]) -> list[NewJob]:
        """Before anything is made: one that wants to be refused where its key is taken refuses all. Answers
        those of which a job will be made."""
        wanted: set[tuple[str, str]] = set()
        fresh: list[NewJob] = []
        for index, new in enumerate(news):
            options = new.options
            if options is None or options.unique_key is None:
                fresh.append(new)
                continue
            holder = self._holder(new)
            slot = (new.queue, options.unique_key)
            if options.on_conflict == "reject" and (holder is not None or slot in wanted):
                refusal = _duplicate(holder.id if holder is not None else None)
                refusal.facts["index"] = index
                raise refusal
            if holder is None and slot not in wanted:
                fresh.append(new)
            wanted.add(slot)
        return fresh

    def _growth(self, news: Sequence[NewJob]) -> dict[str, int]:
        """By how many bytes payloads will grow in each queue where `news` replace what holds their keys: jobs
        that are there, or that are made of those before. What shrinks makes no room for the others."""
        sizes: dict[tuple[str, str], int] = {}  # of the payloads of those that hold the keys
        growth: dict[str, int] = {}
        for new in news:
            options = new.options
            if options is None or options.unique_key is None:
                continue
            holder = self._holder(new)
            if holder is not None and not _not_started(holder):
                continue
            slot, size = (new.queue, options.unique_key), len(new.payload)
            had = sizes.setdefault(slot, size if holder is None else len(holder.payload))
            if options.on_conflict == "replace":
                sizes[slot] = size
                if size > had:
                    growth[new.queue] = growth.get(new.queue, 0) + size - had
        return growth

    def _change(self, job: Job, change: Change, now: int) -> None:
        queue = change.queue if change.queue is not UNSET else job.queue
        priority = change.priority if change.priority is not UNSET else job.priority
        more = job.extras
        if queue != job.queue:
            self._refuse_new_queues((queue,))
        retimed = change.delay is not UNSET or change.run_at is not UNSET
        expiring = change.expires_in is not UNSET
        moved = queue != job.queue or priority != job.priority
        if retimed and not moved and not (change.delay or change.run_at) and job.status is QUEUED:
            retimed = False  # "at once", and it is
        rekeyed = change.key is not UNSET and change.key != key_of(job)
        away = moved or retimed or expiring or rekeyed
        if away:
            due, run_at = (more.due, more.run_at) if more is not None else (None, None)
            if queue != job.queue:
                self._leave_for_good(job, now, self.queues[job.queue])
            else:
                self.transition(job, steps.LEAVE, now, self.queues[job.queue])
            if retimed:
                due, run_at = self._when(change, now)
            if moved:
                job.place = 0
        else:
            due = run_at = None
        job.queue, job.priority = queue, priority
        if change.type is not UNSET:
            job.type = change.type
        if change.payload is not UNSET:
            if not away:
                self.queues[queue].bytes += len(change.payload) - len(job.payload)
            job.payload = change.payload
            if more is not None and more.options is not None:
                more.options.content_type = change.content_type
            if self.changed is not None:
                self.payload_changed.add(job.id)
        self._change_options(job, change, now)
        if away:
            target = self.queues.get(queue) or self._new_queue(queue, now)
            more = job.extras = job.extras or JobExtras()
            more.due, more.run_at = due, run_at
            self.transition(job, steps.ENTER if run_at is None else steps.ENTER_LATER, now, target)
        else:
            job.version += 1
            if self.changed is not None:
                self.changed(job)
            if self.event is not None:
                self.event("change", job)

    def _when(self, change: Change, now: int) -> tuple[int | None, int | None]:
        """Due on the monotonic clock, and `run_at`, of a changed time; None: at once."""
        if change.delay:
            return now + change.delay, self.wall(now) + change.delay
        if change.run_at is not UNSET and change.run_at is not None and change.run_at > self.wall(now):
            return None, change.run_at
        return None, None

    def _change_options(self, job: Job, change: Change, now: int) -> None:
        given = {name: value for name in _CHANGEABLE if (value := getattr(change, name)) is not UNSET}
        if not given and change.expires_in is UNSET:
            return
        more = job.extras = job.extras or JobExtras()
        options = more.options = more.options or Options()
        for name, value in given.items():
            setattr(options, name, value)
        if change.expires_in is not UNSET:
            options.expires_at = None if change.expires_in is None else self.wall(now) + change.expires_in


# Options that a change sets as they are given; None: as the queue has it.
_CHANGEABLE = ("lease_for", "max_attempts", "backoff", "retain_for", "key", "tags", "headers")


def _not_started(job: Job) -> bool:
    return job.status in WAITING and job.leases == 0


def _duplicate(id: int | None) -> DuplicateJob:
    which = f"job {id} has" if id is not None else "another job of this request has"
    facts = {"job_id": id} if id is not None else {}
    return DuplicateJob(f"{which} the same unique_key in this queue", **facts)
