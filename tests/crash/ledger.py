"""The ledger of all clients of one run, and what must hold in the end.

Every job carries its own number as its payload. An order is recorded before it is sent, and its state when
the answer arrives. "Unknown" means that no answer arrived: both outcomes are allowed, but not a mixture.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

ASKED, MADE, REFUSED, UNKNOWN = "asked", "made", "refused", "unknown"


@dataclass
class Order:
    """One enqueue. `with_key`: sent with an `Idempotency-Key`, and repeated until it was answered."""

    number: int
    queue: str
    priority: int
    with_key: bool
    state: str = ASKED
    id: int | None = None
    answered: float = 0.0


@dataclass
class Delivery:
    """One job as a worker received it. Times are monotonic seconds. `returned`: the worker tried to release
    it."""

    id: int
    number: int
    lease: str
    leases: int
    attempts: int
    lease_for: float
    asked: float
    got: float
    concluded: str | None = None
    concluded_at: float = 0.0
    returned: bool = False


@dataclass
class Ledger:
    orders: dict[int, Order] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)  # answers that no client should see
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, queue: str, priority: int, with_key: bool) -> Order:
        with self.lock:
            order = Order(len(self.orders) + 1, queue, priority, with_key)
            self.orders[order.number] = order
            return order

    def deliver(self, delivery: Delivery) -> None:
        with self.lock:
            self.deliveries.append(delivery)

    def note(self, what: str) -> None:
        with self.lock:
            self.odd.append(what)

    def made(self) -> int:
        return sum(order.state == MADE for order in list(self.orders.values()))  # clients may go on

    def concluded(self) -> int:
        return sum(delivery.concluded == MADE for delivery in list(self.deliveries))


def check(
    ledger: Ledger, jobs: list[dict[str, Any]], counts: dict[str, int], leases_are_synced: bool = True
) -> list[str]:
    """Returns what is wrong. `jobs`: all jobs of the server in the end, by id, with payloads. `counts`: its
    own counts by status. Without `leases_are_synced` the last lease of a job may be lost, if nothing came
    after it."""
    by_id = {job["id"]: job for job in jobs}
    found = list(ledger.odd)
    found += _every_acknowledged_job_is_there(ledger, by_id)
    found += _every_job_was_ordered(ledger, jobs)
    found += _concluded_jobs_stay_concluded(ledger, by_id)
    found += _leases_are_exclusive_and_counted(ledger, by_id, leases_are_synced)
    found += _ids_are_not_reused(ledger, jobs)
    listed = dict.fromkeys(counts, 0)
    for job in jobs:
        listed[job["status"]] += 1
    if listed != counts:
        found.append(f"counts do not add up: the server has {counts}, but lists {listed}")
    return found


def _every_acknowledged_job_is_there(ledger: Ledger, by_id: dict[int, dict[str, Any]]) -> list[str]:
    found = []
    for order in ledger.orders.values():
        if order.state != MADE:
            continue
        job = by_id.get(order.id or 0)
        if job is None:
            found.append(f"lost: job {order.id}, acknowledged")
        elif (job["payload"], job["queue"], job["priority"]) != (order.number, order.queue, order.priority):
            found.append(f"changed: job {order.id} is {job}, but was {order}")
    return found


def _every_job_was_ordered(ledger: Ledger, jobs: list[dict[str, Any]]) -> list[str]:
    found = []
    seen: dict[int, int] = {}
    for number, id_ in [(job["payload"], job["id"]) for job in jobs] + [
        (delivery.number, delivery.id) for delivery in ledger.deliveries
    ]:
        order = ledger.orders.get(number)
        if order is None or order.state == REFUSED:
            found.append(f"phantom: job {id_} with payload {number}, {order and order.state}")
        if seen.setdefault(number, id_) != id_:
            found.append(f"twice: {number} is job {seen[number]} and job {id_}")
    return found


def _concluded_jobs_stay_concluded(ledger: Ledger, by_id: dict[int, dict[str, Any]]) -> list[str]:
    found = []
    done: dict[int, float] = {}
    for delivery in ledger.deliveries:
        if delivery.concluded == MADE:
            done[delivery.id] = delivery.concluded_at
            job = by_id.get(delivery.id)
            if job is None or job["status"] != "concluded" or job.get("result") != delivery.number:
                found.append(f"no longer concluded: job {delivery.id} is {job}")
    found += [
        f"back: job {delivery.id} was delivered after its conclusion was acknowledged"
        for delivery in ledger.deliveries
        if delivery.id in done and delivery.asked > done[delivery.id]
    ]
    return found


def _leases_are_exclusive_and_counted(
    ledger: Ledger, by_id: dict[int, dict[str, Any]], are_synced: bool
) -> list[str]:
    found = []
    last: dict[int, Delivery] = {}
    for delivery in sorted(ledger.deliveries, key=lambda one: one.got):
        before = last.get(delivery.id)
        if before is not None:
            if delivery.lease == before.lease:
                found.append(f"a lease twice: job {delivery.id}")
            if delivery.leases <= before.leases:
                found.append(f"leases of job {delivery.id}: {before.leases}, then {delivery.leases}")
            held = delivery.got - before.asked
            if not before.returned and before.concluded is None and held < before.lease_for:
                found.append(
                    f"two valid leases: job {delivery.id}, again after {held:.3f} s of {before.lease_for} s"
                )
        last[delivery.id] = delivery
    for id_, delivery in last.items():
        job = by_id.get(id_)
        may_be_lost = not are_synced and delivery.concluded != MADE
        if job is not None and job["leases"] < delivery.leases - may_be_lost:
            found.append(f"leases of job {id_} fell from {delivery.leases} to {job['leases']}")
    return found


def _ids_are_not_reused(ledger: Ledger, jobs: list[dict[str, Any]]) -> list[str]:
    numbers: dict[int, int] = {}
    found = []
    known = [(order.id, order.number) for order in ledger.orders.values() if order.id is not None]
    known += [(delivery.id, delivery.number) for delivery in ledger.deliveries]
    known += [(job["id"], job["payload"]) for job in jobs]
    for id_, number in known:
        if numbers.setdefault(id_, number) != number:
            found.append(f"id {id_} was given to {numbers[id_]} and to {number}")
    return found


def check_order(drained: list[dict[str, Any]]) -> list[str]:
    """Jobs of one queue must come by priority, higher first, and within a priority by id."""
    keys = [(-job["priority"], job["id"]) for job in drained]
    return [] if keys == sorted(keys) else [f"out of order: {keys[:20]}"]


def now() -> float:
    return time.monotonic()
