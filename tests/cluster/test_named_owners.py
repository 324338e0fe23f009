"""Answers to what another server has done alone name that server, by the URL that it has told."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from http_client import Client
from serving import until

from jobqueue.server import log
from jobqueue.server.http1.front import FastFront
from jobqueue.server.listener import Listener, bind
from jobqueue.server.tornado_front import TornadoFront
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.tornado_app import application
from tests.cluster.in_process import InProcess, queues_of_servers

URLS = ("http://first:8080", "http://second:8080/queue", None)
SECOND = URLS[1]
TOKEN = "t" * 20


class Asked:
    """Server 0 of a cluster, with a front. A server's own queues are `own`, `others` and `untold`."""

    def __init__(self, cluster, front):
        self.cluster = cluster
        [self.own], [self.others, self.more], [self.untold] = (
            names[:count] for names, count in zip(queues_of_servers(3, each=2), (1, 2, 1), strict=True)
        )
        dispatcher = Dispatcher(cluster.servers[0].engine)
        access = log.AccessLog("off")
        self.front = (
            FastFront(dispatcher, access)
            if front == "fast"
            else TornadoFront(dispatcher, application(dispatcher))
        )
        dispatcher.server.connections = self.front.connections
        listening = bind("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.listener = Listener(listening, 100, self.front.connections, self.front.take)

    async def call(self, method, path, body=None):
        """Returns the answer, and the server that it names."""
        answer = await self.client.call(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        return answer, answer.headers.get("job-server")

    async def named(self, status, method, path, body=None):
        answer, name = await self.call(method, path, body)
        assert answer.status == status, answer
        return name

    async def enqueue(self, queue):
        answer, _ = await self.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})
        return answer.json["id"]

    async def dequeue(self, queue):
        await self.enqueue(queue)
        answer, _ = await self.call("POST", "/jobs/dequeue", {"queue": queue})
        return f"/jobs/{answer.json['id']}", answer.json["lease"]


@asynccontextmanager
async def asked(front="fast", **given):
    cluster = InProcess(3, urls=URLS, access_token=TOKEN, **given)
    one = Asked(cluster, front)
    one.client = await Client.connect(one.port)
    try:
        await one.enqueue(one.others)  # now there is a connection
        await one.enqueue(one.untold)
        yield one
    finally:
        await one.client.closed()
        one.listener.close()
        one.front.drain()
        one.front.close()
        await cluster.close()


@pytest.mark.parametrize("front", ["fast", "tornado"])
async def test_the_owner_is_named_if_it_has_told_its_url_and_is_another_server(front):
    async with asked(front) as one:
        for queue, name in ((one.others, SECOND), (one.own, None), (one.untold, None)):
            assert await one.named(201, "POST", "/jobs/enqueue", {"type": "x", "queue": queue}) == name
            assert await one.named(201, "POST", f"/queues/{queue}/enqueue", {"type": "x"}) == name
            two = [{"type": "x", "queue": queue}, {"type": "x", "queue": f"{queue}:high"}]
            assert await one.named(201, "POST", "/jobs/enqueue", two) == name
            assert await one.named(200, "GET", f"/queues/{queue}") == name
            assert await one.named(200, "GET", f"/queues/{queue}/peek") == name
            assert await one.named(200, "POST", "/jobs/dequeue", {"queue": queue}) == name
            several = {"queues": [f"{queue}:high", queue], "count": 9}
            assert await one.named(200, "POST", "/jobs/dequeue", several) == name
            assert await one.named(204, "POST", "/jobs/dequeue", {"queue": queue}) == name
            assert await one.named(204, "POST", "/jobs/dequeue", {"queue": queue, "wait": 0.05}) == name
            id = await one.enqueue(queue)
            assert await one.named(200, "GET", f"/jobs/{id}") == name
            assert await one.named(200, "GET", f"/jobs/{id}/explain") == name
            assert await one.named(200, "GET", f"/jobs/{id}?wait=0.05") == name
            assert await one.named(200, "PATCH", f"/jobs/{id}", {"priority": 3}) == name
            assert await one.named(200, "POST", f"/jobs/{id}/dequeue") == name
            assert await one.named(202, "DELETE", f"/jobs/{id}") == name
            path, lease = await one.dequeue(queue)
            for verb in ("heartbeat", "release"):
                assert await one.named(200, "POST", f"{path}/{verb}", {"lease": lease}) == name
            path, lease = await one.dequeue(queue)
            assert await one.named(200, "POST", f"{path}/fail", {"lease": lease, "retry": False}) == name
            assert await one.named(200, "POST", f"{path}/redrive") == name
            path, lease = await one.dequeue(queue)
            assert await one.named(200, "POST", f"{path}/conclude", {"lease": lease, "next": True}) == name


