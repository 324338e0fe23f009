"""RequestDecoder: how a request becomes a struct.

A body is first decoded strictly, at the speed of msgspec. Only if that fails it is read again, field by
field: names in another letter case, `null` for an omitted option, fields that an enqueue ignores, options in
the query or a header. If it still does not fit, the error says what is wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar, get_args
from urllib.parse import unquote_plus

import msgspec
from msgspec import UNSET, Raw, Struct

from jobqueue.errors import BadInput, BodyTooLarge, InvalidField, InvalidJson, MissingField, UnknownField
from jobqueue.web.http import Request
from jobqueue.web.readers import suggestions
from jobqueue.web.readers.json_text import (
    REFUSED,
    check_utf8,
    is_utf8,
    item_at,
    items_of,
    syntax_error,
    what_it_is,
)
from jobqueue.web.schema.kinds import Kind, kind_of

S = TypeVar("S", bound=Struct)
T = TypeVar("T")
_BLANK: Final = b" \t\r\n"
_MANY_TYPES: Final = (b"application/x-ndjson", b"application/jsonl")
_CONSUMER_HEADERS: Final = (b"queue-consumer", b"x-queue-consumer", b"queue_consumer")
CONSUMER_HEADERS: Final = frozenset(_CONSUMER_HEADERS)
OPTION_HEADERS: Final = CONSUMER_HEADERS | {b"job-lease"}
# Queries that are remembered, of each call, and their length.
_MAX_QUERIES: Final = 1024
_MAX_QUERY: Final = 512
ONE_LINE_HINT: Final = (
    "two JSON values on one line; put each on a line of its own (curl -d @file drops line ends, use "
    "--data-binary @file), or send an array"
)
# What the message about a missing field adds.
_WHY: Final = {
    "type": ', such as {"type":"email"}; it says what kind of work this is',
    "id": ": which job?",
}
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_RAW_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_ANY: Final = msgspec.json.Decoder(Raw)
# The name of a field, its default and its kind.
Option: TypeAlias = tuple[str, Any, Kind]
# So declared since msgspec's stub calls Raw a kind of bytes, and it is none.
_UNDECODED: Final[tuple[type[Any], ...]] = (bytes, Raw)


# Options with texts of their own in each request, and the secret: a query with one is not remembered.
_OFTEN_NEW: Final = frozenset({"lease", "message", "error", "result"})


class _KnownQuery:
    """What a query says. `asked`: the struct of the query alone. `options`: attribute, default and value of
    each. `is_raw`: the body is not JSON and is not read."""

    __slots__ = ("asked", "is_raw", "options")

    def __init__(self, asked: Any, options: list[tuple[str, Any, Any]], is_raw: bool) -> None:
        self.asked = asked
        self.options = options
        self.is_raw = is_raw


class RequestDecoder(Generic[S]):
    """Decodes the requests of one call into its struct, and checks the values of its fields.

    - `headers`: options that may come as a header.
    - `ignored`: names that are accepted and dropped.
    - `nulls`: names for which `null` differs from leaving the field out.
    - `body`: the struct without the options that belong in the query, if there are any. With the option `raw`
      the body is not JSON and is not read.
    - `first`: a smaller struct that fits most bodies and is tried first.
    - `bound`: gives a kind of field the limits of the settings.
    - `remembers`: what a query says is remembered. The struct has a `lease`.
    """

    def __init__(
        self,
        shape: type[S],
        headers: tuple[str, ...] = (),
        ignored: frozenset[str] = frozenset(),
        nulls: frozenset[str] = frozenset(),
        body: Any = None,
        first: Any = None,
        bound: Callable[[Kind], Kind] | None = None,
        remembers: bool = False,
    ) -> None:
        self.shape = shape
        self.nulls = nulls
        self.headers = headers
        self.ignored = ignored
        body = body or shape
        self._array = msgspec.json.Decoder(list[body]).decode
        self.decode: Callable[[bytes], S] = msgspec.json.Decoder(first or body).decode
        self._decode_whole: Callable[[bytes], S] | None = msgspec.json.Decoder(body).decode if first else None
        declared = msgspec.structs.fields(shape)
        self._of_query = frozenset(shape.__struct_fields__) - frozenset(body.__struct_fields__)
        # Fields that are objects themselves: how those are read.
        self.parts: dict[str, RequestDecoder[Any]] = {
            field.encode_name: RequestDecoder(part)
            for field in declared
            if (part := _struct_in(field.type)) is not None
        }
        self.types: dict[str, Any] = {
            field.encode_name: msgspec.json.Decoder(field.type) for field in declared
        }
        self.kinds: dict[str, Kind] = {}
        for field in declared:
            kind = kind_of(field.type)
            self.kinds[field.encode_name] = kind if bound is None else bound(kind)
        # The attribute for each field; some names are no names in Python.
        self._attributes = {field.encode_name: field.name for field in declared}
        self._renamed = {name: own for name, own in self._attributes.items() if name != own}
        self.required = [field.encode_name for field in declared if field.required]
        self._defaults = {
            field.encode_name: (field.name, field.default) for field in declared if not field.required
        }
        # What was made of queries, without their lease: clients send the same ones again and again.
        self._known: dict[str, _KnownQuery] | None = {} if remembers else None

    def read(self, request: Request, max_depth: int) -> S:
        """Returns the struct of a request with at most one JSON object. Raises `BadInput`."""
        body = request.body
        if body and not request.query and OPTION_HEADERS.isdisjoint(request.headers):
            if not body.isascii():  # most are: a call less
                check_utf8(body)
            try:
                return self.decode(body)
            except REFUSED:
                pass
            if self._decode_whole is not None:
                try:
                    return self._decode_whole(body)
                except REFUSED:
                    pass
        is_known = False
        if self._known is not None and request.query and OPTION_HEADERS.isdisjoint(request.headers):
            query, lease = without_lease(request.query)
            known = self._known.get(query)
            if known is not None:
                is_known = True
                asked = self._by_query(known, lease, body)
                if asked is not None:
                    return asked
        options = self.options(request)
        if options.get("raw") and "raw" in self._of_query:
            body = b""
        check_utf8(body)
        whole = self.merge(body, options, max_depth, self._consumer(request))
        if self._known is not None and request.query and not is_known:
            self._remember(self._known, without_lease(request.query)[0], max_depth)
        return whole

    def _remember(self, known: "dict[str, _KnownQuery]", query: str, max_depth: int) -> None:
        """Remembers what a query says, unless it names a lease, or has a text that differs each time."""
        try:
            options = self.options(Request("", "", query, {}, b"", "", ""))
            if _OFTEN_NEW.isdisjoint(options):
                asked = self.merge(b"", options, max_depth)
                defaults = [(*self._defaults[name], value) for name, value in options.items()]
                remember(known, query, _KnownQuery(asked, defaults, bool(options.get("raw"))))
        except (BadInput, KeyError):  # what it needs besides is in the body
            pass

    def _by_query(self, known: "_KnownQuery", lease: str | None, body: bytes) -> S | None:
        """Returns the struct of a request whose query is known, and has `lease`. None: it has to be read as a
        whole, since an option is given twice, or there is something special in the body."""
        asked: Any
        if known.is_raw or not body:
            asked = known.asked.__copy__()
        else:
            try:
                if not body.isascii():
                    check_utf8(body)
                asked = (self._decode_whole or self.decode)(body)
            except (InvalidJson, *REFUSED):
                return None
            for name, default, value in known.options:
                if name in self._of_query:
                    continue
                if getattr(asked, name) is not default:
                    return None
                setattr(asked, name, value)
        if lease is not None:
            if asked.lease is not None:
                return None
            asked.lease = lease
        return asked  # type: ignore[no-any-return]  # the struct of a body has all that is given there

    def options(self, request: Request) -> dict[str, Any]:
        """Returns the options in the query and the headers, by canonical name."""
        found: dict[str, Any] = {}
        for name, text in query_pairs(request.query):
            canonical = self._canonical(name, "query")
            if canonical is None:
                continue
            kind = self.kinds[canonical]
            if not kind.in_query:
                raise InvalidField(f"{canonical} belongs in the body", field=canonical)
            self._agree(found, canonical, kind.from_text(text, canonical))
        if "lease" in self.headers and (lease := request.header(b"job-lease")) is not None:
            self._agree(found, "lease", lease)
        return found

    def merge(self, body: bytes, options: dict[str, Any], max_depth: int, consumer: str | None = None) -> S:
        """Returns the struct of one JSON object and the options beside it.

        `consumer` is the name in a header, which counts if no other was given.
        """
        given = self._fields(body, max_depth) if body.strip(_BLANK) else {}
        for name, value in options.items():
            self._agree(given, name, value)
        if consumer is not None:
            given.setdefault("consumer", consumer)
        for name in self.required:
            if name not in given:
                raise MissingField(f"{name} is required{_WHY.get(name, '')}", field=name)
        for name, attribute in self._renamed.items():
            if name in given:
                given[attribute] = given.pop(name)
        return self.shape(**given)

    def _fields(self, body: bytes, max_depth: int) -> dict[str, Any]:
        try:
            raw = _OBJECT.decode(body)
        except REFUSED as bad:
            error = syntax_error(body, bad, max_depth)
            if "raw" in self.types and body.lstrip()[:1] not in (b"{", b"["):
                error.detail += "; raw=1 takes it as it is"
            if isinstance(error, InvalidField):
                error = InvalidField(f"this must be a JSON object{what_it_is(bad)}")
            raise error from None
        given: dict[str, Any] = {}
        for name, value in raw.items():
            canonical = self._canonical(name, "body")
            if canonical is None:
                continue
            if bytes(value) == b"null" and canonical not in self.nulls:
                given.pop(canonical, None)
                continue
            try:
                given[canonical] = self.types[canonical].decode(value)
            except REFUSED as bad:
                given[canonical] = self._second_look(canonical, bytes(value), bad, max_depth)
        return given

    def _second_look(self, name: str, value: bytes, bad: Exception, max_depth: int) -> Any:
        """Returns the value of a field that is an object; its names match whatever their letter case."""
        part = self.parts.get(name)
        if part is not None and value[:1] == b"{":
            try:
                return part.merge(value, {}, max_depth)
            except BadInput as inside:
                inside.detail = f"{name}: {inside.detail}"
                inside.facts.setdefault("field", name)
                raise
        raise InvalidField(
            f"{name}: must be {self.kinds[name].expects}{what_it_is(bad)}", field=name
        ) from None

    def _canonical(self, name: str, where: str) -> str | None:
        """Returns the field that `name` means, whatever its letter case; None: it is ignored."""
        lower = name.lower() if name not in self.types else name
        if lower in self.types:
            if where == "body" and lower in self._of_query:
                raise InvalidField(f"{lower} is for the whole request: it belongs in the query", field=lower)
            return lower
        if lower in self.ignored and where == "body":
            return None
        near = suggestions.field(lower, self.types)
        known = ", ".join(self.types) or "none"
        if near is not None:
            hint = f"did you mean {near}? Known here: {known}"
        elif "cron" in self.types and "job" in self.types:
            hint = f"what is said about the job belongs in job; known here: {known}"
        elif (advice := suggestions.advice(lower)) is not None:
            hint = advice
        elif where == "body" and "payload" in self.types:
            hint = f"your own data goes in payload; known here: {known}"
        else:
            hint = f"known here: {known}"
        facts = {} if near is None else {"nearest": near}
        raise UnknownField(f"unknown field {name[:64]!r}; {hint}", field=name[:64], **facts)

    def _consumer(self, request: Request) -> str | None:
        if "consumer" in self.headers:
            for header in _CONSUMER_HEADERS:
                if (consumer := request.headers.get(header)) is not None:
                    return _header_text(consumer)
        return None

    def _agree(self, given: dict[str, Any], name: str, value: Any) -> None:
        if name in given:
            kind = self.kinds[name]
            if kind.meaning(given[name]) != kind.meaning(value):
                several = "; several: queues=a,b" if name == "queue" else ""
                raise InvalidField(f"{name} is given twice, with different values{several}", field=name)
        given[name] = value

    # -- values -------------------------------------------------------------------------------------

    def values(self, asked: Struct, *names: str, field: str = "") -> list[Any]:
        """Returns the values of these fields as the engine wants them, checked in this order.

        None and UNSET stay. Raises `InvalidField`, with `field` in place of the name if it is given.
        """
        found = []
        for name in names:
            value = getattr(asked, self._attributes[name])
            if value is not None and value is not UNSET:
                value = self.kinds[name].check(value, field or name)
            found.append(value)
        return found

    def value(self, asked: Struct, name: str, field: str = "") -> Any:
        """Returns the value of one field, like `values`."""
        return self.values(asked, name, field=field)[0]

    def options_of(self, *names: str) -> list[Option]:
        """Returns these fields, which have the names of their attributes, for `given`."""
        defaults = {field.encode_name: field.default for field in msgspec.structs.fields(self.shape)}
        return [(name, defaults[name], self.kinds[name]) for name in names]

    # -- many at once -------------------------------------------------------------------------------

    def many(
        self, request: Request, options: dict[str, Any], max_depth: int, most: int
    ) -> list[S | BadInput]:
        """Returns the structs of an array, or of one object a line; in place of a bad item its error."""
        body = request.body
        items: Sequence[Any]  # structs; Raw and bytes where they are still to be decoded
        if body.lstrip(_BLANK)[:1] == b"[":
            items = self._items(body, bool(options), max_depth)
        else:
            items = [line for line in body.split(b"\n") if line.strip(_BLANK)]
        if not items:
            raise InvalidField("nothing in it: send 1 or more, as an array or a line each")
        if len(items) > most:
            raise InvalidField(
                f"at most {most:,} in one request; this one has {len(items):,}",
                limit=most, setting="JOBQUEUE_MAX_BATCH",
            )  # fmt: skip
        consumer = self._consumer(request)
        return [
            self._item(item, options, max_depth, consumer) if isinstance(item, _UNDECODED) else item
            for item in items
        ]

    def _items(self, body: bytes, one_by_one: bool, max_depth: int) -> Sequence[Any]:
        """Returns the items of an array, undecoded if one of them needs the slow way."""
        valid = is_utf8(body)  # the decoder does not check this in what it skips
        try:
            if valid and not one_by_one:
                items: list[S] = self._array(body)
                return items
        except REFUSED:
            pass
        error: BadInput | None = None
        try:
            if valid:
                return _RAW_ARRAY.decode(body)
        except REFUSED as bad:
            error = syntax_error(body, bad, max_depth)
            if (index := item_at(body, bad)) is not None:
                error.facts["index"] = index
        # A text in one item must not harm the others.
        if (as_sent := items_of(body)) is not None:
            return as_sent
        if error is None:
            check_utf8(body)
            raise InvalidJson("the body is not UTF-8")
        raise error

    def _item(self, item: Any, options: dict[str, Any], max_depth: int, consumer: str | None) -> S | BadInput:
        text = bytes(item)
        if not options and consumer is None and is_utf8(text):
            try:
                return self.decode(text)
            except REFUSED:
                pass
        try:
            check_utf8(text)
            return self.merge(text, options, max_depth, consumer)
        except InvalidJson as bad:
            return InvalidJson(ONE_LINE_HINT) if has_second_value(text) else bad
        except BadInput as bad:
            return bad


def given(asked: Struct, options: list[Option]) -> dict[str, Any]:
    """Returns the values of those of these fields that differ from their defaults, as the engine wants them,
    checked in this order. None stays. Raises `InvalidField`.
    """
    found: dict[str, Any] = {}
    for name, default, kind in options:
        value = getattr(asked, name)
        if value is not default:
            found[name] = None if value is None else kind.check(value, name)
    return found


def checked(items: Any, check: Any, all_or_nothing: bool) -> list[Any]:
    """Returns the checked items; in place of a bad one its error, which is raised if it is all or nothing."""
    checked: list[Any] = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, BadInput):
                raise item
            checked.append(check(item))
        except (BadInput, BodyTooLarge) as bad:  # the latter: one part of it, such as a result
            bad.facts["index"] = index
            if all_or_nothing:
                raise
            checked.append(bad)
    return checked


def says_many(request: Request) -> bool:
    """Tells whether the content type means one value a line."""
    kind = request.headers.get(b"content-type")
    if kind is None or kind == b"application/json":
        return False
    return kind.partition(b";")[0].strip().lower() in _MANY_TYPES


def is_many(request: Request) -> bool:
    """Tells whether the body is an array, or declared as one value a line."""
    return says_many(request) or request.body.lstrip(_BLANK)[:1] == b"["


def has_second_line(body: bytes) -> bool:
    """Tells whether a second value follows the first one on a line of its own."""
    return b"\n" in body.strip(_BLANK) and has_second_value(body)


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Returns the names and values of a query string. Raises `InvalidField` if its encoding is not UTF-8."""
    pairs = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            if "%" in part or "+" in part:
                try:
                    name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
                except UnicodeDecodeError:
                    raise InvalidField("the query string is not UTF-8", field=name[:64]) from None
            pairs.append((name, value))
    return pairs


