"""What becomes of the calls under way when the journal can no longer be written.

Each is told why if its client is still there. None leaves a Future with an exception that nobody has seen:
asyncio would log each of them as an error when it is collected, and the reason was told once already."""

import asyncio
import gc
import threading

import pytest
from serving import until
from sqs import create, receive

FRONTS = ["fast journal", "tornado journal", "fast passed on journal"]
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
_LINES = '{"type":"x"}\n'


class FailingDisk:
    """Commits wait until `fail`, and then none succeeds."""

    def __init__(self, server, monkeypatch):
        self.failures = []
        self._engine = server.engine
        self._now = threading.Event()
        self._engine.on_failure = self.failures.append
        monkeypatch.setattr(self._engine._commit._store, "commit", self._commit)

    def _commit(self, rows, sync=True):
        assert self._now.wait(10)
        raise OSError("disk I/O error")

    def fail(self):
        self._now.set()
        self._engine.tick()  # what no answer waits for is written then


async def an_enqueue(server, ask):
    await ask("POST", "/jobs/enqueue", {"type": "x"})


async def several_enqueues(server, ask):
    await ask("POST", "/jobs/enqueue", [{"type": "x"}, {"type": "y"}])


async def an_enqueue_that_waits_for_the_outcome(server, ask):
    await ask("POST", "/jobs/enqueue", {"type": "x"}, {"Prefer": "wait=30"})


async def an_enqueue_with_a_key(server, ask):
    await ask("POST", "/jobs/enqueue", {"type": "x"}, {"Idempotency-Key": "k"})


async def a_dequeue(server, ask):
    await ask("POST", "/jobs/dequeue")


async def a_dequeue_of_several(server, ask):
    await ask("POST", "/jobs/dequeue?count=2")


async def a_conclude(server, ask):
    await ask("POST", f"/jobs/{server.leased}/conclude", {})


async def a_conclude_with_the_next(server, ask):
    await ask("POST", f"/jobs/{server.leased}/conclude?next=1&wait=30", {})


async def a_release(server, ask):
    await ask("POST", f"/jobs/{server.leased}/release", {})


async def a_fail(server, ask):
    await ask("POST", f"/jobs/{server.leased}/fail", {"error": {"message": "no"}})


async def a_heartbeat(server, ask):
    await ask("POST", f"/jobs/{server.leased}/heartbeat", {})


async def several_concludes(server, ask):
    await ask("POST", "/jobs/conclude", [{"id": server.leased}])


async def a_wait_for_an_outcome(server, ask):
    await ask("GET", f"/jobs/{server.queued[0]}?wait=30")
    await until(lambda: server.engine._queue.state.outcomes.count)
    await ask("DELETE", f"/jobs/{server.queued[0]}")


async def a_wait_for_a_job(server, ask):
    await ask("POST", "/queues/other/dequeue?wait=30")
    await server.waiting(len(server._clients) - 1)
    await ask("POST", "/queues/other/enqueue", {"type": "x"})


async def a_change(server, ask):
    await ask("PATCH", f"/jobs/{server.queued[0]}", {"priority": 1})


async def settings_of_a_queue(server, ask):
    await ask("PATCH", "/queues/q", {"max_jobs": 9})


async def a_pause(server, ask):
    await ask("POST", "/queues/q/pause")


async def a_purge(server, ask):
    await ask("POST", "/queues/default/purge?all=1")


async def a_schedule(server, ask):
    await ask("PUT", "/schedules/s", {"every": "15m", "job": {"type": "x"}})


async def a_run_of_a_schedule(server, ask):
    await ask("POST", "/schedules/known/run")


async def an_import(server, ask):
    await ask("PUT", "/import", _LINES)


async def a_form(server, ask):
    await ask("POST", "/form/queues/default/pause", b"reason=deploy", FORM)


async def several_selected_jobs(server, ask):
    await ask("POST", "/form/jobs", f"_verb=cancel&id={server.queued[0]}".encode(), FORM)


