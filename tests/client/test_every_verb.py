"""The client has a verb for every route, and a place for every field of the API."""

from functools import partial

import msgspec
import pytest

from jobqueue.client import encoding, models
from jobqueue.client.job_verbs import JobVerbs
from jobqueue.client.queue_verbs import QueueVerbs
from jobqueue.client.schedule_verbs import ScheduleVerbs
from jobqueue.client.server_verbs import ServerVerbs
from jobqueue.client.verbs import _Descriptor
from jobqueue.errors import JobQueueError
from jobqueue.steps import STATUSES
from jobqueue.web.routes import ROUTES, Router
from jobqueue.web.schema import requests, responses, schedules

GROUPS = {"jobs": JobVerbs, "queues": QueueVerbs, "schedules": ScheduleVerbs, "server": ServerVerbs}
# What each verb is called with.
CALLS = {
    "jobs.enqueue": ("x",),
    "jobs.enqueue_many": ([{"type": "x"}],),
    "jobs.enqueue_each": ([{"type": "x"}],),
    "jobs.dequeue": (),
    "jobs.dequeue_many": {"count": 2},
    "jobs.dequeue_job": (7,),
    "jobs.conclude": {"job": models.Job(7, lease="l")},
    "jobs.conclude_and_next": {"job": models.Job(7, lease="l")},
    "jobs.heartbeat": {"job": models.Job(7, lease="l")},
    "jobs.release": {"job": models.Job(7, lease="l")},
    "jobs.fail": {"job": models.Job(7, lease="l")},
    "jobs.conclude_many": ([encoding.Conclude(7, "l")],),
    "jobs.heartbeat_many": ([encoding.Heartbeat(7, "l")],),
    "jobs.release_many": ([encoding.Release(7, "l")],),
    "jobs.fail_many": ([encoding.Fail(7, "l")],),
    "jobs.stream": (),
    "jobs.get": (7,),
    "jobs.explain": (7,),
    "jobs.list": (),
    "jobs.iterate": (),
    "jobs.count": (),
    "jobs.groups": (),
    "jobs.change": (7,),
    "jobs.cancel": (7,),
    "jobs.redrive": (7,),
    "queues.list": (),
    "queues.iterate": (),
    "queues.get": ("mail",),
    "queues.peek": ("mail",),
    "queues.series": ("mail",),
    "queues.consumers": (),
    "queues.change": ("mail",),
    "queues.pause": ("mail",),
    "queues.resume": ("mail",),
    "queues.purge": ("mail",),
    "queues.redrive": ("mail",),
    "queues.cancel": ("mail",),
    "queues.run_now": ("mail",),
    "queues.move": ("mail", "post"),
    "queues.export": ("mail",),
    "queues.import_jobs": ([b"{}"],),
    "schedules.put": ("report", "t"),
    "schedules.put_group": ("shop", []),
    "schedules.import_many": ([{"name": "a", "job": "t"}],),
    "schedules.get": ("report",),
    "schedules.list": (),
    "schedules.iterate": (),
    "schedules.history": ("report",),
    "schedules.explain": ("report",),
    "schedules.preview": ("* * * * *",),
    "schedules.run": ("report",),
    "schedules.pause": ("report",),
    "schedules.resume": ("report",),
    "schedules.delete": ("report",),
    "server.health": (),
    "server.ready": (),
    "server.cluster": (),
    "server.tokens": (),
    "server.audit": (),
    "server.stats": (),
    "server.metrics": (),
    "server.openapi": (),
    "server.help": (),
    "server.worker_sh": (),
    "server.worker_py": (),
    "server.events": (),
    "server.top": (),
    "server.request": ("GET", "/help"),
}
# Routes that do what another one does, for which the client has a verb.
SAME = {
    ("POST", "/queues/{name}/enqueue"): "jobs.enqueue takes queue",
    ("POST", "/queues/{name}/dequeue"): "jobs.dequeue takes queues",
    ("PUT", "/import"): "POST /import",
    ("GET", "/"): "GET /help",
}


class Recorder:
    """A runner whose methods return the first call that a verb makes."""

    def verb(self, make):
        return partial(make)

    stream = verb

    def steps(self, make):
        return lambda *given, **options: next(make(*given, **options))

    def pages(self, make):
        return lambda *given, **options: make(*given, **options)(None)


def verbs():
    return {
        f"{group}.{name}"
        for group, kind in GROUPS.items()
        for name, value in vars(kind).items()
        if isinstance(value, _Descriptor)
    }


def call(name):
    group, _, verb = name.partition(".")
    given = CALLS[name]
    bound = getattr(GROUPS[group](Recorder()), verb)
    return bound(**given) if isinstance(given, dict) else bound(*given)


def test_every_verb_is_called_here():
    assert verbs() == CALLS.keys()


def test_every_route_has_a_verb():
    router = Router()
    reached = set()
    for name in CALLS:
        made = call(name)
        route, _ = router.find(made.method, made.target.partition("?")[0])
        reached.add((route.method, route.path))
    assert reached | SAME.keys() == {(route.method, route.path) for route in ROUTES}
    assert not reached & SAME.keys()


def test_only_calls_that_may_be_doubled_are_repeated():
    """What a second one would change: enqueues, takes, and counts of what it did."""
    once = {name for name in CALLS if not getattr(call(name), "safe", True)}
    assert once == {
        "jobs.enqueue", "jobs.enqueue_each", "jobs.dequeue", "jobs.dequeue_many", "jobs.dequeue_job",
        "jobs.redrive",
        "queues.purge", "queues.redrive", "queues.cancel", "queues.run_now", "queues.move", "queues.import_jobs",
        "schedules.run", "schedules.delete",
    }  # fmt: skip


