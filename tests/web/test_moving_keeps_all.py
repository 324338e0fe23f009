"""Export and import, as a property: what comes out of a queue, goes into another one, also over a restart of that,
and comes out again is the same but for ids."""

import json

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobqueue import MemoryEngine, Settings
from jobqueue.core.restore import Restoration
from jobqueue.model import DequeueRequest, LeaseClaim
from jobqueue.storage.records import Reader, StoredJob, put_job, put_payload
from jobqueue.testing import ManualClock
from jobqueue.units import instant
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.http import Request
from jobqueue.web.readers.import_item import MOVABLE

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=8)
LENGTHS = st.sampled_from(["0s", "1s", "90s", "1h"])
OPTIONAL = {
    "priority": st.integers(-3, 3),
    "payload": st.recursive(st.none() | st.integers() | TEXT, st.lists, max_leaves=3),
    "tags": st.lists(TEXT, max_size=2, unique=True),
    "key": TEXT,
    "headers": st.dictionaries(TEXT, TEXT, max_size=2),
    "max_attempts": st.none() | st.integers(1, 3),
    "backoff": st.lists(LENGTHS, min_size=1, max_size=3)
    | st.fixed_dictionaries({"base": LENGTHS, "factor": st.sampled_from([1, 1.5, 3]), "jitter": st.just(0)}),
    "retain_for": LENGTHS,
    "lease_for": st.sampled_from(["1s", "5s", "2m"]),
    "expires_in": st.sampled_from(["10s", "2h"]),
    "unique_key": TEXT,
}
JOBS = st.fixed_dictionaries({"type": TEXT}, optional={**OPTIONAL, "delay": LENGTHS})
BYTES = st.fixed_dictionaries(
    {"type": TEXT, "payload": st.sampled_from(["AP8=", "", "YWJj"]), "payload_encoding": st.just("base64"),
     "content_type": st.just("image/png")}
)  # fmt: skip
VERBS = st.tuples(
    st.sampled_from(
        ["fail", "dead", "release", "put off", "beat", "wait", "lease", "change", "redrive", "cancel"]
    ),
    st.none() | TEXT,
    st.sampled_from([0, 0, 1, 7_000, 400_000]),
)


class Side:
    """One queue, with its readers and writers."""

    def __init__(self, first_id, clock):
        self.engine = MemoryEngine(Settings(first_id=first_id), clock)
        self.context = Dispatcher(self.engine).context

    def enqueue(self, job):
        request = Request("POST", "/jobs/enqueue", "", {}, json.dumps(job).encode(), "", "")
        return self.engine.enqueue(self.context.produce.enqueue(request, self.engine.wall_now))

    def jobs(self):
        return [job for job in self.engine._queue.state.jobs.after(0) if job.status in MOVABLE]

    def exported(self):
        return [self.context.encoder.exported(job) for job in self.jobs()]

    def import_lines(self, lines):
        items = [self.context.produce.import_item(line, self.engine.wall_now) for line in lines]
        result = self.engine.import_jobs(items)
        assert (result.refused, result.imported) == (None, len(lines))

    def restart(self, clock):
        """Returns a side that has read what this one would have in its journal."""
        again = Side(1, clock)
        offset = clock.wall() - clock.monotonic()
        rows = []
        for job in self.engine._queue.state.jobs.after(0):
            due = job.extras.due if job.extras is not None else None
            rows.append((job.id << 1, put_job(job, None, None if due is None else due + offset)))
            if len(job.payload) > 1024:
                rows.append(put_payload(job))
        restoration = Restoration(again.engine._queue.state, clock.monotonic())
        for _, stored in Reader().read(sorted(rows)):
            assert isinstance(stored, StoredJob)
            restoration.job(stored.job, stored.expires, stored.due)
        restoration.end(clock.monotonic())
        return again


def act(side, clock, verb, text, length):
    """Lets one thing happen in the queue."""
    engine = side.engine
    if verb == "wait":
        clock.advance(length / 1000)
        engine.tick()
    elif verb in ("change", "redrive", "cancel"):
        for job in side.jobs()[:1]:
            if verb == "redrive" and job.status == "dead":
                engine.redrive(job.id)
            elif verb == "change" and job.status in ("queued", "scheduled"):
                request = Request("PATCH", "/", "", {}, b'{"priority":2,"delay":"1m"}', "", "")
                engine.change(job.id, side.context.produce.change(request, engine.wall_now()))
            elif verb == "cancel" and job.status != "in_progress":
                engine.cancel(job.id)
    else:
        for job, lease in engine.dequeue(DequeueRequest(("default",), 60_000, None, text)):
            clock.advance(0.001)
            if verb in ("beat", "lease"):
                engine.heartbeat(LeaseClaim(job.id, lease.token, None), None, 40, text)
            if verb in ("fail", "dead"):
                error = (
                    None if text is None else json.dumps({"message": text}, separators=(",", ":")).encode()
                )
                engine.fail(
                    LeaseClaim(job.id, lease.token, None),
                    error,
                    verb == "fail",
                    None if length > 1000 else length,
                )
            elif verb in ("release", "put off", "beat"):
                engine.release(LeaseClaim(job.id, lease.token, None), length if verb == "put off" else 0)


def but_for_ids(line):
    job = json.loads(line)
    del job["id"], job["origin"]
    return job


@hypothesis_settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(JOBS | BYTES, min_size=1, max_size=4), st.lists(VERBS, max_size=12))
def test_what_was_exported_and_imported_is_exported_the_same(jobs, verbs):
    clock = ManualClock()
    here, there = Side(1, clock), Side(1001, clock)
    for job in jobs:
        here.enqueue(job)
    for verb in verbs:
        act(here, clock, *verb)
    here.engine.tick()  # what is due is queued, as it is over there
    first = here.exported()
    there.import_lines(first)
    expected = [but_for_ids(line) for line in first]
    for job in expected:
        if job["status"] == "in_progress":  # it is queued, and the attempt is in its history
            job["status"] = "queued"
            del job["lease_expires_at"]
            attempt = {"attempt": job["attempts"], "started_at": job["started_at"], "outcome": "stale"}
            if "consumer" in job:
                attempt["consumer"] = job["consumer"]
            attempt["ended_at"] = instant(clock.wall())
            job["history"] = [*job.get("history", []), attempt][-20:]
    assert [but_for_ids(line) for line in there.exported()] == expected
    assert [but_for_ids(line) for line in there.restart(clock).exported()] == expected
    third = Side(2001, clock)
    third.import_lines(there.exported())
    assert [but_for_ids(line) for line in third.exported()] == expected
