"""`python second.py PORT [drain]`: a client that works during an attack, in a process of its own.

Enqueues, dequeues and concludes a job at most a hundred times a second; `drain`: enqueues nothing. When its input
ends it prints as JSON how many requests it made, how long they took (p50, p99, maximum; milliseconds), and
answers other than success.
"""

import http.client
import json
import select
import sys
import time


def main() -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
    times: list[float] = []
    trouble: list[str] = []

    def call(method: str, path: str, body: bytes | None = None) -> bytes:
        start = time.perf_counter()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 400:
                trouble.append(f"{answer.status} {text[:60].decode(errors='replace')}")
        except (OSError, http.client.HTTPException) as failed:
            trouble.append(repr(failed))
            connection.close()
            text = b""
        times.append((time.perf_counter() - start) * 1000)
        return text

    def work() -> None:
        if "drain" not in sys.argv:
            call("POST", "/jobs/enqueue", b'{"type":"second","queue":"second","payload":"x"}')
        text = call("POST", "/jobs/dequeue?queue=second")
        if text:
            job = json.loads(text)
            if "lease" in job:
                call("POST", f"/jobs/{job['id']}/conclude?lease={job['lease']}")

    for _ in range(20):  # it is in use before the attack begins
        work()
    times.clear()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        work()
    times.sort()
    at = [times[int(len(times) * share)] if times else 0.0 for share in (0.5, 0.99)]
    print(json.dumps({
        "count": len(times), "p50": at[0], "p99": at[1], "max": times[-1] if times else 0.0, "trouble": trouble[:5],
        "troubles": len(trouble),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
