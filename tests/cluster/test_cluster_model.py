"""Random verbs of a cluster of three servers, compared with one engine that has all jobs.

Each verb goes to a random server. Shards are handed over and connections are lost before it, and while it is under way.
That engine is compared with a model in tests/core. Jobs are told apart by their payloads, since their ids differ. A
cluster promises no order between families, so no verb here depends on one.
"""

import asyncio
import os
from asyncio import Future
from copy import deepcopy
from random import Random

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from jobqueue.cluster.waiting import run
from jobqueue.engine.local import LocalEngine
from jobqueue.errors import JobForgotten, JobQueueError
from jobqueue.model import (
    Backoff,
    Change,
    DequeueRequest,
    ExistingJob,
    Filter,
    IdempotencyKey,
    Job,
    JobTemplate,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    Plan,
    PriorAnswer,
    Rate,
)
from jobqueue.settings import Settings
from jobqueue.shards import family
from jobqueue.testing import ManualClock
from tests.cluster.in_process import InProcess

THOROUGH = bool(os.environ.get("TEST_ALL"))
STEPS = 500 if THOROUGH else 220
# Of three families, and of several servers. Jobs of all of them go to the last queue when they die, in no order that is
# promised, so nobody takes them in order there.
QUEUES = ("alpha", "alpha:high", "beta", "gamma", "gamma:low")
LETTERS = "delta"
STATUSES = ("scheduled", "queued", "in_progress", "concluded", "dead", "cancelled")
BACKOFF = Backoff(1_000, 2.0, 5_000, 0.0)  # without jitter
GIVEN = {"retain": "1h", "dead_retain": "1h", "lease": "7s", "max_attempts": 3}


async def done(work):
    answer = run(work)
    if isinstance(answer, Future):
        answer = await answer
    return await answer if isinstance(answer, Future) else answer


