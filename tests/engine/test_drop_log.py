"""What was forgotten before its time is told in the log, at most once a minute."""

import logging

from jobqueue import MemoryEngine, Settings
from jobqueue.model import DequeueRequest, IdempotencyKey, ImportedHistory, ImportItem, LeaseClaim, NewJob
from jobqueue.testing import ManualClock


def die(engine, jobs):
    for _ in range(jobs):
        engine.enqueue(NewJob("t"))
        [(job, lease)] = engine.dequeue(DequeueRequest(("default",)))
        engine.fail(LeaseClaim(job.id, lease.token, None), None, False)


def conclude(engine, jobs, queue="default"):
    for _ in range(jobs):
        engine.enqueue(NewJob("t", queue))
        [(job, lease)] = engine.dequeue(DequeueRequest((queue,)))
        engine.conclude(LeaseClaim(job.id, lease.token, None), None)


def lines(caplog):
    told = [(record.levelname, record.getMessage().partition(": ")[2]) for record in caplog.records]
    caplog.clear()
    return told


def test_dead_jobs_that_are_dropped_are_told_at_once_and_then_once_a_minute(caplog, logged):
    clock = ManualClock()
    engine = MemoryEngine(Settings(dead_jobs=10), clock)
    die(engine, 25)
    engine.tick()
    assert lines(caplog) == [("WARNING", "15 dead jobs (JOBQUEUE_DEAD_JOBS, JOBQUEUE_DEAD_BYTES)")]
    for _ in range(59):
        die(engine, 2)
        clock.advance("1s")
        engine.tick()
    assert lines(caplog) == []
    clock.advance("1s")
    engine.tick()
    assert lines(caplog) == [("WARNING", "118 dead jobs (JOBQUEUE_DEAD_JOBS, JOBQUEUE_DEAD_BYTES)")]
    clock.advance("1h")
    engine.tick()
    assert lines(caplog) == []
    logged.clear()


def test_everything_that_is_dropped_early_is_counted_and_told(caplog, monkeypatch):
    monkeypatch.setattr("jobqueue.core.idempotency._IDS", 1)
    monkeypatch.setattr("jobqueue.core.admission.ESTABLISHED", 100)  # so that the queue of 30 jobs makes way
    caplog.set_level(logging.INFO, "jobqueue")
    clock = ManualClock()
    engine = MemoryEngine(Settings(retain_jobs=10, max_queues=4), clock)
    engine._queue.state.idempotency._limit = 5
    conclude(engine, 29)
    conclude(engine, 1, "used once")
    for number in range(8):
        engine.enqueue_many([NewJob("t", "keys")], IdempotencyKey("", f"k{number}", b"", False))
    for number in range(7):
        engine.import_jobs([ImportItem(NewJob("t", "in"), ImportedHistory(1), f"elsewhere/{number}")])
    engine.enqueue(NewJob("t", "new"))
    engine.tick()
    assert lines(caplog) == [
        (
            "INFO",
            "20 finished jobs (JOBQUEUE_RETAIN_JOBS, JOBQUEUE_RETAIN_BYTES); 8 idempotency keys (a million keys and "
            "origins, of four million jobs); 2 import origins (a million keys and origins, of four million jobs)",
        )
    ]
    assert engine.stats().dropped == {
        "dead_jobs": 0, "finished_jobs": 20, "idempotency_keys": 8, "import_origins": 2, "queues": 1,
    }  # fmt: skip


def test_what_is_forgotten_in_time_is_not_told(caplog):
    caplog.set_level(logging.INFO, "jobqueue")
    clock = ManualClock()
    engine = MemoryEngine(Settings(retain="1h", dead_retain="1h"), clock)
    conclude(engine, 5)
    die(engine, 5)
    clock.advance("2h")
    engine.tick()
    assert engine.stats().jobs["dead"] == engine.stats().jobs["concluded"] == 0
    assert not any(engine.stats().dropped.values())
    assert lines(caplog) == []
