"""Several servers on one PostgreSQL database with several shards: each serves all jobs, and owns some of them. The tests
share three servers."""

import pytest
from postgres_server import free_port, needs_postgres
from running import until

from jobqueue import Client
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


def test_a_server_says_how_many_jobs_it_has_loaded_from_all_its_shards(postgres):
    crew = Crew(postgres, postgres.create_database(), SHARDS)
    try:
        alone = crew.start()
        crew.wait_until_served()
        for n in range(12):
            alone.call("POST", "/jobs/enqueue", {"type": "x", "queue": f"loaded{n}"})
        crew.stop(alone)
        again = crew.start()
        crew.wait_until_served()
        until(lambda: any(line.startswith("loaded 12 jobs in ") for line in again.lines))
    finally:
        crew.end()
        postgres.sql(f"DROP DATABASE IF EXISTS {crew.database} WITH (FORCE)")


def _passed_on(server):
    """The number of calls that a server has passed on to others."""
    text = server.call("GET", "/metrics")[1].decode()
    return int(float(text.partition("\njobqueue_cluster_calls_passed_on_total ")[2].partition("\n")[0]))


def test_a_client_of_one_server_goes_to_the_others_directly_and_on_when_one_is_killed(postgres):
    crew = Crew(postgres, postgres.create_database(), SHARDS)
    try:
        for port in (free_port(), free_port()):
            crew.start(JOBQUEUE_PORT=str(port), JOBQUEUE_ADVERTISE_URL=f"http://127.0.0.1:{port}")
            crew.wait_until_served()
        crew.wait_until_spread()
        first, second = crew.servers
        queue = crew.queue_of(second)
        with Client(f"http://127.0.0.1:{first.port}") as client:
            passed = _passed_on(first)
            for number in range(20):
                made = client.jobs.enqueue("x", number, queue=f"{queue}:{number % 3}")
                job = client.jobs.dequeue(f"{queue}:{number % 3}", wait="5s")
                assert job is not None
                assert job.id == made.id
                assert client.jobs.conclude(job, number).status == "concluded"
            assert _passed_on(first) - passed == 2  # the first call about the family, and about the shard
            made = client.jobs.enqueue("x", queue=queue, idempotency_key="once")
            held = client.jobs.dequeue(queue)
            crew.kill(second)
            assert client.jobs.enqueue("x", queue=queue, idempotency_key="once").id == made.id
            assert client.jobs.conclude(held).status == "concluded"
            until(lambda: set(crew.owners().values()) == {str(first.pid)})
            assert client.jobs.enqueue("x", queue=queue).id > made.id
    finally:
        crew.end()
        postgres.sql(f"DROP DATABASE IF EXISTS {crew.database} WITH (FORCE)")


@pytest.mark.parametrize("name", SHARD_SCENES)
def test_what_the_scenes_of_shards_promise_holds(three, name):
    _, scene, _, rounds = SHARD_SCENES[name]
    scene(three, rounds)
