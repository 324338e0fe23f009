"""Clients that leave, owners that change, and connections between servers that break or carry nonsense."""

import asyncio
import os
import time
from asyncio import Future

import pytest
from postgres_server import free_port

from jobqueue.cluster import codec
from jobqueue.cluster.link import NONCE, greeting
from jobqueue.cluster.peer import PASSES_CALLS
from jobqueue.cluster.transfers import Transfers
from jobqueue.cluster.waiting import run
from jobqueue.errors import JobQueueError, NotReady, OutcomeUnknown
from jobqueue.model import (
    Change,
    DequeueRequest,
    Filter,
    ImportedHistory,
    ImportItem,
    JobTemplate,
    NewJob,
    Plan,
)
from jobqueue.shards import shard_of_queue
from jobqueue.storage.postgres_session import Place
from jobqueue.testing import ManualClock
from tests.cluster.in_process import SHARDS, queues_of_servers
from tests.cluster.test_cluster_engine import a_cluster, claim, done
from tests.serving import until


async def jobs_of(cluster):
    found, _ = await done(lambda: cluster.servers[1].engine.list_jobs(Filter(), None, True, 100))
    return found


async def passes(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_job_on_its_way_to_another_server_is_changed_before_or_after_and_never_twice():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        job = await done(lambda: engine.enqueue(NewJob("t", a)))
        await done(lambda: engine.change(job.id, Change(queue=b)))
        home, go_on = cluster.engines[shard_of_queue(a, SHARDS)], asyncio.Event()

        class Slow:
            """The shard of the new queue, which is called when the test says so."""

            def call(self, *arguments):
                return asyncio.ensure_future(self._later(arguments))

            async def _later(self, arguments):
                await go_on.wait()
                return await done(lambda: engine.shards[shard_of_queue(b, SHARDS)].call(*arguments))

        moving = asyncio.ensure_future(Transfers(lambda name: Slow()).run(home))
        await until(lambda: home.leaving)
        for call in (
            lambda: engine.cancel(job.id),
            lambda: engine.change(job.id, Change(priority=3)),
            lambda: engine.dequeue_job(job.id, DequeueRequest(())),
        ):
            with pytest.raises(NotReady, match="on its way"):
                await done(call)
        go_on.set()
        assert await moving
        assert not home.leaving
        assert [(each.queue, each.status) for each in await jobs_of(cluster)] == [(b, "queued")]


async def test_a_server_that_goes_still_answers_the_calls_that_are_under_way():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        first, second, _ = cluster.servers
        await done(lambda: first.engine.queue(name))
        waiting = first.engine.dequeue(DequeueRequest((name,)), 5_000)
        await asyncio.sleep(0.05)
        first.links.keep_only(())
        await done(lambda: second.engine.enqueue(NewJob("t", name)))
        assert len(await asyncio.wait_for(waiting, 2)) == 1
        first.links.keep_only(())
        assert second.place not in first.links._peers


async def test_a_call_at_a_server_that_stands_still_goes_to_the_next_owner(monkeypatch):
    monkeypatch.setattr("jobqueue.cluster.links._PATIENCE", 0.1)
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        first, second, third = cluster.servers
        await done(lambda: first.engine.queue(name))
        monkeypatch.setattr("jobqueue.cluster.serving.Serving.data_received", lambda *_: None)
        asked = first.engine.dequeue(DequeueRequest((name,)), 5_000)
        await asyncio.sleep(0.05)
        monkeypatch.undo()
        cluster.hand_over(shard_of_queue(name, SHARDS), 0)
        await done(lambda: first.engine.enqueue(NewJob("t", name)))
        first.links.keep_only([third.place])
        await asyncio.sleep(0.15)
        monkeypatch.setattr("jobqueue.cluster.links._PATIENCE", 0.1)
        first.links.keep_only([third.place])
        assert second.place not in first.links._peers
        assert len(await asyncio.wait_for(asked, 2)) == 1


# -- clients that leave -----------------------------------------------------------------------------


@pytest.mark.parametrize("queues", [1, 3])
async def test_a_client_that_leaves_at_any_moment_takes_no_job(queues):
    async with a_cluster() as cluster:
        names = [name for [name] in queues_of_servers(3)]
        wanted = tuple(names[1 : 1 + 1] if queues == 1 else names)
        engine = cluster.servers[0].engine
        await done(engine.stats)  # all connections are there
        for moment in range(60):
            job = await done(lambda: engine.enqueue(NewJob("t", names[1])))
            asked = engine.dequeue(DequeueRequest(wanted, count=2), 5_000 if moment % 2 else 0)
            await passes(moment // 2)
            if not isinstance(asked, Future):
                continue
            if not asked.cancel():  # it was done before: whoever called gives back, as the front does
                engine.give_back(asked.result())
            [one] = await asyncio.wait_for(engine.dequeue(DequeueRequest((names[1],)), 5_000), 2)
            assert (one[0].id, one[0].attempts) == (job.id, 1)
            await done(lambda one=one: engine.conclude(claim(one), None))


async def test_a_job_that_is_given_back_while_its_shard_has_no_owner_goes_back_at_the_next_one():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard = cluster.servers[0].engine, shard_of_queue(name, SHARDS)
        await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,))))
        cluster.hand_over(shard, -1)
        engine.give_back(given)
        await asyncio.sleep(0.01)
        cluster.hand_over(shard, 2)
        await until(lambda: cluster.engines[shard].get(given[0][0].id).status == "queued")
        assert cluster.engines[shard].get(given[0][0].id).attempts == 0


