"""The OpenAPI document is complete, and its links work."""

import ast
import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from serving import check_problem

import jobqueue
from jobqueue import MemoryEngine, Settings, errors
from jobqueue.web.dispatch import Dispatcher
from jobqueue.web.routes import ROUTES
from jobqueue.web.schema import requests, schedules
from jobqueue.web.schema.kinds import kind_of
from jobqueue.web.schema.responses import JobView, Problem
from jobqueue.web.writers.problems import STATUS

SETTINGS = Settings(first_id=1, wait_max="7s", lease_max="2h", max_batch=33)
DOCUMENT = json.loads(Dispatcher(MemoryEngine(SETTINGS)).server.document())
SHAPES = [
    shape
    for shape in (*vars(requests).values(), *vars(schedules).values())
    if isinstance(shape, type) and issubclass(shape, requests.Shape)
]
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}  # fmt: skip


def resolve(node):
    """Returns the target of a reference in the document; anything else unchanged."""
    while "$ref" in node:
        found = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = {**found, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def parameters(operation, where):
    found = [resolve(parameter) for parameter in operation["parameters"]]
    return {parameter["name"]: parameter for parameter in found if parameter["in"] == where}


def bodies(operation):
    """Yields the schemas of the objects that a body may be or contain."""
    schemas = [content["schema"] for content in operation.get("requestBody", {}).get("content", {}).values()]
    for schema in schemas:
        schemas += schema.get("anyOf", [])
        if schema.get("type") == "array":
            schemas.append(schema["items"])
    return [resolve(schema) for schema in schemas if "$ref" in schema]


def fields(shape):
    return {field.encode_name: field for field in msgspec.structs.fields(shape)}


# -- nothing is missing -----------------------------------------------------------------------------


def test_the_document_is_valid():
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator is not installed"
    )
    assert [error.message for error in validator.OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_route_is_in_the_document_and_nothing_else():
    assert OPERATIONS.keys() == {(route.method, route.path) for route in ROUTES}
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in OPERATIONS.values())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_field_of_a_call_is_in_the_document(route):
    operation = OPERATIONS[route.method, route.path]
    in_query = {
        name for name, field in fields(route.options or route.shape).items() if kind_of(field.type).in_query
    }
    assert parameters(operation, "query").keys() == in_query
    assert parameters(operation, "path").keys() == set(re.findall(r"{(\w+)}", route.path))
    in_bodies = [set(body["properties"]) for body in bodies(operation)]
    if route.upload:
        assert set(map(frozenset, in_bodies)) == {frozenset(fields(requests.ImportShape))}
    elif route.method in ("POST", "PUT", "PATCH") and fields(route.shape):
        assert in_bodies == [set(fields(route.shape))] * len(in_bodies) != []
        for body in bodies(operation):
            assert body["additionalProperties"] is False
            assert body["required"] == [name for name, field in fields(route.shape).items() if field.required]
    else:
        assert in_bodies == []


def test_every_request_struct_is_in_the_document():
    """A struct appears itself, as the options of a call, or as the base of one that does."""
    shown = [set(schema.get("properties", ())) for schema in DOCUMENT["components"]["schemas"].values()]
    shown += [
        set(parameters(operation, "query")).union(*(body["properties"] for body in bodies(operation)))
        for operation in OPERATIONS.values()
    ]
    missing = [
        shape.__name__ for shape in SHAPES if not any(fields(shape).keys() <= names for names in shown)
    ]
    assert missing == []


def test_every_field_of_a_job_is_in_the_document():
    schema = DOCUMENT["components"]["schemas"]["JobView"]
    assert list(schema["properties"]) == list(JobView.__struct_fields__)
    assert schema["required"] == [
        name for name, field in fields(JobView).items() if msgspec.UnsetType not in get_args(field.type)
    ]


def test_every_code_is_in_the_document_under_its_status():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    answered = {
        (kind.code, next(STATUS[base] for base in kind.__mro__ if base in STATUS))
        for kind in kinds
        if issubclass(kind, errors.JobQueueError) and "code" in vars(kind) and kind is not errors.SettingError
    }
    assert len(answered) >= 29
    responses = DOCUMENT["components"]["responses"]
    by_status = {
        (code, int(status))
        for status, response in responses.items()
        for code in response["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"]
    }
    assert by_status == answered
    codes = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert sorted(codes) == sorted(code for code, _ in answered)


