"""The verbs of a cluster, each at a server that does not own what it is about."""

import asyncio
from asyncio import Future
from contextlib import asynccontextmanager

import pytest

from jobqueue.cluster import codec
from jobqueue.cluster.transfers import Transfers
from jobqueue.cluster.waiting import run
from jobqueue.errors import (
    IdempotencyMismatch,
    JobForgotten,
    JobNotFound,
    LeaseLost,
    NotReady,
    QueueFull,
    ScheduleNotFound,
    SeveralFamilies,
)
from jobqueue.histogram import DecayingHistogram, Histogram
from jobqueue.model import (
    Change,
    DequeueRequest,
    ExistingJob,
    Filter,
    IdempotencyKey,
    Job,
    JobTemplate,
    LeaseClaim,
    NewJob,
    Options,
    Plan,
    PriorAnswer,
    Rate,
)
from jobqueue.shards import shard_of_id, shard_of_queue
from jobqueue.testing import ManualClock
from tests.cluster.in_process import SHARDS, InProcess, queues_of_servers


@asynccontextmanager
async def a_cluster(servers=3, **given):
    cluster = InProcess(servers, **given)
    try:
        yield cluster
    finally:
        await cluster.close()


async def done(work):
    """The result of a call, which may read from other servers."""
    answer = run(work)
    if isinstance(answer, Future):
        answer = await answer
    return await answer if isinstance(answer, Future) else answer


def claim(delivery):
    job, lease = delivery
    return LeaseClaim(job.id, lease.token, None)


async def test_a_job_lives_through_a_server_that_does_not_own_it():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        job = await done(lambda: engine.enqueue(NewJob("t", name, payload=b'{"a":1}')))
        assert shard_of_id(job.id) == shard_of_queue(name, SHARDS)
        [one] = await done(lambda: engine.dequeue(DequeueRequest((name,))))
        assert one[0].id == job.id
        assert one[0].payload == b'{"a":1}'
        await done(lambda: engine.heartbeat(claim(one), 60_000, 50, "half"))
        finished = await done(lambda: engine.conclude(claim(one), b"7"))
        assert finished.status == "concluded"
        for server in cluster.servers:
            assert (await done(lambda server=server: server.engine.get(job.id))).extras.result == b"7"
        with pytest.raises(LeaseLost):
            await done(lambda: engine.conclude(LeaseClaim(job.id, "x" * 22, None), None))


async def test_a_server_knows_whether_it_owns_a_job():
    async with a_cluster() as cluster:
        [own], [other], _ = queues_of_servers(3)
        engine = cluster.servers[0].engine
        ids = [
            str((await done(lambda name=name: engine.enqueue(NewJob("t", name)))).id) for name in (own, other)
        ]
        assert [engine.owns(id) for id in ids] == [True, False]
        for id in ("17", "9" * 16, "x" * 16, "", "٣" * 16):  # one of a journal that was moved here, and none
            assert not engine.owns(id)


async def test_unknown_ids_are_not_found_everywhere():
    async with a_cluster() as cluster:
        engine = cluster.servers[0].engine
        for id in (1, 1 << 51, (1 << 53) - 1, cluster.engines[1].newest_id() + 1):
            with pytest.raises(JobNotFound):
                await done(lambda id=id: engine.get(id))


async def test_a_wait_at_one_server_gets_the_job_of_another():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        waiting = cluster.servers[0].engine.dequeue(DequeueRequest((name,)), 10_000)
        await asyncio.sleep(0.05)
        job = await done(lambda: cluster.servers[2].engine.enqueue(NewJob("t", name)))
        [(given, lease)] = await asyncio.wait_for(waiting, 2)
        assert given.id == job.id
        assert lease.ended_by is None


async def test_a_wait_that_is_cancelled_takes_no_job():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        waiting = cluster.servers[0].engine.dequeue(DequeueRequest((name,)), 10_000)
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.sleep(0.05)
        job = await done(lambda: cluster.servers[2].engine.enqueue(NewJob("t", name)))
        await asyncio.sleep(0.05)
        assert (await done(lambda: cluster.servers[1].engine.get(job.id))).status == "queued"


