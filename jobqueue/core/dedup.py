"""Deduplication: a new job asks for a unique key that another job has."""

from collections.abc import Sequence

from msgspec import UNSET

from jobqueue.core.edit import change_job
from jobqueue.core.state import QueueState
from jobqueue.errors import DuplicateJob
from jobqueue.model import Change, ExistingJob, Job, NewJob
from jobqueue.steps import WAITING


def unique_owner(state: QueueState, new: NewJob) -> Job | None:
    """Returns the job that owns the unique key of `new`; None if the key is free, or `new` has none."""
    key = new.options.unique_key if new.options is not None else None
    queue = state.queues.get(new.queue) if key is not None else None
    return queue.unique.owner.get(key) if queue is not None and key is not None else None


def resolve_conflict(state: QueueState, owner: Job, new: NewJob, now: int) -> ExistingJob:
    """Does what `new` asks for if its key is taken: leaves the owner as it is, replaces payload, priority and
    time of one that has not started, or raises `DuplicateJob`."""
    options = new.options
    assert options is not None
    if options.on_conflict == "reject":
        raise _duplicate(owner.id)
    if options.on_conflict == "replace" and _not_started(owner):
        replacement = Change(
            payload=new.payload,
            priority=new.priority,
            delay=new.delay or None,
            run_at=new.run_at if new.run_at is not None else UNSET,
            content_type=options.content_type,
        )
        change_job(state, owner, replacement, now)
    return ExistingJob(owner)


def without_duplicates(state: QueueState, news: Sequence[NewJob]) -> list[NewJob]:
    """Returns those of `news` that become new jobs, and changes nothing. Raises `DuplicateJob`, with its
    index as a fact, for the first one that asks to be rejected."""
    claimed: set[tuple[str, str]] = set()
    fresh: list[NewJob] = []
    for index, new in enumerate(news):
        options = new.options
        if options is None or options.unique_key is None:
            fresh.append(new)
            continue
        owner = unique_owner(state, new)
        claim = (new.queue, options.unique_key)
        if options.on_conflict == "reject" and (owner is not None or claim in claimed):
            duplicate = _duplicate(owner.id if owner is not None else None)
            duplicate.facts["index"] = index
            raise duplicate
        if owner is None and claim not in claimed:
            fresh.append(new)
        claimed.add(claim)
    return fresh


def replacement_growth(state: QueueState, news: Sequence[NewJob]) -> dict[str, int]:
    """Returns by how many bytes each queue grows when `news` replace the payloads of the jobs that own their
    keys. The owner may be an earlier one of `news`. A payload that shrinks does not offset one that grows."""
    sizes: dict[tuple[str, str], int] = {}  # of the payload of each owner, as it is after the earlier ones
    growth: dict[str, int] = {}
    for new in news:
        options = new.options
        if options is None or options.unique_key is None:
            continue
        owner = unique_owner(state, new)
        if owner is not None and not _not_started(owner):
            continue
        claim, size = (new.queue, options.unique_key), len(new.payload)
        size_before = sizes.setdefault(claim, size if owner is None else len(owner.payload))
        if options.on_conflict == "replace":
            sizes[claim] = size
            if size > size_before:
                growth[new.queue] = growth.get(new.queue, 0) + size - size_before
    return growth


def _not_started(job: Job) -> bool:
    return job.status in WAITING and job.leases == 0


def _duplicate(id: int | None) -> DuplicateJob:
    owner = f"job {id}" if id is not None else "another job of this request"
    facts = {"job_id": id} if id is not None else {}
    return DuplicateJob(f"{owner} has the same unique_key in this queue", **facts)
