"""Several jobs that were selected in a list, and one action on each of them."""

from collections.abc import Callable, Mapping
from functools import partial

from jobqueue.engine.api import EngineView, MaybeFuture
from jobqueue.errors import InvalidField, JobQueueError
from jobqueue.model import Change, Job
from jobqueue.web.context import Context
from jobqueue.web.dashboard.finding import redirect
from jobqueue.web.dashboard.form_calls import back_of, form_pairs
from jobqueue.web.http import HTML, Deferred, Request, Response
from jobqueue.web.operations.replies import job_id, reply
from jobqueue.web.operations.viewers import view as view_of
from jobqueue.web.writers.html_pages import selected_page
from jobqueue.web.writers.page_layout import HEADERS

_Verb = Callable[[EngineView, int], MaybeFuture[Job]]


def _run_now(engine: EngineView, id: int) -> MaybeFuture[Job]:
    return engine.change(id, Change(delay=None))


def _redrive(engine: EngineView, id: int) -> MaybeFuture[Job]:
    return engine.redrive(id)


def _cancel(engine: EngineView, id: int) -> MaybeFuture[Job]:
    return engine.cancel(id)


_VERBS: Mapping[str, _Verb] = {"redrive": _redrive, "run_now": _run_now, "cancel": _cancel}


def change_selected(context: Context, request: Request) -> Response | Deferred:
    """Does with each job what the calls for one job do: `POST /jobs/ID/redrive`, `PATCH /jobs/ID` with no
    delay, `DELETE /jobs/ID`. A job that refuses keeps no other one from it. Raises `InvalidField`."""
    pairs = form_pairs(request)
    own = {name: value for name, value in pairs if name.startswith("_")}
    ids = list(dict.fromkeys(job_id(value) for name, value in pairs if name == "id"))
    verb = _VERBS.get(own.get("_verb", ""))
    if verb is None:
        raise InvalidField(f"_verb: one of {', '.join(_VERBS)}", field="_verb")
    if not ids:
        raise InvalidField("no job is selected", field="id")
    if len(ids) > context.settings.max_batch:
        raise InvalidField(f"at most {context.settings.max_batch:,} jobs at once", field="id")
    back = back_of(own)

    def answer(context: Context, results: list[Job | JobQueueError]) -> Response:
        view = view_of(context, request)
        failed = [
            (id, why.detail) for id, why in zip(ids, results, strict=True) if isinstance(why, JobQueueError)
        ]
        if not failed:
            return redirect(f"{view.up}{back}#done")
        return Response(200, selected_page(view, len(ids), failed, back), HEADERS, HTML)

    return reply(context, context.engine.each([partial(verb, context.engine, id) for id in ids]), answer)