def test_every_fact_of_an_error_is_a_member_of_a_problem():
    """A fact that `Problem` does not declare would be left out of the answer; `allow` is a header only."""
    found = set()
    package = Path(jobqueue.__file__).parent
    for path in {*package.rglob("*.py")} - {*package.glob("client/**/*.py")}:  # it adds facts of its own
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(getattr(errors, name_of(node.func), None), type):
                found |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            elif isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "facts":
                found.add(getattr(node.slice, "value", None))
            elif (
                isinstance(node, ast.Call)
                and getattr(getattr(node.func, "value", None), "attr", "") == "facts"
            ):
                found |= {keyword.arg for keyword in node.keywords}
    found -= {None}
    assert len(found) > 10
    assert found - set(Problem.__struct_fields__) == {"allow", "session"}  # for the headers


def name_of(node):
    return getattr(node, "id", getattr(node, "attr", ""))


def test_every_response_of_the_document_belongs_to_some_call():
    """Unknown paths and wrong methods are no calls: the description names their codes."""
    used = {status for operation in OPERATIONS.values() for status in operation["responses"]}
    assert DOCUMENT["components"]["responses"].keys() - used == {"405"}
    assert "no_such_route" in DOCUMENT["info"]["description"]
    assert "method_not_allowed" in DOCUMENT["info"]["description"]


def test_retry_after_is_documented_as_required():
    for status in ("429", "503"):
        header = resolve(DOCUMENT["components"]["responses"][status]["headers"]["Retry-After"])
        assert header["required"] is True


