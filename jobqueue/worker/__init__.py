"""Runs declared jobs: `Worker`, and `jobqueue work` in a shell. docs/python.md shows how.

    server ⇄ Link (a thread with an event loop: takes jobs, renews leases, reports)
               │ RunningJob ↓            ↑ Report
             Tasks (async def, on the worker's loop) · Threads (def) · Processes (process=True)

A job is a guest: it has no part in the HTTP, so a busy or a stuck job cannot starve a heartbeat.
"""

from jobqueue.worker.worker import Worker

__all__ = ["Worker"]
