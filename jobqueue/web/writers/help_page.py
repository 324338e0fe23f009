"""The help page: the API on one screen, with lines to paste."""

import re

from jobqueue.web.writers.worker_files import HOST

_HELP = """\
jobqueue {version}: a job queue for curl. {stop}

  put in        curl -d '{{"type":"email","payload":{{"to":"ada@example.com"}}}}' {q}/jobs/enqueue
  put in bytes  curl --data-binary @cat.jpg '{q}/queues/thumbs/enqueue?raw=1&priority=5'
  ask and wait  curl -H 'Prefer: wait=30' -d '{{"type":"sum","payload":[1,2]}}' {q}/jobs/enqueue
  take          curl -X POST {q}/jobs/dequeue
  take, wait    curl -X POST '{q}/jobs/dequeue?wait=30'
  take by id    curl -X POST {q}/jobs/ID/dequeue
  take bytes    curl -X POST -D headers -o payload '{q}/queues/thumbs/dequeue?raw=1'
  finish        curl -X POST '{q}/jobs/ID/conclude?lease=LEASE'
    and next    curl -X POST '{q}/jobs/ID/conclude?lease=LEASE&next=1&wait=30'
  take longer   curl -X POST '{q}/jobs/ID/heartbeat?lease=LEASE'
  give back     curl -X POST '{q}/jobs/ID/release?lease=LEASE'
  it failed     curl -d '{{"lease":"LEASE","error":"why"}}' {q}/jobs/ID/fail
  a worker      curl -sSf {q}/worker.sh | sh -s -- QUEUE -- COMMAND
  in Python     curl -sSf {q}/worker.py | python3 - QUEUE -- COMMAND
  look          curl {q}/jobs/ID          '{q}/jobs?status=dead'
  why it waits  curl {q}/jobs/ID/explain
  cancel        curl -X DELETE {q}/jobs/ID
  queues        curl {q}/queues        one: {q}/queues/NAME
  again, daily  curl -X PUT -d '{{"cron":"@daily","job":{{"type":"report"}}}}' {q}/schedules/NAME
  schedules     curl {q}/schedules
  live          curl -N {q}/top
  server        curl {q}/stats         {q}/healthz  {q}/readyz
  in full       curl {q}/openapi.json

ID and LEASE are in dequeue's answer. A job not concluded within its lease ({lease} s, or
?lease_for=30s) goes back to its queue; finishing it with the old lease is then 409 lease_lost.

enqueue   type (required), queue "default", priority 0 (higher first), payload (any JSON), delay,
          run_at, expires_in, max_attempts, backoff, unique_key, key, tags, ... (docs/api.md)
          many at once: an array, or a job a line (--data-binary @file)
dequeue   queue or queues (a,b: in that order), wait, lease_for, count (many), consumer, raw
conclude  lease, consumer, result; raw=1: the body is the result

Options go in a JSON body or in the query. Durations: 30, "500ms", "90s", "5m", "1h30m".
204 from dequeue: nothing there, Queue-State says why. Errors are JSON with a detail that says what to do.
"""


def help_text(scheme: str, host: str, version: str, lease: float, in_memory: bool, tokens: bool) -> bytes:
    """Returns the help for the address in the request. `host` has the prefix that a proxy adds.

    `lease` is the default lease in seconds. `tokens`: each line uses $TOKEN.
    """
    at = host if HOST.fullmatch(host) else "localhost:8080"
    if scheme != "http":
        at = f"{scheme}://{at}"
    stop = "In memory: a stop loses all jobs." if in_memory else "With a journal: jobs survive a stop."
    text = _HELP.format(q=at, version=version, lease=lease, stop=stop)
    if tokens:
        text = re.sub(r"(  |\()curl ", r'\1curl -u ":$TOKEN" ', text)
        text = text.replace("| sh ", '| JOBQUEUE_TOKEN="$TOKEN" sh ')
        text = text.replace("| python3 ", '| JOBQUEUE_TOKEN="$TOKEN" python3 ')
    return text.encode("ascii")
