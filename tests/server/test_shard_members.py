"""Several servers on one PostgreSQL database with several shards: each serves all jobs, and owns some of them. The tests
share three servers."""

import pytest
from postgres_server import needs_postgres
from running import until

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
    for queue in queues.values():
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
    owners = three.owners()
    for server in three.servers:
        until(lambda server=server: _shown_owners(server) == owners)  # as of its last look at the database


def _shown_owners(server):
    shown = server.call("GET", "/cluster")[1]["servers"]
    return {shard: one["server"].split()[1] for one in shown for shard in one["shards"]}


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