async def test_a_job_that_was_on_its_way_to_one_who_left_goes_back():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        await done(lambda: cluster.servers[0].engine.enqueue(NewJob("t", name)))
        asked = cluster.servers[0].engine.dequeue(DequeueRequest((name,)))
        await asyncio.sleep(0)  # the call is sent, and nobody waits for its answer
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.sleep(0.1)
        [job], _ = await done(lambda: cluster.servers[1].engine.list_jobs(Filter(), None, True, 10))
        assert (job.status, job.attempts) == ("queued", 0)


async def test_queues_of_several_servers_are_asked_in_order_and_waited_for_together():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        wanted = DequeueRequest((b, c, a), count=2)
        for name in (a, b, c):
            await done(lambda name=name: engine.enqueue(NewJob("t", name)))
        first = await done(lambda: engine.dequeue(wanted))
        assert [job.queue for job, _ in first] == [b, c]
        assert [job.queue for job, _ in await done(lambda: engine.dequeue(wanted))] == [a]
        waiting = engine.dequeue(wanted, 10_000)
        await asyncio.sleep(0.05)
        for name in (c, a):
            await done(lambda name=name: cluster.servers[1].engine.enqueue(NewJob("u", name)))
        given = await asyncio.wait_for(waiting, 2)
        await asyncio.sleep(0.1)
        found, _ = await done(lambda: engine.list_jobs(Filter(types=frozenset({"u"})), None, True, 10))
        states = sorted(job.status for job in found)
        assert len(given) == 1
        assert states == ["in_progress", "queued"]
        assert min(job.leases for job in found if job.status == "queued") in (0, 1)


async def test_several_queues_without_jobs_end_after_the_wait():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        assert await asyncio.wait_for(cluster.servers[2].engine.dequeue(DequeueRequest((a, b)), 200), 2) == []


async def test_all_or_nothing_is_for_one_family():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        made = await done(lambda: engine.enqueue_many([NewJob("t", a), NewJob("t", f"{a}:high")]))
        assert len(made) == 2
        with pytest.raises(SeveralFamilies) as refused:
            engine.enqueue_many([NewJob("t", a), NewJob("t", b)])
        assert refused.value.facts["index"] == 1
        each = await done(lambda: engine.enqueue_each([NewJob("t", b), NewJob("t", a), NewJob("t", b)]))
        assert [job.queue for job in each] == [b, a, b]


async def test_an_idempotency_key_makes_one_job_through_any_server():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        key = IdempotencyKey("", "k", b"digest", False)
        first = await done(lambda: cluster.servers[0].engine.enqueue_many([NewJob("t", name)], key))
        again = await done(lambda: cluster.servers[2].engine.enqueue_many([NewJob("t", name)], key))
        assert isinstance(again, PriorAnswer)
        assert again.made[0].id == first[0].id
        with pytest.raises(IdempotencyMismatch):
            await done(
                lambda: cluster.servers[2].engine.enqueue_many([NewJob("t", name)], key._replace(digest=b"x"))
            )


async def test_refusals_keep_their_facts():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        view = await done(lambda: engine.configure(name, {"max_jobs": 1, "rate": Rate(5, 1000, 1)}))
        assert view.settings.rate == Rate(5, 1000, 1)
        await done(lambda: engine.enqueue(NewJob("t", name, options=Options(unique_key="u"))))
        same = await done(lambda: engine.enqueue(NewJob("t", name, options=Options(unique_key="u"))))
        assert isinstance(same, ExistingJob)
        with pytest.raises(QueueFull) as refused:
            await done(lambda: engine.enqueue(NewJob("t", name)))
        assert refused.value.facts["limit"] == 1


async def test_lists_and_figures_are_of_all_servers():
    async with a_cluster() as cluster:
        names = [name for part in queues_of_servers(3, each=4) for name in part]
        engine = cluster.servers[0].engine
        for name in names:
            for _ in range(3):
                await done(lambda name=name: engine.enqueue(NewJob("t", name)))
        for ascending in (True, False):
            after, ids = None, []
            while True:
                jobs, after = await done(
                    lambda after=after, ascending=ascending: engine.list_jobs(Filter(), after, ascending, 7)
                )
                ids += [job.id for job in jobs]
                if after is None:
                    break
            assert ids == sorted(ids, reverse=not ascending)
            assert len(set(ids)) == 36
        views = await done(lambda: engine.queues(100))
        assert [view.name for view in views] == sorted(names)
        assert [view.name for view in await done(lambda: engine.queues(5, views[2].name))] == sorted(names)[
            3:8
        ]
        stats = await done(engine.stats)
        assert stats.jobs["queued"] == 36
        assert stats.queues == 12
        assert await done(lambda: engine.count_jobs(Filter(statuses=frozenset({"queued"})))) == 36
        one = await done(lambda: engine.count_jobs(Filter(queues=frozenset(names[:2]))))
        assert one == 6
        assert engine.stats(own=True).jobs["queued"] < 36
        await done(lambda: engine.dequeue(DequeueRequest((names[5],), consumer="me")))
        held = await done(lambda: engine.consumers(10))
        assert [(holder.consumer, holder.in_progress) for holder in held.holding] == [("me", 1)]


