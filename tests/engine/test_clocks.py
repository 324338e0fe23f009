"""Which clock each time goes by: at a step of the wall clock, and over a restart.

A length that began in this run goes by the monotonic clock, an instant by the wall clock. After a restart only
the wall-clock end of a length is known, so it is an instant from then on.
"""

import pytest

from jobqueue.engine.opening import open_journal
from jobqueue.errors import JobForgotten
from jobqueue.model import (
    Backoff,
    Change,
    DequeueRequest,
    IdempotencyKey,
    ImportedHistory,
    ImportItem,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    Rate,
)
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir

LENGTH = 86_400_000  # a day, as the life of an idempotency key, which is no setting
SECONDS = LENGTH // 1_000
HOUR = 3_600
ONE = DequeueRequest(("q",), LENGTH)


class Runs:
    """The engines that use one journal, one after the other, and a clock that is moved by hand."""

    def __init__(self, path, clock):
        self.path = path
        self.clock = clock
        self.engine = None

    async def start(self):
        """Starts the next engine, after closing the one before."""
        self.stop()
        settings = Settings(first_id=1, lease="1d", retain="1d", dead_retain="1d", max_attempts=3)
        self.engine = open_journal(DataDir(str(self.path)), settings, self.clock)
        await self.engine.load()

    def stop(self):
        if self.engine is not None:
            self.engine.close()
        self.engine = None

    def passes(self, seconds):
        self.clock.advance(seconds)
        self.engine.tick()

    def step(self, seconds):
        self.clock.wall_jump(seconds)
        self.engine.tick()


@pytest.fixture
def runs(tmp_path, clock):
    runs = Runs(tmp_path, clock)
    yield runs
    runs.stop()


async def one(engine, new=None):
    """Enqueues a job and leases it."""
    await engine.enqueue(new or NewJob("t", "q"))
    [(job, lease)] = await engine.dequeue(ONE)
    return job, lease


async def begin(kind, engine):
    """Begins one length of `LENGTH` for the job 1 in the queue q."""
    if kind == "delay":
        await engine.enqueue(NewJob("t", "q", delay=LENGTH))
    elif kind == "expires_in":
        await engine.enqueue(NewJob("t", "q", expires_in=LENGTH))
    elif kind == "changed delay":
        await engine.enqueue(NewJob("t", "q", delay=1))
        await engine.change(1, Change(delay=LENGTH))
    elif kind == "changed expires_in":
        await engine.enqueue(NewJob("t", "q"))
        await engine.change(1, Change(expires_in=LENGTH))
    elif kind == "lease":
        await one(engine)
    elif kind == "backoff":
        backoff = Backoff(base=LENGTH, longest=LENGTH, jitter=0.0)
        _, lease = await one(engine, NewJob("t", "q", options=Options(backoff=backoff)))
        await engine.fail(LeaseClaim(1, lease.token, None))
    elif kind == "retry_in":
        _, lease = await one(engine)
        await engine.fail(LeaseClaim(1, lease.token, None), retry_in=LENGTH)
    elif kind == "release":
        _, lease = await one(engine)
        await engine.release(LeaseClaim(1, lease.token, None), LENGTH)
    elif kind == "pause":
        await engine.enqueue(NewJob("t", "q"))
        await engine.pause("q", LENGTH, None)
    elif kind == "idempotency":
        await engine.enqueue_many([NewJob("t", "q")], IdempotencyKey("", "k", b"d", False))
    elif kind == "rate":
        await engine.configure("q", {"rate": Rate(1, LENGTH, 1)})
        _, lease = await one(engine)
        await engine.conclude(LeaseClaim(1, lease.token, None), None)
        await engine.enqueue(NewJob("t", "q"))
    elif kind == "key rate":
        await engine.configure("q", {"key_limits": KeyLimits(None, Rate(1, LENGTH, 1))})
        _, lease = await one(engine, NewJob("t", "q", options=Options(key="k")))
        await engine.conclude(LeaseClaim(1, lease.token, None), None)
        await engine.enqueue(NewJob("t", "q", options=Options(key="k")))
    else:
        own = Options(retain_for=LENGTH) if "own" in kind else None
        _, lease = await one(engine, NewJob("t", "q", options=own))
        if "dead" in kind:
            await engine.fail(LeaseClaim(1, lease.token, None), retry=False)
        else:
            await engine.conclude(LeaseClaim(1, lease.token, None), None)


def is_over(kind, engine):
    """Whether the length that `begin` began is over."""
    if kind == "pause":
        return engine.queue("q").pause is None
    if kind == "idempotency":
        return engine.find_prior_answer("", "k", b"d") is None
    if kind in ("rate", "key rate"):
        return all(cause.code != "rate_limit" for cause in engine.explain(2).causes)
    if "retention" in kind:
        try:
            return engine.get(1) is None
        except JobForgotten:
            return True
    if kind in ("expires_in", "changed expires_in"):
        return engine.get(1).status == "dead"
    return engine.get(1).status == "queued"