async def test_a_job_of_a_connection_that_breaks_in_the_pass_of_its_delivery_goes_back():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, owner = cluster.servers[0].engine, cluster.engines[shard_of_queue(name, SHARDS)]
        asked = engine.dequeue(DequeueRequest((name,)), 300)
        await until(lambda: owner.stats().consumers_waiting == 1)
        [serving] = [one for one in cluster.servers[1].links.servings._open if one._under_way]
        job = owner.enqueue(NewJob("t", name))
        assert owner.get(job.id).status == "in_progress"
        serving.connection_lost(None)
        await until(lambda: owner.get(job.id).status == "queued")
        assert owner.get(job.id).attempts == 0
        asked.cancel()


async def test_a_stop_ends_the_waits_at_other_servers():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        job = await done(lambda: engine.enqueue(NewJob("t", b)))
        waiting = [
            engine.dequeue(DequeueRequest((c,)), 60_000),
            engine.dequeue(DequeueRequest((a, c)), 60_000),
            engine.wait_for(job.id, 60_000),
        ]
        await asyncio.sleep(0.05)
        engine.stop_waiting()
        one, several, outcome = await asyncio.wait_for(asyncio.gather(*waiting), 2)
        assert (one, several, outcome.id, outcome.status) == ([], [], job.id, "queued")
        await until(lambda: not any(owner.stats().consumers_waiting for owner in cluster.engines))
        await passes(2)
        assert not engine._waits


async def test_a_read_that_this_server_refuses_leaves_no_call_at_the_others():
    async with a_cluster() as cluster:
        engine = cluster.servers[2].engine  # the first shards are of other servers
        for owner in cluster.engines:
            owner._refuses = "the database is away"
        for call in (
            engine.stats,
            engine.newest_id,
            lambda: engine.count_jobs(Filter()),
            lambda: engine.group_jobs(Filter(), ["queue"], 5),
            lambda: engine.purge(Filter(), True),
        ):
            with pytest.raises(NotReady, match="the database is away"):
                run(call)
        # There is no connection yet, on which a purge would go out.
        assert not any(peer._waiting for peer in cluster.servers[2].links._peers.values())


# -- several queues ---------------------------------------------------------------------------------


async def test_a_job_that_is_there_at_once_leaves_no_waits_at_the_others():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        waiting = engine.dequeue(DequeueRequest((b, a, c)), 60_000)
        # It comes between the question to `a`, which is of this server, and the wait.
        await until(lambda: waiting._asked == 3)
        await done(lambda: engine.enqueue(NewJob("t", a)))
        assert len(await asyncio.wait_for(waiting, 2)) == 1
        await asyncio.sleep(0.05)
        assert not any(owner.stats().consumers_waiting for owner in cluster.engines)