async def test_a_dead_job_goes_to_the_dead_letter_queue_of_another_server_and_back():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        await done(lambda: engine.configure(a, {"dead_letter": b}))
        job = await done(lambda: engine.enqueue(NewJob("t", a, payload=b"5", options=Options(tags=("x",)))))
        [one] = await done(lambda: engine.dequeue(DequeueRequest((a,))))
        await done(lambda: engine.fail(claim(one), b'"boom"', False))
        await cluster.transfer()
        with pytest.raises(JobForgotten):
            await done(lambda: engine.get(job.id))
        [dead], _ = await done(lambda: engine.list_jobs(Filter(queues=frozenset({b})), None, True, 10))
        assert shard_of_id(dead.id) == shard_of_queue(b, SHARDS)
        assert (dead.payload, dead.status, dead.extras.trace.dead_from) == (b"5", "queued", a)
        assert dead.extras.options.tags == ("x",)
        assert dead.created_at == job.created_at
        await done(lambda: engine.move_many(Filter(queues=frozenset({b})), None, None, False))
        await cluster.transfer()
        found, _ = await done(lambda: engine.list_jobs(Filter(), None, True, 10))
        assert [(each.queue, each.payload, each.status) for each in found] == [(a, b"5", "queued")]


async def test_a_transfer_that_is_repeated_makes_one_job():
    class Dying:
        """An engine of a server that dies before it has removed what was transferred."""

        def __getattr__(self, name):
            return getattr(home, name)

        def remove_transferred(self, job, version):
            pass

    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        job = await done(lambda: engine.enqueue(NewJob("t", a)))
        home = cluster.engines[shard_of_queue(a, SHARDS)]
        await done(lambda: engine.change(job.id, Change(queue=b)))
        transfers = Transfers(lambda name: engine.shards[shard_of_queue(name, SHARDS)])
        assert await transfers.run(Dying())
        await cluster.transfer()
        found, _ = await done(lambda: engine.list_jobs(Filter(), None, True, 10))
        assert [each.queue for each in found] == [b]


def test_histograms_pass_between_servers():
    histogram, decaying = Histogram((1.0, 2.0)), DecayingHistogram()
    for value in (1, 3, 1000):
        histogram.add(value)
        decaying.add(value)
    read = codec.decoder(Histogram)(codec.encode(histogram))
    assert (read.below(), read.total, read.count) == (histogram.below(), 1004.0, 3)
    read.add(2.0)
    assert read.count == 4
    again = codec.decoder(DecayingHistogram)(codec.encode(decaying))
    assert again.below((2, 2000)) == decaying.below((2, 2000))
    assert (again.quantile(0.5), again.all_ms) == (decaying.quantile(0.5), 1004)


async def test_a_job_goes_to_another_server_although_a_job_there_has_its_unique_key():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        await done(lambda: engine.configure(a, {"dead_letter": b}))
        for number in range(2):
            unique = Options(unique_key="same", unique_while="exists")
            await done(lambda unique=unique: engine.enqueue(NewJob(f"{number}", a, options=unique)))
            [one] = await done(lambda: engine.dequeue(DequeueRequest((a,))))
            await done(lambda one=one: engine.fail(claim(one), b'"boom"', False))
            await cluster.transfer()
        found, _ = await done(lambda: engine.list_jobs(Filter(queues=frozenset({b})), None, True, 10))
        assert [job.type for job in found] == ["0", "1"]