RETENTION = ["retention", "own retention", "retention of the dead", "own retention of the dead"]
WAITING = [
    "delay",
    "changed delay",
    "expires_in",
    "changed expires_in",
    "backoff",
    "retry_in",
    "release",
    "pause",
]
LENGTHS = [*WAITING, "lease", "idempotency", *RETENTION]
# What a restart does not keep: the tokens of a rate, of which there are all again.
UNTIL_A_RESTART = ["rate", "key rate"]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("kind", LENGTHS + UNTIL_A_RESTART)
async def test_a_step_of_the_wall_clock_does_not_move_a_length(runs, kind, step):
    await runs.start()
    await begin(kind, runs.engine)
    runs.step(step)
    runs.passes(SECONDS - 1)
    assert not is_over(kind, runs.engine)
    runs.passes(2)
    assert is_over(kind, runs.engine)


@pytest.mark.parametrize("kind", LENGTHS)
async def test_over_a_restart_a_length_goes_on_by_the_wall_clock(runs, kind):
    await runs.start()
    await begin(kind, runs.engine)
    runs.passes(100)
    runs.stop()
    runs.clock.advance(200)
    await runs.start()
    runs.passes(SECONDS - 301)
    assert not is_over(kind, runs.engine)
    runs.passes(2)
    assert is_over(kind, runs.engine)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
@pytest.mark.parametrize("kind", [*WAITING, "lease"])
async def test_a_length_that_saw_a_step_goes_on_after_a_restart(runs, kind, step):
    """Its end was written down again after the step."""
    await runs.start()
    await begin(kind, runs.engine)
    runs.passes(100)
    runs.step(step)
    await runs.start()
    runs.passes(SECONDS - 101)
    assert not is_over(kind, runs.engine)
    runs.passes(2)
    assert is_over(kind, runs.engine)


@pytest.mark.parametrize("behind", [HOUR, 24 * HOUR])
@pytest.mark.parametrize("kind", LENGTHS)
async def test_a_server_that_starts_with_the_clock_behind_goes_by_the_right_one_later(runs, kind, behind):
    await runs.start()
    await begin(kind, runs.engine)
    runs.stop()
    runs.clock.wall_jump(-behind)
    await runs.start()
    runs.passes(1)
    runs.step(behind)
    runs.passes(SECONDS - 2)
    assert not is_over(kind, runs.engine)
    runs.passes(2)
    assert is_over(kind, runs.engine)


async def begin_instant(kind, engine):
    """Gives the job 1 an instant that is `LENGTH` ahead."""
    at = engine.wall_now() + LENGTH
    if kind == "run_at":
        await engine.enqueue(NewJob("t", "q", run_at=at))
    elif kind == "changed run_at":
        await engine.enqueue(NewJob("t", "q"))
        await engine.change(1, Change(run_at=at))
    else:
        new = NewJob("t", "q", options=Options(expires_at=at))
        await engine.import_jobs([ImportItem(new, ImportedHistory(at - LENGTH), None)])


def instant_is_over(kind, engine):
    return engine.get(1).status == ("dead" if kind == "imported expires_at" else "queued")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", ["run_at", "changed run_at", "imported expires_at"])
async def test_an_instant_goes_by_the_wall_clock_as_it_is_now(runs, kind, restart):
    await runs.start()
    await begin_instant(kind, runs.engine)
    runs.step(-HOUR)
    if restart:
        await runs.start()
    runs.passes(SECONDS + 1)
    assert not instant_is_over(kind, runs.engine)
    runs.step(HOUR - 2)
    assert not instant_is_over(kind, runs.engine)
    runs.step(2)
    assert instant_is_over(kind, runs.engine)


@pytest.mark.parametrize("step", [HOUR, -HOUR, 1, -1])
async def test_after_a_step_the_ends_of_lengths_are_shown_by_the_new_clock(runs, step):
    await runs.start()
    engine = runs.engine
    delayed = await engine.enqueue(NewJob("t", "later", delay=LENGTH))
    expiring = await engine.enqueue(NewJob("t", "later", expires_in=LENGTH))
    _, lease = await one(engine)
    await engine.pause("q", LENGTH, None)
    runs.step(step)
    end = runs.clock.wall() + LENGTH
    assert delayed.extras.run_at == expiring.extras.options.expires_at == end
    assert engine.wall(lease.expires) == engine.queue("q").pause.until == end


@pytest.mark.parametrize("ends", ["concluded", "cancelled", "dead"])
async def test_a_step_changes_nothing_of_a_finished_job(runs, ends):
    await runs.start()
    engine = runs.engine
    job, lease = await one(engine, NewJob("t", "q", expires_in=LENGTH))
    expires_at = job.extras.options.expires_at
    if ends == "concluded":
        await engine.conclude(LeaseClaim(1, lease.token, None), None)
    elif ends == "dead":
        await engine.fail(LeaseClaim(1, lease.token, None), retry=False)
    else:
        await engine.cancel(1, True)
    assert job.status == ends
    written = engine.stats().journal.rows.total
    runs.step(HOUR)
    await engine.after_commit(None)
    assert job.extras.options.expires_at == expires_at
    assert engine.stats().journal.rows.total == written


async def test_after_a_step_many_ends_are_written_down_in_slices(runs):
    await runs.start()
    engine = runs.engine
    jobs = []
    for _ in range(3):
        jobs += await engine.enqueue_many([NewJob("t", "q", delay=LENGTH)] * 1_000)
    runs.step(HOUR)
    end = runs.clock.wall() + LENGTH
    ticks = 1
    while any(job.extras.run_at != end for job in jobs):
        engine.tick()
        ticks += 1
    assert 3 <= ticks <= 10