async def test_a_shard_without_an_owner_does_not_keep_the_jobs_of_others_back():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        cluster.hand_over(shard_of_queue(b, SHARDS), -1)
        await done(lambda: engine.enqueue(NewJob("t", c)))
        [(job, _)] = await asyncio.wait_for(done(lambda: engine.dequeue(DequeueRequest((b, a, c)))), 1)
        assert job.queue == c
        assert await asyncio.wait_for(done(lambda: engine.dequeue(DequeueRequest((a, b, c)), 50)), 1) == []
        assert await asyncio.wait_for(done(lambda: engine.state((a, b, c))), 1) == "empty"


async def test_a_wait_at_several_shards_goes_on_at_the_next_owner_of_one():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine, shard = cluster.servers[2].engine, shard_of_queue(b, SHARDS)
        waiting = engine.dequeue(DequeueRequest((a, b)), 10_000)
        await asyncio.sleep(0.05)
        cluster.hand_over(shard, -1)
        cluster.engines[shard]._queue.end_waits()  # as a server does that gives the shard up
        await asyncio.sleep(0.05)
        cluster.hand_over(shard, 0)
        await done(lambda: cluster.servers[0].engine.enqueue(NewJob("t", b)))
        assert len(await asyncio.wait_for(waiting, 2)) == 1


async def test_a_wait_is_no_longer_because_its_shard_has_no_owner_at_first():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        shard = shard_of_queue(name, SHARDS)
        await done(cluster.servers[0].engine.stats)
        cluster.hand_over(shard, -1)
        began = time.monotonic()
        waiting = cluster.servers[0].engine.dequeue(DequeueRequest((name,)), 1_000)
        await asyncio.sleep(0.7)
        cluster.hand_over(shard, 2)
        assert await asyncio.wait_for(waiting, 3) == []
        assert time.monotonic() - began < 1.4


async def test_queues_of_one_family_are_by_priority_also_among_others():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        await done(lambda: engine.enqueue(NewJob("low", f"{a}:x", 1)))
        await done(lambda: engine.enqueue(NewJob("high", f"{a}:y", 9)))
        wanted = DequeueRequest((f"{a}:x", b, f"{a}:y"), by_priority=True)
        [(job, _)] = await done(lambda: engine.dequeue(wanted))
        assert job.type == "high"


# -- leases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [0, 2])
async def test_a_lease_end_is_told_after_its_shard_went_to_another_server(to):
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard, ended = cluster.servers[0].engine, shard_of_queue(name, SHARDS), []
        for _ in range(2):
            await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,), count=2)))
        engine.on_lease_end(given, ended.append)
        await done(lambda: engine.get(given[0][0].id))
        cluster.hand_over(shard, -1)
        cluster.engines[shard]._queue.state.lease_end_callbacks.clear()  # another server loads the shard
        cluster.engines[shard].conclude(claim(given[0]), None)  # while nobody watches
        cluster.hand_over(shard, to)
        await until(lambda: ended)
        await done(lambda: cluster.servers[1].engine.conclude(claim(given[1]), None))
        await until(lambda: len(ended) == 2)
        assert [lease.ended_by for _, lease in given] == ["conclude", "conclude"]
        assert not engine.shards[shard]._watched
        assert not any(peer._leases for peer in cluster.servers[0].links._peers.values())


async def test_a_lease_end_is_told_after_the_connection_was_lost():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, ended = cluster.servers[0].engine, []
        for _ in range(2):
            await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,), count=2)))
        engine.on_lease_end(given, ended.append)
        cluster.servers[0].links.peer(cluster.servers[1].place)._transport.abort()
        await passes(2)
        owner = cluster.engines[shard_of_queue(name, SHARDS)]
        owner.release(claim(given[0]))
        [again] = owner.dequeue(DequeueRequest((name,)))  # to somebody else, under another token
        await until(lambda: ended)
        owner.conclude(claim(given[1]), None)
        await until(lambda: len(ended) == 2)
        assert [job.id for job in ended] == [job.id for job, _ in given]
        assert given[1][1].ended_by == "conclude"
        assert given[0][1].ended_by is not None
        assert again[1].ended_by is None


