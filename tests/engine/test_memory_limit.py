"""Limits of the server: memory, jobs, queues and waiting requests."""

import pytest

from jobqueue import MemoryEngine, Settings
from jobqueue.engine.memory_limit import MemoryLimit, cgroup_limits, default_limit, resident
from jobqueue.errors import JobQueueError, OutOfMemory, Overloaded, QueueFull
from jobqueue.model import DequeueRequest, ImportedHistory, ImportItem, LeaseClaim, NewJob, Options

MIB = 1 << 20


class Memory:
    """The memory of the process, as the test sets it."""

    mib = 50.0

    def __call__(self):
        return int(self.mib * MIB)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def engine(clock, memory):
    engine = MemoryEngine(Settings(first_id=1, memory_limit="100MiB"), clock)
    engine.memory_limit = MemoryLimit(100 * MIB, memory)
    return engine


def new(size=0):
    return NewJob("x", payload=b'"' + b"x" * size + b'"')


def test_at_the_memory_limit_new_jobs_are_refused_and_existing_ones_can_be_finished(engine, memory):
    for _ in range(3):
        engine.enqueue(new())
    ((job, lease),) = engine.dequeue(DequeueRequest(("default",)))
    memory.mib = 100
    engine.tick()
    for put in (
        lambda: engine.enqueue(new()),
        lambda: engine.enqueue_many([new()]),
        lambda: engine.enqueue_each([new()]),
    ):
        with pytest.raises(OutOfMemory) as refused:
            put()
        assert refused.value.facts["setting"] == "JOBQUEUE_MEMORY_LIMIT"
    engine.heartbeat(LeaseClaim(job.id, lease.token, None))
    engine.conclude(LeaseClaim(job.id, lease.token, None), b"1")
    ((job, lease),) = engine.dequeue(DequeueRequest(("default",)))
    engine.fail(LeaseClaim(job.id, lease.token, None))
    engine.cancel(3)
    assert engine.stats().jobs["queued"] == 0


def test_clearly_below_the_limit_new_jobs_are_accepted_again(engine, memory):
    memory.mib = 120
    engine.tick()
    memory.mib = 97  # not enough: the limit would be reached again at once
    engine.tick()
    with pytest.raises(OutOfMemory):
        engine.enqueue(new())
    memory.mib = 94
    engine.tick()
    engine.enqueue(new())


def test_new_jobs_are_accepted_again_even_if_the_allocator_keeps_the_memory(engine, memory):
    for _ in range(10):
        engine.enqueue(new(10_000))
    memory.mib = 101
    engine.tick()
    engine.conclude(LeaseClaim(engine.dequeue(DequeueRequest(("default",)))[0][0].id, None, None), None)
    with pytest.raises(OutOfMemory):
        engine.enqueue(new())
    for job, lease in engine.dequeue(DequeueRequest(("default",), count=5)):
        engine.conclude(LeaseClaim(job.id, lease.token, None), None)
    for id in range(1, 7):
        engine._queue.purge_one(engine.get(id), engine._driver.now())
    engine.tick()
    for _ in range(6):
        engine.enqueue(new(10_000))
    engine.tick()
    with pytest.raises(OutOfMemory):
        engine.enqueue(new())


@pytest.mark.parametrize(
    "put",
    [
        lambda engine: engine.enqueue(new()),
        lambda engine: engine.enqueue_many([new()]),
        lambda engine: raise_if(engine.enqueue_each([new()])[0]),
        lambda engine: raise_if(engine.import_jobs([ImportItem(new(), ImportedHistory(1), None)]).refused),
        lambda engine: raise_if(
            engine.import_jobs([ImportItem(new(), ImportedHistory(1, died_at=2), None)]).refused
        ),
    ],
    ids=["one", "many", "each", "import", "import of a dead job"],
)
def test_the_limit_of_jobs_holds_without_a_tick(clock, put):
    engine = MemoryEngine(Settings(first_id=1, max_jobs=3), clock)
    for _ in range(3):
        put(engine)
    for _ in range(2):
        with pytest.raises(QueueFull) as refused:
            put(engine)
        assert refused.value.facts["setting"] == "JOBQUEUE_MAX_JOBS"
        assert sum(engine.stats().jobs.values()) == 3
    engine._queue.purge_one(engine.get(2), engine._driver.now())
    put(engine)
    with pytest.raises(QueueFull):
        put(engine)


