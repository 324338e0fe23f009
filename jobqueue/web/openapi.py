"""The OpenAPI 3.1 document, made from the route table, the structs of requests and answers, and the codes of
errors.

`document` makes it once; no request depends on this module otherwise.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from jobqueue.advertised import HEADER
from jobqueue.settings import Settings
from jobqueue.web.http import BYTES, EVENTS, JSON, LINES, PROBLEM, REASONS
from jobqueue.web.openapi_schemas import Json, Schemas, a, in_query, schemas_of
from jobqueue.web.readers.all import Readers
from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.routes import OWNED, ROUTES, Answer, Route
from jobqueue.web.schema import requests
from jobqueue.web.schema.responses import JobView, Queue
from jobqueue.web.schema.schedules import ScheduleView
from jobqueue.web.writers import problems

# What any request may be refused with; `_refusals` has what depends on the route.
_ALWAYS = (400, 403, 408, 413, 415, 431, 500, 503)
_ABOUT = """\
Options go in the body or in the query, whichever is handier; given in both they must agree. The names of \
fields are matched whatever their letter case, and null is the same as leaving an option out. The content \
type of a body is ignored, but for application/x-ndjson, which means a value a line. HEAD works wherever GET \
does. Every refusal is a problem document: an unknown path 404 `no_such_route`, a known path with another \
method 405 `method_not_allowed`."""


def document(readers: Readers, settings: Settings, version: str) -> bytes:
    calls = {call.shape: call for call in readers.limits.decoders}
    answers = [kind for route in ROUTES for kind in _kinds(route.answers.values())]
    schemas = schemas_of(calls, answers)
    paths: dict[str, Json] = {}
    for route in ROUTES:
        call = calls[route.options or route.shape]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, call, schemas, settings.max_batch
        )
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "jobqueue", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [*({name: []} for name in _SCHEMES), {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": _HEADERS_IN,
            "headers": _HEADERS_OUT,
            "securitySchemes": _SCHEMES,
            "responses": {str(status): _refusal(status, codes) for status, codes in problems.codes().items()},
        },
    }
    text = str(whole)
    for unused in [name for name in schemas if str(a(name))[1:-1] not in text]:
        del schemas[unused]
    return msgspec.json.encode(whole) + b"\n"


# -- one call ---------------------------------------------------------------------------------------


def _operation(route: Route, call: "RequestDecoder[Any]", schemas: Schemas, most: int) -> Json:
    name = "root" if route.path == "/" else route.operation.__name__
    first = route.path.split("/")[1]
    operation: Json = {
        "operationId": name,
        "summary": route.summary,
        "tags": [first if first in ("jobs", "queues", "schedules") else "service"],
        "parameters": list(_parameters(route, call, schemas)),
    }
    if route.method in ("POST", "PUT", "PATCH") and route.shape is not requests.NoShape:
        operation["requestBody"] = _body(route, most)
    if route.upload:
        operation["requestBody"] = _LINES_OF_JOBS
    answers = {str(status): _answer(route, status, answer) for status, answer in route.answers.items()}
    refusals = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _refusals(route)}
    operation["responses"] = {**answers, **refusals}
    if name in _SAID:
        operation["description"] = _SAID[name]
    for status in ("200", "201"):
        if name in _LINKS and status in answers:
            answers[status]["links"] = _LINKS[name]
    return operation


def _parameters(route: Route, call: "RequestDecoder[Any]", schemas: Schemas) -> Iterable[Json]:
    if "{id}" in route.path:
        yield {"name": "id", "in": "path", "required": True, "schema": _ID}
    elif "{name}" in route.path:
        of = "ScheduleName" if route.path.startswith("/schedules/") else "QueueName"
        yield {"name": "name", "in": "path", "required": True, "schema": a(of)}
    for name, property in schemas[call.shape.__name__]["properties"].items():
        if call.kinds[name].in_query:
            yield {"name": name, "in": "query", **in_query(property, schemas)}
    # Calls with a 412 read If-Match, calls with a 422 an Idempotency-Key.
    headers = [{"lease": "Job-Lease", "consumer": "Queue-Consumer"}[option] for option in call.headers]
    if 412 in route.refuses:
        headers.append("If-Match")
    if 422 in route.refuses:
        headers += ["Idempotency-Key", "Prefer", "traceparent"]
    for header in (*headers, "X-Request-Id"):
        yield {"$ref": f"#/components/parameters/{header}"}


def _kinds(answers: "Iterable[Answer | tuple[Answer, ...]]") -> list[type[Struct]]:
    each = (kind for answer in answers for kind in (answer if isinstance(answer, tuple) else (answer,)))
    return [kind for kind in each if isinstance(kind, type)]


def _body(route: Route, most: int) -> Json:
    one = a(route.shape.__name__)
    # A body that may be raw is of any type.
    of_any_type = {} if route.options is None else {BYTES: {"schema": _BINARY}}
    if not route.many:
        return {"content": {JSON: {"schema": one}, **of_any_type}}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": most}
    in_json = many if route.many == "only" else {"anyOf": [one, many]}
    lines = {"description": "a value a line", **many}
    return {
        "required": route.many == "only",
        "content": {JSON: {"schema": in_json}, LINES: {"schema": lines}, **of_any_type},
    }


def _answer(route: Route, status: int, answer: "Answer | tuple[Answer, ...]") -> Json:
    headers = ["X-Request-Id"]
    if route.method == "GET":
        headers.append("Cache-Control")
    if {JobView, Queue, ScheduleView}.intersection(_kinds([answer])):
        headers.append("ETag")
    if 201 in route.answers:
        headers.append("Location")
    if 202 in route.answers and 201 in route.answers:
        headers.append("Preference-Applied")
    if answer is None:
        headers = ["X-Request-Id", "Queue-State"]
    if route.path.startswith(OWNED) and answer != LINES:
        headers.append(HEADER)
    is_raw = isinstance(answer, tuple) and BYTES in answer
    if is_raw:
        headers += _OF_RAW
    said: Json = {
        "description": REASONS[status],
        "headers": {header: {"$ref": f"#/components/headers/{header}"} for header in headers},
    }
    parts = answer if isinstance(answer, tuple) else (answer,)
    content: Json = {}
    if schemas := [a(kind.__name__) for kind in _kinds([answer])]:
        if is_raw:
            schemas.append({"description": "with raw=1: the payload, if it is JSON"})
        content[JSON] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    for part in parts:
        if isinstance(part, str) and part != BYTES:
            kind = {"schema": {"type": "object" if part == JSON else "string"}}
            content[part] = {} if part == EVENTS else kind  # a stream of events has no schema
    if is_raw:
        content["*/*"] = {"schema": _BINARY}
    if content:
        said["content"] = content
    return said


def _refusals(route: Route) -> list[int]:
    statuses = {*_ALWAYS, *route.refuses}
    if route.right is not None:
        statuses |= {401, 429}
    if "{" in route.path:
        statuses.add(404)
    if "{id}" in route.path:
        statuses.add(410)
    return sorted(statuses)


def _refusal(status: int, codes: list[str]) -> Json:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == 401:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    if status == 405:
        headers["Allow"] = {"$ref": "#/components/headers/Allow"}
    of_this = {**a("Problem"), "properties": {"code": {"enum": codes}, "status": {"const": status}}}
    return {"description": REASONS[status], "headers": headers, "content": {PROBLEM: {"schema": of_this}}}


_BINARY: Json = {"type": "string", "format": "binary", "description": "with raw=1: bytes of any type"}
_OF_RAW = [
    "Job-Id",
    "Job-Queue",
    "Job-Type",
    "Job-Priority",
    "Job-Attempts",
    "Job-Lease",
    "Job-Lease-For",
    "Job-Lease-Expires-At",
    "Link",
    "X-Content-Type-Options",
    "Content-Security-Policy",
    "Content-Disposition",
]
_LINES_OF_JOBS: Json = {
    "description": "a job a line, as many as there are",
    "content": {
        LINES: {"schema": {"type": "array", "items": a("ImportShape")}},
        JSON: {"schema": a("ImportShape")},
    },
}
_ID: Json = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}


def _header(description: str, **schema: object) -> Json:
    return {"description": description, "schema": {"type": "string", **schema}}


_KEY = r"^[^\u0000-\u001f\u007f]{1,255}$"
_HEADERS_IN: dict[str, Json] = {
    name: {"name": name, "in": "header", **header}
    for name, header in {
        "Job-Lease": _header("the option `lease`", minLength=1, maxLength=64),
        "Queue-Consumer": _header("counts as `consumer` where that is not given", minLength=1, maxLength=128),
        "If-Match": _header("an ETag: 412 if it is another by now", pattern='^(\\*|"[0-9]{1,15}")$'),
        "Idempotency-Key": _header("the same request again makes nothing", pattern=_KEY),
        "traceparent": _header("trace context of W3C: becomes one of the job's headers", maxLength=256),
        "Prefer": _header(
            "wait=30: answers once the job is finished, in at most so many seconds",
            pattern="^wait=[0-9]{1,3}$",
        ),
        "X-Request-Id": _header("comes back in the answer, if it is one: [A-Za-z0-9._-]{1,64}"),
    }.items()
}
_HEADERS_OUT: dict[str, Json] = {
    "X-Request-Id": {
        "required": True,
        **_header("the request's own, or a new one", pattern="^[A-Za-z0-9._-]{1,64}$"),
    },
    "Cache-Control": {"required": True, **_header("answers are of this moment", const="no-store")},
    "ETag": _header("the version of the job or queue; none where many are shown", pattern='^"[0-9]+"$'),
    "Queue-State": {
        "required": True,
        **_header(
            "why there is nothing to take", enum=["empty", "scheduled", "paused", "limited", "stopping"]
        ),
    },
    "Preference-Applied": _header("the wait that was asked for", pattern="^wait=[0-9]+$"),
    HEADER: _header("in a cluster: the URL of another server, which alone has given the answer"),
    "Link": _header("with raw=1: where to conclude, heartbeat, fail and release, the lease in the address"),
    "X-Content-Type-Options": _header("with raw=1", const="nosniff"),
    "Content-Security-Policy": _header("with raw=1", const="sandbox"),
    "Content-Disposition": _header("with raw=1", const="attachment"),
    **{
        name: _header(f"with raw=1: the field {name[4:].lower().replace('-', '_')}, percent-encoded")
        for name in _OF_RAW
        if name.startswith("Job-")
    },
    "Location": _header(
        "of one job or schedule",
        pattern="^(/[A-Za-z0-9._~-]+)*/(jobs/[0-9]+|schedules/[A-Za-z0-9_.:-]+)$",
    ),
    "Retry-After": {"required": True, "description": "in so many seconds", "schema": {"type": "integer"}},
    "Allow": {"required": True, **_header("the methods that there are")},
    "WWW-Authenticate": {"required": True, **_header("how to send an access token")},
}


# For servers with access tokens; others require none.
_SCHEMES: dict[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an access token"},
    "basic": {"type": "http", "scheme": "basic", "description": "an access token, as the password"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "jobqueue",
        "description": "a session of a browser, begun at /login; over TLS the cookie is __Host-jobqueue",
    },
}


_RAW_IN = "With raw=1 the body is the {what}, of the type that Content-Type says. {more}"
_SAID = {
    "enqueue": _RAW_IN.format(what="payload", more="The job's type is then by default its queue's name."),
    "enqueue_to": _RAW_IN.format(what="payload", more="The job's type is then by default its queue's name."),
    "conclude": _RAW_IN.format(what="result", more="With next=1 the answer is that of a dequeue."),
    "fail": _RAW_IN.format(what="error, as text", more="").strip(),
}


# -- what follows an answer -------------------------------------------------------------------------


def _links(body: Json, **names: str) -> Json:
    return {name: {"operationId": target, "parameters": body} for name, target in names.items()}


_OF_JOB = {"path.id": "$response.body#/id"}
_UNDER_LEASE = {**_OF_JOB, "query.lease": "$response.body#/lease"}
# By operation; each link has the parameters of the call that may follow.
_LINKS: dict[str, Json] = {
    "enqueue": {
        **_links(_OF_JOB, get="get_job", cancel="cancel_job", change="change_job"),
        **_links({"query.queue": "$response.body#/queue"}, dequeue="dequeue"),
    },
    "dequeue": {
        **_links(_UNDER_LEASE, conclude="conclude", heartbeat="heartbeat", release="release", fail="fail"),
        **_links(_OF_JOB, get="get_job", cancel="cancel_job"),
    },
    "dequeue_job": _links(
        _UNDER_LEASE, conclude="conclude", heartbeat="heartbeat", release="release", fail="fail"
    ),
    "fail": _links(_OF_JOB, get="get_job", redrive="redrive_job"),
}
