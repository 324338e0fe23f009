"""Sentry: what a job raises is reported, with the job.

from jobqueue import sentry
sentry.instrument(jobs)
"""

from __future__ import annotations

from collections.abc import Iterator

from jobqueue.jobs import Context, GiveBack, Jobs, Retry

try:
    import sentry_sdk
    from sentry_sdk.utils import event_from_exception
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jobqueue.sentry needs the SDK of Sentry ({missing}): pip install sentry-sdk", name=missing.name
    ) from None


def instrument(jobs: Jobs) -> None:
    """Runs each of these jobs in a scope of its own, with its type as the transaction, its queue and type as
    tags and the job as a context. An exception is captured once, by this or by what captured it in the job.

    `Retry` and `GiveBack` are no faults, and are not captured; nor is what only stops a job. The program
    calls `sentry_sdk.init` itself.
    """
    jobs.around(_scope)


def _scope(ctx: Context) -> Iterator[None]:
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        scope.set_transaction_name(ctx.type, source="task")
        scope.set_tag("jobqueue.queue", ctx.queue)
        scope.set_tag("jobqueue.type", ctx.type)
        scope.set_context("job", {"id": ctx.id, "queue": ctx.queue, "type": ctx.type, "attempt": ctx.attempt})
        try:
            yield
        except (Retry, GiveBack):
            raise
        except Exception as error:
            event, hint = event_from_exception(
                error,
                client_options=sentry_sdk.get_client().options,
                mechanism={"type": "jobqueue", "handled": False},
            )
            scope.capture_event(event, hint=hint)
            raise