def raise_if(answer):
    if isinstance(answer, JobQueueError):
        raise answer


def test_a_batch_beyond_the_limit_is_refused_as_a_whole_or_job_by_job(clock):
    engine = MemoryEngine(Settings(first_id=1, max_jobs=3), clock)
    engine.enqueue(new())
    with pytest.raises(QueueFull):
        engine.enqueue_many([NewJob("x", "other")] * 3)
    assert (engine.stats().jobs["queued"], engine.stats().queues) == (1, 1)
    made = engine.enqueue_each([new()] * 3)
    assert [isinstance(each, QueueFull) for each in made] == [False, False, True]


def test_a_full_server_finds_existing_unique_jobs_and_creates_no_queue(clock):
    engine = MemoryEngine(Settings(first_id=1, max_jobs=1), clock)
    unique = NewJob("x", options=Options(unique_key="k"))
    first = engine.enqueue(unique)
    assert engine.enqueue(unique).job is first
    assert engine.enqueue_many([unique])[0].job is first
    with pytest.raises(QueueFull):
        engine.enqueue(NewJob("x", "other"))
    assert engine.stats().queues == 1


def test_the_limit_of_queues_holds_for_every_verb(clock):
    engine = MemoryEngine(Settings(first_id=1, max_queues=2), clock)
    engine.enqueue(NewJob("x", "a"))
    engine.enqueue(NewJob("x", "b"))
    for use_third_queue in (
        lambda: engine.enqueue(NewJob("x", "c")),
        lambda: engine.enqueue_many([NewJob("x", "a"), NewJob("x", "c")]),
        lambda: engine.configure("c", {"max_jobs": 1}),
        lambda: engine.pause("c", None, None),
        lambda: engine.resume("c"),
    ):
        with pytest.raises(QueueFull) as refused:
            use_third_queue()
        assert refused.value.facts["setting"] == "JOBQUEUE_MAX_QUEUES"
    engine.enqueue_many([NewJob("x", "a"), NewJob("x", "b")])
    assert engine.stats().jobs["queued"] == 4
    assert engine.stats().queues == 2


async def test_the_limit_of_waiting_requests_holds_for_jobs_and_outcomes(clock):
    engine = MemoryEngine(Settings(first_id=1, max_waiters=2), clock)
    engine.enqueue(NewJob("x", "other"))
    waiting = [engine.dequeue(DequeueRequest(("default",)), 1000) for _ in range(2)]
    with pytest.raises(Overloaded) as refused:
        engine.dequeue(DequeueRequest(("default",)), 1000)
    assert refused.value.facts["setting"] == "JOBQUEUE_MAX_WAITERS"
    assert engine.dequeue(DequeueRequest(("default",))) == []
    assert len(engine.dequeue(DequeueRequest(("other",)), 1000)) == 1
    waiting.extend(engine.wait_for(1, 1000) for _ in range(2))
    with pytest.raises(Overloaded):
        engine.wait_for(1, 1000)
    waiting[0].cancel()
    waiting[0] = engine.dequeue(DequeueRequest(("default",)), 1000)
    engine.close()


def test_this_process_uses_less_than_the_default_limit():
    assert 5 * MIB < resident() < default_limit()


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/", {"memory.max": "1000"}, {1000}),
        ("0::/", {"memory.max": "max"}, set()),
        ("0::/system.slice/jobqueue.service", {"system.slice/jobqueue.service/memory.max": "1000"}, {1000}),
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "max"}, {1000}),
        ("0::/names/of/the/host", {"memory.max": "1000"}, {1000}),
        (
            "5:cpu,cpuacct:/a\n4:memory:/b:c\n0::/d",
            {"memory/b:c/memory.limit_in_bytes": "1000", "a/memory.max": "1", "d/memory.max": "2000"},
            {1000, 2000},
        ),
    ],
)
def test_limits_of_a_container_or_a_service_are_found(groups, limits, found, tmp_path):
    files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert set(cgroup_limits(tmp_path)) == found
    assert default_limit(tmp_path) <= min(found, default=2**60) * 0.75


def test_without_control_groups_no_limit_is_found(tmp_path):
    assert cgroup_limits(tmp_path) == []
