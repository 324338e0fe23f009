"""OpenTelemetry: a span for each run of a job, linked to the span that enqueued it.

    from jobqueue import otel
    otel.instrument(jobs)

The names are those of the messaging conventions of OpenTelemetry, which ask for a link to the producer. A job
may wait for days, or run many times, so its span begins a trace of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jobqueue.jobs import Context, GiveBack, Jobs
from jobqueue.version import VERSION

try:
    from opentelemetry import trace
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jobqueue.otel needs OpenTelemetry ({missing}): pip install opentelemetry-sdk", name=missing.name
    ) from None

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_OPERATION: Final = "process"


def instrument(jobs: Jobs, tracer_provider: TracerProvider | None = None) -> None:
    """Makes a span of kind CONSUMER around each run of these jobs. An enqueue gives the current span to the
    job, in its header `traceparent`.

    `tracer_provider` is the global one by default. A run that raises has an error in its span, but for
    `GiveBack`. Call it once, where the jobs are declared, so that it holds for producers and workers.
    """
    tracer = trace.get_tracer("jobqueue", VERSION, tracer_provider)

    def span_of(ctx: Context) -> Iterator[None]:
        with tracer.start_as_current_span(
            f"{_OPERATION} {ctx.queue}",
            context=TraceContext(),
            kind=SpanKind.CONSUMER,
            attributes=_attributes(ctx),
            links=_links(ctx.headers),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except GiveBack:
                raise
            except BaseException as error:
                if isinstance(error, Exception):  # not one that only stops the job
                    span.record_exception(error)
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                raise

    jobs.around(span_of)
    jobs.shared.trace_headers = _current_headers


def _attributes(ctx: Context) -> dict[str, Any]:
    return {
        "messaging.system": "jobqueue",
        "messaging.operation.name": _OPERATION,
        "messaging.operation.type": _OPERATION,
        "messaging.destination.name": ctx.queue,
        "messaging.message.id": str(ctx.id),
        "jobqueue.job.type": ctx.type,
        "jobqueue.job.attempt": ctx.attempt,
    }


def _links(headers: Mapping[str, str]) -> list[Link]:
    """Returns a link to the span that enqueued a job; empty: it named none."""
    found = _PROPAGATOR.extract(headers, context=TraceContext())
    producer = trace.get_current_span(found).get_span_context()
    return [Link(producer)] if producer.is_valid else []


def _current_headers() -> dict[str, str]:
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers
