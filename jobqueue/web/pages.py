"""Pages for people. One so far: the API on one screen, with lines to paste."""

import re

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")

_HELP = """\
jobqueue {version}: a job queue for curl. In memory: a stop loses all jobs.

  put in        curl -d '{{"type":"email","payload":{{"to":"ada@example.com"}}}}' {q}/jobs/enqueue
  take          curl -X POST {q}/jobs/dequeue
  take, wait    curl -X POST '{q}/jobs/dequeue?wait=30'
  finish        curl -X POST '{q}/jobs/ID/conclude?lease=LEASE'
  take longer   curl -X POST '{q}/jobs/ID/heartbeat?lease=LEASE'
  give back     curl -X POST '{q}/jobs/ID/release?lease=LEASE'
  it failed     curl -d '{{"lease":"LEASE","error":"why"}}' {q}/jobs/ID/fail
  look          curl {q}/jobs/ID          '{q}/jobs?status=dead'
  cancel        curl -X DELETE {q}/jobs/ID
  queues        curl {q}/queues        one: {q}/queues/NAME
  server        curl {q}/stats         {q}/healthz  {q}/readyz
  in full       curl {q}/openapi.json

ID and LEASE are in dequeue's answer. A job not concluded within its lease ({lease} s, or
?lease_for=30s) goes back to its queue; finishing it with the old lease is then 409 lease_lost.

enqueue   type (required), queue "default", priority 0 (higher first), payload (any JSON), delay,
          run_at, expires_in, max_attempts, backoff, unique_key, key, tags, ... (docs/api.md)
          many at once: an array, or a job a line (--data-binary @file)
dequeue   queue or queues (a,b: in that order), wait, lease_for, count (many), consumer
conclude  lease, consumer, result

Options go in a JSON body or in the query. Durations: 30, "500ms", "90s", "5m", "1h30m".
204 from dequeue: nothing there. Errors are JSON with a code and a detail that says what to do.
"""


def help_text(host: str | None, version: str, lease: float) -> bytes:
    """For the address it was asked at, if that is one. `lease`: the usual length, seconds."""
    at = host if host is not None and _HOST.fullmatch(host) else "localhost:8080"
    return _HELP.format(q=at, version=version, lease=lease).encode("ascii")