async def test_a_lease_is_watched_again_where_the_shard_was_not_ready_yet(monkeypatch):
    monkeypatch.setattr("jobqueue.cluster.shard._WATCH_AGAIN", 0.01)
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard, ended = cluster.servers[0].engine, shard_of_queue(name, SHARDS), []
        await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,))))
        there = cluster.servers[1].engine.shards[shard]
        there.owned_by(None, None)
        engine.on_lease_end(given, ended.append)
        await asyncio.sleep(0.05)
        there.owned_by(cluster.engines[shard], None)
        await asyncio.sleep(0.05)
        cluster.engines[shard].conclude(claim(given[0]), None)
        await until(lambda: ended)


async def test_a_lease_whose_end_was_missed_has_ended_when_another_consumer_gets_the_job():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard, ended, others = cluster.servers[0].engine, shard_of_queue(name, SHARDS), [], []
        owner, wanted = cluster.engines[shard], DequeueRequest((name,))
        first_told, second_told = ended.append, others.append
        await done(lambda: engine.enqueue(NewJob("t", name)))
        first = await done(lambda: engine.dequeue(wanted))
        engine.on_lease_end(first, first_told)
        await done(lambda: engine.get(first[0][0].id))
        owner._queue.state.lease_end_callbacks.clear()  # the shard is another server's, which was not asked yet
        owner.release(claim(first[0]))
        second = await done(lambda: engine.dequeue(wanted))
        engine.on_lease_end(second, second_told)
        assert [job.id for job in ended] == [first[0][0].id]
        assert first[0][1].ended_by is not None
        await done(lambda: engine.get(first[0][0].id))
        owner._queue.state.lease_end_callbacks.clear()
        owner.release(claim(second[0]))
        third = await done(lambda: engine.dequeue(wanted))
        engine.on_lease_end(third, second_told)  # the same consumer has it again, and knows
        assert not others
        await done(lambda: engine.conclude(claim(third[0]), None))
        await until(lambda: others)
        assert len(ended) == len(others) == 1
        assert not engine.shards[shard]._watched


async def test_a_lease_that_is_extended_elsewhere_is_seen_when_another_one_expires():
    clock = ManualClock()
    async with a_cluster(clock=clock) as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine, shard, ended = cluster.servers[0].engine, shard_of_queue(name, SHARDS), []
        for _ in range(2):
            await done(lambda: engine.enqueue(NewJob("t", name)))
        given = await done(lambda: engine.dequeue(DequeueRequest((name,), 2_000, count=2)))
        engine.on_lease_end(given, ended.append)
        await done(lambda: engine.get(given[0][0].id))
        before = given[1][1].expires
        await done(lambda: cluster.servers[2].engine.heartbeat(claim(given[1]), 60_000))
        clock.advance("3s")
        cluster.engines[shard].tick()
        await until(lambda: ended)
        assert given[0][1].ended_by == "stale"
        assert (given[1][1].ended_by, given[1][1].expires - before) == (None, 58_000)


# -- schedules --------------------------------------------------------------------------------------


def plan(queue, group=None):
    return Plan("nightly", JobTemplate("t", queue), group, every=3_600_000)


async def queues_of_schedules(cluster):
    found = await done(lambda: cluster.servers[1].engine.schedules(None, None, None, 9))
    return [one.plan.job.queue for one in found]


