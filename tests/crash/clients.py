"""Producers and workers: threads that go on through every restart, and record everything in the ledger."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.bench.processes import HOST
from tests.crash.ledger import MADE, REFUSED, UNKNOWN, Delivery, Ledger, now

QUEUES = ("default", "mail")
LEASE = 300


class Answer(NamedTuple):
    status: int
    json: Any
    headers: Mapping[str, str]


class Unsent(Exception):
    """No connection: the request was not sent."""


class Cut(Exception):
    """The request was sent and not answered: its outcome is unknown."""


class Caller:
    """One connection, opened again after each failure."""

    def __init__(self, port: int, timeout: float = 20, host: str = HOST) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            try:
                self._connection.connect()
            except OSError:
                self._connection = None
                raise Unsent from None
        data = json.dumps(body) if body is not None else None
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise Cut from None
        return Answer(answer.status, json.loads(text) if text else None, answer.headers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _refused_early(answer: Answer) -> bool:
    """True if the server refused the request before doing anything."""
    return answer.status == 503 and answer.json["code"] in ("not_ready", "overloaded")


class Crowd:
    """Clients of the server on `port`, from `start` to `stop`. `connect` makes the caller of each client instead.
    Jobs go to one of `queues`; a worker takes from `taken` of them at once, or from all. `keys`: the begin of
    idempotency keys."""

    def __init__(
        self,
        ledger: Ledger,
        port: int = 0,
        producers: int = 4,
        workers: int = 4,
        seed: int = 0,
        connect: Callable[[], Caller] | None = None,
        queues: Sequence[str] = QUEUES,
        taken: int | None = None,
        keys: str = "n",
    ) -> None:
        self._ledger = ledger
        self._connect = connect or (lambda: Caller(port))
        self._queues = queues
        self._taken = taken or len(queues)
        self._keys = keys
        self._stop = threading.Event()
        self._random = random.Random(seed)
        self._threads = [threading.Thread(target=self._produce, daemon=True) for _ in range(producers)]
        self._threads += [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def start(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Ends all threads after their current requests. The server must be up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    # -- enqueue ------------------------------------------------------------------------------------

    def _produce(self) -> None:
        caller = self._connect()
        ledger = self._ledger
        while not self._stop.is_set():
            with_key = self._random.random() < 0.5
            order = ledger.order(self._random.choice(self._queues), self._random.choice((0, 0, 5)), with_key)
            body = {"type": "x", "queue": order.queue, "priority": order.priority, "payload": order.number}
            headers = {"Idempotency-Key": f"{self._keys}{order.number}"} if with_key else {}
            while True:
                try:
                    answer = caller.call("POST", "/jobs/enqueue", body, **headers)
                except Unsent:
                    time.sleep(0.01)
                    if not with_key and self._stop.is_set():
                        order.state = REFUSED
                        break
                    continue
                except Cut:
                    if with_key:
                        continue
                    order.state = UNKNOWN
                    break
                if _refused_early(answer) or (with_key and answer.status == 503):
                    time.sleep(0.01)
                    continue
                if answer.status in (200, 201):
                    order.id = answer.json["id"]
                    order.answered = now()
                    order.state = MADE
                elif answer.status == 503:
                    order.state = UNKNOWN
                elif answer.status in (429, 507):
                    order.state = REFUSED
                    time.sleep(0.02)
                else:
                    ledger.note(f"enqueue: {answer}")
                break
        caller.close()

    # -- dequeue, then conclude or release ----------------------------------------------------------

    def _work(self) -> None:
        caller = self._connect()
        while not self._stop.is_set():
            asked = now()
            try:
                queues = self._random.sample(self._queues, self._taken)
                answer = caller.call(
                    "POST", "/jobs/dequeue", {"queues": queues, "wait": 0.2, "lease_for": LEASE}
                )
            except (Unsent, Cut):
                time.sleep(0.01)
                continue
            if answer.status == 204:
                continue
            if answer.status == 503:
                time.sleep(0.01)
                continue
            if answer.status != 200:
                self._ledger.note(f"dequeue: {answer}")
                continue
            job = answer.json
            delivery = Delivery(
                job["id"], job["payload"], job["lease"], job["leases"], job["attempts"], job["lease_for"],
                asked, now(),
            )  # fmt: skip
            self._ledger.deliver(delivery)
            if self._random.random() < 0.1:
                self._release(caller, delivery)
            else:
                self._conclude(caller, delivery)
        caller.close()

    def _conclude(self, caller: Caller, delivery: Delivery) -> None:
        """Repeats the request until it is answered, since a conclusion may be repeated."""
        cut = False
        while True:
            try:
                answer = caller.call(
                    "POST",
                    f"/jobs/{delivery.id}/conclude",
                    {"lease": delivery.lease, "result": delivery.number},
                )
            except Unsent:
                time.sleep(0.01)
                continue
            except Cut:
                cut = True
                continue
            if answer.status == 503:
                cut = cut or not _refused_early(answer)
                time.sleep(0.01)
                continue
            break
        if answer.status == 200:
            delivery.concluded, delivery.concluded_at = MADE, now()
        else:  # the lease lasts for minutes, so it is still ours
            self._ledger.note(f"conclude of job {delivery.id}: {answer}{' after a cut' if cut else ''}")

    def _release(self, caller: Caller, delivery: Delivery) -> None:
        delivery.returned = True
        try:
            answer = caller.call("POST", f"/jobs/{delivery.id}/release", {"lease": delivery.lease})
        except (Unsent, Cut):
            return
        if answer.status not in (200, 503):
            self._ledger.note(f"release of job {delivery.id}: {answer}")


def all_jobs(port: int, host: str = HOST) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Returns all jobs with payload and result, and the counts of the server by status."""
    caller = Caller(port, 60, host)
    jobs: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = caller.call("GET", f"/jobs?payload=1&order=asc&limit=1000{cursor}").json
        jobs += page["jobs"]
        if "next" not in page:
            break
        cursor = f"&cursor={page['next']}"
    counts = caller.call("GET", "/stats").json["jobs"]
    caller.close()
    return jobs, counts


def drain(port: int) -> dict[str, list[dict[str, Any]]]:
    """Dequeues all queued jobs. Returns them by queue, in the order of delivery."""
    caller = Caller(port)
    drained: dict[str, list[dict[str, Any]]] = {}
    for queue in QUEUES:
        jobs = drained[queue] = []
        while (answer := caller.call("POST", "/jobs/dequeue", {"queue": queue, "count": 1000})).status == 200:
            jobs += answer.json["jobs"]
    caller.close()
    return drained
