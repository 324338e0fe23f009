"""Each administrative call writes one line of the log."""

import logging

import pytest
from serving import check_problem


@pytest.fixture
def audit():
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record)

    logger = logging.getLogger("jobqueue.audit")
    handler = Lines()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_the_audit_line_has_the_caller_the_call_and_the_number_of_jobs(server, audit):
    for _ in range(400):  # more than one slice
        await server.enqueue(queue="q")
    await server.post("/queues/q/purge?all=true")
    await server.post("/queues/q/pause?reason=secret")
    record, paused = audit
    assert record.getMessage().startswith(
        "audit: POST /queues/q/purge by a caller without a token from 127.0.0.1: 200, 400 jobs rid="
    )
    assert record.members["changed"] == 400
    assert paused.members["changed"] is None
    assert "secret" not in paused.getMessage()


async def test_other_calls_have_no_audit_line(server, audit):
    await server.enqueue()
    await server.dequeue()
    await server.get("/queues")
    check_problem(
        await server.post("/queues/q/pause", None, {"X-Forwarded-For": "10.0.0.1"}), 403, "forbidden"
    )
    assert audit == []


async def test_the_audit_line_of_a_move_that_ended_early_has_the_number_of_jobs(server, audit):
    await server.call("PATCH", "/queues/small", {"max_jobs": 2})
    for _ in range(3):
        await server.enqueue(queue="q")
    await server.post("/queues/q/move?to=small&all=true")
    assert [(line.members["status"], line.members["changed"]) for line in audit] == [(200, None), (429, 2)]


async def test_each_operation_on_many_jobs_has_an_audit_line(server, audit):
    for path in ("purge", "redrive", "cancel", "run_now", "move?to=other"):
        await server.enqueue(queue="q", delay=60)
        await server.post(f"/queues/q/{path}", {"status": "dead" if path == "redrive" else "scheduled"})
    paths = [line.members["path"] for line in audit]
    assert paths == [f"/queues/q/{path}" for path in ("purge", "redrive", "cancel", "run_now", "move")]
    assert [line.members["changed"] for line in audit] == [1, 0, 2, 1, 1]
