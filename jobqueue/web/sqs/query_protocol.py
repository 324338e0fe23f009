"""The query protocol: a form or a query with `Action=ACTION`, answered with XML, as older SDKs speak it.

A list is `Name.1`, `Name.2`, …; the members of an object follow after another dot. The names of lists are
those of one of their items. Parameters and results are turned from and to the shapes of the JSON protocol.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import msgspec

from jobqueue.web.http import Response
from jobqueue.web.sqs.errors import INVALID_PARAMETER, MALFORMED_QUERY, SqsError, kind_of

T = TypeVar("T")
_NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"
_TYPE = "text/xml"
_MOST_FIELDS = 10_000
# The most dots in the name of a field that mean something; no parameter has as many.
_DEEPEST = 8
# Lists, by the name of an item in a request.
_LISTS = {
    "AttributeName": "AttributeNames",
    "MessageAttributeName": "MessageAttributeNames",
    "MessageSystemAttributeName": "MessageSystemAttributeNames",
    "TagKey": "TagKeys",
    "ActionName": "Actions",
    "AWSAccountId": "AWSAccountIds",
    "SendMessageBatchRequestEntry": "Entries",
    "DeleteMessageBatchRequestEntry": "Entries",
    "ChangeMessageVisibilityBatchRequestEntry": "Entries",
}
_NAMES_OF_LISTS = frozenset(_LISTS.values())
# Maps, by the name of an item: the name of the map, of its key and of its value.
_MAPS = {
    "Attribute": ("Attributes", "Name", "Value"),
    "MessageAttribute": ("MessageAttributes", "Name", "Value"),
    "MessageSystemAttribute": ("MessageSystemAttributes", "Name", "Value"),
    "Tag": ("Tags", "Key", "Value"),
}
_ITEM_OF_MAP: Final = {names[0]: (item, *names[1:]) for item, names in _MAPS.items()}
_ITEM_OF_LIST: Final = {
    "QueueUrls": "QueueUrl",
    "queueUrls": "QueueUrl",
    "Messages": "Message",
    "Failed": "BatchResultErrorEntry",
    "Results": "ListMessageMoveTasksResultEntry",
}


class QueryProtocol:
    """Reads parameters from a form or a query, and answers with XML."""

    no_queue = "The specified queue does not exist for this wsdl version."

    def read(self, body: bytes, shape: type[T]) -> T:
        try:
            return msgspec.convert(parameters(fields(body)), shape, strict=False)
        except msgspec.ValidationError as bad:
            raise SqsError(INVALID_PARAMETER, f"The request is not what the action takes: {bad}") from None

    def answer(self, action: str, result: dict[str, Any] | None, request_id: str) -> Response:
        parts = ["<?xml version='1.0' encoding='utf-8'?>\n", f'<{action}Response xmlns="{_NAMESPACE}">']
        if result is not None:
            parts.append(f"<{action}Result>")
            _write_members(parts, result, f"{action}ResultEntry")
            if result:
                parts.append(f"</{action}Result>")
            else:
                parts[-1] = f"<{action}Result/>"
        parts.append(
            f"<ResponseMetadata><RequestId>{escape(request_id)}</RequestId></ResponseMetadata></{action}Response>"
        )
        return _response(200, parts, request_id)

    def refuse(self, error: Exception, message: str, request_id: str) -> Response:
        kind = kind_of(error)
        parts = [
            f"<?xml version='1.0' encoding='utf-8'?>\n<ErrorResponse xmlns=\"{_NAMESPACE}\"><Error>"
            f"<Type>{kind.fault}</Type><Code>{kind.code}</Code><Message>{_text(message)}</Message><Detail/></Error>"
            f"<RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
        ]
        return _response(kind.status, parts, request_id)


def _response(status: int, parts: list[str], request_id: str) -> Response:
    headers = f"\r\nx-amzn-RequestId: {request_id}".encode("latin-1")
    return Response(status, "".join(parts).encode(), headers, _TYPE)


# -- requests --------------------------------------------------------------------------------------


def fields(text: bytes) -> dict[str, str]:
    """Returns the fields of a form or a query; of several with one name the last. Raises `SqsError`."""
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise SqsError(MALFORMED_QUERY, "The query string is malformed, or is no UTF-8.") from None
    return dict(pairs)


def parameters(flat: Mapping[str, str]) -> dict[str, Any]:
    """Returns the parameters of flat fields in the shape of the JSON protocol."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        node = tree
        *path, last = name.split(".", _DEEPEST)
        for part in path:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                raise SqsError(INVALID_PARAMETER, f"The parameter {name[:100]} is given in two ways.")
            node = below
        node[last] = value
    return _shaped(tree)


def _shaped(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _MAPS and isinstance(value, dict):
            whole, key, member = _MAPS[name]
            items = [item for item in _items(value) if isinstance(item, dict)]
            if any(isinstance(item.get(key), dict) for item in items):
                raise SqsError(INVALID_PARAMETER, f"{key} of {name} must be a text.")
            found[whole] = {item.get(key, ""): item.get(member, "") for item in items}
        elif name in _LISTS:
            found[_LISTS[name]] = [
                _shaped(item) if isinstance(item, dict) else item
                for item in (_items(value) if isinstance(value, dict) else [value])
            ]
        elif name in _NAMES_OF_LISTS and value == "":  # how botocore sends a list without items
            found[name] = []
        else:
            found[name] = value
    return found


def _items(numbered: dict[str, Any]) -> list[Any]:
    """Returns the items of a list in the order of their numbers. One without a number is the only one."""
    if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbered):
        return [numbered]
    return [numbered[number] for number in sorted(numbered, key=int)]


# -- answers ---------------------------------------------------------------------------------------


def _write_members(parts: list[str], members: Mapping[str, Any], entry: str) -> None:
    for name, value in members.items():
        if value is None:
            continue
        if isinstance(value, dict) and name in _ITEM_OF_MAP:
            item, key, member = _ITEM_OF_MAP[name]
            for each, content in value.items():
                parts.append(f"<{item}><{key}>{_text(each)}</{key}>")
                _write(parts, member, content, entry)
                parts.append(f"</{item}>")
        elif isinstance(value, list):
            for content in value:
                _write(parts, _ITEM_OF_LIST.get(name, entry), content, entry)
        else:
            _write(parts, name, value, entry)


def _write(parts: list[str], name: str, value: Any, entry: str) -> None:
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value, builtin_types=(bytes,))
    if isinstance(value, dict):
        parts.append(f"<{name}>")
        _write_members(parts, value, entry)
        parts.append(f"</{name}>")
    else:
        parts.append(f"<{name}>{_text(value)}</{name}>")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return b64encode(value).decode()
    # A carriage return that is not escaped is a line feed for XML.
    return escape(str(value), {"\r": "&#xD;"})
