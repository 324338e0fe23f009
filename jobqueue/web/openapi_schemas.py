"""Structs as schemas of the OpenAPI document (JSON Schema 2020-12), from msgspec and the kinds of fields."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from jobqueue.web.readers.decoder import RequestDecoder
from jobqueue.web.schema import requests, schedules
from jobqueue.web.schema.kinds import kind_of
from jobqueue.web.schema.responses import AttemptView, JobView, Problem
from jobqueue.web.writers import problems

Json = dict[str, Any]
Schemas = dict[str, Json]
_AT = "#/components/schemas/"
_IN_QUERY = "InQuery"
_IGNORED = "the queue sets it: ignored, so that a fetched job can be enqueued again"
# Types whose schema has a title and is no struct.
_VALUES = (
    "Duration", "PositiveDuration", "LeaseFor", "RunFor", "Wait", "Age", "Batch", "Every", "Jitter",
    "Instant", "QueueName", "ScheduleName",
)  # fmt: skip


def a(name: str) -> Json:
    """Returns a reference to a schema, or to that of a struct."""
    return {"$ref": _AT + name}


def schemas_of(calls: "Mapping[Any, RequestDecoder[Any]]", answers: list[type[Struct]]) -> Schemas:
    """Returns all schemas by name: of requests, of answers, and of values with a name of their own."""
    declared = (*vars(requests).values(), *vars(schedules).values())
    shapes = {
        kind.__name__: kind
        for kind in declared
        if isinstance(kind, type) and issubclass(kind, requests.Shape)
    }
    taken = {*calls, requests.JobShape, requests.ConcludeShape, requests.FailShape, requests.ErrorShape}
    structs = [*map(_without_raw_defaults, taken), *answers, Problem]
    found = msgspec.json.schema_components(structs, ref_template=_AT + "{name}")[1]
    schemas: Schemas = {}
    for name, schema in sorted(found.items()):
        schemas[name] = _with_names(schema, schemas)
        types = (
            {f.encode_name: f.type for f in msgspec.structs.fields(shapes[name])} if name in shapes else {}
        )
        for field, property in schemas[name]["properties"].items():
            if field in types and "$ref" not in property:
                property["description"] = kind_of(types[field]).expects
            elif field.endswith("_at"):
                property["format"] = "date-time"
    for view in (JobView, AttemptView):
        fields = msgspec.structs.fields(view)
        schemas[view.__name__]["required"] = [f.name for f in fields if UnsetType not in get_args(f.type)]
    ignored = sorted(calls[requests.EnqueueOptions].ignored - set(schemas["JobShape"]["properties"]))
    schemas["JobShape"]["patternProperties"] = {f"^({'|'.join(ignored)})$": {"description": _IGNORED}}
    schemas["Problem"]["properties"]["code"]["enum"] = [*chain(*problems.codes().values())]
    for kind in chain.from_iterable(call.kinds.values() for call in calls.values()):
        for name in (kind.schema.get("title", ""), kind.schema.get("title", "") + _IN_QUERY):
            if name in schemas and "maximum" in kind.schema:  # that of the settings, if one of them limits it
                schemas[name]["maximum"] = kind.schema["maximum"]
    return schemas


def _without_raw_defaults(struct: type[Struct]) -> type[Struct]:
    """Drops defaults that are undecoded JSON, which msgspec cannot write."""
    declared = msgspec.structs.fields(struct)
    if not any(isinstance(field.default, Raw) for field in declared):
        return struct
    fields = []
    for field in declared:
        default = UNSET if isinstance(field.default, Raw) else field.default
        fields.append((field.name, field.type, msgspec.field(default=default, name=field.encode_name)))
    made = msgspec.defstruct(struct.__name__, fields, kw_only=True, forbid_unknown_fields=True)
    made.__doc__ = struct.__doc__
    return made


def _with_names(schema: Any, named: Schemas) -> Any:
    """Replaces schemas with a name by references, and adds them to `named`."""
    if isinstance(schema, list):
        return [_with_names(part, named) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _with_names(part, named) for key, part in schema.items()}
    title = schema.get("title")
    if title not in _VALUES:
        return schema
    default = {"default": schema.pop("default")} if "default" in schema else {}
    named[title] = schema
    if {"type": "number"} in schema.get("anyOf", ()):
        # As text, a number that is not whole has no exponent: the pattern says it.
        named[title + _IN_QUERY] = {**schema, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    return {**a(title), **default}


def in_query(property: Json, known: Schemas) -> Json:
    """Returns the schema of a field in a query, where all is text: no null, no objects, lists with commas."""
    kinds = [kind for kind in property.get("anyOf", [property]) if kind.get("type") != "null"]
    kinds = [_as_text(kind, known) for kind in kinds if not kind.get("$ref", "").endswith("Shape")]
    lists = [kind for kind in kinds if kind.get("type") == "array"]
    schema = lists[0] if lists else kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if property.get("default") is not None:
        schema["default"] = property["default"]
    how = {"style": "form", "explode": False} if lists else {}
    return {**how, "schema": schema}


def _as_text(schema: Json, known: Schemas) -> Json:
    if "items" in schema:
        return {**schema, "items": _as_text(schema["items"], known)}
    text = schema.get("$ref", "") + _IN_QUERY
    return {**schema, "$ref": text} if text.removeprefix(_AT) in known else dict(schema)