def without_lease(query: str) -> tuple[str, str | None]:
    """Returns a query without the first `lease`, and that lease; None: it has none, or not as plain text."""
    at = query.find("lease=")
    if at < 0 or (at > 0 and query[at - 1] != "&"):
        return query, None
    before, after = query[:at], query[at + 6 :]
    lease, _, after = after.partition("&")
    if "%" in lease or "+" in lease:
        return query, None
    return before + after, lease


def remember(known: dict[str, T], query: str, found: T) -> None:
    """Remembers what a reader has made of a query."""
    if len(query) <= _MAX_QUERY:
        if len(known) >= _MAX_QUERIES:
            known.clear()
        known[query] = found


def _struct_in(declared: Any) -> type[Struct] | None:
    """Returns the struct that a field of this type may be."""
    for part in (declared, *get_args(declared)):
        plain = part.__origin__ if hasattr(part, "__metadata__") else part
        if isinstance(plain, type) and issubclass(plain, Struct):
            return plain
    return None


def _header_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def has_second_value(body: bytes) -> bool:
    """Tells whether `body` is refused because something follows its first JSON value."""
    try:
        _ANY.decode(body)
    except msgspec.DecodeError as bad:
        return "trailing characters" in str(bad)
    except RecursionError:
        return False
    return False
