"""Creates `version-N.sqlite`, and shows how to create `version-N.ndjson`. Run it once for each new version:

    PYTHONPATH=. .venv/bin/python tests/storage/journals/make.py
    JOBQUEUE_DATA=<a directory with it as journal.sqlite> .venv/bin/python -m jobqueue journal dump

The files of earlier versions must not change: the tests show that they can still be read.
"""

import asyncio
import tempfile
from pathlib import Path

from jobqueue.engine.opening import open_journal
from jobqueue.model import (
    Backoff,
    DequeueRequest,
    IdempotencyKey,
    JobTemplate,
    KeyLimits,
    LeaseClaim,
    NewJob,
    Options,
    Plan,
    Rate,
)
from jobqueue.settings import Settings
from jobqueue.storage.data_dir import DataDir
from jobqueue.storage.sqlite import FILE, VERSION
from jobqueue.testing import ManualClock

HERE = Path(__file__).parent


async def make(folder: str) -> None:
    """Writes a journal with every kind of record."""
    engine = open_journal(DataDir(folder), Settings(first_id=1001), ManualClock())
    await engine.load()
    everything = Options(
        lease_for=60_000, max_attempts=3, backoff=Backoff(steps=(1_000, 5_000)), retain_for=86_400_000,
        unique_key="u", unique_while="exists", on_conflict="reject", key="k", tags=("red", "blue"),
        headers=b'{"traceparent":"00-1"}', max_run_for=7_200_000,
    )  # fmt: skip
    await engine.enqueue_many(
        [
            NewJob("plain", payload=b'{"n":1}'),
            NewJob("urgent", priority=7),
            NewJob("large", payload=b'"' + b"x" * 2_000 + b'"'),
            NewJob("later", delay=3_600_000),
            NewJob("at", run_at=4_000_000_000_000, expires_in=4_000_000),
            NewJob("dressed", "mail", options=everything),
            NewJob("raw", payload=b"\x00\xff", options=Options(content_type="image/png")),
        ],
        IdempotencyKey("", "order-17", b"d" * 16, True),
    )
    for _ in range(4):
        await engine.enqueue(NewJob("worked on", "work"))
    work = DequeueRequest(("work",), 300_000, None, "ann")
    leases = [lease for _ in range(4) for _, lease in await engine.dequeue(work)]
    await engine.conclude(LeaseClaim(1008, leases[0].token, None), b'{"sum":3}')
    await engine.fail(LeaseClaim(1009, leases[1].token, None), b'"no such host"', True, 0)
    await engine.fail(LeaseClaim(1010, leases[2].token, None), b'"never again"', False)
    engine.heartbeat(LeaseClaim(1011, leases[3].token, None), 600_000, 40, "half way")
    await engine.enqueue(NewJob("unwanted"))
    await engine.cancel(1012)
    limits = {"max_in_progress": 5, "rate": Rate(10, 1_000, 20), "key_limits": KeyLimits(1)}
    limits |= {"attributes": b'{"owner":"ada"}', "max_run_for": 3_600_000, "fair_keys": True}
    await engine.configure("mail", limits)
    await engine.pause("mail", None, "lunch")
    nightly = Plan("nightly", JobTemplate("report", "mail"), "shop", "30 2 * * *", None, "Europe/Berlin")
    await engine.put_schedule(nightly, None)
    await engine.put_schedule(Plan("often", JobTemplate("sync"), every=60_000, overlap="allow"), True)
    engine.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(make(scratch))
        (HERE / f"version-{VERSION}.sqlite").write_bytes((Path(scratch) / FILE).read_bytes())