class Comparison:
    def __init__(self, seed):
        self.random = Random(seed)
        self.clock = ManualClock()
        self.cluster = InProcess(3, clock=self.clock, **GIVEN)
        self.one = LocalEngine(Settings(**GIVEN), self.clock)
        self.number = 0
        self.ids = {}  # payload -> its id in the one engine, and in the cluster
        self.leases = {}  # payload -> the claims of its last lease
        self.known_payload = {}  # id in either -> payload
        self.acted = {}

    # -- both ---------------------------------------------------------------------------------------

    @property
    def engine(self):
        return self.random.choice(self.cluster.servers).engine

    async def disturb(self):
        """Hands a shard over, or cuts a connection."""
        if self.random.random() < 0.7:
            shard = self.random.randrange(len(self.cluster.engines))
            if self.random.random() < 0.5:
                self.cluster.hand_over(shard, -1)
                for _ in range(self.random.randrange(4)):
                    await asyncio.sleep(0)
            self.cluster.hand_over(shard, self.random.randrange(3))
        else:
            self.cut()

    def cut(self):
        for peer in self.random.choice(self.cluster.servers).links._peers.values():
            if peer._transport is not None:
                peer._transport.abort()

    async def both(self, verb, of_one, of_cluster, again=False):
        """Calls a verb of the one engine, and of the cluster, while shards change owners. Returns the results,
        errors included. `again`: it may also lose its connection."""
        try:
            expected = await done(lambda: of_one(self.one))
        except JobQueueError as refused:
            expected = refused
        if self.random.random() < 0.2:
            await self.disturb()
        engine = self.engine
        work = asyncio.ensure_future(done(lambda: of_cluster(engine)))
        for _ in range(self.random.choice((0, 1, 2, 3, 6))):
            await asyncio.sleep(0)
        if self.random.random() < 0.2:
            if again and self.random.random() < 0.3:
                self.cut()
            else:
                shard = self.random.randrange(len(self.cluster.engines))
                self.cluster.hand_over(shard, self.random.randrange(3))
        try:
            result = await asyncio.wait_for(work, 5)
        except JobQueueError as refused:
            result = refused
        if isinstance(expected, JobQueueError) or isinstance(result, JobQueueError):
            assert type(result) is type(expected), (verb, expected, result)
            return expected, result
        self.acted[verb] = self.acted.get(verb, 0) + 1
        return expected, result

    def payload_of(self, made):
        return (made.job if isinstance(made, ExistingJob) else made).payload

    def same_made(self, expected, result):
        if isinstance(expected, JobQueueError):
            assert type(result) is type(expected)
            return
        assert type(result) is type(expected)
        assert self.payload_of(result) == self.payload_of(expected)
        if isinstance(expected, Job):
            self.ids[expected.payload] = expected.id, result.id
            self.known_payload[expected.id] = self.known_payload[result.id] = expected.payload

    def new(self, queue=None):
        random = self.random
        self.number += 1
        queue = queue or random.choice((*QUEUES, LETTERS))
        options = Options(
            unique_key=random.choice((None, None, None, "u", "v")) if queue != LETTERS else None,
            unique_while=random.choice(("queued", "active")),
            on_conflict=random.choice(("ignore", "reject", "replace")),
            key=random.choice((None, None, "k1", "k2")),
            max_attempts=random.choice((1, 2, None)),
            backoff=BACKOFF,
        )
        return NewJob(
            random.choice(("t", "u")), queue, random.choice((0, 0, 1, 5)),
            str(self.number).encode(), random.choice((0, 0, 0, 700)), None, None, random.choice((options, Options(backoff=BACKOFF))),
        )  # fmt: skip

    def some(self, *statuses):
        """A random job of the one engine, mostly of these statuses."""
        jobs, _ = self.one.list_jobs(Filter(statuses=frozenset(statuses or STATUSES)), None, True, 10_000)
        return self.random.choice(jobs) if jobs else None

    # -- verbs --------------------------------------------------------------------------------------

    async def enqueue(self):
        new = self.new()
        self.same_made(
            *await self.both("enqueue", lambda e: e.enqueue(deepcopy(new)), lambda e: e.enqueue(new))
        )

    async def enqueue_each(self):
        news = [self.new() for _ in range(self.random.randint(2, 6))]
        expected, result = await self.both(
            "enqueue_each", lambda e: e.enqueue_each(deepcopy(news)), lambda e: e.enqueue_each(news)
        )
        for one, other in zip(expected, result, strict=True):
            self.same_made(one, other)

    async def enqueue_many(self):
        queue = self.random.choice(QUEUES)
        news = [self.new(queue) for _ in range(self.random.randint(1, 3))]
        key = IdempotencyKey("", self.random.choice("xyz") + queue[0], b"d", len(news) > 1)
        expected, result = await self.both(
            "enqueue_many", lambda e: e.enqueue_many(deepcopy(news), key), lambda e: e.enqueue_many(news, key)
        )
        if isinstance(expected, JobQueueError):
            return
        assert isinstance(result, PriorAnswer) == isinstance(expected, PriorAnswer)
        if isinstance(expected, PriorAnswer):
            for one, other in zip(expected.made, result.made, strict=True):
                # A job that went to another shard is forgotten where it was.
                if isinstance(one, Job) and isinstance(other, Job):
                    assert other.payload == one.payload
            return
        for one, other in zip(expected, result, strict=True):
            self.same_made(one, other)

    async def dequeue(self):
        queues = tuple(dict.fromkeys(self.random.choice(QUEUES) for _ in range(self.random.randint(1, 4))))
        request = DequeueRequest(
            queues,
            self.random.choice((None, 2_000)),
            self.random.choice((None, 1, 3)),
            self.random.choice((None, "me")),
        )
        expected, result = await self.both(
            "dequeue", lambda e: e.dequeue(request), lambda e: e.dequeue(request)
        )
        self.same_deliveries(expected, result)

    async def dequeue_waiting(self):
        """A wait that finds something gets the same; one that does not is withdrawn at some moment."""
        queues = tuple(dict.fromkeys(self.random.choice(QUEUES) for _ in range(2)))
        if any(self.one.queue_settings(name).rate is not None for name in queues):
            return  # what is given back has used it up
        waiting, _ = self.one.list_jobs(Filter(queues=frozenset(queues)), None, True, 10_000)
        if any(job.leases for job in waiting):
            return  # how its attempts ended has a part in when it runs again
        if any(job.extras is not None and job.extras.options.unique_key for job in waiting):
            return  # one that was leased is not replaced any more
        request = DequeueRequest(queues)
        engine = self.engine
        waiting = engine.dequeue(request, 60_000)
        if isinstance(waiting, Future):
            for _ in range(self.random.randrange(25)):
                await asyncio.sleep(0)
            given = [] if waiting.cancel() or waiting.cancelled() else waiting.result()
        else:
            given = waiting
        engine.give_back(given)
        await self.settled()
        # What was given back had another lease since.
        kept = {
            payload: pair for payload, pair in self.leases.items() if self.status(payload) == "in_progress"
        }
        self.leases = kept

    async def settled(self):
        """Nothing is under way between the servers."""
        for _ in range(2_000):
            peers = [peer for server in self.cluster.servers for peer in server.links._peers.values()]
            waiting = any(shard._waiting for server in self.cluster.servers for shard in server.engine.shards)
            if not waiting and not any(peer._sent or peer._waiting for peer in peers):
                return
            await asyncio.sleep(0.001)
        raise AssertionError("calls are left over")

    def status(self, payload):
        try:
            return self.one.get(self.ids[payload][0]).status
        except JobForgotten:
            return None

    def same_deliveries(self, expected, result):
        if isinstance(expected, JobQueueError):
            return
        assert [job.payload for job, _ in result] == [job.payload for job, _ in expected]
        for (job, lease), (other, other_lease) in zip(expected, result, strict=True):
            assert (other.attempts, other_lease.length) == (job.attempts, lease.length)
            self.leases[job.payload] = (
                LeaseClaim(job.id, lease.token, None), LeaseClaim(other.id, other_lease.token, None)
            )  # fmt: skip

    async def under_lease(self, verb, *arguments, again=False):
        if not self.leases:
            return
        payload = self.random.choice(list(self.leases)[-12:])
        one, other = self.leases[payload]
        if other.id != self.ids[payload][1]:  # it went to another shard: its old id is forgotten
            return
        await self.both(
            verb,
            lambda e: getattr(e, verb)(one, *arguments),
            lambda e: getattr(e, verb)(other, *arguments),
            again,
        )

    async def each(self):
        payloads = [p for p in list(self.leases)[-5:] if self.leases[p][1].id == self.ids[p][1]]
        pairs = [self.leases[payload] for payload in payloads]

        def conclude(number):
            return lambda e: e.each([lambda pair=pair: e.conclude(pair[number], b"1") for pair in pairs])

        expected, result = await self.both("each", conclude(0), conclude(1), True)
        for a, b in zip(expected, result, strict=True):
            assert type(a) is type(b), (a, b)

    async def of_job(self, verb, *statuses, arguments=(), again=False, job=None):
        job = job or self.some(*statuses)
        if job is None:
            return
        one, other = self.ids[job.payload]
        expected, result = await self.both(
            verb,
            lambda e: getattr(e, verb)(one, *arguments),
            lambda e: getattr(e, verb)(other, *arguments),
            again,
        )
        if isinstance(expected, Job):
            assert (result.payload, result.status) == (expected.payload, expected.status)

    async def dequeue_job(self):
        job = self.some("queued", "scheduled")
        if job is not None:
            one, other = self.ids[job.payload]
            request = DequeueRequest(())
            found = await self.both(
                "dequeue_job", lambda e: e.dequeue_job(one, request), lambda e: e.dequeue_job(other, request)
            )
            self.same_deliveries(*found)

    async def change(self):
        random = self.random
        change = Change(
            queue=random.choice((UNSET, UNSET, *QUEUES)), priority=random.choice((UNSET, 2)),
            delay=random.choice((UNSET, 0, 900)), key=random.choice((UNSET, None, "k1")),
        )  # fmt: skip
        job = self.some("queued", "scheduled")
        if job is not None and job.queue != LETTERS:
            if change.queue is not UNSET and family(change.queue) != family(job.queue):
                change.queue = LETTERS
            await self.of_job("change", arguments=(change,), job=job)

    async def bulk(self):
        random = self.random
        where = Filter(
            queues=random.choice((None, frozenset(random.sample((*QUEUES, LETTERS), 2)))),
            types=random.choice((None, frozenset("t"))),
        )
        verb, *arguments = random.choice(
            [
                ("purge", random.random() < 0.7), ("redrive_many", None, random.random() < 0.3),
                ("cancel_many", False, None, random.random() < 0.7), ("run_many_now", None, False),
            ]
        )  # fmt: skip
        statuses = {
            "purge": random.choice((("concluded",), ("dead", "cancelled"))), "redrive_many": ("dead",),
            "cancel_many": ("scheduled", "queued"), "run_many_now": ("scheduled",),
        }[verb]  # fmt: skip
        where = replace(where, statuses=frozenset(statuses))
        expected, result = await self.both(
            verb, lambda e: getattr(e, verb)(where, *arguments), lambda e: getattr(e, verb)(where, *arguments)
        )
        assert (result.matched, result.changed, result.refused) == (
            expected.matched, expected.changed, expected.refused
        )  # fmt: skip

    async def configure(self):
        random = self.random
        changes = random.choice(
            [
                {"max_in_progress": random.choice((None, 2))}, {"rate": random.choice((None, Rate(3, 1_000, 2)))},
                {"key_limits": random.choice((None, KeyLimits(1), KeyLimits(None, None, True)))},
                {"dead_letter": random.choice((None, LETTERS))}, {"lease_for": random.choice((None, 3_000))},
            ]
        )  # fmt: skip
        name = random.choice(QUEUES)
        await self.both(
            "configure", lambda e: e.configure(name, changes), lambda e: e.configure(name, changes)
        )

    async def pause(self):
        name = self.random.choice(QUEUES)
        verb, *arguments = self.random.choice(
            [("pause", self.random.choice((None, 2_000)), "why"), ("resume",)]
        )
        await self.both(
            verb, lambda e: getattr(e, verb)(name, *arguments), lambda e: getattr(e, verb)(name, *arguments)
        )

    async def schedule(self):
        random = self.random
        name = random.choice(("s1", "s2", "s3"))
        plan = Plan(
            name, JobTemplate("t", random.choice(QUEUES)), random.choice((None, "app")), every=900_000_000
        )
        verb, *arguments = random.choice(
            [
                ("put_schedule", plan, None), ("delete_schedule", name), ("pause_schedule", name, "why"),
                ("resume_schedule", name), ("put_schedules", [(plan, None)], "app", random.random() < 0.3),
            ]
        )  # fmt: skip
        expected, result = await self.both(
            verb, lambda e: getattr(e, verb)(*arguments), lambda e: getattr(e, verb)(*arguments)
        )
        if verb == "put_schedules" and not isinstance(expected, JobQueueError):
            assert result == expected
        expected, result = await self.both(
            "schedules", *[lambda e: e.schedules(None, None, None, 9)] * 2, True
        )
        assert [(s.plan, s.paused_at is None) for s in result] == [
            (s.plan, s.paused_at is None) for s in expected
        ]

    async def read(self):
        where = Filter(
            queues=self.random.choice((None, frozenset(self.random.sample((*QUEUES, LETTERS), 3)))),
            statuses=frozenset(self.random.sample(STATUSES, 2)),
        )
        expected, result = await self.both("count_jobs", *[lambda e: e.count_jobs(where)] * 2, True)
        assert result == expected
        names = self.random.sample(QUEUES, 2)
        expected, result = await self.both("state", *[lambda e: e.state(names)] * 2, True)
        assert result == expected
        name = self.random.choice(QUEUES)
        expected, result = await self.both("peek", *[lambda e: e.peek(name, 5)] * 2, True)
        assert [job.payload for job in result] == [job.payload for job in expected]
        job = self.some()
        if job is not None:
            one, other = self.ids[job.payload]
            expected, result = await self.both(
                "explain", lambda e: e.explain(one), lambda e: e.explain(other), True
            )
            assert type(result) is type(expected)

    async def time(self):
        self.clock.advance_ms(self.random.choice((1, 300, 1_000, 4_000)))
        self.one.tick()
        for engine in self.cluster.engines:
            engine.tick()

    # -- all of it ----------------------------------------------------------------------------------

    async def list_all(self, limit):
        engine, jobs, after = self.engine, [], None
        ascending = self.random.random() < 0.5
        while True:
            part, after = await done(lambda after=after: engine.list_jobs(Filter(), after, ascending, limit))
            jobs += part
            if after is None:
                ids = [job.id for job in jobs]
                assert ids == sorted(set(ids), reverse=not ascending)
                return jobs

    async def check(self):
        await self.cluster.transfer()
        jobs = await self.list_all(self.random.choice((7, 1_000)))
        expected, _ = self.one.list_jobs(Filter(), None, True, 10_000)

        def shown(jobs):
            return sorted(
                (int(j.payload), j.queue, j.status, j.priority, j.attempts, j.created_at) for j in jobs
            )

        assert shown(jobs) == shown(expected)
        there = {job.payload: job.id for job in jobs}
        self.ids.update({job.payload: (job.id, there[job.payload]) for job in expected})
        stats = await done(self.engine.stats)
        assert stats.jobs == self.one.stats().jobs
        views = await done(lambda: self.engine.queues(100))
        known = {view.name: view for view in self.one.queues(100)}
        for view in views:
            assert view.jobs == known[view.name].jobs
            assert (view.pause is None) == (known[view.name].pause is None)
            assert view.settings == known[view.name].settings


