"""Several servers on one PostgreSQL database with several shards: each serves all jobs, and owns some of them. The tests
share three servers."""

import pytest
from postgres_server import needs_postgres

from jobqueue.shards import shard_of_queue
from tests.cluster.crew import Crew
from tests.cluster.shard_scenes import SHARD_SCENES

pytestmark = needs_postgres
SHARDS = 8


@pytest.fixture(scope="module")
def crew(postgres):
    crew = Crew(postgres, postgres.create_database(), SHARDS)
    try:
        crew.start_all(3)
        yield crew
    finally:
        crew.end()
        postgres.sql(f"DROP DATABASE IF EXISTS {crew.database} WITH (FORCE)")


@pytest.fixture
def three(crew):
    crew.wait_until_spread()
    return crew


def test_any_server_takes_a_call_for_any_shard_and_shows_who_owns_which(three):
    queues = {shard_of_queue(name, SHARDS): name for name in (f"any{n}" for n in range(100))}
    assert len(queues) == SHARDS
    for shard, queue in queues.items():
        made = [
            server.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})[1]["id"]
            for server in three.servers
        ]
        first, second, third = three.servers
        asked = {"queue": queue, "count": 3}
        got = third.call("POST", "/jobs/dequeue", asked)[1]["jobs"]
        assert [job["id"] for job in got] == made
        for server, job in zip((second, third, first), got, strict=True):
            path = f"/jobs/{job['id']}/conclude?lease={job['lease']}"
            assert server.call("POST", path)[0] == 200
        [owner] = [server for server in three.servers if shard in three.shards_of(server)]
        for server in three.servers:
            shown = server.call("GET", "/cluster")[1]["servers"]
            assert [one["server"].split()[1] for one in shown if shard in one["shards"]] == [str(owner.pid)]


@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
def test_a_page_and_a_table_show_how_many_shards_each_server_owns(three, kind):
    status, page = three.servers[0].call("GET", "/cluster", Accept=kind)
    assert status == 200
    shown = page if isinstance(page, str) else page.decode()
    for server in three.servers:
        assert f"owns {len(three.shards_of(server))} shards" in shown


def test_a_server_that_stops_hands_its_shards_over_and_says_so(three):
    last = three.servers[-1]
    queue = three.queue_of(last)
    first = three.servers[0]
    first.call("POST", "/jobs/enqueue", {"type": "x", "queue": queue})
    _, job = first.call("POST", "/jobs/dequeue", {"queue": queue})
    three.stop(last)
    assert last.lines[-1] == "stopped; other servers take over its shards"
    assert first.call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")[0] == 200
    three.start()


@pytest.mark.parametrize("name", SHARD_SCENES)
def test_what_the_scenes_of_shards_promise_holds(three, name):
    _, scene, _, rounds = SHARD_SCENES[name]
    scene(three, rounds)
