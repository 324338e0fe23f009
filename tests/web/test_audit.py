"""One line in the log for each administrative act."""

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


async def test_who_what_and_how_many(server, audit):
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


async def test_what_is_no_administrative_act_has_none(server, audit):
    await server.enqueue()
    await server.dequeue()
    await server.get("/queues")
    check_problem(
        await server.post("/queues/q/pause", None, {"X-Forwarded-For": "10.0.0.1"}), 403, "forbidden"
    )
    assert audit == []