async def compare(seed):
    it = Comparison(seed)
    acts = [
        (8, it.enqueue), (3, it.enqueue_each), (3, it.enqueue_many), (10, it.dequeue), (3, it.dequeue_waiting),
        (6, lambda: it.under_lease("conclude", b"1", again=True)), (2, it.each),
        (4, lambda: it.under_lease("fail", b'"bad"', it.random.random() < 0.7)),
        (3, lambda: it.under_lease("release", it.random.choice((0, 500)))),
        (3, lambda: it.under_lease("heartbeat", 9_000, 50, "half", again=True)),
        (3, lambda: it.of_job("get", again=True)), (2, lambda: it.of_job("cancel", "queued", "scheduled")),
        (2, lambda: it.of_job("redrive", "dead")), (2, it.dequeue_job), (3, it.change), (3, it.bulk), (3, it.configure),
        (2, it.pause), (2, it.schedule), (3, it.read), (5, it.time),
    ]  # fmt: skip
    weights, verbs = zip(*acts, strict=True)
    try:
        for act in it.random.choices(verbs, weights, k=STEPS):
            await act()
            await it.check()
        await it.settled()
        return it.acted
    finally:
        await it.cluster.close()
        it.one.close()


@pytest.mark.parametrize("seed", range(20 if THOROUGH else 3))
async def test_a_cluster_does_what_one_engine_does(seed, logged):
    acted = await compare(seed)
    # A connection that is cut before the other server has said anything is reported.
    assert all("cannot be reached" in record.getMessage() for record in logged)
    logged.clear()
    assert len(acted) >= 20, acted
