"""A real server behind a line that is cut at random bytes, in both directions. What the clients were told is
compared with what is in the queue.
"""

import random
import select
import socket

import pytest
from fake import CUTS, FakeServer
from test_faults import CLIENTS, Driver

from jobqueue import AnswerLost, Client, MaybeEnqueued, errors

CALLS = 60


class CutLine:
    """Passes bytes on to the server. Each connection is cut after some bytes of either direction; one in three
    carries several requests before that."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)

    def __call__(self, peer, _):
        most = self.random.choice((700, 700, 6000))
        left = {way: self.random.randrange(most) for way in ("up", "down")}
        end = self.random.choice(CUTS)
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            ways = {peer.socket: ("up", server), server: ("down", peer.socket)}
            while True:
                ready, _, _ = select.select(list(ways), [], [], 20)
                if not ready:
                    return
                for source in ready:
                    way, target = ways[source]
                    try:
                        data = source.recv(left[way])
                        target.sendall(data)
                    except OSError:
                        return
                    left[way] -= len(data)
                    if not data or not left[way]:
                        end(peer)
                        return


def enqueued(client, queue):
    """How often each number is in the queue."""
    found = {}
    for job in client.jobs.iterate(queue=queue, payload=True, limit=1000):
        found[job.payload] = found.get(job.payload, 0) + 1
    return found


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("seed", range(3))
def test_an_enqueue_is_never_doubled_and_what_was_answered_is_there(kind, seed, program, url):
    queue = f"cut-{kind}-{seed}"
    made, maybe = set(), set()
    with FakeServer(CutLine(program.port, seed)) as line, Driver(kind, line.url) as call:
        for n in range(CALLS):
            try:
                call(lambda client: client.jobs.enqueue("x", n, queue=queue))
                made.add(n)
            except MaybeEnqueued:
                maybe.add(n)
    assert made
    assert maybe
    assert made | maybe == set(range(CALLS))
    with Client(url) as client:
        found = enqueued(client, queue)
    assert set(found.values()) == {1}
    assert made <= found.keys()


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("seed", range(3))
def test_with_a_key_each_is_there_once_and_nobody_is_told_maybe(kind, seed, program, url):
    queue = f"key-{kind}-{seed}"
    with FakeServer(CutLine(program.port, seed)) as line, Driver(kind, line.url, retry_for=300) as call:
        for n in range(CALLS // 2):
            call(lambda client: client.jobs.enqueue("x", n, queue=queue, idempotency_key=f"{queue}-{n}"))
        many = [{"type": "x", "payload": n, "queue": queue} for n in range(1000, 1003)]
        call(lambda client: client.jobs.enqueue_many(many))
    with Client(url) as client:
        found = enqueued(client, queue)
    assert found == dict.fromkeys([*range(CALLS // 2), *range(1000, 1003)], 1)


@pytest.mark.parametrize("kind", CLIENTS)
def test_every_job_is_concluded_with_its_own_result(kind, program, url):
    """Jobs whose dequeue was cut come back: at once, or when their lease ends."""
    queue = f"work-{kind}"
    with Client(url) as client:
        client.queues.change(queue, lease_for=1)
        # A job whose lease ended twice rests by its backoff.
        jobs = [{"type": "x", "payload": n, "queue": queue, "backoff": ["50ms"]} for n in range(20)]
        client.jobs.enqueue_many(jobs)
    with FakeServer(CutLine(program.port, 7)) as line, Driver(kind, line.url) as call:
        done = 0
        while done < 20:
            try:
                job = call(lambda client: client.jobs.dequeue(queue, wait=3))
            except AnswerLost:
                continue
            if job is None:
                break
            try:
                call(lambda client: client.jobs.conclude(job, job.payload * 2))
            except errors.LeaseLost:
                continue
            done += 1
    with Client(url) as client:
        jobs = [client.jobs.get(job.id) for job in client.jobs.iterate(queue=queue)]
    assert [job.result for job in jobs] == [2 * n for n in range(20)]
