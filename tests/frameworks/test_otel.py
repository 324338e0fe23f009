"""Spans of OpenTelemetry around jobs."""

import asyncio

import pytest

from jobqueue import GiveBack, Jobs, Retry
from jobqueue.testing import inline

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.trace import TracerProvider  # it may be missing
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jobqueue import otel


@pytest.fixture
def exported():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported):
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exported))
    yield made
    made.shutdown()


@pytest.fixture
def jobs(provider):
    made = Jobs(queue="mail")

    @made.job
    def send(to: str) -> None:
        if to == "nobody":
            raise ValueError("no address")
        if to == "greylisted":
            raise Retry("later", after="1m")
        if to == "somebody else":
            raise GiveBack(delay="1m")

    @made.job
    async def send_soon(to: str) -> None:
        await made.types["send"].aenqueue(to)

    otel.instrument(made, provider)
    return made


def ids(spanned):
    return spanned.context.trace_id, spanned.context.span_id


def test_a_run_has_a_span_that_is_linked_to_the_producer(jobs, provider, exported):
    with inline(jobs) as queue:
        with provider.get_tracer("web").start_as_current_span("sign up") as producer:
            handle = jobs.types["send"].enqueue("ada")
        queue.run_all()
    request, run = exported.get_finished_spans()
    assert (run.name, run.kind, run.parent) == ("process mail", SpanKind.CONSUMER, None)
    assert [ids(link) for link in run.links] == [ids(producer)]
    assert run.context.trace_id != request.context.trace_id
    assert dict(run.attributes) == {
        "messaging.system": "jobqueue",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(handle.id),
        "jobqueue.job.type": "send",
        "jobqueue.job.attempt": 1,
    }
    assert run.status.status_code is StatusCode.UNSET


def test_a_job_that_a_job_enqueues_is_linked_to_that_run(jobs, exported):
    async def test():
        async with inline(jobs) as queue:
            await jobs.types["send_soon"].aenqueue("ada")
            await queue.arun_all()

    asyncio.run(test())
    first, second = exported.get_finished_spans()
    assert list(first.links) == []
    assert [ids(link) for link in second.links] == [ids(first)]


@pytest.mark.parametrize(("to", "type"), [("nobody", "ValueError"), ("greylisted", "Retry")])
def test_a_run_that_raises_is_an_error(jobs, exported, to, type):
    with inline(jobs) as queue:
        jobs.types["send"].enqueue(to)
        queue.run_all()
    [run] = exported.get_finished_spans()
    assert (run.status.status_code, run.attributes["error.type"]) == (StatusCode.ERROR, type)
    assert [event.name for event in run.events] == ["exception"]


def test_a_job_that_is_given_back_is_no_error(jobs, exported):
    with inline(jobs) as queue:
        jobs.types["send"].enqueue("somebody else")
        queue.run_all()
    [run] = exported.get_finished_spans()
    assert (run.status.status_code, list(run.events)) == (StatusCode.UNSET, [])


def test_a_trace_of_the_job_goes_on_where_no_span_is_recorded(jobs):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    plain = Jobs()

    @plain.job
    def first() -> None:
        second.enqueue()

    @plain.job
    def second() -> None: ...

    with inline(plain) as queue:
        first.options(headers={"traceparent": trace}).enqueue()
        queue.run_all()
        assert [job.headers["traceparent"] for job in queue.jobs()] == [trace, trace]
