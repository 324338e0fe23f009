"""The calls that show who may administer, and who did: access tokens and the audit log.

A token for certain queues sees itself only, and its own calls.
"""

import time
from bisect import bisect_right
from itertools import islice
from typing import Any

from msgspec import UNSET

from jobqueue.units import instant
from jobqueue.web.access.audit import Entry
from jobqueue.web.access.identity import Principal
from jobqueue.web.context import Context
from jobqueue.web.http import Deferred, Request, Response
from jobqueue.web.operations.negotiation import dressed, format_for
from jobqueue.web.schema import responses
from jobqueue.web.writers import administration_pages, text_tables
from jobqueue.web.writers.encoder import document, known


def list_tokens(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    limit, cursor = context.admin.tokens(request)
    seen = context.server.tokens() if context.may_use_all else filter(None, [context.caller])
    callers = sorted(seen, key=lambda caller: caller.name)
    first = 0 if cursor is None else bisect_right(callers, cursor, key=lambda caller: caller.name)
    shown = [_token(context, caller) for caller in callers[first : first + limit]]
    following = shown[-1].name if first + limit < len(callers) else None
    answer = Response(200, document(responses.Tokens(shown, known(following))))
    return dressed(context, request, face, answer, text_tables.tokens, administration_pages.tokens)


def list_audit(context: Context, request: Request) -> Response | Deferred:
    face = format_for(context, request, live=False)
    limit = context.admin.audit(request)
    log = context.server.audit
    who = None if context.may_use_all or context.caller is None else context.caller.name
    calls = [_call(entry) for entry in islice(log.latest(who), limit)]
    since, total = instant(context.server.started_at), log.total if who is None else UNSET
    answer = Response(200, document(responses.AuditView(since, total, calls)))
    return dressed(context, request, face, answer, text_tables.audit, administration_pages.audit)


def _token(context: Context, caller: Principal[Any]) -> responses.TokenView:
    token, now = caller.token, context.engine.wall_now()
    shown = responses.TokenView(
        name=token.name,
        rights=token.rights,
        queues=known(token.queues),
        sqs=token.sqs_secret is not None,
        expired=token.expires_at is not None and now >= token.expires_at,
    )
    if token.expires_at is not None:
        shown.expires_at = instant(token.expires_at)
    if caller.last_used is not None:
        shown.last_used_at = instant(now - round((time.monotonic() - caller.last_used) * 1000))
    return shown


def _call(entry: Entry) -> responses.AuditedCall:
    return responses.AuditedCall(
        at=instant(entry.at),
        who=entry.who or UNSET,
        method=entry.method,
        path=entry.path,
        status=entry.status,
        changed=known(entry.changed),
        peer=entry.peer or UNSET,
        request_id=entry.request_id,
    )