async def test_a_schedule_goes_to_another_server_as_a_whole_when_the_client_leaves():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        for moment in range(24):
            queue = (b, c)[moment % 2]
            moved = asyncio.ensure_future(done(lambda queue=queue: engine.put_schedule(plan(queue), None)))
            await passes(moment // 2)
            moved.cancel()
            await asyncio.sleep(0.02)
            assert len(await queues_of_schedules(cluster)) <= 1
        await done(lambda: engine.put_schedule(plan(a), None))
        assert await queues_of_schedules(cluster) == [a]


async def test_a_schedule_that_two_shards_have_after_a_crash_is_one_again_when_it_is_put_or_deleted():
    async with a_cluster() as cluster:
        [a], [b], [c] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        for put in (a, b, c):
            for queue in (a, b):
                cluster.engines[shard_of_queue(queue, SHARDS)].put_schedule(plan(queue), None)
            await done(lambda put=put: engine.put_schedule(plan(put), None))
            assert await queues_of_schedules(cluster) == [put]
        for queue in (a, b):
            cluster.engines[shard_of_queue(queue, SHARDS)].put_schedule(plan(queue), None)
        await done(lambda: engine.delete_schedule("nightly"))
        assert await queues_of_schedules(cluster) == []


async def test_a_paused_schedule_of_a_group_stays_paused_where_it_goes():
    async with a_cluster() as cluster:
        [a], [b], _ = queues_of_servers(3)
        engine = cluster.servers[2].engine
        await done(lambda: engine.put_schedules([(plan(a, "app"), None)], "app", False))
        await done(lambda: engine.pause_schedule("nightly", "why"))
        await done(lambda: engine.put_schedules([(plan(b, "app"), None)], "app", False))
        schedule = await done(lambda: engine.schedule("nightly"))
        assert (schedule.plan.job.queue, schedule.paused_at is not None) == (b, True)


# -- sessions ---------------------------------------------------------------------------------------


async def test_a_session_that_was_ended_at_another_server_is_seen_by_what_cannot_wait():
    async with a_cluster() as cluster:
        for server in cluster.servers:
            assert not server.engine.has_ended("code")
        await done(lambda: cluster.servers[1].engine.end_session("code"))
        assert cluster.servers[1].engine.has_ended("code")
        for server in cluster.servers:
            await until(lambda server=server: server.engine.has_ended("code"))
            assert await done(lambda server=server: server.engine.has_ended("code"))
            assert not await done(lambda server=server: server.engine.has_ended("other"))


# -- connections ------------------------------------------------------------------------------------


def calls(engine, name, job, lease):
    """Each kind of verb once."""
    return {
        "enqueue": lambda: engine.enqueue(NewJob("t", name)),
        "enqueue_many": lambda: engine.enqueue_many([NewJob("t", name)]),
        "get": lambda: engine.get(job.id),
        "heartbeat": lambda: engine.heartbeat(lease),
        "wait_for": lambda: engine.wait_for(job.id, 50),
        "release": lambda: engine.release(lease),
        "cancel": lambda: engine.cancel(job.id, True),
        "import_jobs": lambda: engine.import_jobs(
            [ImportItem(NewJob("i", name), ImportedHistory(1), None)], "", None
        ),
        "configure": lambda: engine.configure(name, {"max_jobs": 9}),
        "list_jobs": lambda: engine.list_jobs(Filter(), None, True, 10),
        "queues": lambda: engine.queues(10),
        "purge": lambda: engine.purge(Filter(queues=frozenset({"other"})), False),
        "move_many": lambda: engine.move_many(Filter(queues=frozenset({name})), None, None, True),
        "schedules": lambda: engine.schedules(None, None, None, 10),
        "dequeue": lambda: engine.dequeue(DequeueRequest((name,)), 100),
    }


@pytest.mark.parametrize("verb", list(calls(None, "", None, None)))
@pytest.mark.parametrize("moment", range(8) if os.environ.get("TEST_ALL") else (0, 3))
async def test_a_call_whose_connection_is_lost_is_repeated_or_says_that_nobody_knows(verb, moment):
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        engine = cluster.servers[0].engine
        job = await done(lambda: engine.enqueue(NewJob("t", name)))
        [one] = await done(lambda: engine.dequeue(DequeueRequest((name,))))
        work = asyncio.ensure_future(done(calls(engine, name, job, claim(one))[verb]))
        await passes(moment)
        peer = cluster.servers[0].links.peer(cluster.servers[1].place)
        peer._transport.abort()
        changes = not codec.VERBS[verb].again
        try:
            await asyncio.wait_for(work, 3)
        except OutcomeUnknown:
            assert changes
        imported = [each for each in await jobs_of(cluster) if each.type == "i"]
        assert len(imported) <= 1
        await until(lambda: not peer._sent and not peer._waiting)


def test_what_is_called_again_reads_or_is_answered_the_second_time_as_the_first():
    """A cancel is not: the second one finds the job finished, or of another version. Nor is an import: items without an
    origin would be there twice."""
    reads = {
        "consumers", "count_jobs", "explain", "get", "group_jobs", "has_ended", "list_jobs", "new_errors", "newest_id",
        "peek", "queue", "queue_settings", "queues", "schedule", "schedules", "explain_schedule",
        "series", "state", "stats", "unique_owner", "wait_for",
    }  # fmt: skip
    changes = {"conclude", "dequeue", "end_session", "give_back", "heartbeat", "lose", "renew"}
    assert {name for name, verb in codec.VERBS.items() if verb.again} == reads | changes


async def frames_of(engine, verb, *arguments):
    body = codec.encode(arguments)
    return codec.CALL.pack(codec.CALL.size - 4 + len(body), 1, codec.VERBS[verb].kind, engine) + body


async def greeted(cluster, server=1, secret=None, said=PASSES_CALLS + "nobody"):
    """A connection to a server, as another server makes it."""
    place = cluster.servers[server].place
    host, port = place.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    nonce = await reader.readexactly(NONCE)
    writer.write(greeting(said, nonce, secret or place.secret))
    return reader, writer


async def answer_of(reader):
    while True:
        length, number, kind = codec.ANSWER.unpack(await reader.readexactly(codec.ANSWER.size))
        body = await reader.readexactly(length - codec.ANSWER.size + 4)
        if number:
            return kind, body


async def test_a_call_that_comes_byte_by_byte_is_performed():
    async with a_cluster() as cluster:
        reader, writer = await greeted(cluster)
        [_, [name], _] = queues_of_servers(3)
        frame = await frames_of(shard_of_queue(name, SHARDS), "enqueue", NewJob("t", name))
        for byte in frame:
            writer.write(bytes([byte]))
            await passes(2)
        kind, body = await asyncio.wait_for(answer_of(reader), 2)
        assert kind == codec.RESULT
        assert codec.VERBS["enqueue"].result(body)[0].queue == name
        writer.close()


async def test_a_call_that_is_cut_at_any_byte_is_not_performed():
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        frame = await frames_of(shard_of_queue(name, SHARDS), "enqueue", NewJob("t", name))
        for cut in range(len(frame)):
            _, writer = await greeted(cluster)
            writer.write(frame[:cut])
            writer.close()
        await asyncio.sleep(0.05)
        assert await jobs_of(cluster) == []


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 4096,  # a length of 4 GB
        codec.CALL.pack(0, 1, 5, 0) * 3,  # a length of less than the head
        codec.CALL.pack(6 + 3, 0, codec.WATCH_LEASES, 1) + b"\xc1xx",  # what is no MessagePack
    ],
    ids=["a length of 4 GB", "a length of nothing", "no MessagePack"],
)
async def test_nonsense_on_the_port_for_servers_ends_the_connection_only(said, logged):
    async with a_cluster() as cluster:
        reader, writer = await greeted(cluster)
        writer.write(said)
        await asyncio.wait_for(reader.read(-1), 2)
        writer.close()
        assert "a server of the cluster sent" in logged.pop().getMessage()
        assert not logged
        [_, [name], _] = queues_of_servers(3)
        await done(lambda: cluster.servers[0].engine.enqueue(NewJob("t", name)))