async def test_an_enqueue_that_waits_for_the_outcome_does_at_any_server():
    async with asked() as one:
        for queue, name in ((one.own, None), (one.more, SECOND)):
            headers = {"Authorization": f"Bearer {TOKEN}", "Prefer": "wait=5"}
            body = {"type": "x", "queue": queue}
            other = await Client.connect(one.port)
            waits = asyncio.create_task(other.call("POST", "/jobs/enqueue", body, headers))
            taken, _ = await one.call("POST", "/jobs/dequeue", {"queue": queue, "wait": 5})
            path, lease = f"/jobs/{taken.json['id']}", taken.json["lease"]
            assert await one.named(200, "POST", f"{path}/conclude", {"lease": lease, "result": 7}) == name
            answer = await waits
            assert (answer.status, answer.json["status"]) == (200, "concluded")
            await other.closed()


@pytest.mark.parametrize("front", ["fast", "tornado"])
async def test_refusals_of_the_owner_name_it(front):
    async with asked(front) as one:
        path, lease = await one.dequeue(one.others)
        assert await one.named(200, "POST", f"{path}/conclude", {"lease": lease}) == SECOND
        assert await one.named(409, "POST", f"{path}/heartbeat", {"lease": lease}) == SECOND
        never = f"/jobs/{int(path[6:]) + 1000}"
        assert await one.named(404, "GET", never) == SECOND
        assert await one.named(404, "GET", f"{never}?wait=1") == SECOND
        assert await one.named(409, "POST", f"{path}/redrive") == SECOND
        # This is refused here.
        assert (
            await one.named(400, "POST", "/jobs/enqueue", {"type": "x", "queue": one.others, "a": 1}) is None
        )


async def test_a_wait_at_another_server_names_it_when_the_job_comes():
    async with asked() as one:
        waits = asyncio.create_task(one.named(200, "POST", "/jobs/dequeue", {"queue": one.more, "wait": 10}))
        await until(lambda: any(each.stats().consumers_waiting for each in one.cluster.engines))
        other = await Client.connect(one.port)
        token = {"Authorization": f"Bearer {TOKEN}"}
        await other.call("POST", "/jobs/enqueue", {"type": "x", "queue": one.more}, token)
        assert await waits == SECOND
        await other.closed()


@pytest.mark.parametrize("front", ["fast", "tornado"])
async def test_answers_of_several_servers_name_none(front):
    async with asked(front) as one:
        for path in (
            "/jobs",
            "/jobs/count",
            "/queues",
            "/stats",
            "/consumers",
            "/schedules",
            "/jobs?limit=1",
        ):
            assert await one.named(200, "GET", path) is None
        names = [one.others, one.own]
        assert await one.named(200, "POST", "/jobs/dequeue", {"queues": names, "count": 2}) is None
        assert await one.named(204, "POST", "/jobs/dequeue", {"queues": names, "wait": 0.05}) is None
        each = [{"type": "x", "queue": queue} for queue in names]
        assert await one.named(200, "POST", "/jobs/enqueue?atomic=false", each) is None


async def test_many_reports_name_the_server_that_has_all_of_the_jobs():
    async with asked() as one:
        given = {}
        for name in ("own", "others", "untold"):
            held = [await one.dequeue(getattr(one, name)) for _ in range(2)]
            given[name] = [{"id": int(path[6:]), "lease": lease} for path, lease in held]
        beat = ("POST", "/jobs/heartbeat")
        assert await one.named(200, *beat, given["others"]) == SECOND
        assert await one.named(200, *beat, given["own"]) is None
        assert await one.named(200, *beat, given["untold"]) is None
        assert await one.named(200, *beat, given["others"] + given["own"]) is None
        assert await one.named(200, *beat, given["others"] + given["untold"]) is None
        refused = {"id": given["others"][0]["id"], "lease": "x" * 22}
        assert await one.named(200, *beat, [*given["others"], refused]) == SECOND


async def test_the_next_owner_is_named_when_a_shard_has_moved():
    async with asked() as one:
        cluster = one.cluster
        enqueue = ("POST", "/jobs/enqueue", {"type": "x", "queue": one.others})
        assert await one.named(201, *enqueue) == SECOND
        moved = [shard for shard, owner in enumerate(cluster.owners) if owner == 1]
        for to, name in ((0, None), (1, SECOND), (2, None)):
            for shard in moved:
                cluster.hand_over(shard, to)
            assert await one.named(201, *enqueue) == name


async def test_a_url_that_a_server_no_longer_tells_is_forgotten_with_its_connection():
    async with asked() as one:
        enqueue = ("POST", "/jobs/enqueue", {"type": "x", "queue": one.others})
        servings = one.cluster.servers[1].links.servings
        servings._url = None
        before = set(servings._open)
        servings.close()
        await until(lambda: not before & servings._open)
        assert await one.named(201, *enqueue) is None


async def test_the_header_is_in_the_document_of_what_may_have_it():
    async with asked() as one:
        document = (await one.call("GET", "/openapi.json"))[0].json["paths"]
        for method, path, status, named in (
            ("post", "/jobs/enqueue", "201", True),
            ("post", "/jobs/dequeue", "204", True),
            ("get", "/queues/{name}", "200", True),
            ("post", "/jobs/stream", "200", False),
            ("get", "/stats", "200", False),
        ):
            assert ("Job-Server" in document[path][method]["responses"][status]["headers"]) is named
