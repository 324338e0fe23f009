"""Hooks that teach schemathesis what the document cannot express: how values one a line are written, that an option
in two places must be equal in both, and that some options exclude or require each other. Without them nearly
every generated request would be a 400."""

import json

import schemathesis

EITHER = [("delay", "run_at"), ("queue", "queues")]
OF_THE_NEXT = ("queues", "queue", "wait", "lease_for")
# Without `for` these responses do not end.
ENDLESS = ("/events", "/top", "/jobs/stream")
NEEDS = [("unique_while", "unique_key"), ("on_conflict", "unique_key")]


@schemathesis.serializer("application/x-ndjson")
def a_line_each(context, value):
    values = value if isinstance(value, list) else [value]
    return "".join(json.dumps(one) + "\n" for one in values).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path in ENDLESS:
        case.query = {**(case.query or {}), "for": "20ms"}
        if isinstance(case.body, dict):
            case.body = {name: value for name, value in case.body.items() if name != "for"}
    elif (case.query or {}).get("format") == "events":
        case.query = {**case.query, "for": "20ms"}
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    query = case.query = dict(case.query or {})
    headers = case.headers
    if isinstance(case.body, list):
        case.body = [dict(one) if isinstance(one, dict) else one for one in case.body]
    elif isinstance(case.body, dict):
        case.body = dict(case.body)
    bodies = [
        one for one in (case.body if isinstance(case.body, list) else [case.body]) if isinstance(one, dict)
    ]
    if "lease" in query:
        headers.pop("Job-Lease", None)
    if "/conclude" in case.path:
        if not query.get("next") and not (isinstance(case.body, dict) and case.body.get("next")):
            for name in OF_THE_NEXT:
                query.pop(name, None)
                if isinstance(case.body, dict):
                    case.body.pop(name, None)
        else:
            query.pop("raw", None)  # the response is the payload, which may be anything
    if "Idempotency-Key" in headers:
        query.pop("atomic", None)
    for body in bodies or [{}]:
        if "Job-Lease" in headers:
            body.pop("lease", None)
        for name in query:
            body.pop(name, None)
        for one, other in EITHER:
            if one in query or one in body:
                query.pop(other, None)
                body.pop(other, None)
        for name, needed in NEEDS:
            if needed not in query and needed not in body:
                query.pop(name, None)
                body.pop(name, None)
