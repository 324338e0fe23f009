"""The calls about the server itself: statistics, health, help, workers and the OpenAPI document."""

import time

from jobqueue.errors import NotReady
from jobqueue.units import instant, seconds
from jobqueue.web.context import Context
from jobqueue.web.http import TEXT, Request, Response
from jobqueue.web.readers.fields import YEAR_MS
from jobqueue.web.writers import encoder
from jobqueue.web.writers.help_page import help_text
from jobqueue.web.writers.worker_files import worker


def stats(context: Context, request: Request) -> Response:
    """Returns statistics. A caller that may not use all queues does not see what others do."""
    context.admin.nothing(request)
    whole = context.may_use_all
    s = context.engine.stats()
    settings = context.settings
    lag = context.server.lag()
    return Response(200, encoder.document(_known({
        "version": context.server.version,
        "started_at": instant(context.server.started_at),
        "uptime": round(time.monotonic() - context.server.started, 3),
        "durability": context.engine.durability,
        "auth": _auth(context),
        "jobs": s.jobs,
        "queues": s.queues,
        "consumers_waiting": s.consumers_waiting,
        "connections": context.server.connections(),
        "loop": None if lag is None else {
            "lag_ms": round(lag.last_ms, 3), "lag_max_ms": round(lag.max_ms, 3), "stalls": lag.stalls,
        },
        "ticks": {"count": s.ticks, "last_ms": round(s.tick_last, 3), "max_ms": round(s.tick_max, 3)},
        "lanes": None if not whole else {
            "count": s.lanes, "slots": s.slots, "empty": s.empty_slots, "compactions": s.compactions,
            "compaction_max_ms": round(s.compaction_max, 3),
        },
        "remembered": {"jobs": s.remembered, "bytes": s.remembered_bytes} if whole else None,
        "idempotency": _known({
            "keys": s.idempotency_keys if whole else None, "window": s.idempotency_window / 1000,
        }),
        "journal": None if s.journal is None or not whole else {
            "commits": s.journal.rows.count, "rows": int(s.journal.rows.total), "pending": s.journal.pending,
            "bytes": s.journal.size, "full": s.journal.full,
        },
        "memory": _known({"rss_bytes": s.memory if whole else None, "limit_bytes": s.memory_limit}),
        "limits": _known({
            "max_body": settings.max_body, "max_result": settings.max_result,
            "max_depth": settings.max_depth, "max_batch": settings.max_batch,
            "max_connections": context.server.max_connections, "wait_max": settings.wait_max / 1000,
            "lease_max": settings.lease_max / 1000, "retain": settings.retain / 1000,
            "retain_jobs": settings.retain_jobs, "retain_bytes": settings.retain_bytes,
            "max_headers": settings.max_headers, "max_jobs": settings.max_jobs,
            "max_queues": settings.max_queues, "max_waiters": settings.max_waiters,
            "max_connections_by_address": context.server.max_connections_by_address,
            "max_delay": YEAR_MS / 1000,
            "head_timeout": settings.head_timeout / 1000, "body_timeout": settings.body_timeout / 1000,
            "idle_timeout": settings.idle_timeout / 1000, "write_timeout": settings.write_timeout / 1000,
            "rate": settings.rate,
        }),
    })))  # fmt: skip


def _known(members: dict[str, object]) -> dict[str, object]:
    """Drops members without a value."""
    return {name: value for name, value in members.items() if value is not None}


def healthz(context: Context, request: Request) -> Response:
    return Response(200, encoder.document(
        {
            "status": "ok",
            "version": context.server.version,
            "durability": context.engine.durability,
            "auth": _auth(context),
        }
    ))  # fmt: skip


def _auth(context: Context) -> str:
    return "none" if not context.server.has_tokens else "tokens"


def readyz(context: Context, request: Request) -> Response:
    if context.engine.stopping:
        raise NotReady("the server is stopping", retry_after=5)
    if context.engine.refuses is not None:
        raise NotReady(context.engine.refuses, retry_after=1)
    return Response(200, encoder.document({"status": "ready"}))


def openapi(context: Context, request: Request) -> Response:
    context.admin.nothing(request)
    return Response(200, context.server.document())


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