async def test_a_full_queue_leaves_a_job_where_it_is_until_there_is_room(logged):
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        await done(lambda: engine.configure(b, {"max_jobs": 1}))
        await done(lambda: engine.enqueue(NewJob("first", b)))
        job = await done(lambda: engine.enqueue(NewJob("second", a)))
        await done(lambda: engine.change(job.id, Change(queue=b)))
        await cluster.transfer()
        assert (await done(lambda: engine.get(job.id))).queue == b
        [one] = await done(lambda: engine.dequeue(DequeueRequest((b,))))
        await done(lambda: engine.conclude(claim(one), None))
        await cluster.transfer()
        [second] = await done(lambda: engine.dequeue(DequeueRequest((b,))))
        assert second[0].type == "second"
        assert "jobs wait for a place in the queue" in logged.pop().getMessage()


async def test_schedules_are_found_by_name_and_follow_their_queue():
    async with a_cluster() as cluster:
        [_a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        plan = Plan("nightly", JobTemplate("t", b), every=3_600_000)
        schedule, new = await done(lambda: engine.put_schedule(plan, None))
        assert new
        assert schedule.plan == plan
        assert (await done(lambda: engine.put_schedule(plan, None)))[1] is False
        await done(lambda: engine.pause_schedule("nightly", "why"))
        moved = Plan("nightly", JobTemplate("t", c), every=3_600_000)
        schedule, new = await done(lambda: engine.put_schedule(moved, None))
        assert not new
        assert schedule.paused_at is not None
        assert [one.plan.job.queue for one in await done(lambda: engine.schedules(None, None, None, 9))] == [
            c
        ]
        made = await done(lambda: engine.run_schedule("nightly"))
        assert made.queue == c
        await done(lambda: engine.delete_schedule("nightly"))
        with pytest.raises(ScheduleNotFound):
            await done(lambda: engine.schedule("nightly"))


async def test_a_group_of_schedules_is_replaced_over_all_servers():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine

        def plans(**queues):
            return [
                (Plan(name, JobTemplate("t", queue), "app", every=60_000), None)
                for name, queue in queues.items()
            ]

        changes = await done(lambda: engine.put_schedules(plans(x=a, y=b, z=c), "app", False))
        assert changes.created == ["x", "y", "z"]
        changes = await done(lambda: engine.put_schedules(plans(x=a, y=c), "app", True))
        assert (changes.changed, changes.deleted, changes.unchanged) == (["y"], ["z"], ["x"])
        changes = await done(lambda: engine.put_schedules(plans(x=a, y=c), "app", False))
        assert (changes.changed, changes.deleted, changes.unchanged) == (["y"], ["z"], ["x"])
        found = await done(lambda: engine.schedules("app", None, None, 9))
        assert [(one.plan.name, one.plan.job.queue) for one in found] == [("x", a), ("y", c)]


def monotonic_times(found):
    """The times of the monotonic clock in an answer, in order."""
    if isinstance(found, ExistingJob):
        return monotonic_times(found.job)
    if isinstance(found, Job):
        times = [] if found.lease is None else [found.lease.expires, found.lease.ends]
        if found.extras is not None:
            times.append(found.extras.due)
            times.append(found.extras.options and found.extras.options.expires_due)
        return [time for time in times if time is not None]
    own = {"Holder": ("seen_at",), "WaitingConsumer": ("until",)}.get(type(found).__name__, ())
    times = [getattr(found, name) for name in own]
    if isinstance(found, (list, tuple)):
        times += [time for part in found for time in monotonic_times(part)]
    return times


async def test_times_are_of_the_clock_of_the_server_that_was_asked():
    """Two machines have started at different times, so their monotonic clocks differ."""
    async with a_cluster(clock=ManualClock()) as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard = cluster.servers[0].engine, shard_of_queue(name, SHARDS)
        owner = cluster.engines[shard]
        await done(engine.stats)
        peer = engine.shards[shard].peer
        peer._their_clock += 1_000_000

        def job(delay=0, key=None):
            options = Options(unique_key=key, unique_while="exists", max_run_for=60_000)
            return NewJob("t", name, delay=delay, options=options, expires_in=500_000)

        once, wanted = IdempotencyKey("", "k", b"d", True), DequeueRequest((name,), 50_000)
        later = await done(lambda: engine.enqueue(job(10_000, "u")))
        [(leased, lease)] = [
            *await done(lambda: engine.enqueue_many([job()], once)),
            *await done(lambda: engine.dequeue(wanted)),
        ][1:]
        held = LeaseClaim(leased.id, lease.token, None)
        waiting = engine.dequeue(DequeueRequest((name,)), 5_000)
        await asyncio.sleep(0.05)
        calls = {
            "enqueue": (NewJob("t", name, options=Options(unique_key="u", unique_while="exists")),),
            "enqueue_many": ([job()], once),
            "enqueue_each": ([job(key="u")],),
            "unique_owner": (name, "u"),
            "get": (leased.id,),
            "wait_for": (leased.id, 0),
            "heartbeat": (held, 40_000),
            "renew": (held, 40_000),
            "explain": (later.id,),
            "list_jobs": (Filter(queues=frozenset({name})), None, True, 9),
            "change": (later.id, Change(priority=3)),
            "consumers": (9,),
        }
        for verb, arguments in calls.items():
            here = await done(lambda verb=verb, given=arguments: getattr(owner, verb)(*given))
            there = await done(lambda verb=verb, given=arguments: getattr(engine, verb)(*given))
            times = monotonic_times(here)
            assert times, verb
            assert monotonic_times(there) == [time + 1_000_000 for time in times], verb
        waiting.cancel()


async def test_events_of_all_servers_are_seen_at_each():
    async with a_cluster() as cluster:
        names = [name for [name] in queues_of_servers(3)]
        seen = []
        cluster.servers[1].engine.watch(
            lambda kind, subject: seen.append((kind, subject.queue if isinstance(subject, Job) else subject))
        )
        await done(lambda: cluster.servers[1].engine.get(1) if False else cluster.servers[1].engine.stats())
        for name in names:
            await done(lambda name=name: cluster.servers[0].engine.enqueue(NewJob("t", name)))
        await asyncio.sleep(0.1)
        assert sorted(seen) == sorted(("enqueue", name) for name in names)
        cluster.servers[1].engine.watch(None)
        await asyncio.sleep(0.1)
        await done(lambda: cluster.servers[0].engine.enqueue(NewJob("t", names[2])))
        await asyncio.sleep(0.1)
        assert len(seen) == 3


async def test_a_call_waits_for_the_next_owner():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        shard = shard_of_queue(name, SHARDS)
        cluster.hand_over(shard, -1)
        made = cluster.servers[0].engine.enqueue(NewJob("t", name))
        await asyncio.sleep(0.1)
        assert not made.done()
        cluster.hand_over(shard, 2)
        assert (await asyncio.wait_for(made, 2)).queue == name
        cluster.hand_over(shard, -1)
        made = cluster.servers[0].engine.enqueue(NewJob("t", name))
        cluster.hand_over(shard, 0)
        assert (await asyncio.wait_for(made, 2)).queue == name


async def test_a_shard_without_an_owner_is_an_error_and_never_a_part(monkeypatch):
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.2)
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        cluster.hand_over(shard_of_queue(name, SHARDS), -1)
        engine = cluster.servers[0].engine
        for call in (
            lambda: engine.enqueue(NewJob("t", name)),
            lambda: engine.list_jobs(Filter(), None, True, 10),
            engine.stats,
            lambda: engine.queues(10),
            lambda: engine.queue(name),
        ):
            with pytest.raises(NotReady) as refused:
                await done(call)
            assert refused.value.facts["retry_after"] == 1


async def test_a_lease_end_is_told_to_the_server_that_asked():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, ended = cluster.servers[0].engine, []
        await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,))))
        engine.on_lease_end(given, ended.append)
        await done(lambda: cluster.servers[2].engine.conclude(claim(given[0]), None))
        await asyncio.sleep(0.1)
        assert [job.id for job in ended] == [given[0][0].id]
        assert given[0][1].ended_by == "conclude"


async def test_a_lost_connection_gives_its_waits_back_and_tells_what_is_not_known():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        await done(lambda: engine.queue(name))  # the connection is there
        waiting = engine.dequeue(DequeueRequest((name,)), 10_000)
        await asyncio.sleep(0.05)
        peer = cluster.servers[0].links.peer(cluster.servers[1].place)
        peer._transport.abort()
        await asyncio.sleep(0.5)  # it asks again over a new connection
        assert not waiting.done()
        await done(lambda: cluster.servers[2].engine.enqueue(NewJob("t", name)))
        assert len(await asyncio.wait_for(waiting, 2)) == 1