def test_every_reference_resolves_and_every_schema_is_used():
    text = json.dumps(DOCUMENT)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        assert resolve({"$ref": reference})
    for name in DOCUMENT["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def test_the_limits_of_the_settings_are_in_the_document():
    schemas = DOCUMENT["components"]["schemas"]
    assert (schemas["Wait"]["maximum"], schemas["LeaseFor"]["maximum"]) == (7, 7200)
    many = OPERATIONS["POST", "/jobs/conclude"]["requestBody"]["content"]["application/json"]["schema"]
    assert many["maxItems"] == 33


def test_the_headers_that_a_call_reads_are_in_the_document():
    def headers(method, path):
        return set(parameters(OPERATIONS[method, path], "header")) - {"X-Request-Id"}

    assert headers("POST", "/jobs/enqueue") == {"Idempotency-Key", "Prefer", "traceparent"}
    assert headers("POST", "/jobs/dequeue") == {"Queue-Consumer"}
    assert headers("POST", "/jobs/{id}/dequeue") == {"Queue-Consumer"}
    for verb in ("conclude", "heartbeat", "release", "fail"):
        assert headers("POST", f"/jobs/{{id}}/{verb}") == {"Job-Lease", "Queue-Consumer"}
        assert headers("POST", f"/jobs/{verb}") == {"Job-Lease", "Queue-Consumer"}
    for method, path in (
        ("PATCH", "/jobs/{id}"), ("DELETE", "/jobs/{id}"), ("POST", "/jobs/{id}/redrive"),
        ("PATCH", "/queues/{name}"), ("POST", "/queues/{name}/pause"), ("POST", "/queues/{name}/resume"),
    ):  # fmt: skip
        assert headers(method, path) == {"If-Match"}
        assert "412" in OPERATIONS[method, path]["responses"]


# -- what it says is so -----------------------------------------------------------------------------


async def test_both_fronts_serve_the_document(server):
    answer = await server.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == Dispatcher(MemoryEngine(Settings(first_id=1))).server.document()
    assert (answer.body[-2:], answer.body.count(b"\n")) == (b"}\n", 1)
    check_problem(await server.get("/openapi.json?x=1"), 400, "unknown_field", field="x")


LINKS = [
    (operation["operationId"], status, name)
    for operation in OPERATIONS.values()
    for status, answer in operation["responses"].items()
    for name in answer.get("links", ())
]


@pytest.mark.parametrize(("source", "status", "name"), LINKS)
async def test_every_link_leads_to_a_call_that_succeeds(server, source, status, name):
    by_name = {operation["operationId"]: (key, operation) for key, operation in OPERATIONS.items()}
    link = by_name[source][1]["responses"][status]["links"][name]
    (method, path), _ = by_name[link["operationId"]]
    answer = await answer_of(server, source, int(status))
    query = []
    for parameter, expression in link["parameters"].items():
        value = answer.json[expression.removeprefix("$response.body#/")]
        where, _, field = parameter.partition(".")
        if where == "path":
            path = path.replace(f"{{{field}}}", str(value))
        else:
            query.append(f"{field}={value}")
    path = "?".join([path, *query])
    followed = await server.call(method, path, "{}" if method == "PATCH" else None)
    assert followed.status in (200, 202), followed


async def answer_of(server, source, status):
    """Returns an answer of this status to `enqueue`, `dequeue`, `dequeue_job` or `fail`."""
    job = {"type": "t", "queue": "q", "unique_key": "k"}
    made = await server.post("/jobs/enqueue", job)
    if source == "enqueue":
        answer = made if status == 201 else await server.post("/jobs/enqueue", job)
    else:
        one = f"/jobs/{made.json['id']}/dequeue"
        answer = await server.post(one if source == "dequeue_job" else "/jobs/dequeue?queue=q")
        if source == "fail":
            path = f"/jobs/{answer.json['id']}/fail?lease={answer.json['lease']}&retry=0"
            answer = await server.post(path)
    assert answer.status == status
    return answer


# Calls that read a body of each struct. There is no job, so a body that is accepted is answered with 404.
PATHS = {
    "JobShape": "/jobs/enqueue", "DequeueShape": "/jobs/dequeue", "ConcludeShape": "/jobs/1/conclude",
    "DequeueJobShape": "/jobs/1/dequeue", "HeartbeatShape": "/jobs/1/heartbeat", "ReleaseShape": "/jobs/1/release", "FailShape": "/jobs/1/fail",
    "PurgeShape": "/queues/q/purge", "RedriveShape": "/queues/q/redrive", "PauseShape": "/queues/q/pause",
    "CancelManyShape": "/queues/q/cancel", "MoveShape": "/queues/q/move",
    "ImportShape": "/import", "ChangeShape": "PATCH /jobs/1", "QueueShape": "PATCH /queues/q",
    "StreamShape": "/jobs/stream?for=1ms", "ScheduleShape": "PUT /schedules/s", "GroupShape": "PUT /schedules",
    "PreviewShape": "/schedules/preview", "SchedulePauseShape": "/schedules/s/pause",
}  # fmt: skip
# What is required where these are.
REQUIRED = {
    "JobShape": {"type": "t"}, "ImportShape": {"type": "t"}, "MoveShape": {"to": "other", "all": True},
    "ScheduleShape": {"every": 60, "job": {"type": "t"}}, "PreviewShape": {"every": 60},
    "GroupShape": {"group": "g", "schedules": []}, "ConcludeShape": {"next": True},
}  # fmt: skip


def edges(schema):
    """Yields values at the limits of a schema, each with whether it is allowed."""
    schema = resolve(schema)
    for kind in schema.get("anyOf", ()):
        yield from edges({**schema, **resolve(kind), "anyOf": ()})
    if schema.get("type") in ("integer", "number"):
        for name, step in (("minimum", -1), ("maximum", 1)):
            if (edge := schema.get(name)) is not None and (schema["type"] == "number" or edge == int(edge)):
                yield edge, True
                yield edge + step, False
    elif schema.get("type") == "string" and "maxLength" in schema:
        yield from (("", "minLength" not in schema), ("x", True), ("x" * schema["maxLength"], True))
        yield "x" * (schema["maxLength"] + 1), False
        yield "a\nb", "pattern" not in schema
    elif schema.get("type") == "array" and "maxItems" in schema:
        item = (lambda n: n + 1) if "Duration" in schema["items"].get("$ref", "") else "x{}".format
        yield [], "minItems" not in schema
        yield [item(n) for n in range(schema["maxItems"])], True
        yield [item(n) for n in range(schema["maxItems"] + 1)], False


@pytest.mark.parametrize("server", ["fast"], indirect=True)
@pytest.mark.parametrize("settings", [SETTINGS], ids=[""])
@pytest.mark.parametrize("shape", PATHS)
async def test_the_limits_in_the_document_are_those_of_the_readers(server, shape):
    method, _, path = PATHS[shape].rpartition(" ")
    properties = DOCUMENT["components"]["schemas"][shape]["properties"]
    body = REQUIRED.get(shape, {"all": True} if "all" in properties else {})
    tried = 0
    for name, schema in properties.items():
        for value, allowed in edges(schema):
            if name in ("wait", "for") and value and allowed:
                continue  # by this clock it would never end; or it says in two ways when it is to end
            if name == "history":
                continue  # of objects: `test_moving` has its limit
            if name == "content_type" and set(value) == {"x"}:
                value = value[1:] if allowed else value
                value = f"x/{value[:-1]}" if len(value) > 2 else "x/x"
            answer = await server.call(method or "POST", path, {**body, name: value})
            assert (answer.status != 400) is allowed, (name, value, answer)
            tried += 1
    assert tried


def test_the_limits_of_every_request_struct_are_tested():
    shown = {body["title"] for operation in OPERATIONS.values() for body in bodies(operation)}
    # `ManySchedulesShape` is a part of `GroupShape`.
    without = {name for name in shown if name.endswith("Item")} | {"ManySchedulesShape"}
    assert shown - without == PATHS.keys()
