"""Steps that are common to tests of the verbs."""

from typing import Any

from serving import Server, until

VERBS = ["conclude", "heartbeat", "release", "fail"]
NOW = "2027-01-15T08:00:00.000Z"


async def leased(server: Server, job: dict[str, Any] | None = None, **options: Any) -> Any:
    """Returns a new job as it was delivered. `options` are those of the dequeue."""
    new = {"type": "x", **(job or {})}
    id = (await server.post("/jobs/enqueue", new)).json["id"]
    got = await server.dequeue(queue=new.get("queue", "default"), **options)
    assert got["id"] == id
    return got


def said(job: Any, **more: Any) -> dict[str, Any]:
    """Returns the fields that the consumer of `job` sends."""
    return {"lease": job["lease"], **more}


async def later(server: Server, duration: float | str) -> None:
    """Advances the clock and runs a tick."""
    server.clock.advance(duration)
    server.engine.tick()


async def dead(server: Server, **job: Any) -> int:
    """Returns the id of a dead job."""
    got = await leased(server, job)
    answer = await server.post(f"/jobs/{got['id']}/fail", said(got, error="no good", retry=False))
    assert answer.status == 200, answer
    return int(got["id"])


async def watched(server: Server, id: int, wait: str = "30") -> Any:
    """Returns a client that waits for the outcome of a job, once it waits."""
    outcomes = server.engine._queue.state.outcomes
    before = outcomes.count
    client = await server.ask("GET", f"/jobs/{id}?wait={wait}")
    await until(lambda: outcomes.count == before + 1)
    return client