@pytest.mark.parametrize("body", [b"", b"\xc1", codec.encode(("x", "y", "z")), codec.encode((1,))], ids=repr)
async def test_a_call_that_cannot_be_read_is_refused_and_the_next_one_is_performed(body, logged):
    async with a_cluster() as cluster:
        reader, writer = await greeted(cluster)
        shard = 1
        writer.write(codec.CALL.pack(6 + len(body), 1, codec.VERBS["enqueue"].kind, shard) + body)
        assert (await asyncio.wait_for(answer_of(reader), 2))[0] == codec.BUG
        logged.pop()
        writer.write(codec.CALL.pack(6 + 1, 2, codec.VERBS["newest_id"].kind, shard) + codec.encode(()))
        assert (await asyncio.wait_for(answer_of(reader), 2))[0] == codec.RESULT
        writer.write(codec.CALL.pack(6, 3, 250, shard))  # no verb: it is ignored
        writer.write(codec.CALL.pack(6 + 1, 4, codec.VERBS["newest_id"].kind, 200) + codec.encode(()))
        assert (await asyncio.wait_for(answer_of(reader), 2))[0] == codec.NOT_OWNER
        writer.close()


@pytest.mark.parametrize("said", ["10.0.0.1", "calls 2, from there"])
async def test_who_greets_otherwise_is_not_served(said):
    async with a_cluster() as cluster:
        reader, writer = await greeted(cluster, said=said)
        assert await asyncio.wait_for(reader.read(-1), 2) == b""
        writer.close()
        reader, writer = await greeted(cluster, secret="other")
        assert await asyncio.wait_for(reader.read(-1), 2) == b""
        writer.close()