def _asks_sqs(action, **asked):
    async def act(server, ask):
        await ask("POST", "/", {"QueueUrl": server.url, **asked}, {"X-Amz-Target": f"AmazonSQS.{action}"})

    act.__name__ = f"{action} {' '.join(asked)}"
    return act


async def a_delete_of_a_message_after_its_time(server, ask):
    """Which leases it once more."""
    headers = {"X-Amz-Target": "AmazonSQS.DeleteMessage"}
    await ask("POST", "/", {"QueueUrl": server.url, "ReceiptHandle": server.late}, headers)


async def a_stream_of_jobs(server, ask):
    await ask("POST", "/jobs/stream", {"prefetch": 1})


async def a_watcher(server, ask):
    await ask("GET", "/events")
    await until(lambda: server.dispatcher.context.events.recording)
    await ask("POST", "/jobs/enqueue", {"type": "x"})


ACTS = [
    an_enqueue, several_enqueues, an_enqueue_that_waits_for_the_outcome, an_enqueue_with_a_key, a_dequeue,
    a_dequeue_of_several, a_conclude, a_conclude_with_the_next, a_release, a_fail, a_heartbeat, several_concludes,
    a_wait_for_an_outcome, a_wait_for_a_job, a_change, settings_of_a_queue, a_pause, a_purge, a_schedule,
    a_run_of_a_schedule, an_import, a_form, several_selected_jobs, a_stream_of_jobs, a_watcher,
    a_delete_of_a_message_after_its_time, _asks_sqs("SendMessage", MessageBody="x"), _asks_sqs("ReceiveMessage"),
    _asks_sqs("ReceiveMessage", VisibilityTimeout=0), _asks_sqs("PurgeQueue"), _asks_sqs("DeleteQueue"),
    _asks_sqs("TagQueue", Tags={"a": "b"}),
]  # fmt: skip


async def prepare(server):
    """Makes what the calls need: jobs, one of them leased, a schedule, and messages, one received."""
    server.leased = await server.enqueue()
    await server.dequeue()
    server.queued = [await server.enqueue() for _ in range(3)]
    await server.call("PUT", "/schedules/known", {"every": "15m", "job": {"type": "x"}})
    server.url = await create(server)
    for _ in range(2):
        await server.post(
            "/", {"QueueUrl": server.url, "MessageBody": "x"}, {"X-Amz-Target": "AmazonSQS.SendMessage"}
        )
    [message] = await receive(server, server.url, VisibilityTimeout=1)
    server.late = message["ReceiptHandle"]
    server.clock.advance("2s")
    server.engine.tick()
    await until(lambda: server.engine.stats().journal.pending == 0)


# A heartbeat is answered before it is written; the others are streams.
NOT_HELD = {a_heartbeat, a_stream_of_jobs, a_watcher}


def hang_up(clients):
    for client in clients:
        client.reset()


@pytest.mark.parametrize("server", FRONTS, indirect=True)
@pytest.mark.parametrize("leaves", ["stays", "leaves before", "leaves as it fails"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_no_call_under_way_leaves_an_exception_that_nobody_sees(
    server, act, leaves, monkeypatch, logged
):
    await prepare(server)
    disk = FailingDisk(server, monkeypatch)
    clients = []

    async def ask(method, path, body=None, headers=None):
        client = await server.connect()
        client.ask(method, path, body, headers)
        clients.append(client)
        await asyncio.sleep(0.01)

    await act(server, ask)
    if leaves == "leaves before":
        hang_up(clients)
        await asyncio.sleep(0.01)
    disk.fail()
    if leaves == "leaves as it fails":
        hang_up(clients)
    elif leaves == "stays" and act not in NOT_HELD:
        for client in clients:
            assert b"could not write its journal" in (await client.read()).body
    await until(lambda: disk.failures)
    await asyncio.sleep(0.01)
    gc.collect()
    assert [record.getMessage() for record in logged] == []
