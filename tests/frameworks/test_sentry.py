"""What jobs raise, in Sentry."""

import asyncio

import pytest

from jobqueue import GiveBack, Jobs, Retry
from jobqueue.testing import inline

sentry_sdk = pytest.importorskip("sentry_sdk", reason="sentry-sdk is not installed")

from sentry_sdk.transport import Transport  # noqa: E402  # it may be missing

from jobqueue import sentry  # noqa: E402


class Kept(Transport):
    """Keeps events, and sends nothing."""

    def __init__(self):
        super().__init__()
        self.events = []

    def capture_envelope(self, envelope):
        self.events += [item.get_event() for item in envelope.items if item.get_event() is not None]


@pytest.fixture
def kept():
    transport = Kept()
    sentry_sdk.init(
        "https://key@sentry.invalid/1", transport=transport, auto_enabling_integrations=False,
        auto_session_tracking=False,
    )  # fmt: skip
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.init()


@pytest.fixture
def jobs():
    made = Jobs(queue="mail")

    @made.job(max_attempts=1)
    def send(to: str) -> None:
        if to == "nobody":
            raise ValueError("no address")
        if to == "greylisted":
            raise Retry("later", after="1m")
        if to == "somebody else":
            raise GiveBack(delay="1m")
        if to == "reported":
            try:
                raise KeyError(to)
            except KeyError:
                sentry_sdk.capture_exception()
                raise

    @made.job(max_attempts=1)
    async def send_soon(to: str) -> None:
        raise ValueError(to)

    sentry.instrument(made)
    return made


def test_an_exception_is_captured_once_with_the_job(jobs, kept):
    with inline(jobs) as queue:
        handle = jobs.types["send"].enqueue("nobody")
        queue.run_all()
    [event] = kept.events
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"], error["mechanism"]["handled"]) == (
        "ValueError",
        "no address",
        False,
    )
    assert event["contexts"]["job"] == {"id": handle.id, "queue": "mail", "type": "send", "attempt": 1}
    assert (event["transaction"], event["tags"]) == (
        "send", {"jobqueue.queue": "mail", "jobqueue.type": "send"},
    )  # fmt: skip


def test_what_the_job_has_captured_itself_is_not_captured_again(jobs, kept):
    with inline(jobs) as queue:
        jobs.types["send"].enqueue("reported")
        queue.run_all()
    [event] = kept.events
    assert event["contexts"]["job"]["type"] == "send"


def test_a_retry_and_a_job_that_is_given_back_are_no_faults(jobs, kept):
    with inline(jobs) as queue:
        jobs.types["send"].enqueue("greylisted")
        jobs.types["send"].enqueue("somebody else")
        queue.run_all()
    assert kept.events == []


def test_the_scope_of_an_async_job_is_its_own(jobs, kept):
    async def test():
        async with inline(jobs) as queue:
            await jobs.types["send_soon"].aenqueue("ada")
            await queue.arun_all()
        sentry_sdk.capture_message("after")

    asyncio.run(test())
    during, after = kept.events
    assert during["contexts"]["job"]["type"] == "send_soon"
    assert "job" not in after["contexts"]