class Impostor:
    """A server at the place of server 1 that says something else. `said`: what follows the greeting."""

    def __init__(self, cluster, said):
        self.said = said
        self.greeted = 0
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            writer.write(b"n" * NONCE)
            await reader.readexactly(160)
            self.greeted += 1
            await self.said(reader, writer)
        except (EOFError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def call_at(cluster, impostor, call):
    """Makes a call of a shard that is said to be owned by an impostor."""
    async with impostor as address:
        server = cluster.servers[0]
        peer = server.links.peer(cluster.servers[1].place._replace(address=address))
        server.engine.shards[1].owned_by(None, peer)
        try:
            return await done(call)
        finally:
            server.links.keep_only(())


def clock_frame():
    return codec.ANSWER.pack(5 + 8, 0, codec.CLOCK) + bytes(8)


async def test_a_server_that_hangs_up_on_a_greeting_is_asked_again_slowly_and_nothing_is_unknown(
    monkeypatch, logged
):
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.5)

    async def hangs_up(reader, writer):
        pass

    async with a_cluster() as cluster:
        impostor = Impostor(cluster, hangs_up)
        engine = cluster.servers[0].engine
        name = next(name for name in map("n{}".format, range(99)) if shard_of_queue(name, SHARDS) == 1)
        with pytest.raises(NotReady):
            await call_at(cluster, impostor, lambda: engine.enqueue(NewJob("t", name)))
        assert 1 <= impostor.greeted <= 5
        assert "cannot be reached" in logged.pop().getMessage()


async def test_a_connection_that_fails_in_an_unexpected_way_is_made_again(monkeypatch, logged):
    async def broken(address):
        raise RuntimeError("a bug")

    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        monkeypatch.setattr("jobqueue.cluster.peer.connect", broken)
        asked = run(lambda: cluster.servers[0].engine.queue(name))
        await until(lambda: logged)
        monkeypatch.undo()
        assert (await asyncio.wait_for(asked, 2)).name == name
        assert logged[0].exc_info[0] is RuntimeError
        logged.clear()


async def test_an_answer_that_cannot_be_read_fails_its_call_only(logged):
    async def answers(reader, writer):
        writer.write(clock_frame())
        for number in (1, 2):
            await reader.readexactly(codec.CALL.size)
            writer.write(
                codec.ANSWER.pack(5 + 1, number, (codec.RESULT, codec.REFUSED)[number - 1]) + b"\xc1"
            )
            await reader.read(100)
        await reader.read(-1)

    async with a_cluster() as cluster:
        engine = cluster.servers[0].engine
        name = next(name for name in map("n{}".format, range(99)) if shard_of_queue(name, SHARDS) == 1)

        async def both():
            failures = []
            for _ in range(2):
                with pytest.raises(JobQueueError, match="cannot be read") as failed:
                    await done(lambda: engine.enqueue(NewJob("t", name)))
                failures.append(failed.value)
                await asyncio.sleep(0.02)
            return failures

        async with Impostor(cluster, answers) as address:
            server = cluster.servers[0]
            peer = server.links.peer(cluster.servers[1].place._replace(address=address))
            server.engine.shards[1].owned_by(None, peer)
            assert len(await asyncio.wait_for(both(), 3)) == 2
            server.links.keep_only(())
        logged.clear()