def test_the_end_of_a_lease_is_not_repeated_without_a_proof_of_it():
    """The server would not know that the second one is the same call, and answer 409."""
    verbs = JobVerbs(Recorder())
    for name in ("conclude", "conclude_and_next", "release", "fail"):
        assert not getattr(verbs, name)(7).safe
        assert getattr(verbs, name)(7, lease="l").safe
        assert getattr(verbs, name)(7, consumer="me").safe
    assert verbs.heartbeat(7).safe
    items = [encoding.Release(7, "l"), encoding.Release(8)]
    assert not verbs.release_many(items).safe
    assert verbs.release_many(items[:1]).safe


def test_every_verb_has_a_contract():
    for name in CALLS:
        group, _, verb = name.partition(".")
        assert getattr(GROUPS[group](Recorder()), verb).__doc__.strip(), name


def names_of(struct):
    return {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("options", "shape", "elsewhere"),
    [
        (encoding.JobOptions, requests.JobShape, {"type", "payload", "payload_encoding"}),
        (encoding.JobChanges, requests.ChangeShape, set()),
        (encoding.QueueChanges, requests.QueueShape, set()),
        (encoding.ScheduleOptions, schedules.ScheduleShape, {"name", "job"}),
        (encoding.Filters, requests.FilterShape, set()),
        (encoding.Backoff, requests.BackoffShape, set()),
        (encoding.RateOptions, requests.RateShape, set()),
        (encoding.KeyLimitOptions, requests.KeyLimitsShape, set()),
    ],
)
def test_the_options_are_those_of_the_server(options, shape, elsewhere):
    assert set(options.__annotations__) == names_of(shape) - elsewhere


@pytest.mark.parametrize(
    ("item", "shape"),
    [
        (encoding.Conclude, requests.ConcludeItem),
        (encoding.Heartbeat, requests.HeartbeatItem),
        (encoding.Release, requests.ReleaseItem),
        (encoding.Fail, requests.FailItem),
    ],
)
def test_the_items_of_calls_for_many_are_those_of_the_server(item, shape):
    assert names_of(item) == names_of(shape)


@pytest.mark.parametrize(
    ("shown", "view"),
    [
        (models.Job, responses.JobView),
        (models.Attempt, responses.AttemptView),
        (models.Queue, responses.Queue),
        (models.QueueSettings, responses.QueueSettingsView),
        (models.Rate, responses.RateView),
        (models.KeyLimits, responses.KeyLimitsView),
        (models.Pause, responses.PauseView),
        (models.ByStatus, responses.ByStatus),
        (models.Totals, responses.Totals),
        (models.Rates, responses.Rates),
        (models.Stats, responses.Stats),
        (models.Token, responses.TokenView),
        (models.TokenPage, responses.Tokens),
        (models.AuditedCall, responses.AuditedCall),
        (models.Audit, responses.AuditView),
        (models.Health, responses.Health),
        (models.Ready, responses.Ready),
        (models.Explanation, responses.Explained),
        (models.Reason, responses.ReasonView),
        (models.Consumers, responses.ConsumersView),
        (models.Series, responses.Series),
        (models.Holder, responses.ConsumerView),
        (models.HeldJob, responses.HeldJob),
        (models.WaitingConsumer, responses.WaitingView),
        (models.JobGroups, responses.Groups),
        (models.JobGroup, responses.GroupView),
        (models.BulkResult, responses.BulkResult),
        (models.Imported, responses.Imported),
        (models.Outcome, responses.Result),
        (models.JobPage, responses.JobPage),
        (models.QueuePage, responses.Queues),
        (models.JobError, requests.ErrorShape),
        (models.Schedule, schedules.ScheduleView),
        (models.ScheduledJob, schedules.ScheduledJobView),
        (models.Firing, schedules.FiringView),
        (models.SchedulePause, schedules.SchedulePauseView),
        (models.SchedulePage, schedules.SchedulePage),
        (models.ScheduleHistory, schedules.ScheduleHistory),
        (models.ScheduleExplanation, schedules.ScheduleExplained),
        (models.SchedulePreview, schedules.SchedulePreview),
        (models.ScheduleChanges, schedules.ScheduleChanges),
    ],
)
def test_the_structs_have_every_field_of_an_answer(shown, view):
    assert names_of(shown) - {"etag"} == names_of(view) - {"etag"}


def test_the_statuses_are_those_of_the_server():
    assert set(models.Status.__args__) == set(STATUSES)


def test_every_refusal_of_the_server_has_its_class():
    from jobqueue.client.errors import error_of
    from jobqueue.web.writers.problems import codes

    for status, names in codes().items():
        for name in names:
            error = error_of({"code": name, "status": status, "detail": "d", "request_id": "r", "limit": 5})
            assert (error.code, error.status, error.request_id, error.detail) == (name, status, "r", "d")
            assert error.facts["limit"] == 5
            assert name == "internal" or type(error) is not JobQueueError


def test_a_refusal_of_a_newer_server_keeps_its_code():
    from jobqueue.client.errors import error_of

    error = error_of({"code": "too_shiny", "status": 418, "detail": "d"})
    assert (type(error), error.code, error.status) == (JobQueueError, "too_shiny", 418)
