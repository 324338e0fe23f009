"""Steps that many tests of the verbs take."""

from typing import Any

from serving import Server, until

VERBS = ["conclude", "heartbeat", "release", "fail"]
NOW = "2027-01-15T08:00:00.000Z"


async def leased(server: Server, job: dict[str, Any] | None = None, **options: Any) -> Any:
    """A new job, as its consumer got it; `options`: of the dequeue."""
    new = {"type": "x", **(job or {})}
    id = (await server.post("/jobs/enqueue", new)).json["id"]
    got = await server.dequeue(queue=new.get("queue", "default"), **options)
    assert got["id"] == id
    return got


def said(job: Any, **more: Any) -> dict[str, Any]:
    """What the holder of `job` sends."""
    return {"lease": job["lease"], **more}


async def later(server: Server, duration: float | str) -> None:
    """The clock goes on, and the tick sees it."""
    server.clock.advance(duration)
    server.engine.tick()


async def dead(server: Server, **job: Any) -> int:
    """The id of a job that died."""
    got = await leased(server, job)
    answer = await server.post(f"/jobs/{got['id']}/fail", said(got, error="no good", retry=False))
    assert answer.status == 200, answer
    return int(got["id"])


async def watched(server: Server, id: int, wait: str = "30") -> Any:
    """A client that waits for the outcome of a job; returns when it does."""
    outcomes = server.engine._queue.state.outcomes
    before = outcomes.count
    client = await server.ask("GET", f"/jobs/{id}?wait={wait}")
    await until(lambda: outcomes.count == before + 1)
    return client