@pytest.mark.parametrize(
    "frame",
    [b"\xff" * 64, codec.ANSWER.pack(2, 1, 0), codec.ANSWER.pack(6, 0, codec.EVENT) + b"\xc1"],
    ids=["a length of 4 GB", "a length of less than the head", "no MessagePack"],
)
async def test_nonsense_of_an_owner_ends_the_connection_and_calls_fail(frame, logged, monkeypatch):
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.3)

    async def talks_nonsense(reader, writer):
        writer.write(clock_frame())
        await reader.readexactly(codec.CALL.size)
        writer.write(frame)
        await reader.read(-1)

    async with a_cluster() as cluster:
        engine = cluster.servers[0].engine
        engine.watch(lambda kind, subject: None)
        name = next(name for name in map("n{}".format, range(99)) if shard_of_queue(name, SHARDS) == 1)
        with pytest.raises(OutcomeUnknown):
            await call_at(
                cluster, Impostor(cluster, talks_nonsense), lambda: engine.enqueue(NewJob("t", name))
            )
        assert "sent" in logged.pop().getMessage()


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch, logged):
    monkeypatch.setattr("jobqueue.cluster.peer._CONNECT", 0.1)
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.5)

    async def is_silent(reader, writer):
        await reader.read(-1)

    async with a_cluster() as cluster:
        engine = cluster.servers[0].engine
        name = next(name for name in map("n{}".format, range(99)) if shard_of_queue(name, SHARDS) == 1)
        with pytest.raises(NotReady):
            await call_at(cluster, Impostor(cluster, is_silent), lambda: engine.enqueue(NewJob("t", name)))
        assert "cannot be reached" in logged.pop().getMessage()


async def test_calls_that_are_cancelled_leave_nothing_behind():
    async with a_cluster() as cluster:
        names = [name for part in queues_of_servers(3, each=2) for name in part]
        engine = cluster.servers[0].engine
        for round in range(30):
            waits = [engine.dequeue(DequeueRequest((name,)), 60_000) for name in names]
            waits.append(engine.dequeue(DequeueRequest(tuple(names)), 60_000))
            await passes(round)
            for one in waits:
                one.cancel()
        peers = list(cluster.servers[0].links._peers.values())
        await until(lambda: not any(peer._sent or peer._waiting for peer in peers))
        assert not any(shard._waiting for shard in engine.shards)
        await until(
            lambda: (
                not any(
                    serving._under_way
                    for server in cluster.servers
                    for serving in server.links.servings._open
                )
            )
        )
        assert not any(owner.stats().consumers_waiting for owner in cluster.engines)
        await passes(2)
        assert not engine._waits


def test_every_error_is_the_same_at_the_other_server():
    from jobqueue import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, JobQueueError):
            error = kind("what was wrong", index=3, name="x", some=[1], retry_after=1)
            read = codec.read_error(codec.encode(error))
            assert (type(read), read.detail, read.facts) == (kind, error.detail, error.facts)


async def test_calls_of_a_server_that_is_away_for_long_are_refused_at_once(monkeypatch, logged):
    monkeypatch.setattr("jobqueue.cluster.shard.PATIENCE", 0.3)
    async with a_cluster() as cluster:
        [_, [name], _] = queues_of_servers(3)
        server = cluster.servers[0]
        gone = server.links.peer(Place(f"127.0.0.1:{free_port()}", "secret"))
        server.engine.shards[shard_of_queue(name, SHARDS)].owned_by(None, gone)
        with pytest.raises(NotReady, match="is not reached at present"):
            await done(lambda: server.engine.enqueue(NewJob("t", name)))
        await until(lambda: gone.away >= 0.3)
        call = server.engine.enqueue(NewJob("t", name))
        assert call.done()
        with pytest.raises(NotReady, match="is not reached at present"):
            call.result()
        cluster._tell(0)  # it is reached again
        assert (await done(lambda: server.engine.enqueue(NewJob("t", name)))).queue == name
        assert logged.pop().getMessage().startswith("the server at ")
