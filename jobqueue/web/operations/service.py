"""The calls about the server itself: statistics, health, help, workers and the OpenAPI document."""

import time
from typing import Literal

from msgspec import UNSET, UnsetType

from jobqueue.errors import NotReady
from jobqueue.units import instant, seconds
from jobqueue.web.context import Context
from jobqueue.web.http import TEXT, Request, Response
from jobqueue.web.schema import responses
from jobqueue.web.schema.kinds import YEAR_MS
from jobqueue.web.writers import encoder
from jobqueue.web.writers.encoder import known
from jobqueue.web.writers.help_page import help_text
from jobqueue.web.writers.worker_files import worker

# A kind of errors is new for so many milliseconds. So many kinds are shown.
_NEW = 3_600_000
_MOST_ERRORS = 20


def stats(context: Context, request: Request) -> Response:
    """Returns statistics. A caller that may not use all queues does not see what others do."""
    context.admin.nothing(request)
    whole = context.may_use_all
    s = context.engine.stats()
    answer = responses.Stats(
        version=context.server.version,
        started_at=instant(context.server.started_at),
        uptime=round(time.monotonic() - context.server.started, 3),
        durability=context.engine.durability,
        auth=_auth(context),
        jobs=responses.ByStatus(**s.jobs),
        queues=s.queues,
        consumers_waiting=s.consumers_waiting,
        connections=known(context.server.connections()),
        loop=_loop(context),
        ticks=responses.Ticks(s.ticks, round(s.tick_last, 3), round(s.tick_max, 3)),
        idempotency=responses.Idempotency(
            keys=s.idempotency_keys if whole else UNSET, window=s.idempotency_window / 1000
        ),
        new_errors=_new_errors(context),
        memory=responses.Memory(known(s.memory) if whole else UNSET, known(s.memory_limit)),
        limits=_limits(context),
    )
    if whole:
        answer.lanes = responses.Lanes(
            s.lanes, s.slots, s.empty_slots, s.compactions, round(s.compaction_max, 3)
        )
        answer.remembered = responses.Remembered(s.remembered, s.remembered_bytes)
        if s.journal is not None:
            j = s.journal
            answer.journal = responses.Journal(
                j.rows.count, int(j.rows.total), j.pending, j.size, j.full, j.behind, known(j.away)
            )
    return Response(200, encoder.document(answer))


def _new_errors(context: Context) -> list[responses.NewErrorView]:
    engine = context.engine
    return [
        responses.NewErrorView(new.queue, new.type, new.error, instant(new.first_at), new.times)
        for new in engine.new_errors(engine.wall_now() - _NEW, _MOST_ERRORS)
    ]


def cluster(context: Context, request: Request) -> Response:
    """Shows the servers on the database, and who owns the jobs."""
    context.admin.only_format(request)
    members = context.engine.members()
    servers = [
        responses.ServerView(
            member.server,
            member.owner,
            instant(member.started_at),
            seconds(member.age or 0),
            known(member.address),
            UNSET if member.shards is None else member.shards,
        )
        for member in members
    ]
    answer = responses.Cluster(servers)
    for member in members:
        if member.owner and member.before is not None:
            at = instant(member.started_at)
            answer.last_takeover = responses.Takeover(at, member.server, member.before, member.forced)
    return Response(200, encoder.document(answer))


def _loop(context: Context) -> responses.Loop | UnsetType:
    lag = context.server.lag()
    return UNSET if lag is None else responses.Loop(round(lag.last_ms, 3), round(lag.max_ms, 3), lag.stalls)


def _limits(context: Context) -> responses.Limits:
    settings = context.settings
    return responses.Limits(
        max_body=settings.max_body,
        max_result=settings.max_result,
        max_depth=settings.max_depth,
        max_batch=settings.max_batch,
        max_connections=known(context.server.max_connections),
        wait_max=settings.wait_max / 1000,
        lease_max=settings.lease_max / 1000,
        retain=settings.retain / 1000,
        retain_jobs=settings.retain_jobs,
        retain_bytes=settings.retain_bytes,
        max_headers=settings.max_headers,
        max_jobs=known(settings.max_jobs),
        max_queues=settings.max_queues,
        max_schedules=settings.max_schedules,
        max_waiters=settings.max_waiters,
        max_connections_by_address=known(context.server.max_connections_by_address),
        max_delay=YEAR_MS / 1000,
        head_timeout=settings.head_timeout / 1000,
        body_timeout=settings.body_timeout / 1000,
        idle_timeout=settings.idle_timeout / 1000,
        write_timeout=settings.write_timeout / 1000,
        rate=known(settings.rate),
    )


def healthz(context: Context, request: Request) -> Response:
    server = context.server
    health = responses.Health("ok", server.version, context.engine.durability, _auth(context))
    return Response(200, encoder.document(health))


def _auth(context: Context) -> Literal["none", "tokens"]:
    return "none" if not context.server.has_tokens else "tokens"


def readyz(context: Context, request: Request) -> Response:
    if context.engine.stopping:
        raise NotReady("the server is stopping", retry_after=5)
    if context.engine.refuses is not None:
        raise NotReady(context.engine.refuses, retry_after=1)
    return Response(200, encoder.document(responses.Ready("ready")))


def openapi(context: Context, request: Request) -> Response:
    context.admin.nothing(request)
    document = context.server.document()
    if prefix := context.browser_policy.prefix(request):
        document = document.replace(
            b'"servers":[{"url":"/"}]', b'"servers":[{"url":"%b/"}]' % prefix.encode()
        )
    return Response(200, document)


def worker_sh(context: Context, request: Request) -> Response:
    return _worker(context, request, "worker.sh")


def worker_py(context: Context, request: Request) -> Response:
    return _worker(context, request, "worker.py")


def _worker(context: Context, request: Request, name: str) -> Response:
    context.admin.nothing(request)
    scheme, host = context.browser_policy.address(request)
    text = worker(name, scheme, host, context.server.version)
    return Response(200, text, b"", TEXT)


def help_page(context: Context, request: Request) -> Response:
    in_memory = context.engine.durability == "memory"
    scheme, host = context.browser_policy.address(request)
    text = help_text(
        scheme,
        host,
        context.server.version,
        seconds(context.settings.lease),
        in_memory,
        context.server.has_tokens,
    )
    return Response(200, text, b"", TEXT)
