"""The calls for one job, and lists and counts of jobs."""

from jobqueue.model import Job, JobGroups
from jobqueue.steps import CANCELLED
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations import explain
from jobqueue.web.operations.replies import etag, if_match, job_id, job_reply, reply
from jobqueue.web.schema.responses import Counted
from jobqueue.web.writers import encoder
from jobqueue.web.writers.answer_size import page


def get_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    return reply(context, context.engine.wait_for(id, context.admin.wait(request)), _whole_job)


def _whole_job(context: Context, job: Job) -> Response:
    return Response(200, context.encoder.whole_job(job), etag(job))


def explain_job(context: Context, request: Request) -> Response:
    return explain.explained(context, request, context.engine.explain(job_id(request.param)))


def cancel_job(context: Context, request: Request) -> Response | Deferred:
    """Cancels a job. The answer is 202 if the job is in progress: its consumer is asked to stop."""
    id = job_id(request.param)
    return reply(
        context, context.engine.cancel(id, context.admin.force(request), if_match(request)), _cancelled
    )


def _cancelled(context: Context, job: Job) -> Response:
    status = 200 if job.status == CANCELLED else 202
    return Response(status, context.encoder.job(job), etag(job))


def change_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    change = context.produce.change(request, context.engine.wall_now())
    return reply(context, context.engine.change(id, change, if_match(request)), job_reply)


def redrive_job(context: Context, request: Request) -> Response | Deferred:
    id = job_id(request.param)
    context.admin.nothing(request)
    return reply(context, context.engine.redrive(id, if_match(request)), job_reply)


def list_jobs(context: Context, request: Request) -> Response:
    wanted, after, rising, most, payload = context.admin.list_jobs(request)
    jobs, following = context.engine.list_jobs(wanted, after, rising, most)
    shown, following = page(jobs, payload, following)
    return Response(200, context.encoder.listed(shown, payload, following))


def group_jobs(context: Context, request: Request) -> Response | Deferred:
    wanted, by, limit = context.admin.groups(request)
    return reply(context, context.engine.group_jobs(wanted, by, limit), _grouped)


def _grouped(context: Context, found: JobGroups) -> Response:
    return Response(200, encoder.groups(found))


def count_jobs(context: Context, request: Request) -> Response | Deferred:
    return reply(context, context.engine.count_jobs(context.admin.count_jobs(request)), _counted)


def _counted(context: Context, count: int) -> Response:
    return Response(200, encoder.document(Counted(count)))
